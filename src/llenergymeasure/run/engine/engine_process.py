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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Backend, Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError, PreflightError
from llenergymeasure.files import read_json, write_text
from llenergymeasure.machine.environment import environment
from llenergymeasure.machine.gpus.allotment import number_own_cards
from llenergymeasure.machine.gpus.state import at_work_beside, at_work_on
from llenergymeasure.plan.estimate import limit_s
from llenergymeasure.processes import die_with
from llenergymeasure.redact import without_secrets, without_secrets_in
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.write_outcome import report_failure
from llenergymeasure.run.engine.batch_window import (
    cut_batches,
    device_is_measured,
    measure_window,
    sensors_need_s,
    wait_for_sensors,
)
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.quality import check_tasks, command_score, perplexity, task_score
from llenergymeasure.run.engine.settle import read_gpus, settle
from llenergymeasure.run.engine.warmup import WarmUp
from llenergymeasure.run.pin import hold_to_pin
from llenergymeasure.run.preflight import checks
from llenergymeasure.run.preflight.forecast import known_of, work_of
from llenergymeasure.run.preflight.memory import computes_in, memory_record
from llenergymeasure.run.result.flops import workload_flops
from llenergymeasure.screen import say
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import HostCpu
from llenergymeasure.workload.conversations import TrafficPrompts, content_seed
from llenergymeasure.workload.models.resolve import known_commit
from llenergymeasure.workload.prompts import build_workload, traffic_prompts
from llenergymeasure.workload.requests import Request, Workload


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
    server: OnServer | None = None
    for folder in map(RunFolder, options.out):
        write_text(folder.engine_pid, str(os.getpid()))
        try:
            spec = RunSpec.model_validate_json(folder.spec.read_text())
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
class OnServer:
    """A server that one run leaves running for the next.

    Attributes:
        engine: the server, with nothing under way.
        started_by: the run that started it.
        runs: how many it has served.
    """

    engine: Engine
    started_by: str
    runs: int


