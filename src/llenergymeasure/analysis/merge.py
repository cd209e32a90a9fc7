"""All runs of a study in one table: a walk along the plan, never a glob.

A finished run's row is made from its record, which has to be read anyway to check whether it is
complete. A planned run without a result also has a row, with the reason; folders that are not in
the plan are ignored. Rows that were read before come from a cache, as long as their
files are the same (:mod:`llenergymeasure.analysis.merge_cache`).
"""

import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from operator import or_
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.analysis.merge_cache import read_cache, write_cache
from llenergymeasure.config.dotted import value_at
from llenergymeasure.energy.footprint import SiteFactors
from llenergymeasure.errors import RecordVersionError, ResultsError
from llenergymeasure.plan.plan import run_sections
from llenergymeasure.redact import REMOVED
from llenergymeasure.results.columns import RUN_SCHEMA
from llenergymeasure.results.complete import Difference, sound_record, stamp
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import Outcome, without_result
from llenergymeasure.results.record_files import parse_result
from llenergymeasure.results.table import (
    failed_row,
    rows_table,
    run_row,
    setting_array,
    setting_columns,
)

BATCH_RUNS = 512
"""Rows packed at a time: as Python values a large study would take gigabytes."""

MAX_START_OFFSET_CELSIUS = 3.0
"""How far from the others' a run may start. NVML reports whole degrees; leakage power grows by some
per cent over this much."""

DRIFT_CODE = "temperature_drift"

_QUALITY_JUDGES = {
    ("perplexity",): ("quality_texts_sha256",),
    ("quality_score", "quality_correct", "quality_items"): ("quality_tasks", "quality_command"),
}
"""The columns of quality: how good the answers are, and what judged them."""

_FOLDERS = re.compile(r"^(-[^=/]*=)?/(?:[^/]*/)*(?=[^/])")
"""The folders in an absolute path of a command."""

PlannedRun = Mapping[str, Any]


def merge_runs(plan: Mapping[str, Any], study_dir: Path, *, tolerant: bool = False) -> pa.Table:
    """Return one row for every planned run, sorted by its place in the plan.

    The fixed columns come from each run's record, the swept settings from the plan, and carbon and
    cost from what the plan declares: it may be declared, or corrected, after a run. ``order`` is
    the place in this plan; when a run really began is ``started_at``. An odd start temperature,
    which only all runs together show, is added to a run's ``validity``, and so is that its answers
    were judged by something else than the last run's, which no table may mix.

    Args:
        plan: ``plan.json``, parsed.
        study_dir: the study's folder.
        tolerant: take a run whose finished record cannot be read for ``lost`` and say why in
            its row, instead of stopping. For tables that are written after a failure.

    Raises:
        ResultsError: the plan lacks a part, or a finished run's record is damaged or another's.
    """
    try:
        runs: list[PlannedRun] = sorted(plan["runs"], key=lambda run: run["order"])
        identity = {name: plan[name] for name in ("study", "study_design_hash")}
    except (KeyError, TypeError) as error:
        raise ResultsError(f"the plan of {study_dir} is not one: it lacks {error}") from error
    keys = plan.get("swept") or ()
    rows = _merge_rows(runs, keys, identity, study_dir, tolerant=tolerant)
    rows = _with_column(rows, "order", pa.array([run["order"] for run in runs], pa.int64()))
    rows = _with_footprint(rows, run_sections(plan).get("carbon") or {})
    rows = _without_other_judges(rows)
    return flag_start_temperatures(_with_settings(rows, runs, keys))


