"""Everything of one study checked: its runs, and its tables made again and compared.

The same version of pyarrow gives the same bytes; another one may lay out the same values
differently, and then values are compared.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.analysis.recompute import check_run, differences
from llenergymeasure.analysis.tables import ANALYSIS_KEY, write_tables
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes
from llenergymeasure.parquet import read_parquet
from llenergymeasure.plan import Plan
from llenergymeasure.results.complete import Difference, recorded_hash
from llenergymeasure.results.layout import TABLE_NAMES, StudyFolder

MAX_NAMED_CELLS = 20
"""Differing cells named of one table; where one value is wrong, what follows from it is too."""
_HINT = "another one wrote it, or it was changed; `llem report` writes it again from the runs"
OTHER_VERSION = f"its columns are not those of this version: {_HINT}"
OTHER_ANALYSIS = f"its values are not those of the analysis of this version: {_HINT}"


@dataclass
class Verification:
    """What was checked, and what does not match.

    Attributes:
        study: its name.
        runs: how many finished runs were recomputed.
        missing: how many planned runs have no record.
        unhashed: how many records have no hash of their own that is kept apart from them.
        differences: what does not match.
    """

    study: str
    runs: int = 0
    missing: int = 0
    unhashed: int = 0
    differences: list[Difference] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "differences": [each.as_dict() for each in self.differences]}


def verify_study(study_dir: Path) -> Verification:
    """Recompute every figure of a study from its raw samples and requests.

    Args:
        study_dir: the study's folder, with its ``plan.json``; nothing in it is changed.

    Raises:
        ResultsError: there is no plan that can be read, or a record of another version.
    """
    folder = StudyFolder(study_dir)
    plan = Plan.read(folder.plan)
    verification = Verification(plan.study)
    verification.differences += _check_runs(plan, folder, verification)
    verification.differences += _check_tables(study_dir, partial=verification.missing > 0)
    return verification


def _check_runs(plan: Plan, folder: StudyFolder, result: Verification) -> Iterator[Difference]:
    for run in plan.runs:
        run_folder = folder.run(run.experiment, run.cycle)
        if not run_folder.result.is_file():
            result.missing += 1
            continue
        result.runs += 1
        result.unhashed += recorded_hash(run_folder) is None
        yield from check_run(run_folder, run.swept)


def _check_tables(study_dir: Path, *, partial: bool) -> Iterator[Difference]:
    """Yield what in a study's tables is not what its runs give; its folder is not changed."""
    with tempfile.TemporaryDirectory(prefix="llem-verify-") as name:
        fresh = Path(name)
        shutil.copyfile(StudyFolder(study_dir).plan, fresh / "plan.json")
        # A copy of the plan next to the same runs, and no memory of an earlier merge.
        (fresh / "runs").symlink_to((study_dir / "runs").resolve(), target_is_directory=True)
        try:
            write_tables(fresh, partial=partial)
        except (ResultsError, OSError) as error:
            yield Difference(study_dir, what=f"its tables cannot be made again: {error}")
            return
        for table in TABLE_NAMES:
            if partial and not (study_dir / table).exists():
                continue
            yield from _check_table(study_dir / table, fresh / table)


def _check_table(stored: Path, fresh: Path) -> Iterator[Difference]:
    if not stored.is_file():
        yield Difference(stored, what="it is missing; running the study again makes it")
        return
    if read_bytes(stored) == read_bytes(fresh):
        return
    # The values of a table as text are those of the Parquet table next to it.
    columns, analysis = _table_version(stored.with_suffix(".parquet"))
    fresh_columns, fresh_analysis = _table_version(fresh.with_suffix(".parquet"))
    same_version = (columns, analysis) == (fresh_columns, fresh_analysis)
    if stored.suffix != ".parquet":
        what = "its bytes are not what the runs give"
        if not same_version:
            what = OTHER_ANALYSIS if columns == fresh_columns else OTHER_VERSION
        yield Difference(stored, what=what)
        return
    try:
        recorded = read_parquet(stored)
    except ResultsError as error:
        yield Difference(stored, what=f"it {str(error).removeprefix(f'{stored} ')}")
        return
    same_writer = same_version and _is_by_this_pyarrow(stored)
    found = list(_compare_cells(stored, recorded, read_parquet(fresh), same_writer))
    if found and not same_version and columns == fresh_columns:
        found = [Difference(stored, what=OTHER_ANALYSIS)]
    yield from found


def _compare_cells(
    path: Path, recorded: pa.Table, fresh: pa.Table, same_writer: bool
) -> Iterator[Difference]:
    if recorded.schema.names != fresh.schema.names:
        yield Difference(path, what=OTHER_VERSION)
        return
    if len(recorded) != len(fresh):
        what = f"{len(recorded)} rows; the runs give {len(fresh)}"
        yield Difference(path, what=what)
        return
    count = 0
    for index, pair in enumerate(zip(recorded.to_pylist(), fresh.to_pylist(), strict=True)):
        for difference in differences(path, *pair, f"row {index + 1}"):
            count += 1
            if count <= MAX_NAMED_CELLS:
                yield difference
    if count > MAX_NAMED_CELLS:
        yield Difference(path, what=f"{count - MAX_NAMED_CELLS} more cells differ")
    if not count and same_writer:
        yield Difference(path, what="its values are right, but its bytes were changed")


def _table_version(path: Path) -> tuple[list[str], bytes | None]:
    """Return a table's columns and by which version of the analysis its values are."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return [], None
    return list(schema.names), (schema.metadata or {}).get(ANALYSIS_KEY)


def _is_by_this_pyarrow(path: Path) -> bool:
    written_by = pq.ParquetFile(pa.BufferReader(read_bytes(path))).metadata.created_by or ""
    return f"version {pa.__version__}" in written_by
