"""All runs of a study in one table: a walk along the plan, never a glob.

What the plan asks for and no file answers is a row too, with the reason; a folder that the plan
does not know is not looked at. Rows that were read before come from a cache, as long as their
files are the same (:mod:`llenergymeasure.analysis.merge_cache`). The table is made in batches, so
that memory does not grow with what the runs left.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from llenergymeasure.analysis.merge_cache import (
    MergeCache,
    MergeCacheWriter,
    Place,
)
from llenergymeasure.analysis.temperatures import flag_start_temperatures
from llenergymeasure.errors import RecordVersionError, ResultsError
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import Outcome, OutcomeError, read_outcome
from llenergymeasure.results.row_file import Row, read_run_row
from llenergymeasure.results.table import (
    RUN_SCHEMA,
    failed_row,
    lookup,
    rows_table,
    setting_array,
    setting_columns,
)
from llenergymeasure.results.whole import Stamp, damage, stamp

BATCH_RUNS = 512
"""Rows gathered before they are packed: thousands of one-row chunks would cost 20 times more."""

READERS = 2
"""Threads that read: one waits for a file while the other takes one apart."""

Planned = Mapping[str, Any]


def merge_runs(plan: Mapping[str, Any], study_dir: Path, *, tolerant: bool = False) -> pa.Table:
    """Return one row for every planned run, sorted by its place in the plan.

    The fixed columns come from each run's ``run.parquet``, the swept settings from the plan.
    ``order`` is the place in this plan; when a run really began is ``started_at``. An odd start
    temperature, which only all runs together show, is added to a run's ``validity``.

    Args:
        plan: ``plan.json``, parsed.
        study_dir: the study's folder.
        tolerant: take a run whose finished record cannot be read for ``lost`` and say why in
            its row, instead of stopping. For tables that are written after a failure.

    Raises:
        ResultsError: the plan lacks a part, or a finished run's record is damaged or another's.
    """
    return Merge(plan, study_dir, tolerant=tolerant).table()


class Merge:
    """One merge of a study's runs, in batches.

    Attributes:
        schema: of the merged table: the fixed columns, then the swept settings.
        runs_read: runs whose files were read so far, not taken from the cache.
    """

    def __init__(self, plan: Mapping[str, Any], study_dir: Path, *, tolerant: bool = False) -> None:
        try:
            self._planned: list[Planned] = sorted(plan["runs"], key=lambda run: run["order"])
            keys = list(plan.get("swept") or [])
            self._study, self._design = plan["study"], plan["study_design_hash"]
        except (KeyError, TypeError) as error:
            raise ResultsError(f"the plan of {study_dir} is not one: it lacks {error}") from error
        self._folder = StudyFolder(study_dir)
        self._tolerant = tolerant
        self._settings = _Settings(self._planned, keys)
        self.schema: pa.Schema = self._settings.added_to(RUN_SCHEMA)
        self.runs_read = 0

    def table(self) -> pa.Table:
        """Return all rows, as :func:`merge_runs` does.

        Raises:
            ResultsError: a finished run's record is damaged or another's.
        """
        rows = pa.concat_tables([self.schema.empty_table(), *self.batches()])
        return flag_start_temperatures(rows.combine_chunks())

    def batches(self) -> Iterator[pa.Table]:
        """Yield the table :data:`BATCH_RUNS` rows at a time, and keep the rows for the next merge.

        Raises:
            ResultsError: a finished run's record is damaged or another's.
        """
        cache = MergeCache(self._folder.path)
        kept = 0
        with MergeCacheWriter(self._folder.path) as writer, ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(self._planned), BATCH_RUNS):
                planned = self._planned[start : start + BATCH_RUNS]
                batch = _Batch(planned, self._folder, cache)
                rows = self._rows(batch, readers)
                settled = batch.settled()
                kept += len(settled)
                writer.add(_taken(rows, [at for at, _ in settled]), [each for _, each in settled])
                yield self._settings.joined(rows, planned)
            writer.worthwhile = self.runs_read > 0 or kept != len(cache)

    def _rows(self, batch: "_Batch", readers: Executor) -> pa.Table:
        """Return a batch's rows without settings: those of the cache, those read, and the rest."""
        new = batch.read(readers, tolerant=self._tolerant)
        self.runs_read += len(batch.new)
        absent = [
            failed_row(
                batch.planned[at],
                batch.outcome(at),
                {},
                study=self._study,
                study_design_hash=self._design,
            )
            for at in batch.absent
        ]
        rows = pa.concat_tables([batch.cached_rows, new, rows_table(absent)])
        found_at = {at: row for row, at in enumerate([*batch.cached, *batch.new, *batch.absent])}
        rows = _taken(rows, [found_at[at] for at in range(len(batch.planned))]).combine_chunks()
        place = RUN_SCHEMA.get_field_index("order")
        order = pa.array([run["order"] for run in batch.planned], pa.int64())
        return rows.set_column(place, RUN_SCHEMA.field(place), order)


