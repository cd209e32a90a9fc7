"""The summary as a table for a paper: LaTeX or Markdown."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llenergymeasure.report.findings import TOKEN, ranked
from llenergymeasure.report.wording import plain, scale_for, with_half_width

Row: TypeAlias = Mapping[str, Any]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def markdown(summary: Sequence[Row]) -> str:
    """Return the summary as a Markdown table, least energy first."""
    header, rows = _cells(summary)
    lines = [header, ["---", "---:", "---", "---:", "---:", "---:"], *rows]
    escaped = [[_markdown(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped) + "\n\n" + _note(summary) + "\n"


def _markdown(cell: str) -> str:
    """Return text that makes no cell, no tag, no link and no image of its own."""
    return re.sub(r"([|\\`\[\]])", r"\\\1", cell).replace("&", "&amp;").replace("<", "&lt;")


def latex(summary: Sequence[Row]) -> str:
    """Return the summary as a LaTeX table (package booktabs), least energy first."""
    header, rows = _cells(summary)
    lines = [" & ".join(_tex(cell) for cell in line) + r" \\" for line in rows]
    return "\n".join(
        [
            r"\begin{tabular}{lrlrrr}",
            r"\toprule",
            " & ".join(_tex(cell) for cell in header) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            f"% {_note(summary)}",
            "",
        ]
    )


def _cells(summary: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    rows = ranked(summary)
    token = scale_for((row[f"{TOKEN}_mean"] for row in rows), "J")
    request = scale_for((row["energy_per_request_j_mean"] for row in rows), "J")
    header = ["Experiment", "n", "Kind", f"Energy per output token ({token.unit})"]
    header += [f"Energy per request ({request.unit})", "Output tokens/s"]
    return header, [
        [
            plain(row["label"], 120),
            str(row["n"]),
            row["kind"] or "none",
            _value(row, TOKEN, token.factor),
            _value(row, "energy_per_request_j", request.factor),
            _value(row, "output_tokens_per_s", 1.0),
        ]
        for row in rows
    ]


def _value(row: Row, metric: str, factor: float) -> str:
    mean, high = row[f"{metric}_mean"], row[f"{metric}_ci95_high"]
    half_width = None if mean is None or high is None else (high - mean) * factor
    return with_half_width(None if mean is None else mean * factor, half_width)


def _note(summary: Sequence[Row]) -> str:
    kinds = {row["kind"] for row in summary if row["kind"]}
    told = "Mean and half width of the 95 % interval over cycles."
    return f"{told} Estimated energy is a model's guess." if "estimated" in kinds else told


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text).replace("±", r"$\pm$")
