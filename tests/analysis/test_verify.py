"""Every figure of a study follows from what was recorded, or `llem verify` says which does not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cli.commands import Call
from llenergymeasure.analysis.recompute import check_run
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.analysis.verify import OTHER_ANALYSIS, verify_study
from llenergymeasure.files import sha256
from llenergymeasure.plan import make_plan
from llenergymeasure.report.page import write_report
from llenergymeasure.results.complete import Difference, is_complete
from llenergymeasure.results.layout import TABLE_NAMES, RunFolder, StudyFolder
from llenergymeasure.workflow.open_study import prepare
from llenergymeasure.workload.load_study import load_study
from report.studies import without_drawing
from results.synthetic import change_record, vouch_again
from support.studies import ROOT, SERVED, environment, write_study

SETTINGS = {
    "experiments": [SERVED, {"backend": "pytorch"}],
    "carbon": {"grid_gco2e_per_kwh": 300, "pue": 1.2, "source": "given"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of a server's run and of one of batches, with its tables and its report."""
    folder = tmp_path_factory.mktemp("finished")
    study = make_plan(load_study(write_study(folder, **SETTINGS)))
    results = StudyFolder(folder / "results" / "small")
    prepare(study, results)
    for run in study.runs:
        script = str(ROOT / "scripts" / f"measure_{run.backend}.py")
        out = results.run(run.experiment, run.cycle).path
        which = ["--spec", str(results.plan), "--run", f"{run.experiment}/{run.cycle}"]
        words = [sys.executable, script, *which, "--out", str(out)]
        subprocess.run(words, env=environment(), check=True)
    write_tables(results.path, partial=False)
    write_report(results.path, partial=False)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy" / "results" / "small"


def a_run(study: Path, backend: str = "openai") -> RunFolder:
    runs = (RunFolder(path) for path in study.glob("runs/*/1"))
    (run,) = [run for run in runs if json.loads(run.result.read_text())["backend"] == backend]
    return run


def keep_hash(run: RunFolder) -> None:
    """Let the outcome hold the record's hash as it now is."""
    outcome = json.loads(run.outcome.read_text())
    run.outcome.write_text(json.dumps({**outcome, "result_sha256": sha256(run.result)}))


def vouch(run: RunFolder) -> None:
    """Let the record vouch for its siblings as they now are."""
    vouch_again(run)
    keep_hash(run)


