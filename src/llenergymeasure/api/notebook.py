"""What a notebook shows of results: small HTML tables, and figures as they were drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from llenergymeasure.report.figures import COLOURS

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


@dataclass(frozen=True)
class SavedFigure:
    """A figure of a study, which a notebook draws.

    Attributes:
        path: its SVG; the PDF next to it has the same name.
    """

    path: Path

    def _repr_html_(self) -> str:
        # In the page the drawing takes the notebook's own ground and ink, light or dark.
        return f'<div class="llem-figure"><style>{_THEMED}</style>{self._repr_svg_()}</div>'

    def _repr_svg_(self) -> str:
        return self.path.read_text("utf-8")


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
    return f"<p>{escape(text).replace(chr(10), '<br>')}</p>" if text else ""


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN, pandas' way to say nothing
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
