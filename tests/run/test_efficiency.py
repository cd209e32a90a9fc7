"""Operations of the work, their energy, their share of the peak; how busy the GPUs were."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.machine.gpus.peak_rates import peak
from llenergymeasure.recording.samples import SampleRow, make_samples
from llenergymeasure.results.record import Flops
from llenergymeasure.run.engine.engine_process import EngineRun
from llenergymeasure.run.result.flops_record import flops_record, workload_flops
from llenergymeasure.run.result.utilisation import (
    clock_state,
    lifted_limits,
    power_inside,
    throttle_history,
    utilisation,
)
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.prompts import build_workload
from support.recording import header

KNOWN = {
    "per_output_token": 1e10,
    "per_request": 1e12,
    "prefill_per_request": 4e11,
    "decode_per_request": 6e11,
    "method": "architecture",
    "confidence": "high",
}
A100 = "NVIDIA A100-SXM4-80GB"


SECOND = 1_000_000_000


def looked(t_ns: int, device: str, quantity: Any, value: float) -> SampleRow:
    return SampleRow(t_ns, device, "nvml", quantity, value)


def looks(device: str, quantity: Any, *values: float) -> list[SampleRow]:
    """One look each half second."""
    return [
        looked(place * SECOND // 2, device, quantity, value) for place, value in enumerate(values)
    ]


def recorded(*rows: list[SampleRow]) -> Any:
    return make_samples([row for group in rows for row in group], header())


def record(**changes: Any) -> Flops:
    told: dict[str, Any] = {
        "requests": 312,
        "work_s": 10.0,
        "gross_j": 3120.0,
        "precision": "bf16",
        "gpus": [A100],
    }
    return flops_record(KNOWN, **{**told, **changes})


def test_mfu_is_the_rate_over_the_makers_peak() -> None:
    result = record()
    assert result.per_s == pytest.approx(31.2e12)
    assert result.mfu == pytest.approx(0.1)
    assert result.energy_per_tflop_j == pytest.approx(10.0)
    assert result.peak_source is not None
    assert "datasheet" in result.peak_source
    assert record(gpus=[A100, A100]).mfu == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpus": None}, "no GPU does the work"),
        ({"gpus": ["NVIDIA Unheard"]}, "NVIDIA Unheard"),
        ({"precision": "fp32"}, "fp32"),
        ({"precision": "fp8"}, "fp8"),  # whose own peak is twice as high
    ],
)
def test_without_a_peak_there_is_a_reason(changes: dict[str, Any], reason: str) -> None:
    result = record(**changes)
    assert result.mfu is None
    assert result.mfu_unavailable is not None
    assert reason in result.mfu_unavailable
    assert result.energy_per_tflop_j == pytest.approx(10.0)


def test_without_energy_or_operations_nothing_is_made_up() -> None:
    assert record(gross_j=None).energy_per_tflop_j is None
    unknown = {"per_output_token": None, "method": "none", "confidence": "unknown"}
    result = flops_record(
        unknown, requests=1, work_s=1.0, gross_j=1.0, precision="bf16", gpus=[A100]
    )
    assert result.mfu is result.energy_per_tflop_j is result.per_s is None
    assert result.mfu_unavailable == "the operations are not known"


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L40", 181.05),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_names_that_begin_alike_are_told_apart(name: str, tera: float) -> None:
    result = peak(name)
    assert result is not None
    assert result.flops_per_s == tera * 1e12
    assert "dense" in result.source or "with sparsity, halved" in result.source


def test_what_has_no_published_rate_has_none() -> None:
    assert peak("Tesla T4") is None
    assert peak("NVIDIA GeForce RTX 4090 D") is None
    assert peak("NVIDIA GeForce RTX 3090 Ti") is None
    assert peak("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert peak("NVIDIA A100-SXM4-80GB MIG 1g.10gb") is None
    assert peak("NVIDIA A1000") is None


def test_utilisation_is_the_mean_inside_the_window_of_the_cards_at_work() -> None:
    rows = [
        looked(50, "a", "utilization_gpu_percent", 0),
        looked(150, "a", "utilization_gpu_percent", 80),
        looked(180, "a", "utilization_gpu_percent", 100),
        looked(180, "other", "utilization_gpu_percent", 0),
        looked(150, "a", "utilization_memory_percent", 40),
        looked(150, "a", "memory_used_bytes", 5e9),
        looked(180, "a", "memory_used_bytes", 6e9),
        looked(250, "a", "memory_used_bytes", 9e9),
    ]
    samples = recorded(rows)
    assert utilisation(samples, (100, 200), ["a"]) == {
        "gpu_utilization_percent": 90.0,
        "memory_utilization_percent": 40.0,
        "device_memory_used_max_bytes": 6_000_000_000,
    }
    empty = utilisation(samples, (300, 400), ["a"])
    assert empty["gpu_utilization_percent"] is None
    assert "no sample" in empty["utilization_unavailable"]
    on_cpu = utilisation(samples, (100, 200), [])
    assert on_cpu == {"utilization_unavailable": "no GPU does the work"}


def test_the_power_of_all_cards_is_added_at_the_first_ones_times() -> None:
    rows = [
        *(looked(at * SECOND, "a", "power_instant_w", 100.0 + at) for at in range(5)),
        *(looked(at * SECOND, "a", "power_average_w", 1.0) for at in range(5)),
        *(looked(at * SECOND, "b", "power_usage_w", 10.0 * at) for at in (0, 2, 4)),
        looked(2 * SECOND, "other", "power_instant_w", 500.0),
    ]
    samples = recorded(rows)
    window = (SECOND, 4 * SECOND)
    assert power_inside(samples, window, ["a"]) == ([1, 2, 3, 4], [101, 102, 103, 104])
    both = power_inside(samples, (0, 4 * SECOND), ["a", "b"])
    assert both == ([0, 1, 2, 3, 4], [100, 111, 122, 133, 144])
    assert power_inside(samples, window, ["a", "silent"]) is None
    assert power_inside(samples, window, []) is None


def test_reasons_to_slow_down_are_told_when_they_change() -> None:
    masks = [(1, 0x1), (2, 0x0), (3, 0x0), (4, 0x4 | 0x40), (5, 0x4 | 0x40), (6, 0x0)]
    rows = [SampleRow(t_ns, "a", "nvml", "throttle_reasons", float(mask)) for t_ns, mask in masks]
    samples = recorded(rows)
    assert throttle_history(samples, "a") == [
        {"t_monotonic_ns": 1, "reasons": ["gpu_idle"]},
        {"t_monotonic_ns": 2, "reasons": []},
        {"t_monotonic_ns": 4, "reasons": ["sw_power_cap", "hw_thermal_slowdown"]},
        {"t_monotonic_ns": 6, "reasons": []},
    ]
    assert throttle_history(samples, "silent") is None


def test_operations_are_those_of_the_lengths_that_came() -> None:
    source = resolve_model(ExperimentConfig(model="tiny-llama"))
    requested = workload_flops(source, [(8, 100)] * 2)
    received = workload_flops(source, [(8, 100), (8, 50)])
    assert received["prefill_per_request"] == requested["prefill_per_request"]
    assert 0.7 < received["decode_per_request"] / requested["decode_per_request"] < 0.76
    assert received["per_output_token"] == pytest.approx(2 * received["per_request"] / 150)


def test_no_operations_are_claimed_of_answers_whose_lengths_are_not_known() -> None:
    source = resolve_model(ExperimentConfig(model="tiny-llama"))
    unknown = workload_flops(source, [])
    assert (unknown["per_output_token"], unknown["method"]) == (None, "none")
    assert "traffic" in unknown["confidence"]


@pytest.mark.parametrize("serving", [None, {"rate_per_s": 0}])
def test_a_server_that_only_waits_does_no_operations_of_what_the_study_would_ask(
    serving: dict[str, Any] | None,
) -> None:
    config = ExperimentConfig(
        model="tiny-llama", n=1, max_input_tokens=8, max_output_tokens=4, serving=serving
    )
    run = EngineRun.__new__(EngineRun)
    run._config, run._served_lengths = config, []
    lengths = run._lengths(build_workload(config), {"completions": []})
    assert lengths == ([(8, 4)] if serving is None else [])


def test_clocks_are_those_of_a_card_at_work_and_say_what_held_them_down() -> None:
    samples = recorded(
        looks("a", "sm_clock_mhz", 345, 1980, 1980, 1965, 1980, 1980, 1500, 1515, 345),
        looks("a", "throttle_reasons", 0x1, 0, 0, 0, 0, 0, 0x4, 0x4 | 0x40, 0x1),
        looks("a", "memory_clock_mhz", 1593, *[2619] * 8),
        looks("other", "sm_clock_mhz", *[210] * 9),
    )
    result = clock_state(samples, (0, 5 * SECOND), ["a"])
    assert result is not None
    assert result.model_dump() == {
        "sm_clock_median_mhz": 1980,
        "sm_clock_min_mhz": 1500,
        "sm_clock_max_mhz": 1980,
        "memory_clock_median_mhz": 2619,
        "memory_clock_min_mhz": 2619,
        "memory_clock_max_mhz": 2619,
        "sm_clock_free_mhz": 1980,
        "slowed_share": pytest.approx(2 / 9),
        "slowed_by_heat_share": pytest.approx(1 / 9),
        "slowed_by": ["sw_power_cap", "hw_thermal_slowdown"],
    }
    capped = clock_state(samples, (3 * SECOND, 7 * SECOND // 2), ["a"])
    assert capped is not None
    assert (capped.sm_clock_max_mhz, capped.sm_clock_free_mhz) == (1515, None)
    assert clock_state(samples, (0, 5 * SECOND), []) is None
    assert clock_state(samples, (0, 5 * SECOND), ["silent"]) is None


def test_of_a_card_that_gives_no_reasons_what_held_it_down_is_not_known() -> None:
    samples = recorded(looks("a", "sm_clock_mhz", 1980, 1500))
    result = clock_state(samples, (0, SECOND), ["a"])
    assert result is not None
    assert (result.sm_clock_median_mhz, result.sm_clock_free_mhz) == (1740, None)
    assert (result.slowed_share, result.slowed_by) == (None, None)


def test_limits_that_somebody_lifted_within_the_window_are_named() -> None:
    samples = recorded(
        looks("a", "power_limit_w", 250, 250, 240, 400, 250),
        looks("a", "sm_clock_mhz", 1185, 1215, 1200, 345, 1980),
    )
    both = {"power_limit_w": 250.0, "sm_clock_mhz": 1200}
    set_limits = {
        "a": {"enforced_power_limit_w": 250.0},
        "silent": {"enforced_power_limit_w": 250.0},
    }
    assert lifted_limits(samples, (0, 5 * SECOND), both, set_limits) == {
        "limit_lifted": "a: 400 W in place of 250 W; a: 1980 MHz in place of 1200 MHz",
    }
    assert not lifted_limits(samples, (0, SECOND), both, set_limits)
    assert not lifted_limits(samples, (0, 5 * SECOND), {}, set_limits)
    read = {"a": {"enforced_power_limit_w": 400.0}}  # what it said once it was set
    assert not lifted_limits(samples, (0, 5 * SECOND), {"power_limit_w": 250}, read)
    rounded = recorded(looks("a", "power_limit_w", 250.124, 250.5))
    unread = {"a": {"enforced_power_limit_w": None}}
    assert not lifted_limits(rounded, (0, 5 * SECOND), {"power_limit_w": 250.1236}, unread)
