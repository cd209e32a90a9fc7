"""Where a run keeps its files: the names that its processes share."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llenergymeasure.config.study import Study

SCHEMA_VERSION = 1
"""Of the record; a later one is refused."""

RUN_VARIABLE = "LLENERGYMEASURE_RUN"
"""Names the run's folder to all of its processes, so that none can be left unfound."""

RUNS_NAME = "runs.parquet"
SUMMARY_NAME = "summary.parquet"
SUMMARY_CSV_NAME = "summary.csv"
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


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, ``results/<study>/runs/<experiment>/<cycle>``.

    What is under ``work`` passes between the run's own processes; it is removed when the run
    is complete and left for a look when it failed.
    """

    path: Path

    @property
    def study(self) -> "StudyFolder":
        """The folder of its study."""
        return StudyFolder(self.path.parents[2])

    @property
    def result(self) -> Path:
        """The record for people; written last."""
        return self.path / "result.json"

    @property
    def row(self) -> Path:
        """The record as one flat row."""
        return self.path / "run.parquet"

    @property
    def samples(self) -> Path:
        """The sensors' time series of a complete run."""
        return self.path / "samples.parquet"

    @property
    def requests(self) -> Path:
        """One row a request."""
        return self.path / "requests.parquet"

    @property
    def products(self) -> tuple[Path, ...]:
        """What a complete run leaves, the record that vouches for the others first."""
        return (self.result, self.row, self.samples, self.requests)

    @property
    def outcome(self) -> Path:
        """How the latest attempt ended."""
        return self.path / "outcome.json"

    @property
    def attempts(self) -> Path:
        """Every attempt's end, one JSON line each; never deleted by the workflow."""
        return self.path / "attempts.jsonl"

    @property
    def stream(self) -> Path:
        """What the recorder streams to while the run is at work."""
        return self.path / "samples.arrows"

    @property
    def log(self) -> Path:
        """What the run's processes printed."""
        return self.path / "run.log"

    @property
    def work(self) -> Path:
        """Files between the run's own processes."""
        return self.path / "work"

    @property
    def spec(self) -> Path:
        """What this run was told."""
        return self.work / "spec.json"

    @property
    def recorder(self) -> Path:
        """What the recorder said when it was ready."""
        return self.work / "recorder.json"

    @property
    def engine_pid(self) -> Path:
        """The engine's process: in a container of its own it is no child of the supervisor's."""
        return self.work / "engine.pid"

    @property
    def marks(self) -> Path:
        """Phase marks, one JSON line each, appended as they happen."""
        return self.work / "marks.jsonl"

    @property
    def engine(self) -> Path:
        """What the engine did, written when it is done."""
        return self.work / "engine.json"

    @property
    def engine_end(self) -> Path:
        """How the engine's process ended, where that was not by itself and well."""
        return self.work / "engine_end.json"

    @property
    def traffic(self) -> Path:
        """Every request of a run under traffic, written when all are answered."""
        return self.work / "traffic.parquet"

    @property
    def skip(self) -> Path:
        """Ends the rest before the run as soon as it appears."""
        return self.work / "skip"

    @property
    def time_limit(self) -> Path:
        """The wall-clock limit that the engine's process reckoned, in seconds."""
        return self.work / "time_limit.json"

    @property
    def limits(self) -> Path:
        """The GPU limits that were held, and how they were put back."""
        return self.work / "limits.json"

    @property
    def gpu_memory(self) -> Path:
        """What was in use on the run's GPUs before it and after its engine's end."""
        return self.work / "gpu_memory.json"

    @property
    def error(self) -> Path:
        """Why a process of the run gave up."""
        return self.work / "error.json"


@dataclass(frozen=True)
class StudyFolder:
    """The folder of one study, ``results/<study>``."""

    path: Path

    @classmethod
    def of(cls, study: "Study") -> "StudyFolder":
        """Return where a study's results go."""
        return cls(Path(study.results_root) / study.name)

    @property
    def plan(self) -> Path:
        """Every run's id, place in the order and resolved configuration."""
        return self.path / "plan.json"

    @property
    def manifest(self) -> Path:
        """A cache of every run's state, for people."""
        return self.path / "manifest.json"

    @property
    def lock(self) -> Path:
        """Held by the one workflow that may run this study."""
        return self.path / ".lock"

    @property
    def circuit(self) -> Path:
        """How the runs of the workflow at work failed, while none has completed."""
        return self.path / "circuit.jsonl"

    def pin(self, experiment: str | None) -> Path:
        """Where the study, or one experiment, is kept: claimed by its first run."""
        return self.path / "pins" / f"{experiment or 'study'}.json"

    def run(self, experiment: str, cycle: int | str) -> RunFolder:
        """Return the folder of one run."""
        return RunFolder(self.path / "runs" / experiment / str(cycle))
