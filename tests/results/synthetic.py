"""Synthetic studies on disk: plans, results and outcomes as real runs leave them."""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from llenergymeasure.config.dotted import value_at
from llenergymeasure.energy.account import METHOD
from llenergymeasure.files import sha256, write_text
from llenergymeasure.ids import experiment_id, study_design_hash
from llenergymeasure.results.energy import Energy, Reading
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.record import Flops, Performance, Phase, Result, Tokens, Window
from llenergymeasure.results.record_files import write_run_row
from llenergymeasure.results.table import run_row

GPU = "GPU-11111111-2222-3333-4444-555555555555"
SECOND_NS = 1_000_000_000


def make_plan(
    configs: Sequence[Mapping[str, Any]],
    swept: Sequence[str],
    cycles: int = 3,
    study: str = "demo",
    left_out: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the plan of ``configs`` in turn, cycle by cycle."""
    ids = [experiment_id(config) for config in configs]
    runs = [
        {
            "experiment": experiment,
            "cycle": cycle,
            "order": order,
            "backend": config.get("backend", "pytorch"),
            "runner": "local",
            "config": dict(config),
        }
        for order, (cycle, (experiment, config)) in enumerate(
            product(range(1, cycles + 1), zip(ids, configs, strict=True)), start=1
        )
    ]
    return {
        "schema_version": 1,
        "study": study,
        "study_design_hash": study_design_hash(ids),
        "runs": runs,
        "left_out": list(left_out),
        "swept": list(swept),
    }


def make_result(
    run: Mapping[str, Any],
    *,
    energy_j: float | None = 1000.0,
    output_tokens: int = 2000,
    window_s: float = 20.0,
    kind: str | None = "measured",
    source: str | None = "nvml",
    validity: Sequence[str] = (),
    study: str = "demo",
    **overrides: Any,
) -> Result:
    """Return a finished run's record with ``energy_j`` of gross energy."""
    start_ns = run["order"] * 60 * SECOND_NS
    end_ns = start_ns + int(window_s * SECOND_NS)
    requests = output_tokens // 100
    scope = "gpu" if kind == "measured" else "cpu"
    reading: dict[str, Any] = {"device": GPU, "sensor": source or "nvml", "scope": scope}
    reading |= {"kind": kind or "measured", "channel": "counter", "headline": True}
    energy: dict[str, Any] = {"kind": None, "source": None, "scopes": [], "gross_j": None}
    energy["unavailable"] = None if energy_j is not None else "no sensor"
    if energy_j is not None:
        energy |= {
            "kind": kind,
            "source": source,
            "scopes": [scope],
            "gross_j": energy_j,
            "net_j": energy_j * 0.8,
            "u95_j": energy_j * 0.01,
            "u_sys_j": energy_j * 0.05,
            "power_mean_w": energy_j / window_s,
            "per_output_token_j": energy_j / output_tokens,
            "per_input_token_j": energy_j / (4 * output_tokens),
            "per_request_j": energy_j / requests,
        }
    reading |= {"gross_j": energy_j, "unavailable": energy.get("unavailable")}
    phases = (("load", start_ns - 5 * SECOND_NS, start_ns), ("measure", start_ns, end_ns))
    card = {"uuid": GPU, "name": "NVIDIA H200", "driver": "570.1"}
    parts: dict[str, Any] = {
        **{name: run[name] for name in ("experiment", "cycle", "order", "backend", "runner")},
        "study": study,
        "study_design_hash": "d" * 64,
        "config": run["config"],
        "protocol": {"protocol": "standard"},
        "phases": [
            Phase(name=name, start_monotonic_ns=start, end_monotonic_ns=end)
            for name, start, end in phases
        ],
        "window": Window(start_monotonic_ns=start_ns, end_monotonic_ns=end_ns, duration_s=window_s),
        "batches": 4,
        "tokens": Tokens(
            input=4 * output_tokens, output=output_tokens, requests=requests, prompt_hash="a" * 64
        ),
        "energy": Energy(readings=[Reading(**reading)], **energy),
        "performance": Performance(
            output_tokens_per_s=output_tokens / window_s,
            total_tokens_per_s=5 * output_tokens / window_s,
            requests_per_s=requests / window_s,
            batch_latency_mean_s=window_s / 4,
            request_latency_p50_s=window_s / 5,
            request_latency_p95_s=window_s / 4,
        ),
        "flops": Flops(per_output_token=1.6e10, method="analytic", confidence="high"),
        "warmup_result": {"batches": 3},
        "validity": list(validity),
        "environment": {
            "host": "node-1",
            "gpus": [{**card, "start_temperature_celsius": 41.0}],
            "engine": {"versions": {"transformers": "5.0", "torch": "2.13"}},
        },
        "provenance": {
            "energy_method": METHOD,
            "llenergymeasure_version": "0.1.0",
            "recording": {"started_at": f"2026-03-01T12:{run['order'] % 60:02d}:00+00:00"},
        },
    }
    return Result(**{**parts, **overrides})


def write_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write ``plan.json`` into a study's folder."""
    write_text(StudyFolder(folder).plan, json.dumps(plan, indent=2))


def write_result(folder: Path, result: Result, swept: Sequence[str] = ()) -> None:
    """Write one run's row and record."""
    run = StudyFolder(folder).run(result.experiment, result.cycle)
    write_run_row(run.row, run_row(result, {key: value_at(result.config, key) for key in swept}))
    vouched = result.model_copy(update={"files": {run.row.name: sha256(run.row)}})
    write_text(run.result, vouched.model_dump_json())


def vouch_again(run: RunFolder) -> None:
    """Let a run's record name the hashes of the files as they are now."""
    record = json.loads(run.result.read_text())
    record["files"] = {name: sha256(run.path / name) for name in record["files"]}
    write_text(run.result, json.dumps(record))


def change_record(run: RunFolder, figure: str, value: Any) -> None:
    """Write another value into a run's record, as an editor would.

    Args:
        run: the run.
        figure: where, as ``energy.readings[0].gross_j``.
        value: the other value, or what makes it of the one that stands there.
    """
    record = json.loads(run.result.read_text())
    *parents, last = [int(key) if key.isdigit() else key for key in re.findall(r"\w+", figure)]
    place = record
    for key in parents:
        place = place[key]
    changed = value(place[last]) if callable(value) else value
    assert place[last] != changed
    place[last] = changed
    write_text(run.result, json.dumps(record))


def write_outcome(folder: Path, run: Mapping[str, Any], **outcome: Any) -> None:
    """Write one run's ``outcome.json`` as a supervisor does."""
    path = StudyFolder(folder).run(run["experiment"], run["cycle"]).outcome
    write_text(path, json.dumps(outcome))


def write_runs(
    folder: Path,
    plan: Mapping[str, Any],
    made: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {},
) -> None:
    """Write a plan and a result for each of its runs, with what ``made`` gives of each."""
    write_plan(folder, plan)
    for run in plan["runs"]:
        write_result(folder, make_result(run, **made(run)), plan["swept"])


def write_complete_study(
    folder: Path, plan: Mapping[str, Any], seed: int = 1, **settings: Any
) -> None:
    """Write a plan and a result for each of its runs, energies 2 % apart within an experiment."""
    rng = random.Random(seed)

    def made(run: Mapping[str, Any]) -> dict[str, Any]:
        level = 500 + 100 * (int(run["experiment"][:4], 16) % 17)
        return {"energy_j": rng.gauss(level, 0.02 * level), **settings}

    write_runs(folder, plan, made)
