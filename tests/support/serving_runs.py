"""Traffic on the test's own server, without a workflow around it."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.results.energy import Energy
from llenergymeasure.results.serving import Serving
from llenergymeasure.run.engine.phase_marks import Marks, read_marks
from llenergymeasure.run.engine.traffic import SentRequest
from llenergymeasure.run.engine.traffic_window import measure_traffic
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.run.result.traffic_table import TRAFFIC_SCHEMA, traffic_table
from llenergymeasure.workload.prompts import traffic_prompts
from llenergymeasure.workload.requests import Request
from support.serving_server import command

GAUGES = {
    "running": "sim:running",
    "waiting": "sim:waiting",
    "kv_cache_share": "sim:cache",
    "requests": "sim:requests",
}


class NoEnergy:
    """Stands where the recording would be: nothing was recorded."""

    resolution_s = 0.0

    def stretch(self, *_: int) -> None:
        return None


class Counted:
    """Stands where the engine would be: every prompt is as long as it was sent."""

    sends_token_ids = True

    def expected_input_tokens(self, request: Request) -> int:
        return len(request.prompt_token_ids)


STEADY = {"ramp_up": "steady", "gauges": [], "client_cpu_s": 0.0}
"""What a client says of a window that nothing disturbed."""

ONE_USER = {"arrivals": "closed", "concurrency": 1}


def judged(sent: list[SentRequest], config: ExperimentConfig) -> ServedRun:
    """Judge what was sent, as if it had been a window."""
    table = traffic_table(sent, Counted())  # type: ignore[arg-type]
    window = (sent[0].exchange.planned_ns, time.monotonic_ns())
    return ServedRun.from_requests(table, config, window, STEADY)


def answers(*times_s: tuple[float, list[float]], **columns: Any) -> pa.Table:
    """Requests by when each was to be sent and when its parts came, a token each.

    ``columns`` are of all of them, in place of what follows from the times.
    """
    rows = [
        {
            "planned_monotonic_ns": round(planned_s * 1e9),
            "start_monotonic_ns": round(planned_s * 1e9),
            "first_token_monotonic_ns": round(parts_s[0] * 1e9),
            "last_token_monotonic_ns": round(parts_s[-1] * 1e9),
            "end_monotonic_ns": round(parts_s[-1] * 1e9),
            "token_monotonic_ns": [round(at_s * 1e9) for at_s in parts_s],
            "input_tokens": 1,
            "output_tokens": len(parts_s),
            "output_tokens_asked": len(parts_s),
            "conversation": number,
            "turn": 0,
            "turns": 1,
            "latency_s": parts_s[-1] - planned_s,
            "lateness_s": 0.0,
        }
        for number, (planned_s, parts_s) in enumerate(times_s)
    ]
    return pa.Table.from_pylist([row | columns for row in rows], schema=TRAFFIC_SCHEMA)


def in_window(
    table: pa.Table,
    window_s: tuple[float, float],
    serving: dict[str, Any] | None = None,
    **settings: Any,
) -> ServedRun:
    """Judge requests in a window of undisturbed traffic: of one user, if no other is given."""
    start_ns, end_ns = (round(at_s * 1e9) for at_s in window_s)
    config = experiment(serving or ONE_USER, **settings)
    return ServedRun.from_requests(table, config, (start_ns, end_ns), STEADY)


def record(run: ServedRun, gross_j: float | None = None) -> Serving:
    """What the result says of a run, of which no more than its energy was recorded, if that."""
    energy = Energy(kind=None, source=None, readings=[], gross_j=gross_j)
    return run.record(energy, NoEnergy())  # type: ignore[arg-type]


def experiment(serving: dict[str, Any], window_s: float = 2.0, **more: Any) -> ExperimentConfig:
    """A small experiment under traffic."""
    settings = {
        "model": "tiny-llama",
        "n": 3,
        "protocol": "quick",
        "max_input_tokens": 8,
        "max_output_tokens": 16,
        "window": {"min_seconds": window_s},
    }
    return ExperimentConfig.model_validate({**settings, "serving": serving, **more})


def engine(config: ExperimentConfig, *arguments: str, base_url: str | None = None) -> ServedEngine:
    """The test's server, started as an engine's own would be, or one that is running already."""
    port = free_port()
    told = ServerCommand(
        argv=() if base_url else tuple(command(str(port), *arguments)),
        base_url=base_url or f"http://127.0.0.1:{port}/v1",
        model="sim",
        metrics_path="/metrics",
        gauges=GAUGES,
        settings_path="/settings",
    )
    return ServedEngine(told, config, (), traffic_prompts(config))


def protocol(config: ExperimentConfig) -> ProtocolSettings:
    """What is in force for it."""
    return resolve_protocol(config, measured=False)


def run(
    folder: Path, config: ExperimentConfig, *arguments: str, base_url: str | None = None
) -> tuple[ServedRun, list[str]]:
    """Serve, send and judge; return the run and its phases."""
    marks = Marks(folder / "marks.jsonl")
    served = engine(config, *arguments, base_url=base_url)
    try:
        window = measure_traffic(served, protocol(config), marks)
        table = traffic_table(window.sent, served)
    finally:
        served.close()
    client_values = json.loads(json.dumps(window.report()))
    phases = [name for name, _, _ in read_marks(folder / "marks.jsonl")]
    return ServedRun.from_requests(
        table, config, (window.start_ns, window.end_ns), client_values
    ), phases