def _merge_rows(
    runs: Sequence[PlannedRun],
    keys: Sequence[str],
    identity: Mapping[str, Any],
    study_dir: Path,
    *,
    tolerant: bool,
) -> pa.Table:
    """Return the runs' rows without settings: those of the cache, those read, and the rest."""
    cached_rows, row_of_run = read_cache(study_dir, keys)
    folders = [f"{study_dir}/runs/{run['experiment']}/{run['cycle']}" for run in runs]
    now_ns = time.time_ns()
    stamps = [stamp(folder, now_ns) for folder in folders]
    cached, uncached = dict[int, int](), list[int]()
    for index, (run, current) in enumerate(zip(runs, stamps, strict=True)):
        if current is None:
            continue
        row = row_of_run.get((run["experiment"], run["cycle"], current.digest))
        if row is None:
            uncached.append(index)
        else:
            cached[index] = row
    finished = [*cached]  # in the order of their rows
    tables = [_rows_at(cached_rows, [*cached.values()])]
    errors: dict[int, ResultsError | OSError] = {}
    for batch in _in_batches(uncached):
        rows, batch_errors = _read_rows([runs[index] for index in batch], keys, study_dir)
        errors |= {batch[place]: error for place, error in batch_errors.items()}
        finished += [index for index in batch if index not in errors]
        tables.append(rows)
    for error in errors.values():
        if not tolerant or isinstance(error, RecordVersionError):
            raise error
    if uncached or len(finished) != len(cached_rows):
        row_stamps = [current for index in finished if (current := stamps[index]) is not None]
        write_cache(study_dir, pa.concat_tables(tables), row_stamps, keys)
    missing = sorted({*range(len(runs))} - {*finished})
    for batch in _in_batches(missing):
        failed = [
            failed_row(runs[index], _outcome(folders[index], errors.get(index)), identity)
            for index in batch
        ]
        tables.append(rows_table(failed))
    row_of_index = {index: row for row, index in enumerate([*finished, *missing])}
    return _rows_at(pa.concat_tables(tables), [row_of_index[index] for index in range(len(stamps))])


def _read_rows(
    runs: Sequence[PlannedRun], keys: Sequence[str], study_dir: Path
) -> tuple[pa.Table, dict[int, ResultsError | OSError]]:
    """Return the rows of finished runs, and by its place why one has none."""
    rows: list[dict[str, Any]] = []
    errors: dict[int, ResultsError | OSError] = {}
    study = StudyFolder(study_dir)
    for index, planned in enumerate(runs):
        folder = study.run(planned["experiment"], planned["cycle"])
        try:
            record = sound_record(folder)
            if isinstance(record, Difference):
                reason = f"{record.file}: {record.what}"
                errors[index] = ResultsError(f"{reason}; running the study again measures it again")
                continue
            result = parse_result(record, folder.result)
            rows.append(run_row(result, {key: value_at(result.config, key) for key in keys}))
        except (ResultsError, OSError) as error:
            errors[index] = error
    return rows_table(rows).select(RUN_SCHEMA.names), errors


def _in_batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[at : at + BATCH_RUNS] for at in range(0, len(numbers), BATCH_RUNS))


def _with_footprint(rows: pa.Table, carbon: Mapping[str, Any]) -> pa.Table:
    """Return the rows with carbon and cost by one declaration, whatever each run recorded."""
    declared = SiteFactors(**carbon)
    per_request_j = rows["energy_per_request_j"]
    for name, per_joule in (
        ("carbon_per_1000_requests_gco2e", declared.carbon_gco2e(1.0)),
        ("cost_per_1000_requests", declared.cost(1.0)),
    ):
        factor = None if per_joule is None else 1000 * per_joule
        values = pc.multiply(per_request_j, pa.scalar(factor, pa.float64()))
        rows = _with_column(rows, name, values)
    currency = pa.scalar(declared.currency, pa.string())
    currencies = pc.if_else(pc.is_valid(per_request_j), currency, pa.scalar(None, pa.string()))
    return _with_column(rows, "cost_currency", currencies)


