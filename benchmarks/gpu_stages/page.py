"""The page of a card: every figure computed from what was kept, and each check's verdict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_stages import figures
from gpu_stages.checks import Check, judge
from gpu_stages.keeping import RESULTS, read_json

KEPT = {
    "inventory": "`nvidia-smi -q`, and the installed packages",
    "first": "one `llem run`: its record and its recording",
    "raw": "counter, instant and average polled as fast as NVML answers; when the load stepped",
    "engine": "recordings of our meter and nvidia-smi's readings next to one model",
    "probe": "what the characterisation judged the sensor by, or its answer",
    "pulses": "recordings of our meter and nvidia-smi's readings next to rest, work and pulses",
    "faults": "two `llem run` started at once, and the run that was refused",
    "vllm": "`llem run` with vLLM",
    "serving": "`llem run` with vLLM's server under two rates",
    "buffer": "the driver's own buffer of power samples next to the counter and known steps",
    "study": "`llem run` at three batch sizes and with a long prompt",
    "standard": "one `llem run` with the default protocol",
}
PUBLISHED = {
    ("NVIDIA H100 80GB HBM3", "vllm, meta-llama/Llama-3.1-8B, sequences 8"): (
        "ML.ENERGY's table for Llama-3.1-8B on an H100, `max_num_seqs` 8, real weights and chats",
        (0.455, 486.0, 1070.0),
    )
}
"""What others measured on such a card: source; J/token, W, token/s."""


def write(folder: Path) -> Path:
    """Write the page next to an output folder, named after the card; return its path."""
    results = read_json(folder / RESULTS)
    path = folder.absolute().parent / f"{slug(results)}.md"
    path.write_text(text(folder))
    return path


def slug(results: Mapping[str, Any]) -> str:
    card = _card(results)
    name = f"{card.get('name', 'unknown card')}-{card.get('driver_version', 'unknown')}".lower()
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)


def text(folder: Path) -> str:
    """Return the page."""
    results = read_json(folder / RESULTS)
    stages, card = results.get("stages", {}), _card(results)
    raw = figures.raw(folder / "raw") if (folder / "raw" / "raw.npz").is_file() else None
    seen = {name: figures.windows(folder / name) for name in ("engine", "pulses")}
    runs = [
        run
        for name in ("first", "study", "standard", "vllm", "serving", "faults")
        for run in figures.runs(folder / name)
    ]
    parts = [
        _head(results, card, folder.name),
        _nvml(stages.get("inventory", {})),
        [] if raw is None else _sensor(raw, stages.get("probe", {})),
        [] if raw is None else _stretches(raw["stretches"], "On loads of known times", _LOCKED),
        _buffer(figures.buffer(folder / "buffer")),
        _windows(seen),
        _runs(runs, str(card.get("name"))),
        _split(runs),
        _default_protocol(runs),
        _cost(stages.get("engine", {}).get("meter_on_over_off"), runs),
        _checks(judge(folder)),
        _stages(stages),
        ["## Notes", "", *(f"- {note}" for note in results["notes"]), ""]
        if results.get("notes")
        else [],
        _kept(folder),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _card(results: Mapping[str, Any]) -> dict[str, Any]:
    cards = results.get("stages", {}).get("inventory", {}).get("cards") or [{}]
    return dict(cards[0])


def _head(results: Mapping[str, Any], card: Mapping[str, Any], name: str) -> list[str]:
    trial = (
        "**A trial of the command on a simulated card with tiny models. It proves nothing of any "
        "real card.**"
    )
    commit = f" at commit {results['commit']}" if results.get("commit") else ""
    return [
        f"# {card.get('name', 'Unknown card')}, driver {card.get('driver_version', 'unknown')}",
        "",
        *([trial, ""] if results.get("simulated") else []),
        f"{str(results.get('began'))[:10]}, LLenergyMeasure {results.get('llenergymeasure')}"
        f"{commit}. Every figure below is computed from the recordings in `{name}/` by "
        f"`python benchmarks/gpu_validation.py --page docs/validation/{name}`, which anyone can "
        "run. No external meter was attached: the sensor's own gain is not shown, and stays at the "
        "band taken for cards without a calibration. No setting of the card was changed.",
        "",
    ]


def _nvml(inventory: Mapping[str, Any]) -> list[str]:
    calls = inventory.get("nvml")
    if not calls:
        return []
    rows = [
        (name, each["unavailable"], "-", "-")
        if "unavailable" in each
        else (name, each["value"], f"{each['median_ms']:g}", f"{each['p95_ms']:g}")
        for name, each in calls.items()
    ]
    heads = ("call", "answer", "median, ms", "95 %, ms")
    return ["## What NVML answers, at rest", "", *_table(heads, rows), ""]


def _sensor(raw: Mapping[str, Any], probe: Mapping[str, Any]) -> list[str]:
    grid, lag, behaviour = raw["ticks"], raw["lag"], _behaviour(probe)
    said = {each["quantity"]: each for each in behaviour.get("power", [])}
    rows = []
    for name, gaps in raw["gaps_ms"].items():
        ours = said.get(f"power_{name}_w", {}).get("update_period_s")
        window_s = said.get(f"power_{name}_w", {}).get("window_s")
        if name == "counter":
            ours = behaviour.get("counter_period_s")
        span = "-" if gaps is None else f"{gaps[1]:.1f} ({gaps[0]:.0f} to {gaps[2]:.0f})"
        rows.append((name, span, _milliseconds(ours), _milliseconds(window_s)))
    heads = (
        "channel",
        "polled: changes each, ms (5 to 95 %)",
        "characterised: each, ms",
        "mean over, ms",
    )
    call, power = raw["counter_call_ms"], raw["power_call_ms"]
    lines = [
        f"- {raw['polls']} polls during steps, steady work and pulses. A read of the counter took "
        f"{call[0]:.1f} ms in the median, {call[1]:.1f} ms at most in 95 % and {call[2]:.0f} ms "
        f"once; one of both powers {power[0]:.3f} ms, {power[1]:.3f} and {power[2]:.1f} ms.",
        "- The old power call said the same as the average in "
        f"{100 * raw['usage_is_average']:.4g} % of reads.",
    ]
    if grid is not None:
        lines.append(
            f"- The counter ticks each {grid.period_s * 1e3:.2f} ms, on a regular grid: 90 % of "
            f"the ticks were seen {grid.off_ms[0]:+.1f} to {grid.off_ms[1]:+.1f} ms from it. Its "
            f"unit is {raw['unit_mj']} mJ."
        )
    if lag is not None and lag.off_ms:
        low, middle, high = np.quantile(lag.off_ms, [0, 0.5, 1])
        lines.append(
            f"- The counter follows the end of a load {middle:.0f} ms later ({low:.0f} to "
            f"{high:.0f} ms, {len(lag.off_ms)} steps); where the ticks lie is known to "
            f"{grid.unsure_ms[0]:+.1f} and {grid.unsure_ms[1]:+.1f} ms. That includes what the "
            "card itself takes to calm down. At a load's begin the card draws more than its level "
            "for some 100 ms, which hides the lag."
        )
    if behaviour:
        late = _milliseconds(behaviour.get("counter_lag_s"))
        lines.append(
            f"- `llem sensors --characterise` judged the counter *{behaviour.get('counter')}*"
            + ("." if late == "-" else f", with a lag of {late} ms.")
        )
    return ["## The sensor", "", *_table(heads, rows), "", *lines, ""]


def _behaviour(probe: Mapping[str, Any]) -> dict[str, Any]:
    cards = probe.get("characterised") or [{}]
    return dict(cards[0].get("behaviour") or {})


_LOCKED = (
    "Mean power in W while a load pulsed with these times of work and rest. Where work and rest "
    "together are a whole share of a channel's period, the channel sees the same part of each "
    "pulse and its mean can be anything. A counter that were the sum of one of the readings would "
    "show that reading's mean. The average's mean is taken from 1 s after the begin."
)


def _stretches(found: Sequence[Mapping[str, Any]], title: str, words: str) -> list[str]:
    if not found:
        return []
    rows = [
        (
            _pulse(each["what"]),
            _percent(each["busy_share"], 1),
            _number(each["counter_w"]),
            _number(each["average_w"]),
            _number(each["instant_w"]),
        )
        for each in found
    ]
    heads = ("load", "time under load", "counter, W", "average, W", "instant, W")
    return [f"## {title}", "", words, "", *_table(heads, rows), "", *_apart(found), ""]


def _apart(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how far the readings are from the counter, on steady work and on pulses."""
    for kind in ("steady", "pulses"):
        rows = [each for each in found if each["what"].startswith(kind)]
        for name in ("average", "instant"):
            apart = [
                each[f"{name}_w"] / each["counter_w"] - 1
                for each in rows
                if each[f"{name}_w"] and each["counter_w"]
            ]
            if apart:
                low, high = min(apart), max(apart)
                span = (
                    f"{100 * low:+.1f}" if low == high else f"{100 * low:+.1f} to {100 * high:+.1f}"
                )
                yield f"- {kind}: the {name} is {span} % from the counter."


