"""``llem convert``: the new study on stdout, what has no counterpart on stderr."""

from pathlib import Path

import pytest
import yaml

from cli.commands import Call
from llenergymeasure.workload.load_study import load_study

OLD = """\
study_name: old
serving_mode: offline
task: {model: gpt2, dataset: {source: synthetic, n_prompts: 4}}
study_execution: {n_cycles: 2, max_consecutive_failures: 3}
sweep: {transformers.engine_params.dtype: [float16, bfloat16]}
"""


def test_what_is_printed_can_be_planned(call: Call) -> None:
    Path("old.yaml").write_text(OLD)
    result = call("convert", "old.yaml")
    assert result.code == 0
    assert result.err.splitlines() == [
        "llem: study_execution.max_consecutive_failures has no counterpart here, and is left out",
        "experiments: 2, cycles of each: 2",
    ]
    Path("new.yaml").write_text(result.out)
    assert len(load_study("new.yaml").experiments) == 2
    refused = call("plan", "old.yaml")
    assert refused.code == 2
    assert "`llem convert old.yaml > new.yaml`" in refused.err
    assert refused.err.count("\n") == 1


def test_a_setting_that_newer_engines_refuse_is_named_after_the_file(call: Call) -> None:
    Path("old.yaml").write_text(OLD + "transformers: {engine_params: {num_beams: 0}}\n")
    result = call("convert", "old.yaml")
    assert result.code == 2
    assert "num_beams: 0" in result.out
    assert "num_beams: must be at least 1" in result.err


def test_a_name_with_signs_that_show_nothing_stays_that_name(call: Call) -> None:
    name = "owner/a\ufe0fb\u200dü"
    Path("old.yaml").write_text(OLD.replace("gpt2", name), encoding="utf-8")
    result = call("convert", "old.yaml")
    assert yaml.safe_load(result.out)["model"] == name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sweep: [1, 2]", "sweep: must be a mapping (found [1, 2])"),
        ("experiments: 5", "experiments: must be a list (found 5)"),
        ("experiments: [5]", "experiments: must list mappings alone (found 5)"),
        ("runners: [vllm]", "runners: must be a mapping"),
        ("images: docker", "images: must be a mapping"),
        ("base: [a.yaml]", "base: must be the path of a study"),
        ("engine: sglang", "engine: must be one of transformers, vllm, tensorrt"),
        ("sweep: {engine: [vllm, trt]}", "engine: must be one of transformers, vllm, tensorrt"),
        ("experiments: [{engine: pytorch}]", "engine: must be one of"),
        ("sweep: {load: [{a: 1}, 5]}", "load: must list mappings alone (found 5)"),
        ("sweep: {task.random_seed: {min: 1, max: 2}}", "needs min, max and num"),
    ],
)
def test_a_study_of_a_form_that_none_has_is_one_message(text: str, why: str, call: Call) -> None:
    Path("old.yaml").write_text("task: {model: gpt2}\n" + text + "\n")
    result = call("convert", "old.yaml")
    assert (result.code, result.out) == (2, ""), result
    assert why in result.err
    assert "old.yaml" in result.err
