"""The report in a real browser: at a desk and on a phone, light and dark, by keyboard."""

import os
from pathlib import Path

import pytest

from report.browser import WIDTHS, Browser
from support.studies import ROOT, llem, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder, sweep={"pytorch.batch_size": [1, 2]}, execution={"n_cycles": 2})
    child = llem(folder, "run", str(study))
    assert child.returncode == 0, child.stderr
    return folder / "results" / "small" / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", WIDTHS)
def test_it_fits_and_is_drawn(browser: Browser, page: Path, name: str, dark: bool) -> None:
    browser.open(page, WIDTHS[name], dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= WIDTHS[name]
    picture = browser.picture()
    assert len(picture) > 20_000
    folder = os.environ.get("LLEM_SCREENSHOTS")
    if folder and not dark:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"report-{name}.png").write_bytes(picture)
    ink = browser.value("getComputedStyle(document.body).color")
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert _lightness(ink) < _lightness(paper) if not dark else _lightness(ink) > _lightness(paper)


def test_one_of_two_drawings_is_shown_at_each_width(browser: Browser, page: Path) -> None:
    count = "[...document.querySelectorAll('figure .{}')].filter(e => e.offsetParent).length"
    browser.open(page, WIDTHS["desktop"])
    assert browser.value(count.format("wide")) >= 4
    assert browser.value(count.format("narrow")) == 0
    browser.open(page, WIDTHS["phone"])
    assert browser.value(count.format("wide")) == 0
    assert browser.value(count.format("narrow")) >= 4


def test_nothing_is_fetched(browser: Browser, page: Path) -> None:
    browser.requests.clear()
    browser.open(page, WIDTHS["desktop"])
    assert [url for url in browser.requests if not url.startswith(page.as_uri())] == []


def test_the_first_stop_of_the_tab_key_leads_to_the_results(browser: Browser, page: Path) -> None:
    browser.open(page, WIDTHS["desktop"])
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
    assert browser.value("document.activeElement.getAttribute('href')") == "#main"


AXE = Path(os.environ.get("AXE_CORE") or ROOT / "build" / "axe" / "axe.min.js")
SERIOUS = """axe.run().then(found => found.violations
  .filter(each => each.impact == "serious" || each.impact == "critical")
  .map(each => each.id + ": " + each.nodes[0].html))"""


@pytest.mark.skipif(
    not AXE.is_file(), reason="no axe.min.js: .ci/install_axe.sh build/axe, or AXE_CORE names one"
)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", WIDTHS)
def test_axe_finds_nothing_serious(browser: Browser, page: Path, name: str, dark: bool) -> None:
    browser.open(page, WIDTHS[name], dark=dark)
    browser.value(f"{AXE.read_text()}; 0")
    assert browser.value(SERIOUS) == []


def test_it_prints(browser: Browser, page: Path) -> None:
    browser.open(page, WIDTHS["desktop"])
    printed = browser.call("Page.printToPDF", printBackground=True)
    assert len(printed["data"]) > 20_000


def _lightness(colour: str) -> float:
    """Return the mean of ``rgb(r, g, b)``."""
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3
