"""What a notebook shows of results: small HTML tables, and figures as they were drawn."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from llenergymeasure.files import read_bytes
from llenergymeasure.report.figures import COLOURS
from llenergymeasure.screen import printable

_STRENGTHS = {"ink": 100, "muted": 75, "line": 25}
"""How much of the text's colour around a figure is in what it draws in ink, in per cent."""

_THEMED = "\n".join(
    [
        ".llem-figure svg > rect:first-of-type { fill: none; }",
        *(
            f'.llem-figure svg [{part}="{COLOURS[name]}"] '
            f"{{ {part}: color-mix(in srgb, currentColor {strength}%, transparent); }}"
            for name, strength in _STRENGTHS.items()
            for part in ("fill", "stroke")
        ),
    ]
)

_SVG = "{http://www.w3.org/2000/svg}"
_DRAWN = frozenset(_SVG + name for name in ("svg", "g", "line", "path", "rect", "text", "title"))
_DRAWN_WITH = frozenset(
    {
        *("aria-hidden", "aria-label", "class", "d", "display", "fill", "fill-opacity"),
        *("font-family", "font-size", "font-weight", "height", "opacity", "pointer-events"),
        *("role", "stroke", "stroke-dasharray", "stroke-miterlimit", "stroke-opacity"),
        *("stroke-width", "text-anchor", "transform", "version", "viewBox", "width"),
        *("x", "x1", "x2", "y", "y1", "y2"),
    }
)
"""Elements and attributes that a chart is drawn with: none that runs or fetches anything."""


@dataclass(frozen=True)
class SavedFigure:
    """A figure of a study, which a notebook draws.

    Attributes:
        path: its SVG; the PDF next to it has the same name.
    """

    path: Path

    def _repr_html_(self) -> str:
        """Return the drawing on the notebook's own ground, in its ink, light or dark.

        One that holds what no chart of ours does is an image, in which no script runs.
        """
        content = read_bytes(self.path)
        drawing = _drawing(content)
        if drawing is not None:
            return f'<div class="llem-figure"><style>{_THEMED}</style>{drawing}</div>'
        coded = base64.b64encode(content).decode()
        return f'<img alt="{escape(self.path.stem)}" src="data:image/svg+xml;base64,{coded}">'


def _drawing(content: bytes) -> str | None:
    """Return an SVG to stand in a page; None if it has another part than a chart of ours."""
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - expat bounds what entities expand to
        for each in root.iter():
            fetches = any("url(" in value for value in each.attrib.values())
            if fetches or each.tag not in _DRAWN or not _DRAWN_WITH.issuperset(each.attrib):
                return None
            each.tag = each.tag.removeprefix(_SVG)
        # Written again: a page's reader might find other elements in the text than XML does.
        return ElementTree.tostring(root, encoding="unicode")
    except (ElementTree.ParseError, LookupError, ValueError, RecursionError):
        return None


def html_table(title: str, cells: Sequence[Sequence[Any]] = (), remarks: str = "") -> str:
    """Return lines of text with a table between them.

    Args:
        title: the lines above it.
        cells: the table's lines, its header first.
        remarks: the lines below it.
    """
    head, *body = [_line(line, "td" if place else "th") for place, line in enumerate(cells)] or [""]
    table = f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    # On a phone the table is wider than the page: it scrolls by itself.
    scrolled = f'<div style="overflow-x: auto">{table}</div>' if head else ""
    return f"{_paragraph(title)}{scrolled}{_paragraph(remarks)}"


def _line(cells: Iterable[Any], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(_text(value))}</{tag}>' for value in cells)}</tr>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(printable(text)).replace(chr(10), '<br>')}</p>" if text else ""


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN, pandas' way to say nothing
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
