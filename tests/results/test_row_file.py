"""``run.parquet``: what is read is what was written, and what is damaged is named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llenergymeasure.errors import ResultsError
from llenergymeasure.results.record_files import read_run_row, write_run_row
from llenergymeasure.results.table import run_row
from results.synthetic import make_plan, make_result


def one_row(**swept):
    run = make_plan([{"model": "tiny-llama"}], [])["runs"][0]
    return run_row(make_result(run), swept)


def test_row_survives_the_file(tmp_path):
    row = one_row(**{"pytorch.batch_size": 8, "decoder.temperature": 0.7})
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


REALS = st.floats(allow_nan=False, allow_infinity=False) | st.none()
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.none()


@settings(deadline=None)
@given(REALS, TEXTS, st.integers(-(2**63), 2**63 - 1) | st.none(), st.lists(TEXTS, max_size=3))
def test_every_value_survives_the_file(tmp_path_factory, energy_j, model, batches, codes):
    row = one_row() | {"energy_gross_j": energy_j, "model": model, "batches": batches}
    path = tmp_path_factory.mktemp("row") / "run.parquet"
    row |= {"validity": codes, "slo_attained": True}
    write_run_row(path, row)
    assert read_run_row(path) == row
