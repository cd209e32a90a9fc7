"""The engine's process: the steps of one run, from preflight to release.

It shares only the clock with the recorder: it marks phases, the recorder samples, and the result is
computed afterwards from the files of both.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Backend, Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError, PreflightError
from llenergymeasure.files import read_bytes, read_json, write_text
from llenergymeasure.machine.environment import environment
from llenergymeasure.machine.gpus.allotment import number_own_cards
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.machine.gpus.state import busy_gpus_except, compute_process_counts
from llenergymeasure.plan.estimate import limit_s
from llenergymeasure.processes import die_with
from llenergymeasure.redact import without_secrets, without_secrets_in
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.write_outcome import report_failure
from llenergymeasure.run.engine.batch_window import (
    cut_batches,
    device_is_measured,
    measure_window,
    shortest_window_s,
    wait_for_sensors,
)
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.quality_scores import check_tasks, command_score, engine_quality
from llenergymeasure.run.engine.settle import Reading, read_gpus, settle
from llenergymeasure.run.engine.warmup import WarmUp, study_sets_warmup
from llenergymeasure.run.pin import enforce_pin
from llenergymeasure.run.preflight import checks
from llenergymeasure.run.preflight.forecast import estimated_work, model_and_device
from llenergymeasure.run.preflight.memory import compute_precision, memory_record
from llenergymeasure.run.result.flops_record import workload_flops
from llenergymeasure.screen import say
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import HostCpu
from llenergymeasure.workload.models.resolve import ModelSource, measured_commit
from llenergymeasure.workload.prompts import build_workload, traffic_prompts
from llenergymeasure.workload.requests import Request, Workload
from llenergymeasure.workload.traffic_prompts import TrafficPrompts, content_seed


def main(arguments: list[str] | None = None) -> int:
    """Run the engine's side of the run in ``--out``; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, nargs="+", required=True, help="one, or those that share a server"
    )
    parser.add_argument("--watch", type=int, help="the process that this one must not outlive")
    options = parser.parse_args(arguments)
    if options.watch is not None:
        die_with(options.watch)
        number_own_cards()
    server: SharedServer | None = None
    for folder in map(RunFolder, options.out):
        write_text(folder.engine_pid, str(os.getpid()))
        try:
            spec = RunSpec.model_validate_json(read_bytes(folder.spec))
            run = EngineRun(spec, folder, server, options.watch)
            server = run.run(last=folder.path == options.out[-1])
        except BaseException as error:
            report_failure(folder, error)
            if isinstance(error, LlemError):
                say(without_secrets(f"{type(error).__name__}: {error}"))
                return EXIT_FAILED
            raise
        if server is None:
            break
    return EXIT_OK


@dataclass(frozen=True)
class SharedServer:
    """A server that one run leaves running for the next.

    Attributes:
        engine: the server, with nothing under way.
        started_by: the run that started it.
        runs: how many it has served.
    """

    engine: Engine
    started_by: str
    runs: int


@dataclass(frozen=True)
class _Prepared:
    """What is known of a run before it has an engine."""

    preflight: checks.Preflight
    workload: Workload
    environment: dict[str, Any]
    sensors: list[dict[str, Any]]
    protocol: ProtocolSettings
    read_gpus: Callable[[], Reading]
    settled: dict[str, Any]


