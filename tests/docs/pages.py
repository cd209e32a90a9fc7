"""The project's pages as tests see them: fenced blocks, headings, links.

What the fences of a page mean:

- ``sh`` is run, in the order of the page, in a folder that holds a copy of the workflow. It must
  end with 0, or with N where ``<!-- exit N -->`` stands on the line above.
- ``python`` is a program, run likewise.
- ``<!-- not run: REASON -->`` on the line above such a fence keeps it from being run.
- ``text`` right after one that is run is what it prints: each line, in this order, figures
  and ids apart; a line ``…`` stands for any lines.
- ``yaml title="NAME"`` is a file that the page's reader writes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(`{3,})(\w*)(?: +title=\"([^\"]+)\")? *$")
_FENCED = re.compile(r"^ *```.*?^ *```+ *$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"^<!-- not run: (\S.+) -->$")
_EXIT = re.compile(r"^<!-- exit (\d+) -->$")


RUN = ("sh", "python")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and what the line above says of it."""

    line: int
    language: str
    text: str
    title: str | None = None
    not_run: str | None = None
    exit_code: int = 0

    @property
    def runs(self) -> bool:
        """Whether it holds commands that a test runs."""
        return self.language in RUN and self.not_run is None


def pages() -> list[Path]:
    """Return the pages whose commands are held to the convention above."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def linked_pages() -> list[Path]:
    """Return every page whose links are checked."""
    others = (
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "SECURITY.md",
        "config/README.md",
        "profiles/README.md",
        "tests/nvml_sim/README.md",
    )
    engines = sorted((ROOT / "docs").glob("*/*.md"))
    return [*pages(), *engines, *(ROOT / name for name in others)]


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page.

    Raises:
        ValueError: a fence has a form that is not known here, or never ends.
    """
    lines = iter(enumerate(text.splitlines(), start=1))
    above = ""
    for number, line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.lstrip().startswith("```"):
            above = line.strip()
            continue
        fence = _FENCE.match(line[indent:])
        if fence is None:
            raise ValueError(f"line {number}: what is {line!r}?")
        body = []
        for _, inner in lines:
            if inner.strip() == fence[1]:
                break
            body.append(inner[indent:])
        else:
            raise ValueError(f"line {number}: the block never ends")
        not_run, code = _NOT_RUN.match(above), _EXIT.match(above)
        yield Block(
            number,
            fence[2],
            "\n".join(body),
            fence[3],
            None if not_run is None else not_run[1],
            0 if code is None else int(code[1]),
        )
        above = ""


def prose(text: str) -> str:
    """Return a page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCED.sub("", text), flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ +(.+?) *$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}
