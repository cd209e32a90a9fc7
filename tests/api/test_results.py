"""What a program and a notebook see of results that are there."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import (
    ExperimentResult,
    ResultsError,
    StudyResult,
    load_result,
    load_results,
)
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.api.notebook import html_table
from llenergymeasure.api.settings import Settings
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.plan import make_plan
from llenergymeasure.report.page import write_report
from llenergymeasure.workload.load_study import study_from_mapping
from report.studies import without_drawing
from results.synthetic import make_result, write_plan, write_result
from support.programs import loaded

SIZES = (1, 8)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    folder = tmp_path_factory.mktemp("results") / "seen"
    written = {"name": "seen", "model": "tiny-llama", "execution": {"n_cycles": 3}}
    written["sweep"] = {"pytorch.batch_size": list(SIZES)}
    plan = json.loads(make_plan(study_from_mapping(written)).to_json_bytes())
    write_plan(folder, plan)
    for run in plan["runs"]:
        energy_j = 1000 / run["config"]["pytorch"]["batch_size"] * (1 + 0.01 * run["cycle"])
        write_result(folder, make_result(run, energy_j=energy_j), plan["swept"])
    write_tables(folder, partial=False)
    with without_drawing():
        write_report(folder, partial=False)
    return load_results(folder)


SWEPT_N = {"name": "swept", "model": "tiny-llama", "sweep": {"n": [4, 8]}}


@pytest.mark.parametrize("name", ["measured_v1", "record_v1"])
def test_a_notebook_shows_results_of_the_first_edition(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(ROOT / "tests/results/fixtures" / name, folder)
    results = load_results(folder)
    assert "<table" in results._repr_html_()
    assert list(results.table().columns[:2]) == ["model", "backend"]


def test_the_table_holds_settings_energy_interval_and_throughput(study: StudyResult) -> None:
    table = study.table()
    assert list(table["pytorch.batch_size"]) == sorted(SIZES, reverse=True)  # the report's order
    assert list(table["n"]) == [3, 3]
    token = "energy_per_output_token_j"
    assert {token, "low", "high", "output_tokens_per_s", "kind"} <= set(table)
    assert (table["low"] < table[token]).all()


def test_a_swept_setting_of_another_column_s_name_is_not_mistaken_for_it(tmp_path: Path) -> None:
    swept = study_from_mapping({**SWEPT_N, "execution": {"n_cycles": 3}})
    plan = json.loads(make_plan(swept).to_json_bytes())
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        energy_j = 100.0 * run["config"]["n"] * (1 + 0.01 * run["cycle"])
        write_result(tmp_path, make_result(run, energy_j=energy_j), plan["swept"])
    write_tables(tmp_path, partial=False)

    table = load_results(tmp_path).table()

    assert list(table["setting.n"]) == [4, 8]
    assert list(table["n"]) == [3, 3]


def test_a_table_that_does_not_know_all_runs_comes_with_a_warning(
    study: StudyResult, tmp_path: Path
) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(study.paths.folder, folder)
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"].append({**plan["runs"][0], "cycle": 4})
    write_plan(folder, plan)
    results = load_results(folder)
    for table in (results.table, lambda: results.runs, lambda: results.levels):
        with pytest.warns(UserWarning, match="know 6 of 7 planned runs; llem report"):
            table()
    (folder / "summary.parquet").unlink()
    with (
        pytest.warns(UserWarning, match="planned runs"),
        pytest.raises(ResultsError, match=r"llem report .* merges"),
    ):
        _ = results.summary


def test_a_result_s_line_names_its_validity_codes(study: StudyResult) -> None:
    doubted = study.completed[0].record.model_copy(update={"validity": ["cpu_contended"]})
    assert str(ExperimentResult(doubted)).endswith("tokens/s (cpu_contended)")


def test_the_merged_tables_are_there(study: StudyResult) -> None:
    assert len(study.comparisons)
    assert len(study.levels)
    assert len(study.pareto)


def test_a_figure_is_drawn_and_a_wrong_name_names_those_that_are(study: StudyResult) -> None:
    assert "image/svg+xml" in study.figure("energy_per_output_token")._repr_html_()
    with pytest.raises(ResultsError, match=r"there are .*energy_latency, energy_order"):
        study.figure("energie")


def test_a_result_is_named_by_its_settings(study: StudyResult) -> None:
    result = next(run for run in study.completed if run.config["pytorch"]["batch_size"] == 8)
    name = f"tiny-llama · pytorch · bf16 · batch_size=8, cycle {result.cycle}"
    assert str(result).startswith(f"{name}: ")
    html = result._repr_html_()
    assert html.startswith(f"<p>{name}: ")
    assert f"<td>experiment</td><td>{result.experiment}</td>" in html


def test_a_notebook_shows_results_and_not_their_folders(study: StudyResult) -> None:
    assert repr(study) == f"<StudyResult {study.name}: 6 of 6 runs completed>"
    html = study._repr_html_()
    assert "<td>batch_size=8</td><td>3</td>" in html
    assert "Energy: " in html
    result = study.completed[0]
    assert "J per output token" in repr(result)
    assert "energy_per_output_token_j" in result._repr_html_()
    assert html_table("<b>\nx", [["a"], [None]]) == (
        '<p>&lt;b&gt;<br>x</p><div style="overflow-x: auto"><table><thead><tr><th>a</th></tr>'
        "</thead><tbody><tr><td>-</td></tr></tbody></table></div>"
    )
    assert html_table("x") == "<p>x</p>"


def test_a_folder_of_studies_names_them(study: StudyResult) -> None:
    with pytest.raises(ResultsError, match=r"its folders hold .*seen"):
        load_results(study.paths.folder.parent)


def test_the_typed_settings_are_those_of_the_schema() -> None:
    assert set(ExperimentConfig.model_fields) <= set(Settings.__annotations__)
    types = loaded("tools/settings_types.py").settings_types()
    names = re.findall(r"^    (\w+): ", types, re.MULTILINE)
    assert names == list(Settings.__annotations__)


def test_a_notebook_says_what_the_terminal_does_of_tables_and_comparisons(tmp_path: Path) -> None:
    written = {"name": "seen", "model": "tiny-llama", "sweep": {"pytorch.batch_size": list(SIZES)}}

    def write_planned(cycles: int) -> dict[str, Any]:
        made = make_plan(study_from_mapping({**written, "execution": {"n_cycles": cycles}}))
        plan: dict[str, Any] = json.loads(made.to_json_bytes())
        write_plan(tmp_path, plan)
        return plan

    for run in write_planned(3)["runs"]:
        small = run["config"]["pytorch"]["batch_size"] == 1
        options: dict[str, Any] = {} if small else {"kind": "estimated", "source": "codecarbon"}
        write_result(tmp_path, make_result(run, **options), ["pytorch.batch_size"])
    write_tables(tmp_path, partial=False)
    html = load_results(tmp_path)._repr_html_()
    assert "batch_size=8 is not ranked with the rest: energy is measured by nvml" in html
    assert "planned runs" not in html
    write_planned(4)
    assert "know 6 of 8 planned runs" in load_results(tmp_path)._repr_html_()


def test_results_are_those_of_their_folder_after_the_program_has_gone_to_another(
    study: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study.paths.folder.parent)
    results, run = load_results("seen"), study.completed[0].folder
    assert run is not None
    first = load_result(run.relative_to(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    assert results.table().equals(study.table())
    assert len(results.completed) == len(study.completed)
    assert first.folder == run
