"""Traffic on the test's own server, without a workflow around it."""

import json
import time
from pathlib import Path
from typing import Any

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
from llenergymeasure.run.result.traffic_table import traffic_table
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


def judged(sent: list[SentRequest], config: ExperimentConfig) -> ServedRun:
    """Judge what was sent, as if it had been a window."""
    table = traffic_table(sent, Counted())  # type: ignore[arg-type]
    window = (sent[0].exchange.planned_ns, time.monotonic_ns())
    client_values = {"ramp_up": "steady", "gauges": [], "client_cpu_s": 0.0}
    return ServedRun.from_requests(table, config, window, client_values)


def record(run: ServedRun) -> Serving:
    """What the result says of a run without energy."""
    energy = Energy(kind=None, source=None, readings=[], gross_j=None)
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


def engine(config: ExperimentConfig, *arguments: str) -> ServedEngine:
    """The test's server, started as an engine's own would be."""
    port = free_port()
    told = ServerCommand(
        argv=tuple(command(str(port), *arguments)),
        base_url=f"http://127.0.0.1:{port}/v1",
        model="sim",
        metrics_path="/metrics",
        gauges=GAUGES,
        settings_path="/settings",
    )
    return ServedEngine(told, config, (), traffic_prompts(config))


def protocol(config: ExperimentConfig) -> ProtocolSettings:
    """What is in force for it."""
    return resolve_protocol(config, measured=False)


def run(folder: Path, config: ExperimentConfig, *arguments: str) -> tuple[ServedRun, list[str]]:
    """Serve, send and judge; return the run and its phases."""
    marks = Marks(folder / "marks.jsonl")
    served = engine(config, *arguments)
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
