"""``llem convert``: a study of the original tool's later releases, in our format."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llenergymeasure.cli.output import note, print_raw
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.convert import convert as convert_study
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
    study, notes = convert_study(old)
    text = _yaml_text(study, allow_unicode=True)
    if printable(text) != text:  # it would be another value
        text = _yaml_text(study, allow_unicode=False)
    print_raw(f"# Converted from {old.name}; `llem plan` shows what it runs.\n{text}")
    for line in notes:
        print(f"llem: {line}", file=sys.stderr)
    new_study = study_from_mapping(study, old.resolve())  # its faults are better known now
    note(f"experiments: {len(new_study.experiments)}, cycles of each: {new_study.n_cycles}")
    for point in new_study.left_out:
        print(f"llem: left out: {point['reason']}", file=sys.stderr)


def _yaml_text(study: Mapping[str, Any], *, allow_unicode: bool) -> str:
    """Return a study's file; where its text does not stand there as it is, it is in ASCII."""
    return strict_yaml.dump(study, default_flow_style=None, allow_unicode=allow_unicode, width=100)
