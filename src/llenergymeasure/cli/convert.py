"""``llem convert``: a study of the original tool's later releases, in our format."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llenergymeasure.cli.output import note, raw
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.convert import convert as converted
from llenergymeasure.screen import printable
from llenergymeasure.workload.load_study import study_from_mapping


def convert(
    old: Annotated[
        Path, typer.Argument(metavar="OLD.yaml", help="the study of LLenergyMeasure 0.6 or 0.7")
    ],
) -> None:
    """Convert a study of LLenergyMeasure 0.6 or 0.7 into one for this tool.

    Prints the new file, and on standard error what of the old one has no counterpart here.
    """
    study, notes = converted(old)
    written = _dumped(study, as_it_stands=True)
    if printable(written) != written:  # it would be another value
        written = _dumped(study, as_it_stands=False)
    raw(f"# Converted from {old.name}; `llem plan` shows what it runs.\n{written}")
    for each in notes:
        print(f"llem: {each}", file=sys.stderr)
    made = study_from_mapping(study, old.resolve())  # its faults are better known now
    note(f"experiments: {len(made.experiments)}, cycles of each: {made.n_cycles}")
    for point in made.left_out:
        print(f"llem: left out: {point['reason']}", file=sys.stderr)


def _dumped(study: Mapping[str, Any], *, as_it_stands: bool) -> str:
    """Return a study's file; where its text does not stand there as it is, it is in ASCII."""
    return strict_yaml.written(
        study, default_flow_style=None, allow_unicode=as_it_stands, width=100
    )
