"""Snakemake's marks on jobs it did not see end, reconciled with what the runs really left.

A run can finish in the moment in which Snakemake is killed. Snakemake would take its outputs for
half-written and measure again; a record whose hashes hold says otherwise.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.whole import is_whole


def keep_finished(study_folder: Path, snakemake_folder: Path = Path(".snakemake")) -> list[Path]:
    """Take the mark of incompleteness from every run whose record proves it whole.

    Args:
        study_folder: ``results/<study>`` as the rules name it, relative to the working directory.
        snakemake_folder: where Snakemake keeps its own state.

    Returns:
        The folders of the runs that were kept.
    """
    runs = study_folder / "runs"
    verdicts: dict[Path, bool] = {}
    for marker, output in _marked(snakemake_folder / "incomplete"):
        folder = output.parent
        if folder.parent.parent != runs:
            continue
        if folder not in verdicts:
            verdicts[folder] = is_whole(RunFolder(folder))
        if verdicts[folder]:
            marker.unlink(missing_ok=True)
    return [folder for folder, whole in verdicts.items() if whole]


def _marked(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each marker with the output it marks.

    A marker's name is the output's path in URL-safe base64, cut into folders whose names begin
    with ``@`` where it is too long for one (snakemake/persistence/file.py).
    """
    if not folder.is_dir():
        return
    for marker in folder.rglob("*"):
        if not marker.is_file():
            continue
        parts = marker.relative_to(folder).parts
        text = "".join(part.removeprefix("@") for part in parts)
        try:
            yield marker, Path(base64.urlsafe_b64decode(text).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue
