"""``run.parquet``: what is read is what was written, and what is damaged is named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.errors import ResultsError
from llenergymeasure.results.record_files import read_run_row, write_run_row
from llenergymeasure.results.table import run_row
from results.synthetic import make_plan, make_result


def one_row(**swept):
    run = make_plan([{"model": "tiny-llama"}], [])["runs"][0]
    return run_row(make_result(run), swept)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"energy_gross_j": 5e-324, "batches": -(2**63), "validity": []},
        {"energy_gross_j": -1.7976931348623157e308, "batches": 2**63 - 1, "model": ""},
        {"energy_gross_j": None, "batches": None, "model": None, "validity": None},
        {"model": "\x00 ü\n\U0001f4a5\u202e", "validity": ["", None, "ü"], "slo_attained": True},
    ],
    ids=["usual", "least", "most", "none", "odd text"],
)
def test_every_value_survives_the_file(tmp_path, odd):
    row = one_row(**{"pytorch.batch_size": 8, "decoder.temperature": 0.7}) | odd
    write_run_row(tmp_path / "run.parquet", row)
    assert pq.read_table(tmp_path / "run.parquet").to_pylist() == [row]
    assert read_run_row(tmp_path / "run.parquet") == row


@pytest.mark.parametrize("content", [b"PAR1 cut short", None])
def test_damaged_row_names_the_file(tmp_path, content):
    path = tmp_path / "run.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultsError, match=r"run\.parquet cannot be read"):
        read_run_row(path)


def test_a_file_of_two_rows_is_no_run(tmp_path):
    path = tmp_path / "run.parquet"
    pq.write_table(pa.table({"experiment": ["abc", "abd"]}), path)
    with pytest.raises(ResultsError, match="holds 2 rows"):
        read_run_row(path)
