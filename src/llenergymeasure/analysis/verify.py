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

SHOWN = 20
"""Differing cells named of one table; where one value is wrong, what follows from it is too."""
_OTHER = "another one wrote it, or it was changed; `llem report` writes it again from the runs"
OTHER_VERSION = f"its columns are not those of this version: {_OTHER}"
OTHER_ANALYSIS = f"its values are not those of the analysis of this version: {_OTHER}"


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
    found = Verification(plan.study)
    found.differences += _runs(plan, folder, found)
    found.differences += _tables(study_dir, partial=found.missing > 0)
    return found


def _runs(plan: Plan, folder: StudyFolder, found: Verification) -> Iterator[Difference]:
    for run in plan.runs:
        place = folder.run(run.experiment, run.cycle)
        if not place.result.is_file():
            found.missing += 1
            continue
        found.runs += 1
        found.unhashed += recorded_hash(place) is None
        yield from check_run(place, run.swept)


def _tables(study_dir: Path, *, partial: bool) -> Iterator[Difference]:
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
            yield from _compare(study_dir / table, fresh / table)


def _compare(stands: Path, fresh: Path) -> Iterator[Difference]:
    if not stands.is_file():
        yield Difference(stands, what="it is missing; running the study again makes it")
        return
    if read_bytes(stands) == read_bytes(fresh):
        return
    if stands.suffix != ".parquet":
        # Its values are those of the Parquet table next to it.
        of_stands, of_fresh = (_made_by(each.with_suffix(".parquet")) for each in (stands, fresh))
        what = "its bytes are not what the runs give"
        if of_stands != of_fresh:
            what = OTHER_ANALYSIS if of_stands[0] == of_fresh[0] else OTHER_VERSION
        yield Difference(stands, what=what)
        return
    try:
        recorded = read_parquet(stands)
    except ResultsError as error:
        yield Difference(stands, what=f"it {str(error).removeprefix(f'{stands} ')}")
        return
    same = _made_by(stands) == _made_by(fresh)
    found = list(_cells(stands, recorded, read_parquet(fresh), same and _same_writer(stands)))
    if found and not same:
        found = [each for each in found if each.what == OTHER_VERSION]
        yield from found or [Difference(stands, what=OTHER_ANALYSIS)]
        return
    yield from found


def _cells(
    path: Path, recorded: pa.Table, fresh: pa.Table, same_writer: bool
) -> Iterator[Difference]:
    if recorded.schema.names != fresh.schema.names:
        yield Difference(path, what=OTHER_VERSION)
        return
    if len(recorded) != len(fresh):
        what = f"{len(recorded)} rows; the runs give {len(fresh)}"
        yield Difference(path, what=what)
        return
    found = 0
    for number, pair in enumerate(zip(recorded.to_pylist(), fresh.to_pylist(), strict=True)):
        for each in differences(path, *pair, f"row {number + 1}"):
            found += 1
            if found <= SHOWN:
                yield each
    if found > SHOWN:
        yield Difference(path, what=f"{found - SHOWN} more cells differ")
    if not found and same_writer:
        yield Difference(path, what="its values are right, but its bytes were changed")


def _made_by(path: Path) -> tuple[list[str], bytes | None]:
    """Return a table's columns and by which version of the analysis its values are."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return [], None
    return list(schema.names), (schema.metadata or {}).get(ANALYSIS_KEY)


def _same_writer(path: Path) -> bool:
    written_by = pq.ParquetFile(pa.BufferReader(read_bytes(path))).metadata.created_by or ""
    return f"version {pa.__version__}" in written_by