class EngineRun:
    """One run as the engine's process sees it."""

    def __init__(
        self, spec: RunSpec, folder: RunFolder, server: SharedServer | None, watched_pid: int | None
    ) -> None:
        self._spec = spec
        self._quality_settings = spec.sections.get("quality") or {}
        self._processes = RunProcesses.around_engine(folder.engine_pid, watched_pid)
        self._folder = folder
        self._config = config = ExperimentConfig.model_validate(spec.config)
        self._cycle_config = config.with_cycle_seed(spec.cycle)
        # Batches are the same in every cycle, so that cycles differ in nothing but chance.
        self._workload_config = config if config.serving is None else self._cycle_config
        self._server = server
        # Runs on one server ask different prompts, so that none is answered from its cache.
        experiment = None if spec.session is None else spec.experiment
        served = config.served
        self._content_seed = content_seed(config, spec.cycle, experiment) if served else None
        self._marks = Marks(folder.marks)
        self._served_lengths: list[tuple[int, int]] = []
        self._traffic_notes: tuple[str, ...] = ()

    def run(self, *, last: bool) -> SharedServer | None:
        """Go through the phases and write ``engine.json``.

        Args:
            last: whether no other run comes after it on its server.

        Returns:
            The server for the next run; None where it was ended.

        Raises:
            PreflightError: the run cannot start here; all reasons in one message.
            BackendError: the engine failed.
        """
        if (document := read_json(self._folder.engine)) is not None:
            self._judge(document)  # measured by an earlier process of this run
            return None
        backend = registry.get(self._spec.backend)
        background = ThreadPoolExecutor(2)
        cpus = HostCpu(self._processes)
        first_sample = background.submit(checks.sample_cpus, cpus)
        prepared = self._prepare(backend, background.submit(environment))
        # An external server may be busy before the run.
        external = self._workload_config.external_server
        cpu_problems = () if external else checks.check_cpus(cpus, first_sample.result())
        engine = self._server_of_previous_run(backend)
        if engine is None and self._server is not None:
            return None
        if engine is None:
            self._rest("idle_before", prepared.protocol.idle_before_s)
        # The rest of that look passes while the model loads.
        cpu_warnings = background.submit(tuple, cpu_problems)
        if engine is None:
            with self._marks.phase("load"):
                engine = self._load(backend, prepared.preflight.cards)
                engine.synchronize()
                _freeze_loaded_objects()
        warnings = (*prepared.preflight.warnings, *cpu_warnings.result())
        run = f"{self._spec.experiment}/{self._spec.cycle}"
        previous = self._server or SharedServer(engine, run, 0)
        server = SharedServer(engine, previous.started_by, previous.runs + 1)
        keep_server = False
        try:
            document = self._measure_run(server, prepared)
            document["versions"] = backend.versions()
            document["preflight"] = [checks.as_dict(problem) for problem in warnings]
            self._write(document)
            document["quality"] = self._quality(engine)
            if document["quality"] is not None:
                self._write(document)
            if not last:
                from llenergymeasure.run.engine.traffic_server import is_idle

                keep_server = is_idle(engine)
        finally:
            if not keep_server:
                with self._marks.phase("release"):
                    engine.close()
        if keep_server:
            return server
        self._judge(document)
        return None

    def _prepare(self, backend: Backend, environment_future: Future[dict[str, Any]]) -> _Prepared:
        """Do what comes before the engine: preflight, pin, protocol, the rest between two runs."""
        with self._marks.phase("preflight"):
            preflight, workload = self._preflight(backend)
        sensors = wait_for_sensors(self._folder)
        machine = environment_future.result()
        enforce_pin(self._spec, self._folder.study, machine)
        protocol = resolve_protocol(self._config, measured=device_is_measured(sensors))
        uuids = [card.uuid for card in preflight.cards]
        protocol = protocol.long_enough_for(shortest_window_s(sensors, uuids, protocol.precision))
        self._write_time_limit(protocol, preflight)
        with self._marks.phase("settle"):
            read = read_gpus(preflight.cards)
            settled = settle(read, protocol, self._spec.gap_s, self._folder.skip)
        return _Prepared(preflight, workload, machine, sensors, protocol, read, settled)

    def _measure_run(self, server: SharedServer, prepared: _Prepared) -> dict[str, Any]:
        """Warm up, measure and rest; return what ``engine.json`` says of it."""
        engine, workload, protocol = server.engine, prepared.workload, prepared.protocol
        source = prepared.preflight.source
        batches = cut_batches(engine.warmup_requests() or workload.requests, engine.batch_size)
        with self._marks.phase("warmup"):
            read = None if study_sets_warmup(self._config) else prepared.read_gpus
            warmup = WarmUp(engine, batches, protocol, read).run()
        self._rest("idle_loaded", protocol.idle_before_s)
        # Both count since their last call: from here on, only the window.
        engine.peak_memory_bytes()
        engine.statistics()
        uuids = [card.uuid for card in prepared.preflight.cards]
        busy_before = busy_gpus_except(uuids) if uuids else []
        window, traffic, statistics = self._measure_window(engine, batches, prepared)
        memory = engine.peak_memory_bytes()
        busy_after = busy_gpus_except(uuids) if uuids else []
        self._rest("idle_after", protocol.idle_after_s)
        document = {
            "protocol": protocol.as_dict(),
            "workload": self._workload_record(workload, source),
            "window": window,
            "serving": traffic,
            "peak_memory_bytes": memory,
            "engine_statistics": statistics,
            "memory": memory_record(self._config, source, workload),
            "devices": list(engine.devices) or uuids,
            "computes_on_gpu": bool(engine.devices),
            "resolved_config": engine.resolved_config(),
            "beside": {"before": busy_before, "after": busy_after} if uuids else {},
            "own_processes": compute_process_counts(engine.devices) if uuids else {},
            "settle": prepared.settled,
            "warmup_result": warmup,
            "environment": prepared.environment,
            "python_executable": sys.executable,
            "computes_in": compute_precision(self._config, source),
            "flops": workload_flops(source, self._lengths(workload, window)),
        }
        if self._spec.session is not None:
            document["shared_server"] = {"started_by": server.started_by, "place": server.runs}
        return document

    def _preflight(self, backend: Backend) -> tuple[checks.Preflight, Workload]:
        """Return what was found and the workload; errors raise unless the study skips them."""
        result = checks.preflight(
            self._workload_config,
            backend,
            self._folder.path,
            run_pid=os.getppid(),
            model_loaded=self._server is not None,
        )
        errors = (*result.errors, *check_tasks(self._quality_settings))
        changes = [*checks.check_unchanged(self._spec, self._folder)]
        if changes or (errors and not self._spec.skip_preflight):
            raise PreflightError((*changes, *errors))
        return result, result.workload or build_workload(self._workload_config)

    def _load(self, backend: Backend, cards: Sequence[Gpu]) -> Engine:
        if not self._config.served:
            return backend.load(self._cycle_config)
        from llenergymeasure.run.engine.traffic_server import start_server

        prompts, pid_file = self._prompts(), self._folder.engine_pid
        return start_server(backend, self._cycle_config, cards, prompts, pid_file)

    def _prompts(self) -> TrafficPrompts:
        shared = self._spec.session is not None
        return traffic_prompts(self._workload_config, self._content_seed, server_persists=shared)

    def _server_of_previous_run(self, backend: Backend) -> Engine | None:
        """Return the server that the previous run left; None too if it was ended for this one."""
        if self._server is None:
            return None
        from llenergymeasure.backends.serving.engine import ServedEngine, reuse_server

        assert isinstance(self._server.engine, ServedEngine)
        return reuse_server(self._server.engine, backend, self._cycle_config, self._prompts())

    def _measure_window(
        self, engine: Engine, batches: Sequence[Sequence[Request]], prepared: _Prepared
    ) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
        """Return the window, the traffic if the engine is a server, and the engine's counters."""
        if not self._config.served:
            margins = device_is_measured(prepared.sensors)
            window = measure_window(
                engine, batches, prepared.protocol, self._marks, margins=margins
            )
            return window.as_dict(), None, engine.statistics()
        from llenergymeasure.backends.serving.engine import ServedEngine
        from llenergymeasure.run.engine.traffic_window import measure_traffic

        assert isinstance(engine, ServedEngine)
        traffic = measure_traffic(engine, prepared.protocol, self._marks)
        engine.answered_all &= all(sent.exchange.failure is None for sent in traffic.sent)
        traffic.write_requests(self._folder.traffic, engine)
        answered = traffic.answered()
        self._served_lengths = [sent.lengths for sent in answered]
        turns = [sent.turn for sent in answered]
        self._traffic_notes = engine.prompts.unended_sessions_note(turns)
        return traffic.as_dict(), traffic.report(), traffic.statistics()

    def _quality(self, engine: Engine) -> dict[str, Any] | None:
        """Return the quality that the loaded engine can show; None if the study asks for none."""
        settings = self._quality_settings
        if settings.get("texts") is None and settings.get("tasks") is None:
            return None
        with self._marks.phase("quality"):
            return engine_quality(engine, self._config, settings)

    def _judge(self, document: dict[str, Any]) -> None:
        """Run the study's own judging command, now that the engine has ended."""
        if self._quality_settings.get("command") is None:
            return
        with self._marks.phase("judge"):
            score = command_score(self._folder, self._quality_settings)
        document["quality"] = {**(document.get("quality") or {}), **score}
        self._write(document)

    def _write(self, document: dict[str, Any]) -> None:
        """Write what the engine did, without secrets: a server's text may hold a key."""
        plain = json.loads(json.dumps(document, default=str))
        write_text(self._folder.engine, json.dumps(without_secrets_in(plain)))

    def _write_time_limit(self, protocol: ProtocolSettings, preflight: checks.Preflight) -> None:
        """Give the supervisor a generous time limit; a limit that the study sets wins over it."""
        facts = model_and_device(self._config, preflight.source, preflight.cards)
        work = estimated_work(self._config, preflight.workload)
        time_limit_s = limit_s(self._config, protocol, facts, work, self._spec.gap_s)
        quality = self._quality_settings
        if quality.get("command") or quality.get("tasks"):
            time_limit_s += float(quality["timeout_seconds"])
        write_text(self._folder.time_limit, json.dumps(time_limit_s))

    def _lengths(self, workload: Workload, window: dict[str, Any]) -> list[tuple[int, int]]:
        """Return the tokens of prompts and answers: as asked, or as measured if lengths vary."""
        if self._config.served:
            return self._served_lengths
        if self._config.fewest_tokens is not None:
            completions = window["completions"]
            return [(answer["input_tokens"], answer["output_tokens"]) for answer in completions]
        requests = workload.requests
        return [(len(request.prompt_token_ids), request.max_output_tokens) for request in requests]

    def _workload_record(self, workload: Workload, source: ModelSource | None) -> dict[str, Any]:
        """Return the requests in short; where prompts differ by cycle, so do their hashes."""
        config = self._cycle_config
        traffic = config.serving is not None
        return {
            "prompt_hash": workload.prompt_hash,
            "prompt_hash_version": 2 if traffic else 1,
            "requests": len(workload.requests),
            "input_tokens": workload.input_tokens,
            "output_tokens": workload.output_tokens,
            "notes": [*workload.notes, *self._traffic_notes],
            "chat_template_sha256": workload.template_sha256,
            "model_commit": measured_commit(self._workload_config, source),
            "traffic_seed": config.random_seed if traffic else None,
            "content_seed": self._content_seed,
            "sampling_seed": None if config.decoder.greedy else config.random_seed,
        }

    def _rest(self, phase: str, duration_s: float) -> None:
        if duration_s > 0:
            with self._marks.phase(phase):
                time.sleep(duration_s)


def _freeze_loaded_objects() -> None:
    """Exclude everything loaded so far from garbage collection.

    It would search a million objects in vain, during the window and twice at the end.
    """
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    sys.exit(main())
