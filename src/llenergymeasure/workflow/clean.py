"""What killed runs and workflows left behind: listed first, then removed on request.

Nothing that is finished or running is touched: the caller holds the study's lock, and a run whose
process is alive is skipped. Lock files stay, the study's and the GPUs': without a process that
holds it, a lock file has no effect.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from llenergymeasure.errors import LlemError, ResultsError
from llenergymeasure.files import opened, remove
from llenergymeasure.machine.gpus.limits import left_limits, restore_left
from llenergymeasure.processes import arguments
from llenergymeasure.results.complete import is_measured
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workflow.slurm_jobs import end_jobs, left_jobs

GRACE_S = 20.0
"""A run has fifteen seconds to end; then it is killed."""


ByRun: TypeAlias = Callable[[], dict[Path, list[str]]]
"""Returns the processes of each run."""


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
        names = ("kind", "name", "reason", "size_bytes")
        return {name: getattr(self, name) for name in names}


def leftovers(folder: StudyFolder) -> Iterator[Leftover]:
    """Yield what a study's killed runs and workflows left; the caller holds the study's lock.

    Raises:
        PreflightError: this machine is in a cluster whose SLURM does not answer.
    """
    yield from _jobs(folder)
    at_work = _at_work(folder)
    yield from _processes(folder, at_work)
    # Processes are listed once, when the first file is removed: they have been ended by then.
    yield from _files(folder, at_work, cache(_processes_by_run))


def machine_leftovers() -> Iterator[Leftover]:
    """Yield what this user's killed runs left on the machine, whatever the study."""
    from llenergymeasure.containers import docker
    from llenergymeasure.containers.calls import ContainerError
    from llenergymeasure.containers.container_setup import left_tokens

    for path in left_tokens():
        yield _file(path, "the hub's token, of a process that was killed")
    with suppress(ContainerError):
        engine = docker.find_engine()
        for identity in docker.abandoned(engine):
            yield Leftover(
                "container",
                identity,
                "its launcher was killed",
                partial(docker.remove_container, engine, identity),
            )
    names = left_limits()
    if names:
        yield Leftover(
            "GPU limit", ", ".join(names), "the run that set it was killed", _restore_limits
        )


def compiled_engines() -> Iterator[Leftover]:
    """Yield the caches of engines that TensorRT-LLM compiled for later runs."""
    from llenergymeasure.backends.tensorrt.build_cache import engines_folder

    for path in sorted(engines_folder().glob("*")):
        since_days = (time.time() - path.stat().st_mtime) / 86_400
        yield Leftover(
            "engine",
            str(path),
            f"compiled by TensorRT-LLM for later runs, the last {since_days:.0f} days ago",
            partial(remove, path),
            _size(path),
        )


def _restore_limits() -> None:
    failed = [f"GPU {uuid}: {reason}" for uuid, reason in restore_left().items() if reason]
    if failed:
        raise LlemError("; ".join(failed))


def _jobs(folder: StudyFolder) -> Iterator[Leftover]:
    for job in left_jobs(folder):
        yield Leftover(
            "job",
            f"{job.id} {job.name} ({job.state.lower()}, {job.comment})",
            "its workflow is gone",
            partial(end_jobs, [job]),
        )


def _at_work(folder: StudyFolder) -> set[Path]:
    """Return the runs whose own process lives, or may live on another machine."""
    found = set()
    for outcome in folder.path.glob("runs/*/*/outcome.json"):
        if read_outcome(outcome).status == "running":
            found.add(outcome.parent.resolve())
    return found


def _processes(folder: StudyFolder, at_work: set[Path]) -> Iterator[Leftover]:
    """Yield processes of runs (engines, servers, recorders) whose supervisor is dead."""
    runs = (folder.path / "runs").resolve()
    for entry, run in _at_runs():
        if run.parent.parent != runs or run in at_work:
            continue
        yield Leftover(
            "process",
            f"{entry.name} {' '.join(arguments(int(entry.name))[:6]).strip()[:120]}",
            f"left by {run.relative_to(runs)}, whose supervisor is dead",
            partial(_end, entry, run),
        )


def _at_runs() -> Iterator[tuple[Path, Path]]:
    """Yield every other process of a run, with the run's folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid() and (run := _run_of(entry)):
            yield entry, run


def _processes_by_run() -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for entry, run in _at_runs():
        found.setdefault(run, []).append(entry.name)
    return found


def _run_of(process: Path) -> Path | None:
    """Return the run's folder in a process's environment; None for others and for zombies."""
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    mark = f"{RUN_VARIABLE}=".encode()
    found = next((item for item in variables if item.startswith(mark)), None)
    return None if found is None else Path(os.fsdecode(found[len(mark) :])).resolve()


def _end(process: Path, run: Path) -> None:
    """End a process, first with SIGTERM; do nothing if its id now belongs to another one.

    Raises:
        LlemError: the kernel cannot end it, as in a call into a driver that hangs.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            if _run_of(process) != run:
                return
            with suppress(ProcessLookupError):
                os.kill(int(process.name), number)
            time.sleep(0.2)
    raise LlemError("it does not end: a driver that hangs may hold it")


def _files(folder: StudyFolder, at_work: set[Path], left: ByRun) -> Iterator[Leftover]:
    for path in sorted(folder.path.iterdir()):
        if path.is_file() and _is_temporary(path):
            yield _file(path, "a file that was being written")
    for path in sorted(folder.path.glob("runs/*/*")):
        if _is_inside(path) and path.resolve() not in at_work:
            run = RunFolder(path)
            yield from (_file(*each, partial(_of_run, run, left)) for each in _files_of_run(run))


def _is_inside(folder: Path) -> bool:
    """Return whether a path is a real folder, and not a link that leads elsewhere."""
    try:
        with opened(folder):
            return True
    except (ResultsError, NotADirectoryError):
        return False


def _files_of_run(run: RunFolder) -> Iterator[tuple[Path, str]]:
    if is_measured(run):
        return  # the next call computes its result from these files
    finished = run.result.is_file()
    if run.work.is_dir():
        yield run.work, "passed between the processes of a run that ended"
    if run.stream.is_file():
        yield run.stream, "samples of a run that did not end well"
    if not finished:
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


def _file(path: Path, reason: str, processes: Callable[[], list[str]] = list) -> Leftover:
    return Leftover("file", str(path), reason, partial(_remove, path, processes), _size(path))


def _of_run(run: RunFolder, left: ByRun) -> list[str]:
    return left().get(run.path.resolve(), [])


def _remove(path: Path, processes: Callable[[], list[str]]) -> None:
    """Remove a path, unless a process of its run could not be ended."""
    if left := processes():
        raise LlemError(f"process {', '.join(left)} of its run does not end")
    remove(path)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
