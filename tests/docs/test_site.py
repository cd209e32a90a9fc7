"""The site as a person opens it: from disk, without a network, in a real browser."""

import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from docs.pages import ROOT
from report.browser import WIDTHS, Browser

pytestmark = [pytest.mark.slow, pytest.mark.system]

FOUND = """[...document.activeElement.shadowRoot.querySelectorAll('a')]
  .some(each => each.href.includes('/fields.html'))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as ``make docs`` builds them, in a folder of their own."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("config", "docs", "profiles", "tests/nvml_sim", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for command in (["tools/site_pages.py"], ["-m", "zensical", "build", "--strict"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_link_leads_to_a_page(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 40
    for page in pages:
        for link in re.findall(r'<a [^>]*?href="?([^"\s>]+)', page.read_text()):
            address, _, _ = link.partition("#")
            if "://" in address or address.startswith("mailto:") or not address:
                continue
            target = (page.parent / address).resolve()
            assert target.is_file(), f"{page.name}: {link}"
            assert target.is_relative_to(site), f"{page.name}: {link}"


def test_a_link_is_followed(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html", WIDTHS["desktop"])
    # Later, as the page that would answer is gone once the link is followed.
    link = "document.querySelector('.md-nav a[href$=\"tutorial.html\"]')"
    browser.value(f"setTimeout(() => {link}.click(), 0)")
    _until(browser, "document.querySelector('h1')?.innerText.startsWith('Ten-minute tutorial')")


def test_nothing_is_loaded_from_a_network(browser: Browser, site: Path) -> None:
    browser.requests.clear()
    browser.open(site / "index.html", WIDTHS["desktop"])
    assert [each for each in browser.requests if not each.startswith(("file:", "data:"))] == []


def test_a_search_finds_the_page(browser: Browser, site: Path) -> None:
    browser.open(site / "engines" / "vllm.html", WIDTHS["desktop"])
    browser.value("document.querySelector('.md-search__button').click()")
    _until(browser, "document.activeElement.shadowRoot?.activeElement?.tagName == 'INPUT'")
    browser.call("Input.insertText", text="validity codes")
    _until(browser, FOUND)


def _until(browser: Browser, expression: str) -> None:
    for _ in range(600):
        with suppress(RuntimeError):  # while one page goes and the next one comes
            if browser.value(expression):
                return
        time.sleep(0.05)
    pytest.fail(f"never true: {expression}")


@pytest.mark.parametrize("name", WIDTHS)
def test_every_page_fits(browser: Browser, site: Path, name: str) -> None:
    for page in ("index.html", "slurm.html", "fields.html"):
        browser.open(site / page, WIDTHS[name])
        assert browser.value("document.documentElement.scrollWidth") <= WIDTHS[name]
