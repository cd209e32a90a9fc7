"""What the Python interface gives back: one run, or a study, with its tables."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from llenergymeasure.analysis.tables import outdated_reason, read_table
from llenergymeasure.api.notebook import SavedFigure, html_table
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ResultsError
from llenergymeasure.parquet import read_parquet
from llenergymeasure.plan import PLAIN_VALUES, Plan, settings_label
from llenergymeasure.report.experiments import footprint_units
from llenergymeasure.report.findings import interval_caveats, not_ranked_notes, ranked
from llenergymeasure.report.formatting import plain
from llenergymeasure.report.plain_text import experiment_cells, flags_line, study_head
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, RunFolder, StudyFolder
from llenergymeasure.results.record import Result
from llenergymeasure.results.record_files import read_result
from llenergymeasure.units import Kind
from llenergymeasure.workflow.manifest import states

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class ExperimentResult:
    """One finished run.

    Energies are those of the window, the headline sensor's, in joules; what was not observed is
    None.

    Attributes:
        record: everything in ``result.json``, typed.
        folder: where its files are; None if none were kept.
    """

    record: Result = field(repr=False)
    folder: Path | None = None
    _tables: Mapping[str, pa.Table] = field(default_factory=dict, repr=False, compare=False)

    @property
    def experiment(self) -> str:
        """The id of its settings, 12 hex digits."""
        return self.record.experiment

    @property
    def cycle(self) -> int:
        """Which repetition it is, from 1."""
        return self.record.cycle

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings it ran with, as resolved."""
        return self.record.config

    @property
    def kind(self) -> Kind | None:
        """Whether its energy was measured or estimated."""
        return self.record.energy.kind

    @property
    def energy_j(self) -> float | None:
        """Gross energy of the window, in J."""
        return self.record.energy.gross_j

    @property
    def energy_u95_j(self) -> float | None:
        """Half width of its 95 % interval from random and resolution effects, in J."""
        return self.record.energy.u95_j

    @property
    def energy_per_output_token_j(self) -> float | None:
        """Energy per output token, in J."""
        return self.record.energy.per_output_token_j

    @property
    def energy_per_request_j(self) -> float | None:
        """Energy per request, in J."""
        return self.record.energy.per_request_j

    @property
    def power_mean_w(self) -> float | None:
        """Mean power over the window, in W."""
        return self.record.energy.power_mean_w

    @property
    def output_tokens(self) -> int:
        """Tokens written inside the window."""
        return self.record.tokens.output

    @property
    def output_tokens_per_s(self) -> float:
        """Tokens written a second."""
        return self.record.performance.output_tokens_per_s

    @property
    def window_s(self) -> float:
        """Length of the window, in s."""
        return self.record.window.duration_s

    @property
    def validity(self) -> tuple[str, ...]:
        """Reasons to doubt it, as codes."""
        return tuple(self.record.validity)

    @property
    def energy_unavailable(self) -> str | None:
        """Why there is no energy, where there is none."""
        return self.record.energy.unavailable

    @property
    def label(self) -> str:
        """Its settings for people: model, backend, precision, and what differs from a default."""
        defaults = dict(leaves(ExperimentConfig(model="any").model_dump(mode="json")))
        settings = dict(leaves(self.config))
        label = settings_label(
            {name: self.config.get(name) for name in PLAIN_VALUES}
            | {name: value for name, value in settings.items() if value != defaults.get(name)}
        )
        return plain(label, 200)

    def samples(self) -> "pd.DataFrame":
        """Return the sensors' time series, one row for each thing a sensor said.

        Raises:
            ResultsError: the file is gone.
        """
        return self._table("samples.parquet").to_pandas()

    def requests(self) -> "pd.DataFrame":
        """Return one row for each request inside the window; raise as ``samples`` does."""
        return self._table("requests.parquet").to_pandas()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain values, as in ``result.json``."""
        return self.record.model_dump(mode="json")

    def __str__(self) -> str:
        """Return its headline in one line."""
        name = f"{self.label}, cycle {self.cycle}"
        if self.energy_per_output_token_j is None:
            return f"{name}: no energy: {self.energy_unavailable}"
        codes = f" ({', '.join(self.validity)})" if self.validity else ""
        return (
            f"{name}: {self.energy_per_output_token_j:.4g} J per output token, {self.kind}, "
            f"{self.output_tokens_per_s:.4g} tokens/s{codes}"
        )

    def __repr__(self) -> str:
        """Return its headline between angle brackets."""
        return f"<ExperimentResult {self}>"

    def _repr_html_(self) -> str:
        names = [
            *("energy_per_output_token_j", "energy_per_request_j", "energy_j", "energy_u95_j"),
            *("power_mean_w", "output_tokens_per_s", "window_s", "kind", "experiment"),
        ]
        values = [(name, getattr(self, name)) for name in names]
        values.append(("validity", ", ".join(self.validity) or "no doubts"))
        return html_table(str(self), [("", "value"), *values])

    def _table(self, name: str) -> pa.Table:
        if name in self._tables:
            return self._tables[name]
        if self.folder is None:
            raise ResultsError(f"{name} was not kept")
        return _read_table(self.folder / name)


@dataclass(frozen=True)
class FailedRun:
    """A run of a study that left no result.

    Attributes:
        experiment: the id of its settings.
        cycle: which repetition.
        status: ``failed``, ``interrupted``, ``lost`` or ``missing`` (never started).
        phase: the phase it ended in.
        error_class: the class of its error.
        error_message: what that said.
        log: what its processes printed.
    """

    experiment: str
    cycle: int
    status: str
    phase: str | None
    error_class: str | None
    error_message: str | None
    log: Path


@dataclass(frozen=True)
class StudyPaths:
    """Where a study's files are; those that no run has led to yet may be missing."""

    folder: Path
    plan: Path
    runs: Path
    summary: Path
    summary_csv: Path
    report: Path


