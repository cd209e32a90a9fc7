"""``run.parquet``: what is read is what was written; a copy that no longer holds is not read."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llenergymeasure.errors import ResultsError
from llenergymeasure.results.row_file import (
    read_run_row,
    read_written_row,
    row_content,
    write_run_row,
)
from llenergymeasure.results.table import RUN_SCHEMA, run_row
from results.synthetic import make_plan, make_result


def one_row(**swept):
    run = make_plan([{"model": "tiny-llama"}], [])["runs"][0]
    return run_row(make_result(run), swept)


def test_row_survives_the_file(tmp_path):
    row = one_row(**{"pytorch.batch_size": 8, "decoder.temperature": 0.7})
    write_run_row(tmp_path / "run.parquet", row)
    assert pq.read_table(tmp_path / "run.parquet").to_pylist() == [row]
    fixed = {name: row[name] for name in RUN_SCHEMA.names}
    assert read_run_row(tmp_path / "run.parquet") == fixed


def test_damaged_row_names_the_file(tmp_path):
    path = tmp_path / "run.parquet"
    path.write_bytes(b"PAR1 cut short")
    with pytest.raises(ResultsError, match=r"run\.parquet cannot be read"):
        read_run_row(path)


def test_row_of_an_older_version_reads_with_nulls(tmp_path):
    path = tmp_path / "run.parquet"
    pq.write_table(pa.table({"experiment": ["abc"], "cycle": pa.array([1], pa.int32())}), path)
    row = read_run_row(path)
    assert list(row) == RUN_SCHEMA.names
    assert row["cycle"] == 1
    assert row["energy_gross_j"] is None


def test_column_of_another_type_is_an_error(tmp_path):
    path = tmp_path / "run.parquet"
    pq.write_table(pa.table({"experiment": ["abc"], "cycle": ["first"]}), path)
    with pytest.raises(ResultsError, match="column cycle"):
        read_run_row(path)


def columns(path):
    """Return the row as the columns have it, without the copy."""
    table = read_written_row(path)
    return {name: table[name][0].as_py() for name in RUN_SCHEMA.names}


REALS = st.floats(allow_nan=False, allow_infinity=False) | st.none()
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.none()


@settings(deadline=None)
@given(REALS, TEXTS, st.integers(-(2**63), 2**63 - 1) | st.none(), st.lists(TEXTS, max_size=3))
def test_the_copy_and_the_columns_are_the_same(tmp_path_factory, energy_j, model, batches, codes):
    row = one_row() | {"energy_gross_j": energy_j, "model": model, "batches": batches}
    path = tmp_path_factory.mktemp("row") / "run.parquet"
    write_run_row(path, row | {"validity": codes, "slo_attained": True})
    assert read_run_row(path) == columns(path)


def test_a_column_changed_by_somebody_else_is_read_from_the_columns(tmp_path):
    path = tmp_path / "run.parquet"
    write_run_row(path, one_row())
    table = pq.read_table(path)
    place = table.column_names.index("energy_gross_j")
    changed = table.set_column(place, "energy_gross_j", pc.add(table["energy_gross_j"], 1.0))
    assert changed.schema.metadata == table.schema.metadata, "the copy is still there"
    pq.write_table(changed, path)
    assert read_run_row(path)["energy_gross_j"] == table["energy_gross_j"][0].as_py() + 1.0


def test_no_changed_byte_gives_another_row_in_silence(tmp_path):
    path = tmp_path / "run.parquet"
    content = row_content(one_row())
    path.write_bytes(content)
    sound = read_run_row(path)
    for place in range(4, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x20]) + content[place + 1 :])
        try:
            found = read_run_row(path)
        except ResultsError:
            continue
        if found != sound:
            assert found == columns(path)


def test_a_copy_for_other_columns_is_not_read(tmp_path):
    path = tmp_path / "run.parquet"
    content = row_content(one_row())
    place = content.rindex(b"row of schema ") + len(b"row of schema ")
    path.write_bytes(content[:place] + b"00000000" + content[place + 8 :])
    assert read_run_row(path) == columns(path)
