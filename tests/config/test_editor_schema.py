"""The engines' parameters in the JSON Schema of a study file."""

from typing import Any

import jsonschema
import pytest

from llenergymeasure.config.fields import ENGINE_SECTIONS
from llenergymeasure.config.schema import parameter_properties, study_schema

VALIDATOR = jsonschema.Draft202012Validator(study_schema())


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
def test_agrees_with_what_loads(study: dict[str, Any]) -> None:
    assert not list(VALIDATOR.iter_errors({"model": "x", **study}))


@pytest.mark.parametrize(
    "study",
    [
        {"vllm": {"engine": {"enable_mfu_metric": True}}},
        {"vllm": {"engine": {"enable_mfu_metrics": "yes"}}},
        {"vllm": {"engine": {"performance_mode": "turbo"}}},
        {"vllm": {"engine": {"max_loras": 0}}},
        {"vllm": {"engine": {"hf_token": "secret"}}},
        {"sweep": {"sglang.engine.enable_mixed_chunks": [True, False]}},
    ],
)
def test_refuses_what_does_not_load(study: dict[str, Any]) -> None:
    assert list(VALIDATOR.iter_errors({"model": "x", **study}))


def test_every_parameter_is_described_for_editors() -> None:
    definitions = study_schema()["$defs"]
    for section in ENGINE_SECTIONS:
        assert set(parameter_properties(section)) <= set(
            definitions[section.__name__]["properties"]
        )
        assert definitions[section.__name__]["additionalProperties"] is False
