"""One row for every planned run: the record's, or how the run ended without one."""

import shutil

import pyarrow as pa
import pytest

from llenergymeasure.analysis.merge import flag_start_temperatures, merge_runs
from llenergymeasure.energy.footprint import SiteFactors, footprint
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.columns import RUN_SCHEMA
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.record import Quality
from results.synthetic import (
    change_record,
    make_plan,
    make_result,
    write_complete_study,
    write_outcome,
    write_plan,
    write_result,
    write_runs,
)

SWEPT = ["precision", "pytorch.batch_size", "decoder.temperature"]
CONFIGS = [
    {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": 1}},
    {
        "model": "tiny-llama",
        "precision": "fp32",
        "pytorch": {"batch_size": 8},
        "decoder": {"temperature": 0.7},
    },
]


@pytest.fixture
def plan():
    return make_plan(CONFIGS, SWEPT)


def test_every_planned_run_is_a_row_in_the_order_of_this_plan(tmp_path, plan):
    write_runs(tmp_path, {**plan, "runs": [{**run, "order": 77} for run in plan["runs"]]})
    runs = merge_runs({**plan, "runs": plan["runs"][::-1]}, tmp_path)
    assert runs["order"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert runs["experiment"].to_pylist() == [run["experiment"] for run in plan["runs"]]
    assert runs["cycle"].to_pylist() == [run["cycle"] for run in plan["runs"]]
    assert set(runs["status"].to_pylist()) == {"completed"}


def test_swept_settings_are_columns_with_their_types(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    runs = merge_runs(plan, tmp_path)
    assert runs.column_names == [*RUN_SCHEMA.names, "pytorch.batch_size", "decoder.temperature"]
    assert runs["pytorch.batch_size"].type == pa.int64()
    assert runs["pytorch.batch_size"].to_pylist() == [1, 8] * 3
    assert runs["decoder.temperature"].to_pylist() == [None, 0.7] * 3
    assert runs["precision"].to_pylist() == ["bf16", "fp32"] * 3


def test_run_without_result_says_how_it_ended(tmp_path, plan):
    write_plan(tmp_path, plan)
    failed, interrupted, empty, gone, _, fine = plan["runs"]
    error = {"class": "OutOfMemoryError", "message": "CUDA out of memory"}
    write_outcome(tmp_path, failed, status="failed", phase="load", error=error, attempt=2)
    write_outcome(tmp_path, interrupted, status="interrupted", phase="warmup")
    folder = StudyFolder(tmp_path)
    outcome = folder.run(empty["experiment"], empty["cycle"]).outcome
    outcome.parent.mkdir(parents=True)
    outcome.touch()
    write_outcome(tmp_path, gone, status="completed", exit_code=0)
    write_result(tmp_path, make_result(fine))
    rows = merge_runs(plan, tmp_path).to_pylist()
    statuses = ["failed", "interrupted", "missing", "lost", "missing", "completed"]
    assert [row["status"] for row in rows] == statuses
    assert (rows[0]["phase"], rows[0]["error_class"]) == ("load", "OutOfMemoryError")
    assert (rows[0]["error_message"], rows[0]["attempt"]) == ("CUDA out of memory", 2)
    assert rows[3]["error_class"] == "RecordGone"
    assert [row["energy_gross_j"] for row in rows] == [None] * 5 + [1000.0]
    assert all(row["pytorch.batch_size"] in {1, 8} for row in rows)


def test_folder_that_the_plan_does_not_know_is_not_merged(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    stranger = {**plan["runs"][0], "experiment": "0123456789ab"}
    write_result(tmp_path, make_result(stranger))
    assert "0123456789ab" not in merge_runs(plan, tmp_path)["experiment"].to_pylist()


def test_record_of_another_run_is_not_taken(tmp_path, plan):
    write_complete_study(tmp_path, plan)
    folder = StudyFolder(tmp_path)
    first, second = plan["runs"][:2]
    shutil.copy(folder.run(first["experiment"], 1).row, folder.run(second["experiment"], 1).row)
    with pytest.raises(ResultsError, match="not those that result"):
        merge_runs(plan, tmp_path)


def test_carbon_and_cost_are_by_what_the_plan_declares_not_by_what_runs_knew(tmp_path, plan):
    for number, run in enumerate(plan["runs"]):
        result = make_result(run)
        then = footprint(result.energy, SiteFactors(grid_gco2e_per_kwh=400.0 + number))
        energy = result.energy.model_copy(update={"footprint": then})
        write_result(tmp_path, result.model_copy(update={"energy": energy}))
    undeclared = merge_runs(plan, tmp_path)
    for name in ("carbon_per_1000_requests_gco2e", "cost_per_1000_requests", "cost_currency"):
        assert undeclared[name].null_count == len(plan["runs"])
    carbon = {"grid_gco2e_per_kwh": 50.0, "pue": 2.0, "price_per_kwh": 0.3, "currency": "EUR"}
    rows = merge_runs({**plan, "sections": {"carbon": carbon}}, tmp_path).to_pylist()
    for row in rows:
        site_kwh = 2.0 * 1000 * row["energy_per_request_j"] / 3.6e6
        assert row["carbon_per_1000_requests_gco2e"] == pytest.approx(50 * site_kwh)
        assert row["cost_per_1000_requests"] == pytest.approx(0.3 * site_kwh)
        assert row["cost_currency"] == "EUR"


def test_plan_of_no_runs_gives_an_empty_table(tmp_path, plan):
    runs = merge_runs({**plan, "runs": []}, tmp_path)
    assert runs.num_rows == 0
    assert runs.column_names[: len(RUN_SCHEMA)] == RUN_SCHEMA.names


def test_something_else_than_a_plan_is_an_error(tmp_path):
    with pytest.raises(ResultsError, match="lacks 'runs'"):
        merge_runs({"study": "demo"}, tmp_path)


def test_more_runs_than_one_batch(tmp_path, plan, monkeypatch):
    monkeypatch.setattr("llenergymeasure.analysis.merge.BATCH_RUNS", 2)
    write_plan(tmp_path, plan)
    statuses = ["completed", "missing", "completed", "completed", "missing", "lost"]
    for run, status in zip(plan["runs"], statuses, strict=True):
        if status != "missing":
            write_result(tmp_path, make_result(run))
    StudyFolder(tmp_path).run(run["experiment"], run["cycle"]).row.unlink()
    runs = merge_runs(plan, tmp_path, tolerant=True)
    assert runs["order"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert runs["status"].to_pylist() == statuses


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_record_of_a_later_version_is_refused(tmp_path, plan, tolerant):
    write_complete_study(tmp_path, plan)
    run = StudyFolder(tmp_path).run(plan["runs"][0]["experiment"], 1)
    change_record(run, "schema_version", 99)
    with pytest.raises(ResultsError, match=r"record version 99; this program reads up to 1$"):
        merge_runs(plan, tmp_path, tolerant=tolerant)


def judged(folder, judges, **scores):
    """Return the merged runs of a study whose answers were judged so, one run after the other."""
    plan = make_plan([{"model": "tiny-llama"}], [], cycles=len(judges))

    def made(run):
        return {
            "quality": Quality(**scores, **judges[run["cycle"] - 1]),
            "provenance": {"recording": {"started_at": f"2026-01-0{run['cycle']}T00:00:00+00:00"}},
        }

    write_runs(folder, plan, made)
    return merge_runs(plan, folder)


def test_a_judge_is_the_same_wherever_its_file_lies(tmp_path):
    """A folder that moved took the quality of all runs but the last from the tables."""
    judges = [
        {"command": ["python3", f"{where}/judge.py", f"--data={data}/d.json", word], "tasks": tasks}
        for where, data, word, tasks in (
            ("/old", "/old", "word", ["a", "b"]),
            ("/new", "/new", "word", ["b", "a"]),
            ("/x", "/new", "[removed]", ["a", "b"]),
            ("/new", "/new", "word", ["a", "b"]),
        )
    ]
    runs = judged(tmp_path, judges, score=0.5)
    assert runs["quality_score"].to_pylist() == [0.5] * 4
    assert runs["validity"].to_pylist() == [[]] * 4


def test_scores_of_another_judge_than_the_last_runs_are_in_no_table(tmp_path):
    judges = [
        {"texts_sha256": "a" * 64, "command": ["old.sh"]},
        {"texts_sha256": "b" * 64, "command": ["old.sh"]},
        {"texts_sha256": "b" * 64, "tasks": ["llem-small"]},
    ]
    runs = judged(tmp_path, judges, perplexity=9.0, score=0.5, correct=1, items=2)
    assert runs["perplexity"].to_pylist() == [None, 9.0, 9.0]
    for name in ("quality_score", "quality_correct", "quality_items"):
        assert [value is None for value in runs[name].to_pylist()] == [True, True, False]
    assert runs["validity"].to_pylist() == [["quality_unavailable"]] * 2 + [[]]


# A run that began warmer or cooler than the study's others on its card is marked.

COLUMNS = ("host", "gpu_uuid", "kind", "start_temperature_celsius", "validity")
DRIFT = "temperature_drift"


def began(*celsius, card="GPU-1", host="a", kind="measured", validity=()):
    """Return the columns of runs that began at these temperatures."""
    return [
        dict(zip(COLUMNS, (host, card, kind, each, list(validity)), strict=True))
        for each in celsius
    ]


@pytest.mark.parametrize(
    ("rows", "marked"),
    [
        (began(42.0, 38.0, 42.0, 41.0, 42.0), {1: [DRIFT]}),
        (began(42.0, 46.0, 42.0, 41.0, 42.0), {1: [DRIFT]}),
        (began(42.0, 39.0, 42.0, 41.0, 42.0), {}),
        (began(42.0, 45.0, 42.0, 41.0, 42.0), {}),
        (began(60.0, 60.0) + began(35.0, 35.0, card="GPU-2") + began(35.0, 35.0, host="b"), {}),
        (began(40.0, 40.0) + began(50.0, validity=["throttled"]), {2: [DRIFT, "throttled"]}),
        (began(40.0, 40.0) + began(50.0, validity=[DRIFT]), {2: [DRIFT]}),
        (began(40.0, 40.0, None) + began(50.0, kind="estimated"), {}),
    ],
    ids=[
        *("4 below", "4 above", "3 below", "3 above", "each card by itself"),
        *("other codes stay", "marked already", "not measured"),
    ],
)
def test_more_than_three_degrees_from_the_median_are_marked(rows, marked):
    schema = pa.schema([RUN_SCHEMA.field(name) for name in COLUMNS])
    found = flag_start_temperatures(pa.Table.from_pylist(rows, schema=schema))
    assert {n: codes for n, codes in enumerate(found["validity"].to_pylist()) if codes} == marked


def test_the_table_marks_the_run(tmp_path):
    plan = make_plan([{"model": "tiny-llama"}], [], cycles=3)

    def made(run):
        gpu = {"uuid": "GPU-1", "start_temperature_celsius": (30.0, 41.0, 42.0)[run["cycle"] - 1]}
        return {"environment": {"gpus": [gpu], "host": "a"}}

    write_runs(tmp_path, plan, made)
    assert merge_runs(plan, tmp_path)["validity"].to_pylist() == [[DRIFT], [], []]
