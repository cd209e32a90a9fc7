"""The limit of a run that the study does not limit: long enough, and in proportion."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.plan import estimate
from llenergymeasure.run.preflight.forecast import estimated_work, model_and_device
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.prompts import build_workload
from support.attempts import supervised


def limit_s(card: Gpu | None = None, gap_s: float = 0.0, **settings: Any) -> float:
    config = ExperimentConfig.model_validate({"model": "tiny-llama", "n": 4, **settings})
    cards = () if card is None else (card,)
    facts = model_and_device(config, resolve_model(config), cards)
    work = estimated_work(config, build_workload(config))
    return estimate.limit_s(
        config, resolve_protocol(config, measured=card is not None), facts, work, gap_s
    )


def test_a_small_run_is_given_minutes_and_not_hours() -> None:
    assert 600 < limit_s() < 3600


def test_the_rests_are_on_top() -> None:
    assert limit_s(gap_s=3600) == limit_s() + 3600
    assert limit_s(protocol="publication") >= limit_s() + 300 + 3 * 30 + 60


@pytest.mark.parametrize(
    "more",
    [
        {"n": 400},
        {"max_output_tokens": 2000},
        {"model": "llama-3.1-8b", "weights": "random"},
        {"pytorch": {"torch_compile": True}},
    ],
)
def test_more_to_do_is_given_more_time(more: dict[str, Any]) -> None:
    assert limit_s(**more) > limit_s() + 60


def test_a_gpu_is_given_less_than_a_cpu() -> None:
    large = {"model": "llama-3.1-8b", "weights": "random", "protocol": "quick"}
    assert limit_s(Gpu(0, "GPU-0", "of no known speed"), **large) < limit_s(**large) / 3


def test_an_unknown_model_is_taken_for_a_large_one() -> None:
    config = ExperimentConfig.model_validate({"model": "someone/something", "n": 4})
    protocol = resolve_protocol(config, measured=False)
    unknown = estimate.limit_s(
        config, protocol, model_and_device(config, None, ()), estimated_work(config, None)
    )
    assert unknown > limit_s(model="llama-3.1-8b", weights="random")


def test_what_is_not_all_on_the_gpu_is_given_more_time() -> None:
    config = {"model": "llama-3.1-8b", "weights": "random", "n": 4}
    h100 = Gpu(0, "GPU-0", "NVIDIA H100 80GB HBM3")
    full_limit_s = limit_s(h100, **config)
    assert limit_s(h100, pytorch={"device_map": "auto"}, **config) > 3 * full_limit_s


def test_what_a_run_waits_for_its_gpu_is_no_part_of_its_time(tmp_path: Path) -> None:
    record = "print(time.monotonic() - started_s)\nengine.kill()\nreturn End.by_signal(15)"
    result = supervised(tmp_path / "runs" / "a" / "1", record, waits_s=1.0)
    assert result.returncode == 143, result.stderr
    assert float(result.stdout.splitlines()[0]) < 0.5


def test_the_limit_counts_the_longest_turn_of_a_trace_s_sessions() -> None:
    """The requests that it is made from are the first ones of the trace alone."""
    config = ExperimentConfig.model_validate({"model": "tiny-llama", "n": 4})
    first = build_workload(config)
    work = estimated_work(config, replace(first, longest_in_trace_tokens=50_000))
    assert work.input_tokens + work.output_tokens == 50_000
    assert estimated_work(config, first).input_tokens == 512


@pytest.mark.parametrize(
    ("given", "least_h", "most_h"),
    [
        ({}, 20 * 300 / 3600, 3),
        ({"timeout_seconds": 3600}, 20, 25),
        ({"timeout_seconds": 86_400}, 200, 400),
    ],
)
def test_no_request_of_a_replay_is_given_longer_than_its_own_limit(
    given: dict[str, Any], least_h: float, most_h: float, tmp_path: Path
) -> None:
    """Sessions of many turns gave days; but each of 20 requests of the warm-up may take so long."""
    lines = [
        {"session_id": f"s{session}", "input_length": 4000 * turn, "output_length": 100}
        | ({"timestamp": 1000 * session} if turn == 1 else {"delay": 1000})
        for session in range(20)
        for turn in range(1, 31)
    ]
    trace = tmp_path / "sessions.jsonl"
    trace.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    serving = {"arrivals": "trace", "trace": str(trace), **given}
    large = {"model": "llama-3.1-8b", "weights": "random", "n": 5}
    card = Gpu(0, "GPU-0", "of no known speed")
    assert least_h < limit_s(card, serving=serving, **large) / 3600 < most_h
