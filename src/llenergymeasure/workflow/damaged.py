"""What must go before a workflow takes stock: damaged results, and files half written.

A damaged result is put aside, never deleted: its run is measured again, and what was left of the
first time stays next to it in ``damaged-1``, ``damaged-2`` and so on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.files import remove, remove_unfinished, sync_folder
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.run.held_folder import unattended
from llenergymeasure.workflow.manifest import DAMAGED


def damaged(states: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return in words which runs are damaged and what becomes of them."""
    return [
        f"Damaged: {run['error_message']}. The run is measured again; its files stay next to it "
        "in a folder damaged-N"
        for run in states
        if run.get("error_class") == DAMAGED
    ]


def make_room(states: Iterable[Mapping[str, Any]], folder: StudyFolder) -> None:
    """Put damaged results aside, and remove what killed processes were writing.

    Only for whoever holds the study's lock. A run whose earlier attempt still runs is left
    alone.

    Args:
        states: the runs with their states.
        folder: the study's folder.
    """
    logs = folder.path / "logs"
    for place in (folder.path, folder.path / "figures", folder.path / "pins", logs):
        remove_unfinished(place)
    for link in filter(Path.is_symlink, logs.glob("*")):  # Snakemake's rules would follow it
        remove(link)
    for each in states:
        run = folder.run(each["experiment"], each["cycle"])
        with unattended(run) as mine:
            if mine:
                remove_unfinished(run.path)
                if each.get("error_class") == DAMAGED:
                    _set_aside(run)


def _set_aside(run: RunFolder) -> None:
    """Move a run's result and outcome into a folder of their own next to them."""
    number = 1
    while (place := run.path / f"damaged-{number}").exists():
        number += 1
    place.mkdir()
    # The record last: where this is cut short the run is still damaged, and found so again.
    for path in (run.outcome, *reversed(run.products)):
        if path.exists():
            path.rename(place / path.name)
    sync_folder(run.path)
