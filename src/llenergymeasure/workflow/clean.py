"""What killed runs and workflows left behind: listed first, then removed on request.

Nothing that is finished or running is touched: the caller holds the study's lock, and a run whose
process is alive is skipped. Lock files stay, the study's and the GPUs': without a process that
holds it, a lock file has no effect.
"""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from llenergymeasure.errors import LlemError, ResultsError
from llenergymeasure.files import open_folder, remove
from llenergymeasure.machine.gpus.limits import abandoned_limits, restore_abandoned_limits
from llenergymeasure.processes import arguments
from llenergymeasure.results.complete import is_measured
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workflow.slurm_jobs import cancel_jobs_and_wait, queued_jobs

GRACE_S = 20.0
"""A run has fifteen seconds to end; then it is killed."""


@dataclass(frozen=True)
class Leftover:
    """One thing that is no longer needed.

    Attributes:
        kind: ``process``, ``job``, ``container``, ``file``, ``engine`` or ``GPU limit``.
        name: its name for people.
        reason: why it is not needed.
        remove: removes it.
        size_bytes: the disk space that this frees.
    """

    kind: str
    name: str
    reason: str
    remove: Callable[[], None]
    size_bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: getattr(self, name) for name in ("kind", "name", "reason", "size_bytes")}


def leftovers(folder: StudyFolder) -> Iterator[Leftover]:
    """Yield what a study's killed runs and workflows left; the caller holds the study's lock.

    Raises:
        PreflightError: this machine is in a cluster whose SLURM does not answer.
    """
    yield from _leftover_jobs(folder)
    active = _active_runs(folder)
    yield from _leftover_processes(folder, active)
    yield from _leftover_files(folder, active)


def machine_leftovers() -> Iterator[Leftover]:
    """Yield what this user's killed runs left on the machine, whatever the study."""
    from llenergymeasure.containers import docker
    from llenergymeasure.containers.calls import ContainerError
    from llenergymeasure.containers.container_setup import abandoned_tokens

    for path in abandoned_tokens():
        yield _file_leftover(path, "the hub's token, of a process that was killed")
    with suppress(ContainerError):
        engine = docker.find_engine()
        for identity in docker.abandoned_containers(engine):
            yield Leftover(
                "container",
                identity,
                "its launcher was killed",
                partial(docker.remove_container, engine, identity),
            )
    names = abandoned_limits()
    if names:
        yield Leftover(
            "GPU limit", ", ".join(names), "the run that set it was killed", _restore_limits
        )


def compiled_engines() -> Iterator[Leftover]:
    """Yield the caches of engines that TensorRT-LLM compiled for later runs."""
    from llenergymeasure.backends.tensorrt.build_cache import engines_folder

    for path in sorted(engines_folder().glob("*")):
        age_days = (time.time() - path.stat().st_mtime) / 86_400
        yield Leftover(
            "engine",
            str(path),
            f"compiled by TensorRT-LLM for later runs, the last {age_days:.0f} days ago",
            partial(remove, path),
            _size_bytes(path),
        )


def _restore_limits() -> None:
    failed = [
        f"GPU {uuid}: {reason}" for uuid, reason in restore_abandoned_limits().items() if reason
    ]
    if failed:
        raise LlemError("; ".join(failed))


def _leftover_jobs(folder: StudyFolder) -> Iterator[Leftover]:
    for job in queued_jobs(folder):
        yield Leftover(
            "job",
            f"{job.id} {job.name} ({job.state.lower()}, {job.comment})",
            "its workflow is gone",
            partial(cancel_jobs_and_wait, [job]),
        )


def _active_runs(folder: StudyFolder) -> set[Path]:
    """Return the runs whose own process lives, or may live on another machine."""
    active = set()
    for outcome in folder.path.glob("runs/*/*/outcome.json"):
        if read_outcome(outcome).status == "running":
            active.add(outcome.parent.resolve())
    return active


