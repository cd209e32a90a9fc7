"""The paths of a study's and a run's files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llenergymeasure.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from llenergymeasure.config.study import Study

SCHEMA_VERSION = 1
"""The record's version; a later one is refused."""

RUN_VARIABLE = "LLENERGYMEASURE_RUN"
"""Holds the run's folder in the environment of all its processes, so that each can be found."""

RUNS_NAME = "runs.parquet"
SUMMARY_NAME = "summary.parquet"
SUMMARY_CSV_NAME = "summary.csv"
PARTIAL_MTIME_S = 86_400
"""Time stamp of files written after a failure: 2 January 1970, older than any input.

Snakemake then makes them again once the missing runs are there. 0 would read as missing, the
present time as finished.
"""

TABLE_NAMES = (
    RUNS_NAME,
    SUMMARY_NAME,
    SUMMARY_CSV_NAME,
    *(
        f"{name}.{suffix}"
        for name in ("comparisons", "levels", "pareto")
        for suffix in ("parquet", "csv")
    ),
)
"""The merged tables of a study, in its folder."""


WILDCARD = re.compile(r"\{\s*[.\w]+\s*[,}]")
"""What Snakemake takes for a wildcard in a path."""

UNUSABLE_NAME_REASON = (
    "programs take - at the beginning for an option, and Snakemake a name in braces for any name"
)


class _Below:
    """A path below a folder, as an attribute of a class with the folder's ``path``."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __get__(self, folder: "RunFolder | StudyFolder", owner: type) -> Path:
        return folder.path.joinpath(*self._names)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, ``results/<study>/runs/<experiment>/<cycle>``.

    ``work`` holds the files between the run's own processes; it is removed when the run is complete
    and kept when it failed.
    """

    path: Path

    @property
    def study(self) -> "StudyFolder":
        """The folder of its study."""
        return StudyFolder(self.path.parents[2])

    result = _Below("result.json")
    """The record for people; written last."""
    row = _Below("run.parquet")
    """The record as one flat row."""
    samples = _Below("samples.parquet")
    """The sensors' time series of a complete run."""
    requests = _Below("requests.parquet")
    """One row a request."""

    @property
    def products(self) -> tuple[Path, ...]:
        """The files of a complete run; first the record, which holds the others' hashes."""
        return (self.result, self.row, self.samples, self.requests)

    outcome = _Below("outcome.json")
    """How the latest attempt ended."""
    attempts = _Below("attempts.jsonl")
    """Every attempt's end, one JSON line each; never deleted by the workflow."""
    stream = _Below("samples.arrows")
    """The recorder's stream during the run."""
    log = _Below("run.log")
    """The output of the run's processes."""
    work = _Below("work")
    """Files between the run's own processes."""
    spec = _Below("work", "spec.json")
    """The run's specification."""
    recorder = _Below("work", "recorder.json")
    """The recorder's answer when it was ready."""
    engine_pid = _Below("work", "engine.pid")
    """The engine's process id: in its own container it is not a child of the supervisor."""
    marks = _Below("work", "marks.jsonl")
    """Phase marks, one JSON line each, appended as they happen."""
    engine = _Below("work", "engine.json")
    """The engine's own record, written when the window is complete."""
    engine_end = _Below("work", "engine_end.json")
    """How the engine's process ended, if it did not end by itself without an error."""
    traffic = _Below("work", "traffic.parquet")
    """Every request of a run under traffic, written when all are answered."""
    skip = _Below("work", "skip")
    """Ends the rest before the run as soon as it appears."""
    time_limit = _Below("work", "time_limit.json")
    """The wall-clock limit that the engine's process computed, in seconds."""
    limits = _Below("work", "limits.json")
    """The GPU limits that were set, and whether they were put back."""
    gpu_memory = _Below("work", "gpu_memory.json")
    """Memory in use on the run's GPUs before the run and after its engine's end."""
    last = _Below("work", "last")
    """Keeps other runs from beginning on this one's server."""
    session = _Below("work", "session.json")
    """The workflow for which another run's job measured this one, and the error if it failed."""
    error = _Below("work", "error.json")
    """Why a process of the run gave up."""


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study, ``results/<study>``."""

    path: Path

    @classmethod
    def for_study(cls, study: "Study") -> "StudyFolder":
        """Return where a study's results go.

        Raises:
            ConfigurationError: no workflow can name that folder.
        """
        root = str(Path(study.results_root))
        if root.startswith("-") or WILDCARD.search(root):
            message = f"{UNUSABLE_NAME_REASON}: choose another folder for the results"
            raise ConfigurationError(Problem(message, key="output_dir", found=root))
        return cls(Path(root) / study.name)

    plan = _Below("plan.json")
    """Every run's id, place in the order and resolved configuration."""
    manifest = _Below("manifest.json")
    """A cache of every run's state, for people."""
    lock = _Below(".lock")
    """Held by the one workflow that may run this study."""
    circuit = _Below("circuit.jsonl")
    """How the runs of the current workflow failed, while none has completed."""

    def refusals_path(self, backend: str) -> Path:
        """Return the file with an engine's own refusals, by experiment."""
        return self.path / f"refused-{backend}.json"

    def pin(self, experiment: str | None) -> Path:
        """Return the file that pins the study, or one experiment, to a place."""
        return self.path / "pins" / f"{experiment or 'study'}.json"

    def run(self, experiment: str, cycle: int | str) -> RunFolder:
        """Return the folder of one run."""
        return RunFolder(self.path / "runs" / experiment / str(cycle))


def planned_run(plan: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the entry of the run EXPERIMENT/CYCLE in a plan.

    Raises:
        ValueError: it has no such run.
    """
    for run in plan.get("runs", []):
        if f"{run['experiment']}/{run['cycle']}" == name:
            found: dict[str, Any] = run
            return found
    raise ValueError(f"the plan holds no run {name}")
