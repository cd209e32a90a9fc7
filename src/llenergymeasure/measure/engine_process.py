"""The engine's process: the steps of one run, from preflight to release.

It shares nothing with the recorder but the clock: it marks phases, the recorder samples, and
what they mean together is computed afterwards from the files of both.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Backend, Completion, Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.config.spec import RunSpec
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError, MeterError, PreflightError
from llenergymeasure.files import write_text
from llenergymeasure.measure.marks import Marks
from llenergymeasure.measure.outcomes import report_failure
from llenergymeasure.measure.warmup import WarmUp
from llenergymeasure.meter.ticks import TickClock
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.models.flops import flops_per_output_token
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request, Workload

RECORDER_WAIT_S = 90.0


def main(arguments: list[str] | None = None) -> int:
    """Run the engine's side of the run in ``--out``; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    folder = RunFolder(parser.parse_args(arguments).out)
    try:
        spec = RunSpec.model_validate_json(folder.spec.read_text())
        EngineRun(spec, folder).run()
    except BaseException as error:
        report_failure(folder, error)
        if isinstance(error, LlemError):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return EXIT_FAILED
        raise
    return EXIT_OK


class EngineRun:
    """One run as the engine's process sees it."""

    def __init__(self, spec: RunSpec, folder: RunFolder) -> None:
        self._spec = spec
        self._folder = folder
        self._config = ExperimentConfig.model_validate(spec.config)
        self._marks = Marks(folder.marks)

    def run(self) -> None:
        """Go through the phases and write ``engine.json``.

        Raises:
            PreflightError: the run cannot start here; all reasons in one message.
            BackendError: the engine failed.
        """
        backend = registry.get(self._spec.backend)
        with self._marks.phase("preflight"):
            workload = self._preflight(backend)
        sensors = self._wait_for_recorder()
        protocol = resolve_protocol(self._config, measured=_measured(sensors))
        self._rest("settle", self._spec.gap_s)
        self._rest("idle_before", protocol.idle_before_s)
        with self._marks.phase("load"):
            engine = backend.load(self._config)
            engine.synchronize()
        batches = cut_batches(workload.requests, engine.batch_size)
        try:
            with self._marks.phase("warmup"):
                warmup = WarmUp(engine, batches, protocol).run()
            self._rest("idle_loaded", protocol.idle_before_s)
            engine.peak_memory_bytes()
            with self._marks.phase("measure"):
                window = Window(engine, batches, protocol, self._tick_clock(sensors)).measure()
            memory = engine.peak_memory_bytes()
            self._rest("idle_after", protocol.idle_after_s)
            self._write(backend, engine, workload, protocol, window, memory, warmup)
        finally:
            with self._marks.phase("release"):
                engine.close()

    def _preflight(self, backend: Backend) -> Workload:
        problems = [] if self._spec.skip_preflight else backend.problems(self._config)
        if problems:
            raise PreflightError(problems)
        return build_workload(self._config)

    def _wait_for_recorder(self) -> list[dict[str, Any]]:
        """Return what the recorder's sensors are, once it samples."""
        deadline = time.monotonic() + RECORDER_WAIT_S
        while not self._folder.recorder.is_file():
            if time.monotonic() > deadline:
                raise MeterError(f"the recorder was not ready within {RECORDER_WAIT_S:g} s")
            time.sleep(0.005)
        ready = json.loads(self._folder.recorder.read_text())
        if not ready.get("ready"):
            raise MeterError(f"the recorder did not start: {ready.get('error')}")
        sensors: list[dict[str, Any]] = ready["sensors"]
        return sensors

    def _rest(self, phase: str, duration_s: float) -> None:
        if duration_s > 0:
            with self._marks.phase(phase):
                time.sleep(duration_s)

    def _tick_clock(self, sensors: list[dict[str, Any]]) -> TickClock | None:
        """Return the counter's ticks, or null where no counter is there to align on."""
        counts = any("energy_counter_j" in sensor["quantities"] for sensor in _available(sensors))
        return TickClock(self._folder.ticks) if counts else None

    def _write(
        self,
        backend: Backend,
        engine: Engine,
        workload: Workload,
        protocol: ProtocolSettings,
        window: "WindowResult",
        memory: int | None,
        warmup: dict[str, Any],
    ) -> None:
        document = {
            "protocol": protocol.as_dict(),
            "workload": {
                "prompt_hash": workload.prompt_hash,
                "requests": len(workload.requests),
                "input_tokens": workload.input_tokens,
                "output_tokens": workload.output_tokens,
                "notes": list(workload.notes),
            },
            "window": {"start_monotonic_ns": window.start_ns, "end_monotonic_ns": window.end_ns},
            "work_s": window.work_s,
            "tick_aligned": window.tick_aligned,
            "batches": window.batches,
            "requests": [asdict(completion) for completion in window.completions],
            "batch_of_request": window.batch_of_request,
            "peak_memory_bytes": memory,
            "devices": list(engine.devices),
            "resolved_config": engine.resolved_config(),
            "versions": backend.versions(),
            "warmup_result": warmup,
            "flops": workload_flops(self._config, workload),
        }
        write_text(self._folder.engine, json.dumps(document, default=str))