def _leftover_processes(folder: StudyFolder, active: set[Path]) -> Iterator[Leftover]:
    """Yield processes of runs (engines, servers, recorders) whose supervisor is dead."""
    runs = (folder.path / "runs").resolve()
    for process, run in _run_processes():
        if run.parent.parent != runs or run in active:
            continue
        yield Leftover(
            "process",
            f"{process.name} {' '.join(arguments(int(process.name))[:6]).strip()[:120]}",
            f"left by {run.relative_to(runs)}, whose supervisor is dead",
            partial(_end_process, process, run),
        )


def _run_processes() -> Iterator[tuple[Path, Path]]:
    """Yield every other process of a run, with the run's folder."""
    for process in Path("/proc").glob("[0-9]*"):
        run = _run_folder(process)
        if run is not None and int(process.name) != os.getpid():
            yield process, run


def _processes_by_run() -> dict[Path, list[str]]:
    processes = defaultdict[Path, list[str]](list)
    for process, run in _run_processes():
        processes[run].append(process.name)
    return processes


def _run_folder(process: Path) -> Path | None:
    """Return the run's folder in a process's environment; None for others and for zombies."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    prefix = f"{RUN_VARIABLE}=".encode()
    variable = next((entry for entry in variables if entry.startswith(prefix)), None)
    return None if variable is None else Path(os.fsdecode(variable[len(prefix) :])).resolve()


def _end_process(process: Path, run: Path) -> None:
    """End a process, first with SIGTERM; do nothing if its id now belongs to another one.

    Raises:
        LlemError: the kernel cannot end it, as in a call into a driver that hangs.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            if _run_folder(process) != run:
                return
            with suppress(ProcessLookupError):
                os.kill(int(process.name), number)
            time.sleep(0.2)
    raise LlemError("it does not end: a driver that hangs may hold it")


def _leftover_files(folder: StudyFolder, active: set[Path]) -> Iterator[Leftover]:
    # Processes are listed once, when the first file is removed: they have been ended by then.
    processes_by_run = cache(_processes_by_run)
    for path in sorted(folder.path.iterdir()):
        if path.is_file() and _is_temporary(path):
            yield _file_leftover(path, "a file that was being written")
    for path in sorted(folder.path.glob("runs/*/*")):
        if _is_real_folder(path) and path.resolve() not in active:
            for file, reason in _unneeded_files(RunFolder(path)):
                remove_file = partial(_remove_file, file, path.resolve(), processes_by_run)
                yield Leftover("file", str(file), reason, remove_file, _size_bytes(file))


def _is_real_folder(folder: Path) -> bool:
    """Return whether a path is a real folder, and not a link that leads elsewhere."""
    try:
        with open_folder(folder):
            return True
    except (ResultsError, NotADirectoryError):
        return False


def _unneeded_files(run: RunFolder) -> Iterator[tuple[Path, str]]:
    if is_measured(run):
        return  # the next call computes its result from these files
    if run.work.is_dir():
        yield run.work, "passed between the processes of a run that ended"
    if run.stream.is_file():
        yield run.stream, "samples of a run that did not end well"
    if not run.result.is_file():
        for path in run.products:
            if path.is_file():
                yield path, "half of a result: its record was never written"
    for path in sorted(run.path.iterdir()):
        if path.is_file() and _is_temporary(path):
            yield path, "a file that was being written"


def _is_temporary(path: Path) -> bool:
    """Return whether a file's name is one of an unfinished file."""
    return path.name.startswith(".") and (
        path.name.endswith(".part") or path.name.startswith(".writable.")
    )


def _file_leftover(path: Path, reason: str) -> Leftover:
    return Leftover("file", str(path), reason, partial(remove, path), _size_bytes(path))


def _remove_file(
    path: Path, run: Path, processes_by_run: Callable[[], dict[Path, list[str]]]
) -> None:
    """Remove a run's file, unless a process of the run could not be ended."""
    if processes := processes_by_run().get(run):
        raise LlemError(f"process {', '.join(processes)} of its run does not end")
    remove(path)


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