def _pulse(what: str) -> str:
    parts = what.split()
    if parts[0] != "pulses" or len(parts) < 3:
        return what
    return " / ".join(f"{float(each) * 1e3:g}" for each in parts[1:3]) + " ms"


def _buffer(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    low, middle, high = found["gap_ms"]
    words = (
        f"{found['samples']} samples, {middle:.1f} ms apart ({low:.1f} to {high:.1f} ms). Their "
        "mean stands under average and instant alike."
    )
    return _stretches(found.get("stretches", []), "The driver's buffer of power samples", words)


def _windows(seen: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    rows = [
        (
            row["window"],
            f"{row['seconds']:.1f}",
            f"{_number(row['meter_w'])} ± {_number(row['meter_u95_w'])}",
            *(_number(row[name]) for name in ("counter_w", "zeus_w", "average_w", "instant_w")),
            _number(row["nvidia_smi_w"]),
            _number(_per_token(row), 4),
            ", ".join(row["validity"]) or "-",
        )
        for rows_ in seen.values()
        for row in rows_
    ]
    if not rows:
        return []
    heads = (
        "window",
        "s",
        "our meter",
        "counter",
        "Zeus",
        "average",
        "instant",
        "nvidia-smi",
        "J/token",
        "our codes",
    )
    words = (
        "Mean power in W. *Our meter* is what it said then; *counter*, *average* and *instant* are "
        "computed here from its recording; Zeus reads the same counter at the window's ends."
    )
    return ["## Three meters on the same windows", "", words, "", *_table(heads, rows), ""]


def _per_token(row: Mapping[str, Any]) -> float | None:
    joules, tokens = row.get("meter_j"), row.get("tokens")
    return joules / tokens if joules and tokens else None


def _runs(runs: Sequence[Mapping[str, Any]], card: str) -> list[str]:
    if not runs:
        return []
    rows = [
        (
            f"{run['study']}: {run['name']}",
            _number(run["window_s"]),
            _number(run["j_per_token"], 4),
            _percent(run["u95_rel"], 1),
            _number(run["power_w"]),
            _number(run["counter_w"]),
            _number(run["average_w"]),
            _number(run["tokens_per_s"]),
            _span(run["temperatures_celsius"]),
            ", ".join(run["validity"]) or "-",
        )
        for run in runs
    ]
    heads = (
        "run",
        "window, s",
        "J/token",
        "95 %",
        "W",
        "counter, W",
        "average, W",
        "token/s",
        "°C",
        "codes",
    )
    lines = ["## Runs through `llem run`", "", *_table(heads, rows), ""]
    for (name, start), (source, (joules, watts, rate)) in PUBLISHED.items():
        for run in runs:
            if name == card and run["name"].startswith(start):
                lines += [
                    f"For comparison, {source}: {joules:g} J/token, {watts:g} W, {rate:g} token/s. "
                    f"Here, with random weights and prompts of fixed length: "
                    f"{run['j_per_token']:.3f} J/token, {run['power_w']:.0f} W, "
                    f"{run['tokens_per_s']:.0f} token/s.",
                    "",
                ]
    return lines


def _split(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what prompts and answers cost, each per token."""
    rows = [
        (
            f"{run['study']}: {run['name']}",
            f"{split['prefill_per_input_token_j']:.4f} ± {split['prefill_u95_j']:.4f}",
            f"{split['decode_per_output_token_j']:.4f} ± {split['decode_u95_j']:.4f}",
            _percent(split["unexplained_rel"], 1),
        )
        for run in runs
        if (split := run["split"]).get("prefill_per_input_token_j") is not None
    ]
    if not rows:
        return []
    heads = ("run", "prefill, J/input token", "decode, J/output token", "unexplained of a tick")
    return ["## Prefill and decode", "", *_table(heads, rows), ""]


def _default_protocol(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how a run of the default protocol settled and warmed up."""
    lines = []
    for run in runs:
        settle, warmup = run["settle"] or {}, run["warmup"] or {}
        if run["study"] == "standard":
            lines += [
                f"- {run['name']}: waited {_number(settle.get('waited_s'))} s for the card to "
                f"settle ({settle.get('reason')}); warmed up for "
                f"{_number(warmup.get('duration_s'))} s and {warmup.get('passes')} passes "
                f"({warmup.get('ended')}), converged: {warmup.get('converged')}."
            ]
    return ["## The default protocol", "", *lines, ""] if lines else []


def _cost(ratios: Sequence[float] | None, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    made = figures.mean_ratio([*ratios]) if ratios else None
    shares = [run["recorder_cpu_share"] for run in runs if run["recorder_cpu_share"] is not None]
    lines = []
    if ratios and made is not None:
        lines.append(
            f"- Tokens/s at batch 1 with our meter on, over those with it off, in {len(ratios)} "
            f"alternating pairs: median {np.median(ratios):.4f}, mean {made[0]:.4f}, 95 % interval "
            f"{made[1]:.3f} to {made[2]:.3f}; single pairs {min(ratios):.2f} to {max(ratios):.2f}."
        )
    if shares:
        lines.append(
            f"- The recorder used {min(shares):.0%} to {max(shares):.0%} of one processor core."
        )
    return ["## What the meter costs", "", *lines, ""] if lines else []


def _checks(found: Sequence[Check]) -> list[str]:
    counts = dict.fromkeys(("ok", "not ok", "inconclusive"), 0)
    for check in found:
        counts[check.verdict] += 1
    ordered = sorted(found, key=lambda check: [*counts].index(check.verdict) or 3)
    rows = [(f"**{check.verdict}**", check.name, check.seen) for check in ordered]
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    words = (
        f"{summary}. *Inconclusive*: the data could not have shown the contrary, as where an "
        "interval is wide."
    )
    return ["## Checks", "", words, "", *_table(("", "claim", "seen"), rows), ""]


def _stages(stages: Mapping[str, Any]) -> list[str]:
    rows = [
        (name, "-" if "took_s" not in row else f"{row['took_s']:.0f}", _ended(row))
        for name, row in stages.items()
    ]
    return ["## Stages", "", *_table(("stage", "s", "ended"), rows), ""] if rows else []


def _ended(row: Mapping[str, Any]) -> str:
    if "skipped" in row:
        return f"skipped: {row['skipped']}"
    return str(row.get("not_run") or row.get("error") or f"exit {row.get('exit')}")


def _kept(folder: Path) -> list[str]:
    rows = [
        (f"`{name}/`", what, ", ".join(f"`{each}`" for each in _names(folder / name)))
        for name, what in [*KEPT.items(), ("vllm-first-try", "a try that failed")]
        if (folder / name).is_dir()
    ]
    words = (
        "`nvidia_smi.csv`: ns of the monotonic clock, then `power.draw`, `power.draw.instant` and "
        "`power.draw.average` in W. `results.json` is what each stage said."
    )
    return ["## What is kept", "", *_table(("folder", "holds", "files"), rows), "", words, ""]


def _names(folder: Path) -> list[str]:
    return sorted({path.name for path in folder.rglob("*") if path.is_file()})


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield _row(heads)
    yield _row(["---"] * len(heads))
    yield from (_row(row) for row in rows)


def _row(cells: Sequence[Any]) -> str:
    inside = " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {inside} |"


def _number(value: float | None, digits: int = 0) -> str:
    if value is None:
        return "-"
    return f"{value:#.{digits}g}" if digits else f"{value:.1f}"


def _percent(share: float | None, digits: int) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _span(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else f"{pair[0]:.0f} to {pair[1]:.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f}"
