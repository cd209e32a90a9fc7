"""The JSON Schema: up to date, valid, and in agreement with what loads."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llenergymeasure.config.fields import ENGINE_SECTIONS
from llenergymeasure.config.schema import parameter_properties, schema_text, study_schema
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import load_study

ROOT = Path(__file__).parents[2]
STUDIES = [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "examples").glob("*.yaml"))]
OLD = sorted((Path(__file__).parent / "v1_19").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(study_schema())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_committed_schema_is_the_generated_one() -> None:
    committed = (ROOT / "config" / "study.schema.json").read_text()
    assert committed == schema_text(), "run: python -m llenergymeasure.config.schema"


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_example_names_its_schema_agrees_with_it_and_plans(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    prefix = "# yaml-language-server: $schema="
    assert first.startswith(prefix)
    assert (path.parent / first.removeprefix(prefix)).resolve() == (
        ROOT / "config" / "study.schema.json"
    )
    VALIDATOR.validate(read(path))
    assert make_plan(load_study(path)).runs


@pytest.mark.parametrize(
    "path", [path for path in OLD if "max_memory" not in path.read_text()], ids=lambda p: p.stem
)
def test_old_studies_agree_with_the_schema(path: Path) -> None:
    VALIDATOR.validate(read(path))


@pytest.mark.parametrize(
    "study",
    [
        {"modle": "x"},
        {"model": "x", "n": 0},
        {"model": "x", "n": "4"},
        {"model": "x", "precision": "fp8"},
        {"model": "x", "decoder": {"temperature": 3}},
        {"model": "x", "sweep": {}},
        {"model": "x", "sweep": {"n": []}},
        {"model": "x", "sweep": {"precision": ["fp8"]}},
        {"model": "x", "sweep": {"n": {"min": 1}}},
        {"model": "x", "sweep": {"unknown": [1]}},
        {"model": "x", "experiments": []},
        {"model": "x", "experiments": [{"sweep": {}}]},
        {"model": "x", "execution": {"n_cycles": 0}},
        {"model": "x", "runners": {"vlm": "docker"}},
        {"model": "x", "name": "../x"},
        {"model": "x", "vllm": {"engine": {"enable_mfu_metric": True}}},
        {"model": "x", "vllm": {"engine": {"enable_mfu_metrics": "yes"}}},
        {"model": "x", "vllm": {"engine": {"performance_mode": "turbo"}}},
        {"model": "x", "vllm": {"engine": {"max_loras": 0}}},
        {"model": "x", "vllm": {"engine": {"hf_token": "secret"}}},
        {"model": "x", "sweep": {"sglang.engine.enable_mixed_chunks": [True, False]}},
    ],
)
def test_schema_refuses_what_does_not_load(study: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors(study))


@pytest.mark.parametrize(
    "study",
    [
        {"vllm": {"engine": {"enable_mfu_metrics": True, "performance_mode": "balanced"}}},
        {"vllm": {"engine": {"compilation_config": {"mode": 3}}}},
        {"sweep": {"sglang.engine.enable_mixed_chunk": [True, False]}},
        {"sweep": {"vllm.engine.stream_interval": {"pow2": {"min": 1, "max": 4}}}},
        {"sweep": {"vllm.engine.compilation_config.mode": [0, 3]}},
        {"pytorch": {"guidance_scale": 1.5}},
    ],
)
def test_an_engine_s_parameters_agree_with_what_loads(study: dict[str, Any]) -> None:
    VALIDATOR.validate({"model": "x", **study})


def test_every_parameter_of_an_engine_is_described_for_editors() -> None:
    definitions = study_schema()["$defs"]
    for section in ENGINE_SECTIONS:
        assert set(parameter_properties(section)) <= set(
            definitions[section.__name__]["properties"]
        )
        assert definitions[section.__name__]["additionalProperties"] is False


def test_default_study_is_small_and_needs_no_download() -> None:
    plan = make_plan(load_study(STUDIES[0]))
    assert plan.study == "demo"
    assert len(plan.runs) == 12
    assert {run.config["model"] for run in plan.runs} == {"tiny-llama"}
    assert {run.config["dataset"] for run in plan.runs} == {"synthetic"}