def cut_batches(requests: Sequence[Request], batch_size: int | None) -> list[Sequence[Request]]:
    """Return the batch plan: the requests in order, ``batch_size`` at a time; all at once if null.

    The last batch is smaller where the count does not divide.
    """
    size = batch_size or len(requests)
    return [requests[place : place + size] for place in range(0, len(requests), size)]


def workload_flops(config: ExperimentConfig, workload: Workload) -> dict[str, Any]:
    """Return the operations that an output token of the whole workload costs, prompts included.

    The same for every backend: it follows from the model's dimensions and the asked lengths.
    """
    architecture = resolve_model(config).architecture
    if architecture is None:
        return {
            "per_output_token": None,
            "method": "none",
            "confidence": "the dimensions of this model's family are not known here",
        }
    lengths = Counter(
        (len(request.prompt_token_ids), request.max_output_tokens) for request in workload.requests
    )
    total = sum(
        count * output * flops_per_output_token(architecture, prompt, output)
        for (prompt, output), count in lengths.items()
    )
    per_token = total / workload.output_tokens
    return {"per_output_token": per_token, "method": "architecture", "confidence": "high"}


def _available(sensors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sensor for sensor in sensors if sensor.get("unavailable") is None]


def _measured(sensors: list[dict[str, Any]]) -> bool:
    return any(sensor["kind"] == "measured" for sensor in _available(sensors))


class WindowResult:
    """What happened inside the window."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.end_ns = 0
        self.work_s = 0.0
        self.tick_aligned = False
        self.batches = 0
        self.completions: list[Completion] = []
        self.batch_of_request: list[int] = []


class Window:
    """Repeats the batch plan until the window is long enough; never a partial pass."""

    def __init__(
        self,
        engine: Engine,
        batches: Sequence[Sequence[Request]],
        protocol: ProtocolSettings,
        ticks: TickClock | None,
    ) -> None:
        self._engine = engine
        self._batches = batches
        self._protocol = protocol
        self._ticks = ticks

    def measure(self) -> WindowResult:
        """Open the window on a counter tick where there is one, work, close it on a tick."""
        result = WindowResult()
        opened_ns = self._next_tick()
        result.start_ns = opened_ns or time.monotonic_ns()
        if opened_ns is not None:
            self._shift_phase()
        work_started_ns = time.monotonic_ns()
        shortest_ns = self._protocol.window_min_s * NS_PER_S
        while True:
            for batch in self._batches:
                result.completions += self._engine.generate(batch)
                result.batch_of_request += [result.batches] * len(batch)
                result.batches += 1
            now_ns = time.monotonic_ns()
            long_enough = now_ns - work_started_ns >= shortest_ns
            if long_enough and result.batches >= self._protocol.min_batches:
                break
        closed_ns = self._next_tick() if opened_ns is not None else None
        result.end_ns = closed_ns or now_ns
        result.work_s = (now_ns - work_started_ns) / NS_PER_S
        result.tick_aligned = opened_ns is not None and closed_ns is not None
        return result

    def _next_tick(self) -> int | None:
        if self._ticks is None:
            return None
        self._engine.synchronize()
        return self._ticks.wait_next(timeout_s=2.0)

    def _shift_phase(self) -> None:
        """Begin the work at a random place between two ticks, so that no alias repeats."""
        time.sleep(random.uniform(0.0, self._ticks.period_s() if self._ticks else 0.0))


if __name__ == "__main__":
    sys.exit(main())
