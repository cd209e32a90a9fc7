"""Every link inside the repository leads somewhere."""

import re
from pathlib import Path

import pytest

from docs.pages import ROOT, anchors, linked_pages, prose

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
