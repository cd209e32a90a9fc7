"""Every link inside the repository leads somewhere."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from docs.pages import ROOT, anchors, linked_pages, prose

HOMES = (ROOT, ROOT / "src" / "llenergymeasure", ROOT / "tests")
OUTSIDE = ("http://", "https://", "mailto:")


def _links(text: str) -> list[str]:
    return re.findall(r"(?<!\\)\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)", prose(text))


@pytest.mark.parametrize("page", linked_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in _links(text):
        if link.startswith(OUTSIDE):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), f"{page.name}: {link} leads nowhere"
        assert target.resolve().is_relative_to(ROOT), f"{page.name}: {link} leaves the repository"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page.name}: {link}: no such heading"


@pytest.mark.parametrize(
    "page",
    # Those two name files of the past, and of the engine.
    [page for page in linked_pages() if page.name not in ("CHANGELOG.md", "tensorrt.md")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_programs_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(
        r"`(?:python )?([\w.-]+/[\w./-]+\.(?:py|smk|sh))(?:[ :][^`]*)?`", prose(page.read_text())
    )
    missing = [name for name in named if not any((home / name).exists() for home in HOMES)]
    assert missing == []


def test_functions_that_the_page_on_architecture_names_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`(\w+)\.(\w+)`", prose(page)))
    modules = {name for name, _ in named if (ROOT / f"src/llenergymeasure/{name}.py").is_file()}
    assert {"processes", "redact", "files", "screen"} <= modules
    of_modules = {(module, name) for module, name in named if module in modules and name != "py"}
    loaded = {module: import_module(f"llenergymeasure.{module}") for module in modules}
    assert [pair for pair in of_modules if not hasattr(loaded[pair[0]], pair[1])] == []
