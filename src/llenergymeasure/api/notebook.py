"""What a notebook shows of results: small HTML tables, and figures as they were drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SavedFigure:
    """A figure of a study, which a notebook draws.

    Attributes:
        path: its SVG; the PDF next to it has the same name.
    """

    path: Path

    def _repr_svg_(self) -> str:
        return self.path.read_text("utf-8")


def html_table(title: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows of the same keys as a table under a line of text."""
    lines = list(rows)
    head = "".join(f"<th>{escape(str(name))}</th>" for name in (lines[0] if lines else ()))
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_text(value))}</td>' for value in row.values())}</tr>"
        for row in lines
    )
    return (
        f"<p>{escape(title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN, pandas' way to say nothing
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
