"""A results folder that somebody else has prepared: whatever stands in it, nobody waits for it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure import parquet
from llenergymeasure.analysis.tables import read_plan, read_table
from llenergymeasure.errors import LlemError, ResultsError
from llenergymeasure.files import READ_LIMIT_BYTES, sha256
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import RUNS_NAME, RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.results.row_file import read_run_row
from llenergymeasure.results.whole import is_whole
from llenergymeasure.workflow.last_call import recall
from llenergymeasure.workflow.manifest import run_state
from support.memory import memory_peak

MOST_BYTES = 500_000_000


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(READ_LIMIT_BYTES + 1)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


ODD = pytest.mark.parametrize("make", [pipe, device, huge, deep])


@ODD
def test_in_the_place_of_a_run_s_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    run = RunFolder(tmp_path / "runs" / "0123456789ab" / "1")
    run.path.mkdir(parents=True)
    make(run.result)
    assert not is_whole(run)
    assert run_state(run)["status"] == "lost"
    run.result.unlink()
    make(run.outcome)
    with suppress(OSError):  # said in one line
        assert read_outcome(run.outcome).status == "lost"


@ODD
def test_in_the_place_of_a_study_s_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = StudyFolder(tmp_path)
    make(folder.plan)
    with pytest.raises(ResultsError):
        Plan.read(folder.plan)
    with pytest.raises((ResultsError, OSError)):
        read_plan(folder.plan)
    make(tmp_path / RUNS_NAME)
    with pytest.raises(ResultsError):
        read_table(tmp_path, RUNS_NAME)
    make(tmp_path / ".call.json")
    with suppress(LlemError):
        assert recall(folder) is None


@pytest.mark.parametrize("make", [pipe, device])
def test_nothing_without_an_end_is_hashed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "samples.parquet")
    with pytest.raises(OSError, match="no file that can be read"):
        sha256(tmp_path / "samples.parquet")


def test_a_small_table_that_says_much_is_not_read_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary says the same text for ever; so do runs of one number."""
    count = 1_000_000
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), ["x" * 100_000])
    path = tmp_path / RUNS_NAME
    for column in (texts, pa.array([["a", "x" * 100_000]] * 300)):
        pq.write_table(pa.table({"experiment": column}), path, compression="zstd")
        assert path.stat().st_size < 100_000
        monkeypatch.setattr(parquet, "READ_LIMIT_BYTES", 25_000_000)
        with memory_peak() as peak, pytest.raises(ResultsError, match="is not read"):
            read_table(tmp_path, RUNS_NAME)
        assert peak.grown_bytes < MOST_BYTES
    pq.write_table(pa.table({"energy_j": pa.array([1.0] * 5_000_000)}), path)
    with pytest.raises(ResultsError, match="is not read"):
        read_table(tmp_path, RUNS_NAME)
    with pytest.raises(ResultsError, match="holds 5000000 rows"):
        read_run_row(path)


def test_a_large_table_of_texts_in_lists_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several row groups, with texts of few kinds and of more than a dictionary holds."""
    few = [["a", "b"], [], None, ["a"]] * 2_500
    many = [[f"note {number} " + "x" * 300] for number in range(10_000)]
    table = pa.table({"experiment": ["id"] * 10_000, "validity": few, "notes": many})
    path = tmp_path / "large.parquet"
    pq.write_table(table, path, row_group_size=4_000)
    monkeypatch.setattr(parquet, "READ_LIMIT_BYTES", 25_000_000)
    assert parquet.read_parquet(path).equals(table)
