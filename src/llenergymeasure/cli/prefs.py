"""``llem prefs``: a user's own settings."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.output import JsonOption, note, print_json
from llenergymeasure.config.preferences import preferences_in_force, user_configuration
from llenergymeasure.screen import align_columns


def prefs(
    study: Annotated[
        Path | None,
        typer.Option(help="show the settings that apply to this study", metavar="STUDY.yaml"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show your own settings, where each comes from, and the file that holds them."""
    settings = preferences_in_force(study)
    if as_json:
        print_json([asdict(setting) for setting in settings])
        return
    rows = [[setting.key, str(setting.value), setting.origin] for setting in settings]
    print(align_columns(rows, left=(0, 1, 2)))
    path = user_configuration()
    status = "holds your own settings" if path.is_file() else "is not there; it may hold"
    note(f"{path} {status}: output_dir, runners and notify, as in a study")