class EngineRun:
    """One run as the engine's process sees it."""

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        server: OnServer | None = None,
        watched: int | None = None,
    ) -> None:
        self._spec = spec
        self._tree = RunProcesses.around_engine(folder.engine_pid, watched)
        self._folder = folder
        self._config = ExperimentConfig.model_validate(spec.config)
        self._drawn = self._config.drawn_in(spec.cycle)
        # Batches are the same in every cycle, so that cycles differ in nothing but chance.
        self._asked = self._config if self._config.serving is None else self._drawn
        self._server = server
        # Runs on one server ask different prompts, so that none is answered from its cache.
        alone = None if spec.session is None else spec.experiment
        served = self._config.served
        self._content_seed = content_seed(self._config, spec.cycle, alone) if served else None
        self._marks = Marks(folder.marks)
        self._came: list[tuple[int, int]] = []
        self._notes: tuple[str, ...] = ()

    def run(self, *, last: bool = True) -> OnServer | None:
        """Go through the phases and write ``engine.json``.

        Args:
            last: whether no other run comes after it on its server.

        Returns:
            The server for the next run; None where it was ended.

        Raises:
            PreflightError: the run cannot start here; all reasons in one message.
            BackendError: the engine failed.
        """
        if (measured := read_json(self._folder.engine)) is not None:
            self._judge(measured)  # measured by an earlier process of this run
            return None
        soon = ThreadPoolExecutor(2)
        surroundings_soon = soon.submit(environment)
        cpus = HostCpu(self._tree)
        cpus_soon = soon.submit(checks.look_at_cpus, cpus)
        backend = registry.get(self._spec.backend)
        with self._marks.phase("preflight"):
            found, workload = self._preflight(backend)
        sensors = wait_for_sensors(self._folder)
        surroundings = surroundings_soon.result()
        hold_to_pin(self._spec, self._folder.study, surroundings)
        protocol = resolve_protocol(self._config, measured=device_is_measured(sensors))
        cards = [card.uuid for card in found.cards]
        protocol = protocol.long_enough_for(sensors_need_s(sensors, cards, protocol.precision))
        self._write_time_limit(protocol, found)
        with self._marks.phase("settle"):
            look = read_gpus(found.cards)
            settled = settle(look, protocol, self._spec.gap_s, self._folder.skip)
        # An external server may be busy before the run.
        busy = () if self._asked.external_server else checks.check_cpus(cpus, cpus_soon.result())
        engine = self._server_of_previous_run(backend)
        if engine is None and self._server is not None:
            return None
        if engine is None:
            self._rest("idle_before", protocol.idle_before_s)
        busy_soon = soon.submit(tuple, busy)  # the rest of its look passes while the model loads
        if engine is None:
            with self._marks.phase("load"):
                engine = self._load(backend, found)
                engine.synchronize()
                _freeze_loaded_objects()
        found = replace(found, warnings=(*found.warnings, *busy_soon.result()))
        run = f"{self._spec.experiment}/{self._spec.cycle}"
        before = self._server or OnServer(engine, run, 0)
        on_server = OnServer(engine, before.started_by, before.runs + 1)
        goes_on = False
        batches = cut_batches(engine.warmup_requests() or workload.requests, engine.batch_size)
        try:
            with self._marks.phase("warmup"):
                watched = None if _study_sets_warmup(self._config) else look
                warmup = WarmUp(engine, batches, protocol, watched).run()
            self._rest("idle_loaded", protocol.idle_before_s)
            # Both count since their last call: from here on, only the window.
            engine.peak_memory_bytes()
            engine.statistics()
            own = {card.uuid for card in found.cards}
            beside = {"before": at_work_beside(own)} if own else {}
            window, traffic, statistics = self._measure(engine, batches, protocol, sensors)
            memory = engine.peak_memory_bytes()
            beside |= {"after": at_work_beside(own)} if own else {}
            self._rest("idle_after", protocol.idle_after_s)
            document = {
                "protocol": protocol.as_dict(),
                "workload": _workload_record(workload, self._notes)
                | {"model_commit": known_commit(self._asked, found.source), **self._seeds()},
                "window": window,
                "serving": traffic,
                "peak_memory_bytes": memory,
                "engine_statistics": statistics,
                "memory": memory_record(self._config, found.source, workload),
                "devices": list(engine.devices) or [card.uuid for card in found.cards],
                "computes_on_gpu": bool(engine.devices),
                "resolved_config": engine.resolved_config(),
                "versions": backend.versions(),
                "beside": beside,
                "own_processes": at_work_on(engine.devices) if own else {},
                "preflight": found.as_dict()["warnings"],
                "settle": settled,
                "warmup_result": warmup,
                "environment": surroundings,
                "python_executable": sys.executable,
                "computes_in": computes_in(self._config, found.source),
                "flops": workload_flops(found.source, self._lengths(workload, window)),
            }
            if self._spec.session is not None:
                place = {"started_by": on_server.started_by, "place": on_server.runs}
                document["shared_server"] = place
            self._write(document)
            document["quality"] = self._quality(engine)
            if document["quality"] is not None:
                self._write(document)
            goes_on = not last and _has_answered_all(engine)
        finally:
            if not goes_on:
                with self._marks.phase("release"):
                    engine.close()
        if goes_on:
            return on_server
        self._judge(document)
        return None

    def _preflight(self, backend: Backend) -> tuple[checks.Preflight, Workload]:
        """Return what was found and the workload; errors raise unless the study skips them."""
        found = checks.preflight(
            self._asked,
            backend,
            self._folder.path,
            run_pid=os.getppid(),
            loaded=self._server is not None,
        )
        lacking = check_tasks(self._spec.sections.get("quality") or {})
        found = replace(found, errors=(*found.errors, *lacking))
        changed = [*checks.check_unchanged(self._spec, self._folder)]
        if changed or (found.errors and not self._spec.skip_preflight):
            raise PreflightError((*changed, *found.errors))
        return found, found.workload or build_workload(self._asked)

    def _load(self, backend: Backend, found: checks.Preflight) -> Engine:
        if not self._config.served:
            return backend.load(self._drawn)
        from llenergymeasure.backends.serving.engine import ServedEngine
        from llenergymeasure.backends.serving.listener import server_root
        from llenergymeasure.backends.serving.process import free_port

        devices = tuple(card.uuid for card in found.cards)
        command = backend.server(self._drawn, free_port())
        if not command.argv:
            # What an external server does on a GPU is the run's own work.
            write_text(self._folder.engine_pid, str(server_root(command.base_url) or os.getpid()))
        return ServedEngine(command, self._drawn, devices, self._traffic())

    def _traffic(self) -> TrafficPrompts:
        shared = self._spec.session is not None
        return traffic_prompts(self._asked, self._content_seed, lives_on=shared)

    def _server_of_previous_run(self, backend: Backend) -> Engine | None:
        """Return the server that the previous run left, ready for this one's traffic.

        None if there is none, or if it was ended because this run needs another one.
        """
        if self._server is None:
            return None
        from llenergymeasure.backends.serving.engine import ServedEngine, next_on_server

        assert isinstance(self._server.engine, ServedEngine)
        return next_on_server(self._server.engine, backend, self._drawn, self._traffic())

    def _measure(
        self,
        engine: Engine,
        batches: Sequence[Sequence[Request]],
        protocol: ProtocolSettings,
        sensors: list[dict[str, Any]],
    ) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
        """Return the window, the traffic if the engine is a server, and the engine's counters."""
        if not self._config.served:
            margins = device_is_measured(sensors)
            window = measure_window(engine, batches, protocol, self._marks, margins=margins)
            return window.as_dict(), None, engine.statistics()
        from llenergymeasure.backends.serving.engine import ServedEngine
        from llenergymeasure.run.engine.traffic_window import measure_traffic

        assert isinstance(engine, ServedEngine)
        traffic = measure_traffic(engine, protocol, self._marks)
        engine.answered_all &= all(each.exchange.failure is None for each in traffic.sent)
        traffic.write_requests(self._folder.traffic, engine)
        answered = traffic.answered()
        self._came = [one.lengths for one in answered]
        self._notes = engine.prompts.short_of_the_trace([one.turn for one in answered])
        return traffic.as_dict(), traffic.besides(), traffic.statistics()

    def _quality(self, engine: Engine) -> dict[str, Any] | None:
        """Return the quality that the loaded engine can show; None if the study asks for none."""
        asked = self._spec.sections.get("quality") or {}
        looks = {"texts": perplexity, "tasks": task_score}
        wanted = [look for name, look in looks.items() if asked.get(name) is not None]
        if not wanted:
            return None
        found: dict[str, Any] = {}
        with self._marks.phase("quality"):
            for look in wanted:
                found |= look(engine, self._config, asked)
        return found

    def _judge(self, document: dict[str, Any]) -> None:
        """Run the study's own judging command, now that the engine has ended."""
        asked = self._spec.sections.get("quality")
        if asked is None or asked.get("command") is None:
            return
        with self._marks.phase("judge"):
            score = command_score(self._folder, asked)
        document["quality"] = {**(document.get("quality") or {}), **score}
        self._write(document)

    def _write(self, document: dict[str, Any]) -> None:
        """Write what the engine did, without secrets: a server's text may hold a key."""
        plain = json.loads(json.dumps(document, default=str))
        write_text(self._folder.engine, json.dumps(without_secrets_in(plain)))

    def _write_time_limit(self, protocol: ProtocolSettings, found: checks.Preflight) -> None:
        """Give the supervisor a generous time limit; a limit that the study sets wins over it."""
        known = known_of(self._config, found.source, found.cards)
        work = work_of(self._config, found.workload)
        most_s = limit_s(self._config, protocol, known, work, self._spec.gap_s)
        asked = self._spec.sections.get("quality")
        if asked is not None and (asked.get("command") or asked.get("tasks")):
            most_s += float(asked["timeout_seconds"])
        write_text(self._folder.time_limit, json.dumps(most_s))

    def _lengths(self, workload: Workload, window: dict[str, Any]) -> list[tuple[int, int]]:
        """Return the tokens of prompts and answers: as asked, or as measured if lengths vary."""
        if self._config.served:
            return self._came
        if self._config.fewest_tokens is not None:
            return [(o["input_tokens"], o["output_tokens"]) for o in window["completions"]]
        return [(len(one.prompt_token_ids), one.max_output_tokens) for one in workload.requests]

    def _seeds(self) -> dict[str, Any]:
        """Return the seeds of this cycle; where prompts differ by cycle, so do their hashes."""
        traffic = self._config.serving is not None
        return {
            "prompt_hash_version": 2 if traffic else 1,
            "traffic_seed": self._drawn.random_seed if traffic else None,
            "content_seed": self._content_seed,
            "sampling_seed": None if self._drawn.decoder.greedy else self._drawn.random_seed,
        }

    def _rest(self, phase: str, duration_s: float) -> None:
        if duration_s > 0:
            with self._marks.phase(phase):
                time.sleep(duration_s)


def _has_answered_all(engine: Engine) -> bool:
    """Return whether a server is idle: it may still work on a request that the client gave up."""
    from llenergymeasure.backends.serving.engine import ServedEngine

    return isinstance(engine, ServedEngine) and engine.answered_all and engine.ended() is None


def _freeze_loaded_objects() -> None:
    """Exclude everything loaded so far from garbage collection.

    It would search a million objects in vain, during the window and twice at the end.
    """
    gc.collect()
    gc.freeze()


def _workload_record(workload: Workload, notes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "prompt_hash": workload.prompt_hash,
        "requests": len(workload.requests),
        "input_tokens": workload.input_tokens,
        "output_tokens": workload.output_tokens,
        "notes": [*workload.notes, *notes],
        "chat_template_sha256": workload.template_sha256,
    }


def _study_sets_warmup(config: ExperimentConfig) -> bool:
    """Return whether the study sets how to warm up."""
    return bool(config.warmup.model_dump(exclude={"enabled"}, exclude_none=True))


if __name__ == "__main__":
    sys.exit(main())
