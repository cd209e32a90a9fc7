"""A study's results in the forms of papers and of other tools."""

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.cli.export import FORMATS, export
from llenergymeasure.errors import ConfigurationError
from results.synthetic import make_plan, make_result, write_complete_study, write_plan, write_result

CONFIGS = [
    {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}} for size in (1, 8)
]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    plan = make_plan(CONFIGS, ["pytorch.batch_size"])
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    return tmp_path


def exported(study: Path, form: str, capsys: pytest.CaptureFixture[str]) -> str:
    export(study, form, None)
    return capsys.readouterr().out


def test_markdown_has_a_column_a_setting_and_a_line_an_experiment(study, capsys):
    lines = exported(study, "markdown", capsys).splitlines()
    assert lines[0].startswith("| pytorch.batch_size | n | Energy per output token (")
    assert sorted(line.split(" | ")[0] for line in lines[2:4]) == ["| 1", "| 8"]
    assert lines[-1] == (
        "demo: means over cycles and 95 % intervals. Energy is measured (GPU). Device: NVIDIA H200."
    )


def test_latex_has_caption_label_and_escapes(study, capsys):
    text = exported(study, "latex", capsys)
    assert (
        r"\caption{demo: means over cycles and 95 \% intervals. Energy is measured (GPU)." in text
    )
    assert r"\label{tab:demo}" in text
    assert r"pytorch.batch\_size & n & Energy per output token" in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert text.count(r" \\") == 3


def test_kind_scope_and_device_have_columns_where_they_differ(tmp_path, capsys):
    plan = make_plan(CONFIGS, ["pytorch.batch_size"])
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        guessed = {"kind": "estimated", "source": "codecarbon"}
        how = guessed if run["config"]["pytorch"]["batch_size"] == 8 else {}
        write_result(tmp_path, make_result(run, **how), plan["swept"])
    write_tables(tmp_path, partial=False)
    text = exported(tmp_path, "latex", capsys)
    assert r"pytorch.batch\_size & Kind & Scope & n" in text
    assert "8 & estimated & CPU & 3" in text
    assert "Energy is" not in text


def test_the_columns_of_a_table_can_be_chosen(study, capsys):
    export(study, "latex", None, "power_mean_w, request_latency_p95_s")
    text = capsys.readouterr().out
    assert r"batch\_size & n & Mean power (W) & request\_latency\_p95\_s (s) \\" in text
    with pytest.raises(ConfigurationError, match="--columns"):
        export(study, "latex", None, "energy")


def test_the_citation_fixes_the_study(study, capsys):
    plan = json.loads((study / "plan.json").read_text())
    text = exported(study, "citation", capsys)
    assert text.startswith("@software{llenergymeasure,")
    assert plan["study_design_hash"] in text
    assert text.count("{") == text.count("}")


def test_watt_hours_per_thousand_queries(tmp_path, capsys):
    plan = make_plan(CONFIGS[:1], [], cycles=2)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        # 1,000 J over 20 requests: 50 J each, 50,000 J the thousand.
        write_result(tmp_path, make_result(run, energy_j=1000.0, output_tokens=2000))
    write_tables(tmp_path, partial=False)
    (row,) = csv.DictReader(io.StringIO(exported(tmp_path, "energy-score", capsys)))
    assert float(row["wh_per_1000_queries"]) == pytest.approx(50_000 / 3600)
    assert (row["model"], row["kind"], row["n"]) == ("tiny-llama", "measured", "2")


def test_a_crate_holds_everything_with_its_hash(study, tmp_path, capsys):
    out = tmp_path / "crate.zip"
    export(study, "ro-crate", out)
    capsys.readouterr()
    with zipfile.ZipFile(out) as archive:
        told = json.loads(archive.read("ro-crate-metadata.json"))
        entries = {each["@id"]: each for each in told["@graph"]}
        files = {name for name, each in entries.items() if each["@type"] == "File"}
        assert files == set(archive.namelist()) - {"ro-crate-metadata.json"}
        for name in files:
            content = archive.read(name)
            assert entries[name]["sha256"] == hashlib.sha256(content).hexdigest()
            assert entries[name]["contentSize"] == str(len(content))
    assert {each["@id"] for each in entries["./"]["hasPart"]} == files
    assert entries["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert {"plan.json", "runs.parquet", "summary.csv"} <= files


def test_the_same_study_gives_the_same_crate(study, tmp_path):
    for name in ("one.zip", "two.zip"):
        export(study, "ro-crate", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(("form", "told"), [("pdf", "is none of"), ("ro-crate", "--out")])
def test_what_cannot_be_written_is_said(study, form, told):
    with pytest.raises(ConfigurationError, match=told):
        export(study, form, None)


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "ro-crate"])
def test_a_study_without_energy_has_every_form(tmp_path, capsys, form):
    plan = make_plan(CONFIGS, ["pytorch.batch_size"], cycles=1)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        write_result(tmp_path, make_result(run, energy_j=None))
    write_tables(tmp_path, partial=False)
    assert exported(tmp_path, form, capsys)
