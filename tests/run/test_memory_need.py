"""What an experiment needs of memory, by the settings of whichever engine runs it."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight.memory import MemoryNeed, compute_precision, memory_need
from llenergymeasure.workload.models.resolve import resolve_model


def need(backend: str, **engine: Any) -> MemoryNeed:
    config = ExperimentConfig.model_validate(
        {
            "model": "Llama-3.1-8B",
            "weights": "random",
            "backend": backend,
            backend: {"engine": engine},
        }
    )
    result = memory_need(config, resolve_model(config), None)
    assert result is not None
    return result


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_an_engine_s_own_settings_count(backend: str) -> None:
    plain = need(backend)
    assert need(backend, quantization="fp8").weights_bytes == plain.weights_bytes / 2
    assert need(backend, kv_cache_dtype="fp8_e5m2").cache_bytes == plain.cache_bytes / 2


@pytest.mark.parametrize(
    ("backend", "settings", "precision"),
    [
        ("vllm", {"engine": {}}, "bf16"),
        ("vllm", {"engine": {"quantization": "awq"}}, "bf16"),  # of weights alone
        ("vllm", {"engine": {"quantization": "fp8"}}, "fp8"),
        ("sglang", {"engine": {"quantization": "modelopt_fp4"}}, "modelopt_fp4"),
        ("pytorch", {"load_in_4bit": True}, "bf16"),
        ("pytorch", {"load_in_8bit": True}, "8bit"),
    ],
)
def test_what_a_quantised_model_computes_in(
    backend: str, settings: dict[str, Any], precision: str
) -> None:
    given = {"model": "Llama-3.1-8B", "weights": "random", "backend": backend, backend: settings}
    config = ExperimentConfig.model_validate(given)
    assert compute_precision(config, resolve_model(config)) == precision
