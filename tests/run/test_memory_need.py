"""What an experiment needs of memory, by the settings of whichever engine runs it."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight.memory import MemoryNeed, Room, compute_precision, memory_need
from llenergymeasure.run.result.flops_record import flops_record
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
    """No share of a 16-bit peak rate is stated of eight bits, whose own peak is twice as high."""
    given = {"model": "Llama-3.1-8B", "weights": "random", "backend": backend, backend: settings}
    config = ExperimentConfig.model_validate(given)
    assert compute_precision(config, resolve_model(config)) == precision
    gpus = ["NVIDIA H100 80GB HBM3"]
    result = flops_record(
        {
            "per_request": 1e12,
            "per_output_token": 1e10,
            "method": "architecture",
            "confidence": "high",
        },
        requests=1,
        work_s=1.0,
        gross_j=1.0,
        precision=precision,
        gpus=gpus,
    )
    assert (result.mfu is None) == (precision != "bf16")


@pytest.mark.parametrize(
    ("there_bytes", "words", "verdict"),
    [
        (260_000_000, "260.0 MB", "too large, the preflight will refuse it"),
        (290_000_000, "290.0 MB", "tight, activations may no longer fit"),
        (300_000_000, "300.0 MB", "fits"),
    ],
)
def test_what_is_needed_and_what_is_there_read_differently(
    there_bytes: int, words: str, verdict: str
) -> None:
    needed, there = MemoryNeed(268_000_000, 2_000_000, 1, 640), Room(there_bytes, "the memory")
    assert str(needed).startswith("at least 270.0 MB (")
    assert str(there) == f"the memory is {words}"
    assert there.verdict(needed) == verdict
