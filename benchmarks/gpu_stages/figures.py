"""The figures of windows and runs, computed from what was kept without our meter's code."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpu_stages.keeping import read_json
from gpu_stages.meters import WINDOWS
from gpu_stages.sensor import Channel, over
from llenergymeasure.analysis.statistics import t_quantile


def recording(path: Path) -> dict[str, Channel]:
    """Return what a recording of our meter holds of its one card, by quantity."""
    is_nvml_value = (pc.field("sensor") == "nvml") & pc.field("value").is_valid()
    table = pq.read_table(path, filters=is_nvml_value)
    before_ns = pc.coalesce(table["t_before_ns"], table["t_ns"]).to_numpy()
    at_s, value = (table["t_ns"].to_numpy() + before_ns) / 2e9, table["value"].to_numpy()
    quantity = np.array(table["quantity"].to_pylist())
    apart_s = (table["t_ns"].to_numpy() - before_ns) / 1e9
    channels = {}
    for name in {*quantity}:
        its = quantity == name
        unsure_s = float(np.quantile(apart_s[its], 0.95)) / 2
        channels[name] = Channel(at_s[its], value[its], unsure_s)
    return channels


def windows(folder: Path) -> list[dict[str, Any]]:
    """Return each window's power by each meter, in W."""
    smi = _nvidia_smi(folder / "nvidia_smi.csv")
    rows = read_json(folder / WINDOWS) or []
    paths = {folder / row["samples"] for row in rows}
    opened = {path: recording(path) if path.is_file() else {} for path in paths}
    return [{**row, **_window(row, opened[folder / row["samples"]], smi)} for row in rows]


def _window(
    row: dict[str, Any], channels: dict[str, Channel], smi: list[tuple[float, float]]
) -> dict[str, Any]:
    start_s, end_s = row["start_ns"] / 1e9, row["end_ns"] / 1e9
    seconds = end_s - start_s
    readings_w = [watts for at_s, watts in smi if start_s < at_s < end_s]
    return {
        "seconds": seconds,
        **_means(channels, start_s, end_s),
        "zeus_w": over(row.get("zeus_j"), seconds),
        "meter_w": over(row.get("meter_j"), row["meter_s"]),
        "meter_u95_w": over(row.get("meter_u95_j"), row["meter_s"]),
        "nvidia_smi_w": sum(readings_w) / len(readings_w) if readings_w else None,
        "most_w": _highest_w(channels, start_s, end_s),
        "j_per_token": over(row.get("meter_j"), row.get("tokens")),
    }


def _means(channels: dict[str, Channel], start_s: float, end_s: float) -> dict[str, Any]:
    """Return the mean power that each channel of a recording gives a window."""
    nothing = Channel(np.array([]), np.array([]))
    counter, average, instant = (
        channels.get(name, nothing)
        for name in ("energy_counter_j", "power_average_w", "power_instant_w")
    )
    return {
        "counter_w": counter.counted_w(start_s, end_s),
        "counter_unsure_s": counter.unsure_s,
        "average_w": average.held_mean(start_s, end_s),
        "instant_w": instant.held_mean(start_s, end_s),
    }


def _nvidia_smi(path: Path) -> list[tuple[float, float]]:
    if not path.is_file():
        return []
    readings = []
    for line in path.read_text().splitlines():
        parts = line.split(",")
        try:
            readings.append((int(parts[0]) / 1e9, float(parts[1])))
        except (ValueError, IndexError):  # its last line may be cut off
            continue
    return readings


def _highest_w(channels: dict[str, Channel], start_s: float, end_s: float) -> float | None:
    """Return the greatest power around a window that any channel shows."""
    values = []
    for name in ("power_instant_w", "power_average_w"):
        channel = channels.get(name)
        if channel is not None:
            near = (channel.at_s > start_s - 0.2) & (channel.at_s < end_s + 0.2)
            values += [float(value) for value in channel.value[near]]
    return max(values, default=None)


def runs(folder: Path) -> list[dict[str, Any]]:
    """Return what the runs of a stage cost, and what is to be checked of them."""
    return [_run(path) for path in sorted(folder.glob("*/*/result.json"))]


def _run(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    energy, performance = record["energy"], record["performance"]
    window = record["window"] or {}
    span = (window.get("start_monotonic_ns", 0) / 1e9, window.get("end_monotonic_ns", 0) / 1e9)
    samples = path.with_name("samples.parquet")
    channels = recording(samples) if samples.is_file() else {}
    heat = channels.get("temperature_celsius")
    provenance = record.get("provenance", {})
    cards = record.get("environment", {}).get("gpus") or []
    released = (provenance.get("gpu_memory_release") or {}).values()
    return {
        "study": path.parts[-3],
        "name": _named(record["config"]),
        "span_s": span,
        "window_s": span[1] - span[0] if span[1] > span[0] else None,
        "j_per_token": energy["per_output_token_j"],
        "power_w": energy["power_mean_w"],
        "tokens_per_s": performance["output_tokens_per_s"],
        "u95_rel": over(energy.get("u95_j"), energy["gross_j"]),
        **_means(channels, *span),
        "celsius": [f"{extreme(heat.value):.0f}" for extreme in (min, max)] if heat else [],
        "limit_w": next(
            (card["power_limit_w"] for card in cards if card.get("power_limit_w")), None
        ),
        "split": energy.get("split") or {},
        "validity": list(record["validity"]),
        "released": [card.get("released") for card in released if isinstance(card, dict)],
        "recorder_cpu_share": (provenance.get("recorder_cost") or {}).get("cpu_share"),
        "settle": provenance.get("settle"),
        "warmup": record.get("warmup_result"),
    }


def _named(config: dict[str, Any]) -> str:
    backend = config.get("backend", "pytorch")
    section = config.get(backend) or {}
    size = section.get("batch_size") or (section.get("engine") or {}).get("max_num_seqs")
    name = f"{backend}, {config['model']}"
    if size:
        name += f", {'sequences' if backend == 'vllm' else 'batch'} {size}"
    data = config.get("dataset")
    if isinstance(data, dict) and data.get("input_len"):
        name += f", {data['input_len']} + {data['output_len']} tokens"
    return name


def failures(folder: Path) -> dict[str, str]:
    """Return the message of each study that has a run without a result."""
    messages = {}
    for path in sorted(folder.glob("*/*/outcome.json")):
        if not path.with_name("result.json").exists():
            error = json.loads(path.read_text()).get("error") or {}
            messages[path.parts[-3]] = str(error.get("message"))
    return messages


def mean_ratio(ratios: list[float]) -> tuple[float, float, float] | None:
    """Return the geometric mean of ratios and its 95 % interval, by Student's t."""
    if len(ratios) < 3:
        return None
    logs = np.log(ratios)
    half = t_quantile(len(logs) - 1) * float(np.std(logs, ddof=1)) / len(logs) ** 0.5
    low, centre, high = np.exp(np.mean(logs) + half * np.array([-1, 0, 1]))
    return float(centre), float(low), float(high)
