"""What a notebook shows of results: small HTML tables, and figures as images."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from llenergymeasure.files import read_bytes
from llenergymeasure.screen import printable


@dataclass(frozen=True)
class SavedFigure:
    """A figure of a study, which a notebook draws.

    Attributes:
        path: its SVG; the PDF next to it has the same name.
    """

    path: Path

    def _repr_html_(self) -> str:
        """Return the drawing as an image, in which no script runs."""
        encoded = base64.b64encode(read_bytes(self.path)).decode()
        name = escape(self.path.stem)
        # No wider than the cell, so that a phone shows all of it.
        style = "max-width: 100%"
        return f'<img alt="{name}" style="{style}" src="data:image/svg+xml;base64,{encoded}">'


def html_table(title: str, cells: Sequence[Sequence[Any]] = (), remarks: str = "") -> str:
    """Return lines of text with a table between them, whose first line is its header."""
    if not cells:
        return f"{_paragraph(title)}{_paragraph(remarks)}"
    header, *rows = cells
    body = "".join(_table_row(row, "td") for row in rows)
    table = f"<table><thead>{_table_row(header, 'th')}</thead><tbody>{body}</tbody></table>"
    # On a phone the table is wider than the page: it scrolls by itself.
    return f'{_paragraph(title)}<div style="overflow-x: auto">{table}</div>{_paragraph(remarks)}'


def _table_row(cells: Iterable[Any], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(_cell_text(value))}</{tag}>' for value in cells)}</tr>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(printable(text)).replace(chr(10), '<br>')}</p>" if text else ""


def _cell_text(value: Any) -> str:
    if value is None or value != value:  # NaN, pandas' way to say nothing
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
