import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.report.experiments import table_rows
from llenergymeasure.report.formatting import scale_for
from llenergymeasure.report.plain_text import groups_text, study_text
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.validity_codes import DISQUALIFYING, VALIDITY
from report.studies import SWEPT, config
from results.synthetic import (
    make_plan,
    make_result,
    write_complete_study,
    write_outcome,
    write_plan,
    write_result,
)

CONFIGS = [config(1), config(8)]


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT)


def text_of(folder, *, partial=False):
    write_tables(folder, partial=partial)
    return study_text(folder)


def test_kind_counts_and_figures_are_told(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    text = text_of(tmp_path)
    assert "demo: 6 of 6 runs completed" in text
    assert "Energy: measured by nvml (GPU)" in text
    assert "batch_size=1" in text
    mean = read_table(tmp_path, "summary.parquet")["energy_per_output_token_j_mean"][0].as_py()
    assert f"{mean * 1000:.0f}" in text
    assert "Without a result" not in text


def test_columns_line_up(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    lines = text_of(tmp_path).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("experiment"))
    header, *rows = lines[start : start + 3]
    place = header.index("J/token") + len("J/token")
    assert all(row[place - 1].isdigit() and row[place] == " " for row in rows)


@pytest.mark.parametrize("status", ["missing", "lost"])  # as this version and earlier ones say
def test_a_run_that_never_began_has_no_log(tmp_path, plan, status):
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        folder = StudyFolder(tmp_path).run(run["experiment"], run["cycle"])
        folder.path.mkdir(parents=True)
        folder.outcome.touch()
    assert "missing: NeverBegan" in text_of(tmp_path)
    runs = pq.read_table(tmp_path / "runs.parquet")
    column = runs.schema.get_field_index("status")
    table = runs.set_column(column, "status", [[status] * len(runs)])
    pq.write_table(table, tmp_path / "runs.parquet")
    text = study_text(tmp_path)
    assert f"{status}: NeverBegan" in text
    assert "log: " not in text


def test_failures_say_why_what_to_do_and_where_the_log_is(tmp_path, plan):
    write_plan(tmp_path, plan)
    first, second, *rest = plan["runs"]
    error = {"class": "OutOfMemoryError", "message": "CUDA out of memory"}
    for run in (first, second):
        write_outcome(tmp_path, run, status="failed", phase="load", error=error)
    for run in rest[:-1]:
        write_result(tmp_path, make_result(run))
    text = text_of(tmp_path, partial=True)
    assert "3 of 6 runs completed" in text
    assert "2 runs failed in load: OutOfMemoryError: CUDA out of memory" in text
    assert "lower the batch size" in text
    assert f"runs/{first['experiment']}/1/run.log" in text
    assert "1 run missing" in text


def test_study_of_which_nothing_ran_says_so(tmp_path, plan):
    write_plan(tmp_path, plan)
    text = text_of(tmp_path, partial=True)
    assert "0 of 6 runs completed" in text
    assert "No run completed: there is no energy to report." in text


def test_flags_say_which_runs_are_left_out(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    codes = [min(DISQUALIFYING), min(VALIDITY.keys() - DISQUALIFYING)]
    write_result(tmp_path, make_result(plan["runs"][0], validity=codes))
    text = text_of(tmp_path)
    assert f"{codes[0]} (1 run, left out)" in text
    assert f"{codes[1]} (1 run)" in text
    assert "1 left out of the means" in text


def test_no_text_of_a_run_reaches_the_terminal_raw(tmp_path, plan):
    write_plan(tmp_path, {**plan, "study": "demo\x1b]0;owned\x07"})
    error = {"class": "E\x1b[2J", "message": "line\r\nover\x1b[31m\u202e"}
    write_outcome(tmp_path, plan["runs"][0], status="failed", phase="lo\nad", error=error)
    text = text_of(tmp_path, partial=True)
    assert all(line.isprintable() for line in text.splitlines())


def test_a_summary_of_an_older_version_is_told_as_far_as_it_goes(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    path = tmp_path / "summary.parquet"
    new = ("comparison_group", "not_comparable", "carbon_per_1000_requests_gco2e_mean")
    pq.write_table(pq.read_table(path).drop_columns(list(new)), path)
    assert "6 of 6 runs completed" in study_text(tmp_path)


def test_long_studies_stay_short(tmp_path):
    plan = make_plan([config(size) for size in range(1, 101)], SWEPT, cycles=1)
    write_plan(tmp_path, plan)
    for place, run in enumerate(plan["runs"]):
        error = {"class": "E", "message": f"message {place}"}
        write_outcome(tmp_path, run, status="failed", error=error)
    write_tables(tmp_path, partial=True)
    text = study_text(tmp_path)
    assert "and 40 more in summary.csv" in text
    assert "more reasons" in text
    assert len(text.splitlines()) < 130


def test_a_number_has_the_digits_of_the_page(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    words = text_of(tmp_path).split()
    scale = scale_for([1.0], "J")
    for row in table_rows(read_table(tmp_path, "summary.parquet").to_pylist(), scale, scale):
        for name in ("per_request", "power", "speed"):
            assert row[name].split()[0] in words


def test_a_group_s_values_read_as_the_study_file_has_them():
    columns = {"rate": [1.0, 32.0], "compiled": [False, None], "experiments": [1, 1], "n": [2, 2]}
    metric = {f"energy_j_{part}": [1.0, 2.0] for part in ("mean", "ci95_low", "ci95_high")}
    others = ("n_disqualified", "n_not_observed", "n_failed")
    method = {"interval_method": ["cycles"] * 2, "interval_unavailable": [None] * 2}
    table = pa.table({**columns, **metric, **method, **{name: [0, 0] for name in others}})
    lines = groups_text(table, ["rate", "compiled"], "energy_j").splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [["1", "false"], ["32", "-"]]