def _without_other_judges(rows: pa.Table) -> pa.Table:
    """Return the rows without qualities that were judged otherwise than in the latest run.

    A study's quality section is not part of any id, so it may change from call to call.
    """
    started = [at or "" for at in rows["started_at"].to_pylist()]
    is_affected = [False] * len(rows)
    for scores, judge_columns in _QUALITY_JUDGES.items():
        is_scored = rows[scores[0]].is_valid().to_pylist()
        if not any(is_scored):
            continue
        judges = [*map(_judge, rows.select(judge_columns).to_pylist())]
        _, latest = max(compress(zip(started, judges, strict=True), is_scored))
        has_other = [
            scored and not _is_one_judge(judge, latest)
            for judge, scored in zip(judges, is_scored, strict=True)
        ]
        is_affected = [*map(or_, is_affected, has_other)]
        for name in scores:
            rows = _with_column(rows, name, pc.if_else(pa.array(has_other), None, rows[name]))
    return _with_code(rows, "quality_unavailable", is_affected)


def _judge(row: Mapping[str, Any]) -> list[str]:
    """Return the words that name a judge: tasks in any order, files wherever they lie."""
    tasks = sorted(row.get("quality_tasks") or ())
    words = [_FOLDERS.sub(r"\1", word) for word in row.get("quality_command") or ()]
    return [row.get("quality_texts_sha256") or "", *tasks, "", *words]


def _is_one_judge(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two judges are the same, apart from words that were struck out."""
    return len(one) == len(other) and all(
        a == b or REMOVED in a or REMOVED in b for a, b in zip(one, other, strict=True)
    )


def _with_code(rows: pa.Table, code: str, is_affected: Sequence[bool]) -> pa.Table:
    """Return the rows with a code added to the validity of those for which it is true."""
    if not any(is_affected):
        return rows
    flagged = [
        sorted({*(codes or ()), code}) if affected else codes
        for codes, affected in zip(rows["validity"].to_pylist(), is_affected, strict=True)
    ]
    return _with_column(rows, "validity", pa.array(flagged, RUN_SCHEMA.field("validity").type))


def _with_column(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), RUN_SCHEMA.field(name), values)


def _with_settings(rows: pa.Table, runs: Sequence[PlannedRun], keys: Sequence[str]) -> pa.Table:
    """Return the rows with the swept settings as columns, each of one type for the whole study."""
    configs = {run["experiment"]: run.get("config") or {} for run in runs}
    for key, name in setting_columns(keys).items():
        column = setting_array([value_at(config, key) for config in configs.values()])
        value_by_experiment = dict(zip(configs, column.to_pylist(), strict=True))
        values = [value_by_experiment[run["experiment"]] for run in runs]
        rows = rows.append_column(name, pa.array(values, column.type))
    return rows


def _outcome(folder: str, error: Exception | None) -> Outcome | None:
    """Return how a run without a row ended; None if it was never started."""
    return without_result(RunFolder(Path(folder)), None if error is None else str(error))


def _rows_at(rows: pa.Table, indices: Sequence[int]) -> pa.Table:
    if indices == [*range(len(rows))]:
        return rows.combine_chunks()
    return rows.take(pa.array(indices, pa.int64())).combine_chunks()


def flag_start_temperatures(runs: pa.Table) -> pa.Table:
    """Return the runs with ``temperature_drift`` on those that began warmer or cooler than most.

    A warmer chip draws more for the same work. The first run of a morning differs, and only the
    other runs show that: each is compared with the median of all runs of the study on the same
    cards, and the runs' own records stay as they are. Runs whose energy was not measured, or that
    have no temperature, are left as they are.

    Args:
        runs: one row a run, with the fixed columns.
    """
    names = ("host", "gpu_uuid", "kind", "start_temperature_celsius")
    rows = list(zip(*(runs[name].to_pylist() for name in names), strict=True))
    by_cards: dict[tuple[str | None, str | None], list[float]] = defaultdict(list)
    for host, cards, _, celsius in rows:
        if celsius is not None:
            by_cards[host, cards].append(celsius)
    median_celsius = {cards: median(values) for cards, values in by_cards.items()}
    is_drifting = [
        kind == "measured"
        and celsius is not None
        and abs(celsius - median_celsius[host, cards]) > MAX_START_OFFSET_CELSIUS
        for host, cards, kind, celsius in rows
    ]
    return _with_code(runs, DRIFT_CODE, is_drifting)