def set_column(path: Path, name: str, change: Callable[[pa.ChunkedArray], Any]) -> None:
    """Change a column of a table, as who knows the format would."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    field = table.schema.field(place)
    values = pa.array(change(table[name]), field.type)
    changed = table.set_column(place, field, values)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def figures(found: list[Difference]) -> set[str]:
    return {f"{each.file.name}:{each.figure}" for each in found}


def test_a_sound_study(study: Path) -> None:
    found = verify_study(study)
    assert (found.runs, found.missing, found.differences) == (2, 0, [])
    run = a_run(study)
    gpus = [{"start_temperature_celsius": None}]  # as of a card that is known by no UUID
    change_record(run, "environment.gpus", gpus)
    keep_hash(run)
    assert not list(check_run(run, {}))
    record = json.loads(run.result.read_text())
    del record["provenance"]["energy_devices"]  # as of before they were kept
    run.result.write_text(json.dumps(record))
    keep_hash(run)
    assert not list(check_run(run, {}))


@pytest.mark.parametrize(("key", "value"), [("known_sensors", ["x"]), ("energy_method", "six")])
def test_a_record_of_another_form_is_said_in_a_line(study: Path, key: str, value: Any) -> None:
    run = a_run(study)
    change_record(run, f"provenance.{key}", value)
    keep_hash(run)
    (found,) = check_run(run, {})
    assert "its figures cannot be recomputed" in str(found)


def test_a_row_is_held_to_the_sweep_of_its_time(study: Path) -> None:
    run = a_run(study)
    assert [str(each) for each in check_run(run, {"pytorch.use_cache": True})] == []


def test_a_sample_that_was_changed(study: Path) -> None:
    run = a_run(study)
    is_power = pc.equal(pq.read_table(run.samples)["quantity"].cast("string"), "power_model_w")
    set_column(
        run.samples,
        "value",
        lambda values: pc.if_else(is_power, pc.multiply(values, 2), values).to_pylist(),
    )
    assert "samples.parquet:sha256" in figures(verify_study(study).differences)
    vouch(run)  # by who can hash too
    found = figures(verify_study(study).differences)
    assert {"result.json:energy.gross_j", "result.json:energy.per_output_token_j"} <= found
    assert "samples.parquet:sha256" not in found


@pytest.mark.parametrize(
    "figure",
    [
        "energy.gross_j",
        "energy.footprint.carbon_gco2e",
        "energy.readings[0].gross_j",
        "tokens.output",
        "performance.request_latency_p95_s",
    ],
)
def test_a_figure_of_the_record(study: Path, figure: str) -> None:
    run = a_run(study)
    change_record(run, figure, 12345)
    assert not is_complete(run)
    found = figures(verify_study(study).differences)
    assert {"result.json:sha256", f"result.json:{figure}"} <= found


def test_a_headline_that_another_version_added_up_is_said_once(study: Path) -> None:
    run = a_run(study)
    change_record(run, "energy.readings[0].headline", False)
    change_record(run, "energy.gross_j", 12345)
    keep_hash(run)
    (found,) = [each for each in check_run(run, {}) if each.figure.startswith("energy.")]
    assert "an earlier version" in str(found)
    change_record(run, "provenance.energy_method", 5)
    earlier = [each for each in check_run(run, {}) if each.figure.startswith("energy.")]
    assert [str(each) for each in earlier if each.figure == "energy.scopes"] == [str(found)]
    assert not [each for each in earlier if each.figure == "energy.gross_j"]
    change_record(run, "provenance.energy_method", 6)
    change_record(run, "energy.readings[0].gross_j", 12345)
    assert "result.json:energy.readings[0].gross_j" in figures([*check_run(run, {})])


def test_a_record_whose_hash_was_not_kept_is_valid_and_said(study: Path, call: Call) -> None:
    run = a_run(study)
    outcome = json.loads(run.outcome.read_text())
    del outcome["result_sha256"]
    run.outcome.write_text(json.dumps(outcome))
    found = verify_study(study)
    assert (found.differences, found.unhashed) == ([], 1)
    done = call("verify", str(study))
    assert done.code == 0
    assert "small: no hash was kept of 1 of 2 runs" in done.err


def test_a_record_of_a_later_version_is_refused(
    study: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(study)
    change_record(run, "schema_version", 99)
    keep_hash(run)
    said = f"{run.result}: has record version 99; this program reads up to 1"
    for command in ("verify", "report", "status"):
        done = call(command, str(study))
        assert (done.code, done.err) == (1, f"llem: {said}\n"), command
    monkeypatch.chdir(study.parents[1])
    done = call("run", "study.yaml")
    assert done.code == 1
    assert "has record version 99" in done.err


def test_the_row_beside_the_record(study: Path) -> None:
    run = a_run(study)
    set_column(run.row, "output_tokens", lambda _: [7])
    vouch(run)
    assert "run.parquet:output_tokens" in figures(verify_study(study).differences)


def test_the_report_is_made_anew_with_the_same_tables(
    study: Path, finished: Path, call: Call
) -> None:
    for each in (*TABLE_NAMES, "report.html"):
        (study / each).unlink()
    found = verify_study(study).differences
    assert {each.file.name for each in found} == set(TABLE_NAMES)
    done = call("report", str(study))
    assert done.code == 0, done.err
    assert done.out.strip().endswith("report.html")
    original = finished / "results" / "small"
    for name in (*TABLE_NAMES, "report.html"):
        assert (study / name).read_bytes() == (original / name).read_bytes(), name


def test_a_run_that_is_missing_is_no_difference_and_makes_the_report_older_than_any_input(
    study: Path, call: Call
) -> None:
    shutil.rmtree(a_run(study).path)
    found = verify_study(study)
    assert (found.runs, found.missing) == (1, 1)
    assert {each.file.name for each in found.differences} <= set(TABLE_NAMES)
    with without_drawing():
        done = call("report", str(study))
    assert done.code == 0, done.err
    assert (study / "report.html").stat().st_mtime == 86_400
    assert "1 of 2 runs completed" in (study / "report.html").read_text()


@pytest.mark.parametrize("other", [False, True])
def test_tables_of_another_versions_analysis_are_called_that(study: Path, other: bool) -> None:
    """What it worked out otherwise is no change; what it worked out alike is as it was."""
    if other:
        set_column(study / "summary.parquet", "n", lambda _: [9, 9])
    for name in ("summary.parquet", "pareto.parquet"):
        table = pq.read_table(study / name)
        pq.write_table(table.replace_schema_metadata(None), study / name)
    found = verify_study(study).differences
    assert [(each.file.name, each.what) for each in found] == [
        ("summary.parquet", OTHER_ANALYSIS)
    ] * other
    (study / "summary.csv").write_text("another's")
    assert OTHER_ANALYSIS in {each.what for each in verify_study(study).differences}


def test_a_cell_of_a_table(study: Path) -> None:
    set_column(study / "summary.parquet", "n", lambda _: [9, 9])
    found = figures(verify_study(study).differences)
    assert {"summary.parquet:row 1.n", "summary.parquet:row 2.n"} <= found


def test_the_bytes_of_a_table_whose_values_are_right(study: Path) -> None:
    path = study / "pareto.parquet"
    pq.write_table(pq.read_table(path), path, compression="gzip")
    (found,) = verify_study(study).differences
    assert (found.file, found.what) == (path, "its values are right, but its bytes were changed")


@pytest.mark.parametrize(
    ("server", "missing"),
    [
        (SERVED["openai"], {"result.json:validity"}),
        ({"base_url": "http://127.0.0.1:8000/v1"}, set()),
    ],
    ids=["the run's own", "another's"],
)
def test_a_server_that_is_not_the_runs_makes_no_strangers(
    study: Path, server: dict[str, Any], missing: set[str]
) -> None:
    run = a_run(study)
    rows = pq.read_table(run.samples).to_pylist()
    every = {row["t_ns"]: row["value"] for row in rows if row["quantity"] == "cpu_total_s"}
    worked = [  # all CPUs, and not for this process
        every[row["t_ns"]] if row["quantity"] == "cpu_busy_s" else row["value"] for row in rows
    ]
    set_column(run.samples, "value", lambda _: worked)
    record = json.loads(run.result.read_text())
    record["validity"] = [code for code in record["validity"] if code != "cpu_contended"]
    record["config"]["openai"] = server
    run.result.write_text(json.dumps(record))
    vouch(run)
    found = [*check_run(run, {})]
    assert not [each for each in found if each.figure == ""]  # all could be computed again
    assert figures(found) & {"result.json:validity"} == missing


def test_tokens_that_an_earlier_version_counted_as_they_came_are_held_to_that(study: Path) -> None:
    run = a_run(study)
    tokens = json.loads(run.result.read_text())["tokens"]
    came = tokens["output_came"]
    change_record(run, "tokens", {**tokens, "output_came": None, "output": came})
    assert not [each.figure for each in check_run(run, {}) if each.figure.startswith("tokens")]
    change_record(run, "tokens.output", came + 4)
    assert "result.json:tokens.output" in figures([*check_run(run, {})])
    change_record(run, "tokens.output", came)
    change_record(run, "tokens.input", 10_000)
    found = figures([*check_run(run, {})])
    assert "result.json:tokens.input" not in found  # taken from the record
    assert "result.json:performance.total_tokens_per_s" in found


def test_a_window_without_an_answer_s_end_was_one_without_requests_in_earlier_versions(
    study: Path,
) -> None:
    """Their records have no requests a second and no joules a request there."""
    run = a_run(study)
    end_ns = json.loads(run.result.read_text())["window"]["end_monotonic_ns"]
    set_column(run.requests, "end_monotonic_ns", lambda ends: pc.add(ends, end_ns).to_pylist())
    found = [each for each in check_run(run, {}) if each.file.name == "result.json" and each.figure]
    assert "result.json:tokens.requests" in figures(found)
    for each in found:
        change_record(run, each.figure, each.recomputed)
    vouch(run)

    def shown() -> set[str]:
        return {name for name in figures([*check_run(run, {})]) if name.startswith("result.json")}

    assert shown() == set()
    for name in (
        *("per_request_j", "per_1000_requests_wh"),
        "footprint.carbon_per_1000_requests_gco2e",
    ):
        change_record(run, f"energy.{name}", None)
    change_record(run, "performance.requests_per_s", 0.0)
    vouch(run)
    assert shown() == set()
    change_record(run, "performance.requests_per_s", 5.0)
    assert "result.json:performance.requests_per_s" in shown()
    # Nor had their rows the length of an answer.
    name = "output_tokens_per_request"
    for length, differs in ((7.5, True), (None, False)):
        set_column(run.row, name, lambda _, length=length: [length])
        vouch(run)
        assert (f"run.parquet:{name}" in figures([*check_run(run, {})])) is differs


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"experiment": 1}'])
def test_a_record_that_cannot_be_read(study: Path, content: bytes) -> None:
    run = a_run(study)
    run.result.write_bytes(content)
    assert "result.json:" in figures(verify_study(study).differences)


def test_the_command(study: Path, tmp_path: Path, call: Call) -> None:
    good = call("verify", str(study))
    assert (good.code, good.err) == (0, "")
    assert good.out == "small: 2 runs and all tables follow from what was recorded\n"
    change_record(a_run(study), "energy.gross_j", 1.0)
    bad = call("verify", str(study))
    assert bad.code == 1
    assert "energy.gross_j: 1.0, recomputed " in bad.out
    told = json.loads(call("verify", "--json", str(study)).out)
    assert told["runs"] == 2
    assert any(each["figure"] == "energy.gross_j" for each in told["differences"])
    assert call("verify", str(tmp_path / "nothing")).code == 2


def test_a_run_of_batches_follows_from_its_requests(study: Path) -> None:
    run = a_run(study, "pytorch")
    assert [str(each) for each in check_run(run, {})] == []
    change_record(run, "performance.request_latency_p50_s", 12345)
    assert "result.json:performance.request_latency_p50_s" in figures([*check_run(run, {})])

    def of_split() -> list[str]:
        found = figures([*check_run(run, {})])
        return [each for each in found if each.startswith("result.json:energy.split")]

    split = {"method": "ticks", "prefill_per_input_token_j": 0.5, "decode_per_output_token_j": 0.1}
    change_record(run, "energy.split", split)
    assert of_split()
    # Method 7 had the same split, but where a calibration was used.
    change_record(run, "provenance.energy_method", 7)
    assert of_split()
    # As versions before wrote it, which gave prefill less than nothing.
    change_record(run, "energy.split.prefill_per_input_token_j", -0.001)
    assert not of_split()
