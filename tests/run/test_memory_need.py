"""What an experiment needs of memory, by the settings of whichever engine runs it."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight.memory import MemoryNeed, memory_need
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
    found = memory_need(config, resolve_model(config), None)
    assert found is not None
    return found


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_an_engine_s_own_settings_count(backend: str) -> None:
    plain = need(backend)
    assert need(backend, quantization="fp8").weights_bytes == plain.weights_bytes / 2
    assert need(backend, kv_cache_dtype="fp8_e5m2").cache_bytes == plain.cache_bytes / 2