@dataclass(frozen=True, repr=False)
class StudyResult:
    """A study's results, as far as they go.

    Attributes:
        name: of the study.
        paths: where its files are.
    """

    name: str
    paths: StudyPaths

    @cached_property
    def completed(self) -> tuple[ExperimentResult, ...]:
        """The finished runs, in the planned order."""
        return tuple(
            load_result(self._folder.run(run["experiment"], run["cycle"]).path)
            for run in self._states
            if run["status"] == "completed"
        )

    @property
    def failed(self) -> tuple[FailedRun, ...]:
        """The runs without a result, in the planned order."""
        return tuple(
            FailedRun(
                experiment=run["experiment"],
                cycle=run["cycle"],
                status=run["status"],
                phase=run.get("phase"),
                error_class=run.get("error_class"),
                error_message=run.get("error_message"),
                log=self._folder.run(run["experiment"], run["cycle"]).log,
            )
            for run in self._states
            if run["status"] != "completed"
        )

    @property
    def runs(self) -> "pd.DataFrame":
        """One row a run, failed ones included.

        Tables that do not know all runs yet, as of a study that is going on, come with a warning.

        Raises:
            ResultsError: the table was not written yet; so do the other tables.
        """
        return self._read_merged(RUNS_NAME).to_pandas()

    @property
    def summary(self) -> "pd.DataFrame":
        """One row an experiment: means, deviations and 95 % intervals over its cycles."""
        return self._read_merged(SUMMARY_NAME).to_pandas()

    def table(self) -> "pd.DataFrame":
        """Return the settings of each experiment with its energy, interval and throughput.

        The rows are in the report's order; a setting whose name is that of another column, as
        ``n`` is that of the runs' number, stands as ``setting.n``. The interval is that of the mean
        over the cycles, without the sensor's gain; None where one cycle alone counts.
        """
        energy = "energy_per_output_token_j"
        names = {
            "n": "n",
            "kind": "kind",
            f"{energy}_mean": energy,
            f"{energy}_ci95_low": "low",
            f"{energy}_ci95_high": "high",
            "output_tokens_per_s_mean": "output_tokens_per_s",
            "power_mean_w_mean": "power_mean_w",
        }
        summary = self._read_merged(SUMMARY_NAME)
        rows = ranked(summary.to_pylist())
        keys = dict.fromkeys(("model", "backend", *Plan.read(self.paths.plan).swept_keys))
        prefixed = {key: f"setting.{key}" for key in keys}
        columns = [prefixed[key] if prefixed[key] in summary.column_names else key for key in keys]
        settings = [name for name in columns if name in summary.column_names]
        frame = pa.Table.from_pylist(rows, summary.schema).to_pandas()
        return frame[[*settings, *names]].rename(columns=names)

    @property
    def comparisons(self) -> "pd.DataFrame":
        """Pairs of experiments: ratio, interval and p value of each quantity."""
        return self._read_merged("comparisons.parquet").to_pandas()

    @property
    def levels(self) -> "pd.DataFrame":
        """What each value of a swept setting changes against the first."""
        return self._read_merged("levels.parquet").to_pandas()

    @property
    def pareto(self) -> "pd.DataFrame":
        """The experiments that no other is better than in two quantities at once."""
        return self._read_merged("pareto.parquet").to_pandas()

    def figure(self, name: str) -> SavedFigure:
        """Return one of the report's figures, which a notebook draws.

        Raises:
            ResultsError: there is none of that name; the error names those that are there.
        """
        path = self.paths.folder / "figures" / f"{name}.svg"
        if not path.is_file():
            available = ", ".join(sorted(file.stem for file in path.parent.glob("*.svg"))) or "none"
            raise ResultsError(f"{self.paths.folder} has no figure {name}; there are {available}")
        return SavedFigure(path)

    def _read_merged(self, name: str) -> pa.Table:
        if outdated := outdated_reason(self.paths.folder):
            warnings.warn(outdated, stacklevel=3)
        return read_table(self.paths.folder, name)

    def __repr__(self) -> str:
        """Return how far it is between angle brackets."""
        return f"<StudyResult {self}>"

    def _repr_html_(self) -> str:
        if not self.paths.summary.is_file():
            return html_table(str(self))
        folder = self.paths.folder
        rows = ranked(read_table(folder, SUMMARY_NAME).to_pylist())
        runs = read_table(folder, RUNS_NAME).to_pylist()
        cells = [line[1:] for line in experiment_cells(rows, footprint_units(rows, runs))]
        head = [study_head(rows, runs), outdated_reason(folder)]
        remarks = [*not_ranked_notes(rows), flags_line(runs), *interval_caveats(runs)]
        return html_table("\n".join(filter(None, head)), cells, "\n".join(filter(None, remarks)))

    def __str__(self) -> str:
        """Return how far it is in one line."""
        n_completed = sum(run["status"] == "completed" for run in self._states)
        return f"{self.name}: {n_completed} of {len(self._states)} runs completed"

    @property
    def _folder(self) -> StudyFolder:
        return StudyFolder(self.paths.folder)

    @cached_property
    def _states(self) -> list[dict[str, Any]]:
        return states(Plan.read(self.paths.plan), self._folder)


