"""The time series of a study as one data set."""

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.series import study_series
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import StudyFolder
from results.synthetic import make_plan, write_complete_study, write_plan

CONFIGS = [{"model": "tiny-llama", "pytorch": {"batch_size": size}} for size in (1, 8)]


@pytest.fixture
def plan(tmp_path):
    plan = make_plan(CONFIGS, ["pytorch.batch_size"], cycles=2)
    write_complete_study(tmp_path, plan)
    for run in plan["runs"]:
        folder = StudyFolder(tmp_path).run(run["experiment"], run["cycle"])
        watts = pa.table({"power_w": [100.0 * run["cycle"], 200.0 * run["cycle"]]})
        pq.write_table(watts, folder.samples)
    return plan


def test_sql_asks_all_finished_runs_by_their_names(tmp_path, plan):
    unfinished, *finished = plan["runs"]
    StudyFolder(tmp_path).run(unfinished["experiment"], unfinished["cycle"]).result.unlink()
    samples = study_series(tmp_path, "samples")
    found = duckdb.sql("SELECT experiment, cycle, sum(power_w) FROM samples GROUP BY ALL")
    expected = {(run["experiment"], run["cycle"], 300.0 * run["cycle"]) for run in finished}
    assert {*found.fetchall()} == expected
    second = samples.to_table(filter=ds.field("cycle") == 2)
    assert sorted(second["power_w"].to_pylist()) == [200.0, 200.0, 400.0, 400.0]
    del samples


def test_a_study_of_which_nothing_ran_is_told(tmp_path):
    write_plan(tmp_path, make_plan(CONFIGS, []))
    with pytest.raises(ResultsError, match="no finished run"):
        study_series(tmp_path, "samples")