class _Batch:
    """Some planned runs, sorted by where their rows come from.

    Attributes:
        planned: the runs, in the planned order.
        cached: numbers of the runs whose rows are in the cache.
        new: numbers of those whose files have to be read.
        absent: numbers of those without a record.
        cached_rows: the rows in the cache, in the order of ``cached``.
    """

    def __init__(self, planned: Sequence[Planned], folder: StudyFolder, cache: MergeCache) -> None:
        self.planned = planned
        self._folder, self._cache = folder, cache
        self._looked_ns = time.time_ns()
        self._runs = [f"{folder.path}/runs/{run['experiment']}/{run['cycle']}" for run in planned]
        self._stamps = [stamp(run) for run in self._runs]
        self.cached: list[int] = []
        self.new: list[int] = []
        self.absent: list[int] = []
        self._places: list[Place] = []
        self._damage: dict[int, ResultsError] = {}
        for number, (run, now) in enumerate(zip(planned, self._stamps, strict=True)):
            if now is None:
                self.absent.append(number)
                continue
            place = cache.find(run["experiment"], run["cycle"], now)
            if place is None:
                self.new.append(number)
                continue
            self.cached.append(number)
            self._places.append(place)
        self.cached_rows = self._cache.take(self._places)

    def read(self, readers: Executor, *, tolerant: bool) -> pa.Table:
        """Return the rows of the files to read, in the order of ``new``.

        Raises:
            ResultsError: one is damaged, or another run's. If ``tolerant``, the run becomes
                ``absent`` instead, but for a record of another version of this program.
        """
        found: list[Row] = []
        share = -(-len(self.new) // READERS) or 1
        shares = [self.new[at : at + share] for at in range(0, len(self.new), share)]
        answers = chain.from_iterable(readers.map(self._read_some, shares))
        for number, answer in zip(self.new, answers, strict=True):
            if isinstance(answer, RecordVersionError):
                raise answer
            if isinstance(answer, ResultsError):
                self._damage[number] = answer
            else:
                found.append(answer)
        if self._damage and not tolerant:
            raise self._damage[min(self._damage)]
        self.new = [number for number in self.new if number not in self._damage]
        self.absent += sorted(self._damage)
        return rows_table(found).select(RUN_SCHEMA.names)

    def outcome(self, number: int) -> Outcome | None:
        """Return how a run without a row ended; null if it was never started."""
        damage = self._damage.get(number)
        if damage is not None:
            error = OutcomeError(class_="DamagedRecord", message=str(damage))
            return Outcome(status="lost", error=error)
        return _outcome(RunFolder(Path(self._runs[number])))

    def settled(self) -> list[tuple[int, Stamp]]:
        """Return the runs whose rows may be kept for the next merge, with their stamps."""
        found = [(number, self._stamps[number]) for number in sorted([*self.cached, *self.new])]
        return [
            (number, each)
            for number, each in found
            if each is not None and each.is_settled(self._looked_ns)
        ]

    def _read_some(self, numbers: Sequence[int]) -> "list[Row | ResultsError]":
        """Return the rows of some runs, or why there is none."""
        return [self._read_one(number) for number in numbers]

    def _read_one(self, number: int) -> "Row | ResultsError":
        run = RunFolder(Path(self._runs[number]))
        try:
            found = damage(run)
            if found is None:
                return read_run_row(run.row)
        except ResultsError as error:
            return error
        return ResultsError(f"{found}; running the study again measures it again")


class _Settings:
    """The swept settings as columns, with one type for the whole study."""

    def __init__(self, planned: Sequence[Planned], keys: Sequence[str]) -> None:
        self._columns = setting_columns(keys)
        configs = {run["experiment"]: run.get("config") or {} for run in planned}
        self._values: dict[str, dict[str, Any]] = {}
        self._types: dict[str, pa.DataType] = {}
        for key, name in self._columns.items():
            column = setting_array([lookup(config, key) for config in configs.values()])
            self._types[name] = column.type
            self._values[name] = dict(zip(configs, column.to_pylist(), strict=True))

    def added_to(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema with the settings' columns."""
        for name, kind in self._types.items():
            schema = schema.append(pa.field(name, kind))
        return schema

    def joined(self, rows: pa.Table, planned: Sequence[Planned]) -> pa.Table:
        """Return the rows with the settings' columns."""
        for name, kind in self._types.items():
            values = [self._values[name][run["experiment"]] for run in planned]
            rows = rows.append_column(name, pa.array(values, kind))
        return rows


def _outcome(folder: RunFolder) -> Outcome | None:
    """Return how a run without a record ended; None if it was never started."""
    if not folder.outcome.exists():
        return None
    outcome = read_outcome(folder.outcome)
    if outcome.status != "completed":
        return outcome
    gone = OutcomeError(
        class_="RecordGone", message="the run completed, but its result.json is not there"
    )
    return outcome.model_copy(update={"status": "lost", "error": gone})


def _taken(rows: pa.Table, places: Sequence[int]) -> pa.Table:
    return rows.take(pa.array(places, pa.int64()))
