"""The tables on disk: the same bytes for the same runs, and the same values as text."""

import csv
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import TABLE_NAMES, StudyFolder
from results.synthetic import (
    make_plan,
    make_result,
    write_complete_study,
    write_outcome,
    write_plan,
    write_result,
)

SWEPT = ["pytorch.batch_size"]
CONFIGS = [
    {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}} for size in (1, 8)
]


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in TABLE_NAMES}


def test_the_same_runs_give_the_same_bytes_anywhere_at_any_time(tmp_path, plan):
    for name in ("one", "two"):
        write_complete_study(tmp_path / name, plan)
        write_tables(tmp_path / name, partial=False)
        time.sleep(0.01)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    write_tables(tmp_path / "one", partial=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_path_and_no_pandas_in_the_files(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    metadata = pq.read_schema(tmp_path / "runs.parquet").metadata
    named = {b"table_version", b"pyarrow", b"analysis"}
    assert set(metadata) == {b"llenergymeasure." + name for name in named}
    assert metadata[b"llenergymeasure.pyarrow"].decode() == pa.__version__
    for content in contents(tmp_path).values():
        assert str(tmp_path).encode() not in content


def test_partial_tables_are_older_than_any_input_and_whole_ones_are_not(tmp_path, plan):
    write_plan(tmp_path, plan)
    write_result(tmp_path, make_result(plan["runs"][0]))
    write_outcome(tmp_path, plan["runs"][1], status="failed")
    write_tables(tmp_path, partial=True)
    assert {(tmp_path / name).stat().st_mtime for name in TABLE_NAMES} == {86400}
    statuses = read_table(tmp_path, "runs.parquet")["status"].to_pylist()
    assert statuses == ["completed", "failed", *["missing"] * 4]
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    for name in TABLE_NAMES:
        assert time.time() - (tmp_path / name).stat().st_mtime < 60


def test_a_damaged_run_stops_whole_tables_and_is_lost_in_partial_ones(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    row = StudyFolder(tmp_path).run(plan["runs"][2]["experiment"], 2).row
    whole = row.read_bytes()
    row.write_bytes(whole[:-20])
    with pytest.raises(ResultsError, match=str(row)):
        write_tables(tmp_path, partial=False)
    assert not any((tmp_path / name).exists() for name in TABLE_NAMES)
    write_tables(tmp_path, partial=True)
    rows = read_table(tmp_path, "runs.parquet").to_pylist()
    assert (rows[2]["status"], rows[2]["error_class"]) == ("lost", "DamagedRecord")
    assert sum(each["status"] == "completed" for each in rows) == 5
    row.write_bytes(whole)
    write_tables(tmp_path, partial=False)
    assert set(read_table(tmp_path, "runs.parquet")["status"].to_pylist()) == {"completed"}


def test_ids_that_look_like_numbers_survive_the_csv(tmp_path, plan):
    ids = {
        plan["runs"][0]["experiment"]: "123e45678901",
        plan["runs"][1]["experiment"]: "000000000012",
    }
    for run in plan["runs"]:
        run["experiment"] = ids[run["experiment"]]
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    text = (tmp_path / "summary.csv").read_text()
    assert '\n"123e45678901",' in text
    assert '\n"000000000012",' in text
    with (tmp_path / "summary.csv").open(newline="") as stream:
        assert [row["experiment"] for row in csv.DictReader(stream)] == list(ids.values())
    for name in ("runs.parquet", "summary.parquet"):
        assert read_table(tmp_path, name)["experiment"].type == pa.string()


def test_csv_tells_what_the_parquet_tells(tmp_path, plan):
    write_plan(tmp_path, plan)
    for place, run in enumerate(plan["runs"][:5]):
        codes = ["throttled", "undersampled"] if place == 0 else []
        write_result(tmp_path, make_result(run, energy_j=1000.0 + place, validity=codes))
    write_tables(tmp_path, partial=True)
    parquet = read_table(tmp_path, "summary.parquet").to_pylist()
    with (tmp_path / "summary.csv").open(newline="") as stream:
        text = list(csv.DictReader(stream))
    assert text[0]["validity"] == "throttled;undersampled"
    for row, written in zip(parquet, text, strict=True):
        assert list(row) == list(written)
        assert (
            float(written["energy_per_output_token_j_mean"])
            == row["energy_per_output_token_j_mean"]
        )
        assert written["time_to_first_token_p50_s_mean"] == ""
        assert int(written["pytorch.batch_size"]) == row["pytorch.batch_size"]


def test_hostile_text_stays_text(tmp_path):
    nasty = 'a,"b"\n=cmd|x; <script>alert(1)</script> \u202e\U0001f4a5 ünïcödé'
    plan = make_plan([{**CONFIGS[0], "model": nasty}, CONFIGS[1]], SWEPT, cycles=1, study=nasty)
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    assert read_table(tmp_path, "runs.parquet")["model"].to_pylist()[0] == nasty
    with (tmp_path / "summary.csv").open(newline="") as stream:
        shown = nasty.replace("\u202e", "\\u202e")
        assert next(csv.DictReader(stream))["model"] == shown


def test_study_of_which_nothing_ran(tmp_path, plan):
    write_plan(tmp_path, plan)
    write_tables(tmp_path, partial=True)
    assert read_table(tmp_path, "runs.parquet")["status"].to_pylist() == ["missing"] * 6
    summary = read_table(tmp_path, "summary.parquet").to_pylist()
    assert [row["n"] for row in summary] == [0, 0]
    assert [row["n_pending"] for row in summary] == [3, 3]


@pytest.mark.parametrize(
    ("content", "told"), [(None, r"plan\.json is not there"), ("{", "is not JSON")]
)
def test_without_a_plan_it_is_an_error_that_says_so(tmp_path, content, told):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ResultsError, match=told):
        write_tables(tmp_path, partial=False)
