"""A study's results in the forms of papers and of other tools."""

import csv
import errno
import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.cli.export import export
from llenergymeasure.errors import ConfigurationError, ResultsError
from llenergymeasure.files import open_to_read
from llenergymeasure.report.export import crate
from llenergymeasure.report.export.forms import FORMS
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME
from report.studies import SWEPT, config
from results.synthetic import (
    make_plan,
    make_result,
    write_complete_study,
    write_outcome,
    write_plan,
    write_result,
    write_runs,
)

CONFIGS = [config(1), config(8)]

CARBON = {
    "grid_gco2e_per_kwh": 344.0,
    "pue": 1.2,
    "embodied_kgco2e": 1500.0,
    "lifetime_years": 4.0,
    "source": "ours",
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    plan = make_plan(CONFIGS, SWEPT)
    write_complete_study(tmp_path, plan)
    write_tables(tmp_path, partial=False)
    return tmp_path


def written(
    folder: Path,
    record: Callable[[Any], dict[str, Any]] = lambda _: {},
    *,
    configs: Sequence[dict[str, Any]] = CONFIGS,
    swept: Sequence[str] = SWEPT,
    carbon: dict[str, Any] | None = None,
    **shape: Any,
) -> dict[str, Any]:
    """Write a study of these records, its tables too, and return its plan."""
    sections = {} if carbon is None else {"sections": {"carbon": carbon}}
    plan = make_plan(configs, swept, **shape) | sections
    write_runs(folder, plan, record)
    write_tables(folder, partial=False)
    return plan


def exported(study: Path, form: str, capsys: pytest.CaptureFixture[str]) -> str:
    export(study, form, None)
    return capsys.readouterr().out


def sci_child(study: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return what a study's one experiment is in its manifest."""
    (child,) = yaml.safe_load(exported(study, "sci", capsys))["tree"]["children"].values()
    return child


def spdx_package(study: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    graph = json.loads(exported(study, "spdx", capsys))["@graph"]
    (package,) = (element for element in graph if element["type"] == "ai_AIPackage")
    return package


def of_eight(run: Any, changes: dict[str, Any]) -> dict[str, Any]:
    return changes if run["config"]["pytorch"]["batch_size"] == 8 else {}


def with_tokens(run: Any, energy: dict[str, Any] | None = None, **tokens: Any) -> dict[str, Any]:
    """Return a run's record with changes of its tokens and its energy."""
    result = make_result(run)
    return {
        "tokens": result.tokens.model_copy(update=tokens),
        "energy": result.energy.model_copy(update=energy or {}),
    }


def test_markdown_has_a_column_a_setting_and_a_line_an_experiment(study, capsys):
    lines = exported(study, "markdown", capsys).splitlines()
    assert lines[0].startswith("| pytorch.batch_size | n | Energy per output token (")
    assert sorted(line.split(" | ")[0] for line in lines[2:4]) == ["| 1", "| 8"]
    assert lines[-1] == (
        "demo: means over n runs. Intervals are two-sided 95 % Student t intervals over runs, on "
        "the logarithm. Energy is measured by nvml (GPU). No idle draw is taken off. Model: "
        "tiny-llama. Engine: transformers 5.0, torch 2.13. Device: NVIDIA H200. Energies may be "
        "off by the sensor's gain, ±5.0 %."
    )


def test_latex_has_caption_label_and_escapes(study, capsys):
    text = exported(study, "latex", capsys)
    assert r"\caption{demo: means over n runs. Intervals are two-sided 95 \% Student t" in text
    assert r"\label{tab:demo}" in text
    assert r"pytorch.batch\_size & n & Energy per output token" in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert text.count(r" \\") == 3


def test_kind_scope_and_device_have_columns_where_they_differ(tmp_path, capsys):
    estimate = {"kind": "estimated", "source": "codecarbon"}
    written(tmp_path, lambda run: of_eight(run, estimate))
    text = exported(tmp_path, "latex", capsys)
    assert r"pytorch.batch\_size & Kind & Scope & n" in text
    assert "8 & estimated & CPU & 3" in text
    assert "Energy is" not in text


@pytest.mark.parametrize("gain", [None, 0.05])
@pytest.mark.parametrize("hosts", [("node-1", "node-1"), ("node-1", "node-2")])
def test_a_caption_says_what_parts_rows_and_what_is_in_no_interval(tmp_path, capsys, hosts, gain):
    def record(run):
        result = make_result(run)
        gross_j = result.energy.gross_j
        widths = {"shared_u95_j": 0.02 * gross_j, "u_sys_j": gain and gain * gross_j}
        host = hosts[run["config"]["pytorch"]["batch_size"] == 8]
        return {
            "energy": result.energy.model_copy(update=widths),
            "environment": {**result.environment, "host": host},
        }

    written(tmp_path, record)
    text = exported(tmp_path, "markdown", capsys)
    reason = "batch_size=8 is not ranked with the rest: other machines: host is node-1 and node-2."
    assert (reason in text) == (len(set(hosts)) == 2)
    by_gain = "be off by the sensor's gain, ±5.0 %, and by ±2.0 % by what else it leaves open"
    assert ("be off by ±2.0 % by what the sensor leaves open" if gain is None else by_gain) in text


def test_the_columns_of_a_table_can_be_chosen(study, capsys):
    export(study, "latex", None, "power_mean_w, request_latency_p95_s")
    text = capsys.readouterr().out
    assert r"batch\_size & n & Mean power (W) & Request latency, 95th percentile (s) \\" in text
    with pytest.raises(ConfigurationError, match="--columns"):
        export(study, "latex", None, "energy")


def test_the_citation_fixes_the_study(study, capsys):
    plan = json.loads((study / "plan.json").read_text())
    text = exported(study, "citation", capsys)
    assert text.startswith("@software{llenergymeasure,")
    assert plan["study_design_hash"] in text
    assert text.count("{") == text.count("}")


def test_watt_hours_per_thousand_queries(tmp_path, capsys):
    # 1,000 J over 20 requests: 50 J each, 50,000 J the thousand.
    written(tmp_path, configs=CONFIGS[:1], swept=[], cycles=2)
    (row,) = csv.DictReader(io.StringIO(exported(tmp_path, "energy-score", capsys)))
    assert float(row["wh_per_1000_queries"]) == pytest.approx(50_000 / 3600)
    assert (row["model"], row["kind"], row["n"]) == ("tiny-llama", "measured", "2")
    assert row["device"] == "NVIDIA H200"


def test_a_table_with_a_failed_experiment_says_so_and_what_the_rest_is(tmp_path, capsys):
    plan = make_plan(CONFIGS, SWEPT)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        if run["config"]["pytorch"]["batch_size"] == 1:
            codes = ["recorder_lost"] if run["cycle"] == 3 else []
            result = make_result(run, validity=codes)
            result.environment["gpus"][0]["name"] = "NVIDIA A100-SXM4-80GB"
            write_result(tmp_path, result, plan["swept"])
        else:
            write_outcome(tmp_path, run, status="failed")
    write_tables(tmp_path, partial=False)
    lines = exported(tmp_path, "markdown", capsys).splitlines()
    assert lines[0].startswith("| pytorch.batch_size | n | Energy per output token (")
    assert lines[3] == "| 8 | 0 | - | - | - |"
    assert "Energy is measured by nvml (GPU). No idle draw is taken off." in lines[-1]
    assert "Device: NVIDIA A100-SXM4-80GB." in lines[-1]
    assert "3 runs have no result. 1 run stands outside the means: 1 disqualified." in lines[-1]


def test_what_ran_on_no_gpu_is_not_said_to_have_run_on_the_others(tmp_path, capsys):
    no_gpu = {"environment": {"host": "node-1", "gpus": []}}
    written(tmp_path, lambda run: of_eight(run, no_gpu))
    text = exported(tmp_path, "markdown", capsys)
    assert text.startswith("| pytorch.batch_size | Device | n |")
    assert "| 8 | - | 3 |" in text
    assert "| 1 | NVIDIA H200 | 3 |" in text
    assert "Device: NVIDIA H200" not in text


def test_an_interval_that_holds_the_gain_is_not_said_to_be_one_of_the_runs_alone(tmp_path, capsys):
    written(tmp_path, swept=[], carbon=CARBON)
    assert "95 % interval with the sensor's gain" in exported(tmp_path, "spdx", capsys)
    manifest = yaml.safe_load(exported(tmp_path, "sci", capsys))
    assert "95 % interval of the energy, with the sensor's gain;" in manifest["description"]


def test_a_crate_holds_everything_with_its_hash(study, tmp_path, capsys):
    out = tmp_path / "crate.zip"
    (study / "figures").mkdir()
    (study / "figures" / "energy.pdf").write_bytes(b"%PDF-1.5")
    export(study, "ro-crate", out)
    capsys.readouterr()
    with zipfile.ZipFile(out) as archive:
        metadata = json.loads(archive.read("ro-crate-metadata.json"))
        entries = {entry["@id"]: entry for entry in metadata["@graph"]}
        files = {name for name, entry in entries.items() if entry["@type"] == "File"}
        assert files == set(archive.namelist()) - {"ro-crate-metadata.json"}
        assert entries["figures/energy.pdf"]["encodingFormat"] == "application/pdf"
        for name in files:
            content = archive.read(name)
            assert entries[name]["sha256"] == hashlib.sha256(content).hexdigest()
            assert entries[name]["contentSize"] == str(len(content))
    assert {entry["@id"] for entry in entries["./"]["hasPart"]} == files
    assert entries["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert {"plan.json", "runs.parquet", "summary.csv"} <= files


def test_a_file_that_changes_while_a_crate_is_packed_has_the_hash_of_what_was_packed(
    study, tmp_path, monkeypatch, capsys
):
    def changed(path):
        if path.name == "summary.csv":
            path.write_text("of a later run\n")
        return open_to_read(path)

    monkeypatch.setattr(crate, "open_to_read", changed)
    test_a_crate_holds_everything_with_its_hash(study, tmp_path, capsys)


def test_a_file_that_cannot_be_packed_is_named_and_not_the_crate(study, tmp_path, monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(crate, "open_to_read", refused)
    with pytest.raises(ResultsError, match=r"comparisons\.csv: Permission denied"):
        export(study, "ro-crate", tmp_path / "new" / "crate.zip")
    assert not list((tmp_path / "new").iterdir())


def test_the_same_study_gives_the_same_crate(study, tmp_path):
    for name in ("one.zip", "two.zip"):
        export(study, "ro-crate", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(("form", "message"), [("pdf", "is none of"), ("ro-crate", "--out")])
def test_what_cannot_be_written_is_said(study, form, message):
    with pytest.raises(ConfigurationError, match=message):
        export(study, form, None)


@pytest.mark.parametrize("form", FORMS)
def test_a_study_without_energy_has_every_form(tmp_path, capsys, form):
    written(tmp_path, lambda _: {"energy_j": None}, cycles=1, carbon=CARBON)
    text = exported(tmp_path, form, capsys)
    assert text
    assert "interval" not in text.partition("means over n runs")[2]


def declared_study(folder: Path, carbon: dict | None = CARBON) -> dict:
    """Two cycles of one experiment: 1,000 and 1,200 J for 20 requests in 20 s each."""
    return written(
        folder,
        lambda run: {"energy_j": 800.0 + 200 * run["cycle"]},
        configs=CONFIGS[:1],
        swept=[],
        cycles=2,
        carbon=carbon,
    )


def closed(required: str = "", **properties: Any) -> dict[str, Any]:
    """Return the schema of a mapping that holds nothing else."""
    shape = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**shape, "required": required.split()}


TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
PLUGIN = closed(
    "path method",
    path={"type": "string"},
    method={"enum": ["Multiply", "Divide", "Sum", "Sci"]},
    mapping=TEXTS,
    config={"type": "object", "minProperties": 1},
)
INPUT = {
    "type": "object",
    "required": ["timestamp", "duration"],
    "properties": {"duration": {"type": "number", "minimum": 1}},
}
CHILD = closed(
    "pipeline inputs outputs",
    pipeline=closed("compute", compute={"type": "array", "items": {"type": "string"}}),
    inputs={"type": "array", "items": INPUT},
    outputs={"type": "array"},
)
MANIFEST = closed(
    "name initialize tree",
    name={"type": "string"},
    description={"type": ["string", "null"]},
    tags={**TEXTS, "propertyNames": {"enum": ["kind", "complexity", "category"]}},
    initialize=closed("plugins", plugins={"type": "object", "additionalProperties": PLUGIN}),
    tree=closed("children", children={"type": "object", "additionalProperties": CHILD}),
)
"""What Impact Framework asks of a manifest (manifestSchema of its src/common/util/validations.ts)
and of its plugins' inputs, as JSON Schema; what it would pass over unread is no part of it."""


def impact_framework(manifest: dict, child: dict) -> dict[str, float]:
    """What Impact Framework's builtin plugins make of a child's inputs."""
    jsonschema.validate(manifest, MANIFEST)
    (values,) = (dict(inputs) for inputs in child["inputs"])
    for name in child["pipeline"]["compute"]:
        plugin = manifest["initialize"]["plugins"][name]
        assert plugin["path"] == "builtin"
        config = plugin["config"]
        if plugin["method"] in ("Multiply", "Sum"):
            parts = [values[part] for part in config["input-parameters"]]
            result = math.prod(parts) if plugin["method"] == "Multiply" else sum(parts)
            values[config["output-parameter"]] = result
        elif plugin["method"] == "Divide":
            values[config["output"]] = values[config["numerator"]] / values[config["denominator"]]
        else:
            assert values["carbon"] >= 0
            assert values[config["functional-unit"]] > 0
            result = values["carbon"] / values[config["functional-unit"]]
            values[plugin["mapping"]["sci"]] = result
    return values


def test_an_sci_score_is_operational_and_embodied_carbon_per_functional_unit(tmp_path, capsys):
    plan = declared_study(tmp_path)
    manifest = yaml.safe_load(exported(tmp_path, "sci", capsys))
    (child,) = manifest["tree"]["children"].values()
    (output,) = child["outputs"]
    operational_g = 2200 / 3.6e6 * 1.2 * 344
    embodied_g = 1_500_000 * 40 / (4 * 365.25 * 24 * 3600)
    assert output["carbon-operational"] == pytest.approx(operational_g, rel=1e-12)
    assert output["carbon-embodied"] == pytest.approx(embodied_g, rel=1e-12)
    total_g = operational_g + embodied_g
    assert output["sci-per-request"] == pytest.approx(total_g / 40, rel=1e-12)
    assert output["sci-per-output-token"] == pytest.approx(total_g / 4000, rel=1e-12)
    assert output["sci-per-token"] == pytest.approx(total_g / output["tokens"], rel=1e-12)
    assert output["tokens"] > output["output-tokens"] == 4000
    low, high = output["sci-per-request-low"], output["sci-per-request-high"]
    assert embodied_g / 40 < low < output["sci-per-request"] < high
    recomputed = impact_framework(manifest, child)
    numbers = {name: value for name, value in recomputed.items() if isinstance(value, int | float)}
    assert {name: output[name] for name in numbers} == pytest.approx(numbers, rel=1e-12)
    assert set(numbers) >= {f"sci-per-{one}" for one in ("request", "token", "output-token")}
    assert plan["study_design_hash"] in manifest["description"]
    assert (output["kind"], output["scopes"]) == ("measured", "gpu")


ONE_RUN = {"configs": CONFIGS[:1], "swept": [], "cycles": 1, "carbon": CARBON}


@pytest.mark.parametrize("missing", ["grid_gco2e_per_kwh", "embodied_kgco2e", "lifetime_years"])
def test_an_sci_score_is_not_made_up(tmp_path, missing):
    declared_study(tmp_path, {key: value for key, value in CARBON.items() if key != missing})
    with pytest.raises(ConfigurationError, match=f"carbon.{missing}.*nothing is measured again"):
        export(tmp_path, "sci", None)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_that_does_not_say_when_it_began_is_in_every_form(tmp_path, form):
    plan = declared_study(tmp_path)
    summary = read_table(tmp_path, SUMMARY_NAME).to_pylist()
    first, second = read_table(tmp_path, RUNS_NAME).to_pylist()
    undated = first | {"started_at": None}
    text = FORMS[form](plan, summary, [undated, second], ())
    if form == "sci":
        assert f"timestamp: '{second['started_at']}'" in text
        with pytest.raises(ConfigurationError, match=f"no record of {first['experiment']} says so"):
            FORMS[form](plan, summary, [undated, second | {"started_at": None}], ())


def test_without_a_request_that_ended_there_is_no_score_of_one(tmp_path, capsys):
    written(tmp_path, lambda run: with_tokens(run, requests=0), **ONE_RUN)
    child = sci_child(tmp_path, capsys)
    assert "sci-request" not in child["pipeline"]["compute"]
    assert "sci-per-request" not in child["outputs"][0]


def test_an_sci_score_of_a_request_under_traffic_is_of_the_work_on_one(tmp_path, capsys):
    written(tmp_path, lambda run: with_tokens(run, requests_worked=25.0), **ONE_RUN)
    assert sci_child(tmp_path, capsys)["inputs"][0]["requests"] == 25


def test_spdx_holds_the_energy_of_inference_in_kilowatt_hours(tmp_path, capsys):
    declared_study(tmp_path, None)
    package = spdx_package(tmp_path, capsys)
    (consumption,) = package["ai_energyConsumption"]["ai_inferenceEnergyConsumption"]
    # 55 J a request on average: 55,000 J the thousand.
    assert float(consumption["ai_energyQuantity"]) == pytest.approx(55_000 / 3.6e6, rel=1e-12)
    assert re.fullmatch(r"\d+(\.\d*)?", consumption["ai_energyQuantity"])
    assert consumption["ai_energyUnit"] == "kilowattHour"
    assert "1,000 requests in kWh: mean of 2 runs, 95 % interval" in package["comment"]
    assert "measured by nvml, scope gpu" in package["comment"]


@pytest.mark.parametrize("energy_j", [1000.0, 1e-9, None])
def test_spdx_is_valid_by_the_published_model(tmp_path, capsys, energy_j):
    """The bindings are made from SPDX's own SHACL model and check types and counts."""
    written(tmp_path, lambda _: {"energy_j": energy_j}, cycles=1)
    spdx_python_model = pytest.importorskip("spdx_python_model")
    model, objects = spdx_python_model.load_data(json.loads(exported(tmp_path, "spdx", capsys)))
    assert not objects.missing_ids
    packages = list(objects.foreach_type(model.ai_AIPackage))
    assert len(packages) == 2
    for package in packages:
        objects_energy = package.ai_energyConsumption
        assert (objects_energy is None) == (energy_j is None)
        if objects_energy is None:
            continue
        (description,) = objects_energy.ai_inferenceEnergyConsumption
        assert description.ai_energyUnit == model.ai_EnergyUnitType.kilowattHour
        assert float(description.ai_energyQuantity) == pytest.approx(50 * energy_j / 3.6e6)


def test_the_energy_of_a_request_has_its_own_interval_and_not_that_of_a_token(tmp_path, capsys):
    """Answers that end by themselves: as many joules a token each time, and 50 to 150 a request."""

    def record(run):
        tokens = 1000 * run["cycle"]
        energy = {"gross_j": tokens / 2.0, "per_request_j": tokens / 20.0}
        return with_tokens(run, energy, input=4 * tokens, output=tokens, requests=10)

    written(tmp_path, record, configs=CONFIGS[:1], swept=[], carbon=CARBON)
    (output,) = sci_child(tmp_path, capsys)["outputs"]
    assert output["sci-per-request-high"] > 1.9 * output["sci-per-request"]
    assert output["sci-per-output-token-high"] < 1.06 * output["sci-per-output-token"]
    comment = spdx_package(tmp_path, capsys)["comment"]
    low, high = re.findall(r"gain ([\d.]+) to ([\d.]+);", comment)[0]
    assert float(high) > 5 * float(low)


def test_names_do_not_break_what_latex_makes_of_them(tmp_path, capsys):
    names = ("[0, 1]", "<b>|c", "~a^b_%")
    configs = [config(1) | {"model": name} for name in names]
    written(tmp_path, configs=configs, swept=["model"], study="batch_sweep & 100%")
    lines = exported(tmp_path, "latex", capsys).splitlines()
    # A bracket after a line's end, or a rule, would be taken for its length.
    cells = {line.split(" & ")[0] for line in lines if line.endswith(r"\\")}
    escaped = (
        r"\textless{}b\textgreater{}\textbar{}c",
        r"\textasciitilde{}a\textasciicircum{}b\_\%",
    )
    assert cells == {"model", "{[}0, 1]", *escaped}
    assert r"note = {Study batch\_sweep \& 100\%, design" in exported(tmp_path, "citation", capsys)


def test_the_currency_of_a_cost_and_the_scope_of_a_score_stand_next_to_it(study, capsys):
    declare = {"price_per_kwh": 0.3, "currency": "EUR", "grid_gco2e_per_kwh": 50.0}
    plan = json.loads((study / "plan.json").read_text())
    write_plan(study, {**plan, "sections": {"carbon": declare}})
    write_tables(study, partial=False)
    export(study, "markdown", columns="cost_per_1000_requests,carbon_per_1000_requests_gco2e")
    header = capsys.readouterr().out.splitlines()[0]
    assert "Cost of 1,000 requests (EUR)" in header
    assert "Carbon of 1,000 requests (gCO2e)" in header
    for row in csv.DictReader(io.StringIO(exported(study, "energy-score", capsys))):
        assert row["scopes"] == "gpu"


def test_two_settings_that_are_cut_alike_are_not_one_in_a_table(tmp_path, capsys):
    names = [f"/{'a' * 40}/{name}/{'b' * 40}" for name in ("one", "two")]
    written(tmp_path, configs=[config(1) | {"model": name} for name in names], swept=["model"])
    text = exported(tmp_path, "markdown", capsys)
    assert all(f"| {name} |" in text for name in names)


@pytest.mark.parametrize("form", ["markdown", "latex", "sci", "spdx"])
def test_what_a_sensor_may_not_see_is_next_to_the_intervals(tmp_path, capsys, form):
    for folder, codes in (("seen", ()), ("unseen", ("counter_unverified",))):

        def record(run, codes=codes):
            energy = make_result(run).energy
            doubtful = energy.model_copy(update={"bound_j": 1.17 * energy.gross_j})
            return {"energy": doubtful, "validity": codes}

        written(tmp_path / folder, record, carbon=CARBON)
        text = exported(tmp_path / folder, form, capsys)
        text = text.replace("\\u00b1", "±").replace("\\", "")
        assert ("may be off by up to ±117 %" in " ".join(text.split())) == bool(codes)
