"""A study's tables, made again from its runs and compared byte for byte."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.analysis.verify.difference import Difference, differences
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes
from llenergymeasure.parquet import read_parquet
from llenergymeasure.results.layout import TABLE_NAMES, StudyFolder

SHOWN = 20
"""Differing cells named of one table; where one value is wrong, what follows from it is too."""
OTHER_VERSION = (
    "its columns are not those of this version: another one wrote it, or it was changed; "
    "`llem report` writes it again from the runs"
)


def check_tables(study_dir: Path, *, partial: bool) -> Iterator[Difference]:
    """Yield what in a study's tables is not what its runs give.

    Nothing in the study's folder is changed. The same version of pyarrow gives the same bytes;
    another one may lay out the same values differently, and then values are compared.
    """
    with tempfile.TemporaryDirectory(prefix="llem-verify-") as name:
        fresh = Path(name)
        shutil.copyfile(StudyFolder(study_dir).plan, fresh / "plan.json")
        # A copy of the plan next to the same runs, and no memory of an earlier merge.
        (fresh / "runs").symlink_to((study_dir / "runs").resolve(), target_is_directory=True)
        try:
            write_tables(fresh, partial=partial)
        except ResultsError as error:
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
        other = _columns(stands.with_suffix(".parquet")) != _columns(fresh.with_suffix(".parquet"))
        what = OTHER_VERSION if other else "its bytes are not what the runs give"
        yield Difference(stands, what=what)
        return
    try:
        recorded = read_parquet(stands)
    except ResultsError as error:
        yield Difference(stands, what=f"it {str(error).removeprefix(f'{stands} ')}")
        return
    yield from _cells(stands, recorded, read_parquet(fresh), same_writer=_same_writer(stands))


def _cells(
    path: Path, recorded: pa.Table, fresh: pa.Table, *, same_writer: bool
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


def _columns(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def _same_writer(path: Path) -> bool:
    written_by = pq.ParquetFile(pa.BufferReader(read_bytes(path))).metadata.created_by or ""
    return f"version {pa.__version__}" in written_by
