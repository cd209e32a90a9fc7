"""A server that one run leaves to the next: the same process, or ended where another is wanted."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving.engine import ServedEngine, reuse_server
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.prompts import traffic_prompts
from llenergymeasure.workload.traffic_prompts import content_seed
from support.serving_runs import engine, experiment
from support.serving_server import FAULTS

CONFIG = experiment({"rate_per_s": 20})
NEXT = experiment({"rate_per_s": 30, "input_tokens": {"tokens": 12}})


class Backend:
    """A backend whose server for any experiment is this one."""

    name = "test"

    def __init__(self, command: ServerCommand) -> None:
        self.command = command

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:  # noqa: ARG002
        return self.command


@pytest.fixture
def first() -> Iterator[ServedEngine]:
    served = engine(CONFIG, "--first-ms", "1", "--next-ms", "1")
    yield served
    if served.exit_code() is None:
        served._process.close()


def _next(before: ServedEngine, **changed: Any) -> ServedEngine | None:
    command = replace(before.command, gauges={"requests": "sim:requests"}, **changed)
    return reuse_server(before, Backend(command), NEXT, traffic_prompts(NEXT))


def test_the_next_run_asks_the_same_process_and_counts_its_own_requests(
    first: ServedEngine,
) -> None:
    first.generate(first.warmup_requests()[:5])
    assert first.answered_all
    process = first._process
    second = _next(first)
    assert second is not None
    assert second._process is process
    requests = second.warmup_requests()[:3]
    assert len(second.generate(requests)) == 3
    assert {len(request.prompt_token_ids) for request in requests} == {12}
    assert second.run(second.gauges())["foreign_requests"] == 0
    second.close()
    assert process._child is None


@pytest.mark.parametrize("changed", [{"argv": ("other",)}, {"environment": {"MODE": "other"}}])
def test_a_run_that_would_start_another_server_ends_this_one(
    first: ServedEngine, changed: dict[str, Any]
) -> None:
    process = first._process
    assert _next(first, **changed) is None
    assert process._child is None


@pytest.mark.parametrize("backend", ["pytorch", "vllm", "sglang", "tensorrt"])
def test_one_server_does_for_all_rates(backend: str) -> None:
    def started(config: ExperimentConfig) -> tuple[Any, Any]:
        command = registry.get(backend).server(config, 1)  # type: ignore[arg-type]
        return command.argv, command.environment

    settings = {"backend": backend, "max_output_tokens": 20}
    first = experiment({"rate_per_s": 20}, slo={"ttft_ms": 9}, **settings)
    other = experiment({"arrivals": "closed", "concurrency": 3, "turns": 2}, **settings)
    assert started(first) == started(other)


def test_a_request_that_failed_is_remembered(first: ServedEngine) -> None:
    good_requests, bad_request = first.warmup_requests()[:3], first.warmup_requests()[3]
    code = next(code for code, fault in FAULTS.items() if fault == "truncated")
    first.generate(
        [
            *good_requests,
            replace(bad_request, prompt_token_ids=(code, *bad_request.prompt_token_ids[1:])),
        ]
    )
    assert not first.answered_all
    first.generate(good_requests)
    assert not first.answered_all
    first._process.close()
    assert first.run(first.gauges()) == {}  # of a server that is gone
    first.close()


def test_each_experiment_asks_prompts_of_its_own_and_the_same_arrivals() -> None:
    seeds = {content_seed(CONFIG, 1, each) for each in ("a" * 12, "b" * 12)}
    seeds |= {content_seed(CONFIG, 2, "a" * 12), content_seed(CONFIG, 1)}
    assert len(seeds) == 4
    assert content_seed(CONFIG, 1, "a" * 12) == content_seed(CONFIG, 1, "a" * 12)
    requests = [traffic_prompts(CONFIG, seed).turn(0).request for seed in sorted(seeds)]
    assert len({each.prompt_token_ids for each in requests}) == 4
    assert len({each.max_output_tokens for each in requests}) == 1


def test_a_server_whose_run_ended_before_it_began_is_not_started() -> None:
    with subprocess.Popen(["true"]) as run:
        pass
    code = (
        "import os, sys; from llenergymeasure.backends.serving import guard\n"
        f"os.getppid = lambda: {run.pid}\n"
        f"sys.argv = ['guard', '{run.pid}', 'echo', 'started']\n"
        "sys.exit(guard.main())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (1, "", "")
