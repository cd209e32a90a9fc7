"""Runs that share a server: one's job measures the windows of those after it, too.

Each leaves in its own folder what a run leaves that was killed once it was measured, and its own
job finishes it. What failed there is said by its own job, once. Standard library only.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llenergymeasure.files import make_folder, read_json, write_text
from llenergymeasure.processes import boot_id, start_ticks
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.whole import is_measured, is_whole
from llenergymeasure.run.attempt_lock import unattended

if TYPE_CHECKING:
    from llenergymeasure.run.supervisor import Supervisor


def joining(followers: "Iterable[Supervisor]", held: ExitStack) -> "Iterator[Supervisor]":
    """Yield the runs that are still to be measured, their folders held while ``held`` is open."""
    for each in followers:
        folder = each.folder
        make_folder(folder.path)
        if not held.enter_context(unattended(folder)):
            continue
        if not is_whole(folder) and not is_measured(folder):
            yield each


def conclude(folder: RunFolder, workflow_pid: int | None, error: dict[str, str] | None) -> None:
    """Write that a run was measured for its workflow on another one's server, or why not."""
    said = {"workflow": _identity(workflow_pid), "error": error}
    write_text(folder.session, json.dumps(said))


def concluded(folder: RunFolder, workflow_pid: int | None) -> dict[str, Any] | None:
    """Return what :func:`conclude` said for the same workflow; None if nothing."""
    said = read_json(folder.session)
    same = said is not None and said["workflow"] == json.loads(json.dumps(_identity(workflow_pid)))
    return said if same else None


def _identity(pid: int | None) -> list[Any]:
    return [boot_id(), pid, None if pid is None else start_ticks(pid)]