def load_results(path: Path | str) -> StudyResult:
    """Return the results in ``results/<study>``, of this version's form or an earlier one.

    Raises:
        ResultsError: there are none.
    """
    folder = StudyFolder(Path(path).absolute())  # a program may go to another folder
    if not folder.path.is_dir():
        raise ResultsError(f"{path}: no such folder")
    if not folder.plan.is_file():
        hint = f": there is no {folder.plan.name}"
        if studies := [str(plan.parent) for plan in sorted(Path(path).glob("*/plan.json"))]:
            hint = f"; its folders hold {', '.join(studies)}"
        raise ResultsError(f"{path}: holds no study{hint}")
    names = ("runs.parquet", "summary.parquet", "summary.csv", "report.html")
    paths = StudyPaths(folder.path, folder.plan, *(folder.path / name for name in names))
    return StudyResult(Plan.read(folder.plan).study, paths)


def load_result(path: Path | str) -> ExperimentResult:
    """Return one finished run by its folder or ``result.json``, of this form or an earlier one.

    Raises:
        ResultsError: there is no record, or it cannot be read.
    """
    place = Path(path).absolute()
    folder = RunFolder(place.parent if place.suffix == ".json" else place)
    return ExperimentResult(read_result(folder.result), folder.path)


def in_memory(folder: RunFolder) -> ExperimentResult:
    """Return a finished run with its tables, so that its files can go."""
    tables = {path.name: _read_table(path) for path in (folder.samples, folder.requests)}
    return ExperimentResult(read_result(folder.result), None, tables)


def _read_table(path: Path) -> pa.Table:
    if not path.exists():
        raise ResultsError(f"{path}: there is no such table")
    return read_parquet(path)
