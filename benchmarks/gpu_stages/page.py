"""The page of a card: every figure computed from what was kept, and each check's verdict.

A table is a list of columns, each a head and a format of one row of figures; a sentence is a
format too. Where a figure is not known, the cell is empty and the sentence is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpu_stages import figures
from gpu_stages.checks import Check, judge
from gpu_stages.keeping import RESULTS, read_json

Row = Mapping[str, Any]
Columns = Mapping[str, str]
"""The head of each column, and its format."""

_TRIAL = (
    "**A trial of the command on a simulated card with tiny models. It proves nothing of any real "
    "card.**"
)
_HEAD = (
    "{day}, LLenergyMeasure {llenergymeasure}{at_commit}. Every figure below is computed from what "
    "is kept in `{folder}/` by `python benchmarks/gpu_validation.py --page "
    "docs/validation/{folder}`, which anyone can run. No external meter was attached: the sensor's "
    "own gain is not shown, and stays at the band taken for cards without a calibration. No "
    "setting of the card was changed."
)
_CALLS = {
    "call": "{call}",
    "answer": "{value}",
    "median, ms": "{median_ms:g}",
    "95 %, ms": "{p95_ms:g}",
}
_CHANNELS = {
    "channel": "{name}",
    "polled: changes each, ms (5 to 95 %)": "{gaps[1]:.1f} ({gaps[0]:.0f} to {gaps[2]:.0f})",
    "characterised: each, ms": "{period_ms:.1f}",
    "mean over, ms": "{window_ms:.1f}",
}
_POLLED = (
    "- {polls} polls during steps, steady work and pulses. A read of the counter took "
    "{counter_call_ms[0]:.1f} ms in the median, {counter_call_ms[1]:.1f} ms at most in 95 % and "
    "{counter_call_ms[2]:.0f} ms once; one of both powers {power_call_ms[0]:.3f} ms, "
    "{power_call_ms[1]:.3f} and {power_call_ms[2]:.1f} ms.",
    "- The old power call said the same as the average in {usage_percent:.4g} % of reads.",
    "- The counter ticks each {period_ms:.2f} ms, on a regular grid: 90 % of the ticks were seen "
    "{ticks.off_ms[0]:+.1f} to {ticks.off_ms[1]:+.1f} ms from it. Its unit is {unit_mj} mJ.",
    "- The counter follows the end of a load {lag[1]:.0f} ms later ({lag[0]:.0f} to {lag[2]:.0f} "
    "ms, {steps} steps); where the ticks lie is known to {ticks.unsure_ms[0]:+.1f} and "
    "{ticks.unsure_ms[1]:+.1f} ms. That includes what the card itself takes to calm down. At a "
    "load's begin the card draws more than its level for some 100 ms, which hides the lag.",
)
_JUDGED = "- `llem sensors --characterise` judged the counter *{nature}*"
_LOADS = {
    "load": "{load}",
    "time under load": "{busy_share:.1%}",
    "counter, W": "{counter_w:.1f}",
    "average, W": "{average_w:.1f}",
    "instant, W": "{instant_w:.1f}",
}
_LOCKED = (
    "Mean power in W while a load pulsed with these times of work and rest. Where work and rest "
    "together are a whole share of a channel's period, the channel sees the same part of each "
    "pulse and its mean can be anything. A counter that were the sum of one of the readings would "
    "show that reading's mean. The average's mean is taken from 1 s after the begin."
)
_BUFFERED = (
    "{samples} samples, {gap_ms[1]:.1f} ms apart ({gap_ms[0]:.1f} to {gap_ms[2]:.1f} ms). Their "
    "mean stands under instant, and from 1 s after the begin under average."
)
_WINDOWS = {
    "window": "{window}",
    "s": "{seconds:.1f}",
    "our meter": "{meter_w:.1f} ± {meter_u95_w:.1f}",
    "counter": "{counter_w:.1f}",
    "Zeus": "{zeus_w:.1f}",
    "average": "{average_w:.1f}",
    "instant": "{instant_w:.1f}",
    "nvidia-smi": "{nvidia_smi_w:.1f}",
    "J/token": "{j_per_token:#.4g}",
    "our codes": "{codes}",
}
_METERS = (
    "Mean power in W. *Our meter* is what it said then; *counter*, *average* and *instant* are "
    "computed here from its recording; Zeus reads the same counter at the window's ends."
)
_RUNS = {
    "run": "{study}: {name}",
    "window, s": "{window_s:.1f}",
    "J/token": "{j_per_token:#.4g}",
    "95 %": "{u95_rel:.1%}",
    "W": "{power_w:.1f}",
    "counter, W": "{counter_w:.1f}",
    "average, W": "{average_w:.1f}",
    "token/s": "{tokens_per_s:.1f}",
    "°C": "{temperatures_celsius[0]:.0f} to {temperatures_celsius[1]:.0f}",
    "codes": "{codes}",
}
_SPLIT = {
    "run": "{study}: {name}",
    "prefill, J/input token": "{prefill_per_input_token_j:.4f} ± {prefill_u95_j:.4f}",
    "decode, J/output token": "{decode_per_output_token_j:.4f} ± {decode_u95_j:.4f}",
    "unexplained of a tick": "{unexplained_rel:.1%}",
}
_STANDARD = (
    "- {name}: waited {settle[waited_s]:.1f} s for the card to settle ({settle[reason]}); warmed "
    "up for {warmup[duration_s]:.1f} s and {warmup[passes]} passes ({warmup[ended]}), converged: "
    "{warmup[converged]}."
)
_COST = (
    "- Tokens/s at batch 1 with our meter on, over those with it off, in {pairs} alternating "
    "pairs: median {median:.4f}, mean {mean[0]:.4f}, 95 % interval {mean[1]:.3f} to {mean[2]:.3f}; "
    "single pairs {least:.2f} to {most:.2f}.",
    "- The recorder used {shares[0]:.0%} to {shares[1]:.0%} of one processor core.",
)
_CHECKS = {"": "**{verdict}**", "claim": "{name}", "seen": "{seen}"}
_INCONCLUSIVE = (
    "{counts}. *Inconclusive*: the data could not have shown the contrary, as where an interval is "
    "wide."
)
_STAGES = {"stage": "`{name}`", "s": "{took_s:.0f}", "ended": "{ended}", "kept": "{files}"}
_FILES = (
    "What each stage does is told in [the list of them](README.md#your-card). `nvidia_smi.csv`: ns "
    "of the monotonic clock, then `power.draw`, `power.draw.instant` and `power.draw.average` in "
    "W. `results.json` is what each stage said."
)


def write(folder: Path) -> Path:
    """Write the page next to an output folder, named after the card; return its path."""
    card = _card(read_json(folder / RESULTS))
    name = f"{card['name']}-{card['driver_version']}".lower()
    slug = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
    path = folder.absolute().parent / f"{slug}.md"
    path.write_text(text(folder))
    return path


def text(folder: Path) -> str:
    """Return the page."""
    results = read_json(folder / RESULTS)
    stages, card = results.get("stages", {}), _card(results)
    behaviour = figures.behaviour(stages.get("probe", {}))
    raw = figures.raw(folder / "raw") if (folder / "raw" / "raw.npz").is_file() else {}
    # Of the H100 the buffer was recorded apart.
    buffer = figures.buffer(folder / "raw") or figures.buffer(folder / "buffer") or {}
    windows = [row for name in ("engine", "pulses") for row in figures.windows(folder / name)]
    runs = [
        run
        for name in ("first", "study", "standard", "vllm", "serving", "faults")
        for run in figures.runs(folder / name)
    ]
    for row in (*windows, *runs):
        row["codes"] = ", ".join(row["validity"]) or "-"
    standard = [_told(_STANDARD, run) for run in runs if run["study"] == "standard"]
    found = judge(folder)
    parts = (
        [f"# {card['name']}, driver {card['driver_version']}", ""],
        [_TRIAL, ""] if results.get("simulated") else [],
        [_HEAD.format(**_origin(results), folder=folder.name), ""],
        _section("What NVML answers, at rest", _table(_CALLS, _calls(stages))),
        _section("The sensor", *_sensor(raw, behaviour)) if raw else [],
        _loads("On loads of known times", _LOCKED, raw),
        _loads("The driver's buffer of power samples", _told(_BUFFERED, buffer), buffer),
        _section("Three meters on the same windows", _table(_WINDOWS, windows), before=_METERS),
        _section("Runs through `llem run`", _table(_RUNS, runs)),
        _section("Prefill and decode", _table(_SPLIT, _splits(runs))),
        _section("The default protocol", standard),
        _section("What the meter costs", _cost(stages.get("engine", {}), runs)),
        _section("Checks", _table(_CHECKS, _verdicts(found)), before=_summary(found)),
        _section("Stages", _table(_STAGES, _ends(stages, folder)), [_FILES]),
        _section("Notes", [f"- {note}" for note in results.get("notes", [])]),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def _card(results: Row) -> dict[str, Any]:
    cards = results.get("stages", {}).get("inventory", {}).get("cards") or [{}]
    return {"name": "Unknown card", "driver_version": "unknown", **cards[0]}


def _origin(results: Row) -> dict[str, Any]:
    commit = results.get("commit")
    return {
        "day": str(results.get("began"))[:10],
        "llenergymeasure": results.get("llenergymeasure"),
        "at_commit": f" at commit {commit}" if commit else "",
    }


def _section(title: str, *blocks: Sequence[str], before: str = "") -> list[str]:
    """Return a heading and what stands below it; nothing where there is nothing to say."""
    if not blocks[0]:
        return []
    words = [before, ""] if before else []
    return [
        f"## {title}",
        "",
        *words,
        *(line for block in blocks if block for line in [*block, ""]),
    ]


def _table(columns: Columns, rows: Iterable[Row]) -> list[str]:
    lines = [_line(_cell(form, row) for form in columns.values()) for row in rows]
    return [_line(columns), _line("---" for _ in columns), *lines] if lines else []


def _cell(form: str, row: Row) -> str:
    said = _told(form, row)
    if "%}" in form:
        said = said.replace("%", " %")
    return said.replace("|", "\\|").replace("\n", " ") or "-"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _told(form: str, row: Row) -> str:
    """Return a format with its figures; nothing where one of them is not known."""
    try:
        return form.format(**row)
    except (TypeError, KeyError, AttributeError, IndexError):
        return ""


def _calls(stages: Row) -> Iterator[Row]:
    for call, each in stages.get("inventory", {}).get("nvml", {}).items():
        yield {"call": call, "value": each.get("unavailable"), **each}


def _sensor(raw: Row, behaviour: Row) -> Iterator[list[str]]:
    gaps = raw["gaps_ms"].items()
    yield _table(
        _CHANNELS, [{"name": name, "gaps": each, **behaviour.get(name, {})} for name, each in gaps]
    )
    lags = raw["lag_ms"]
    row = {
        **raw,
        "usage_percent": 100 * raw["usage_is_average"],
        "period_ms": raw["ticks"] and raw["ticks"].period_s * 1e3,
        "lag": np.quantile(lags, [0, 0.5, 1]) if lags else None,
        "steps": len(lags),
    }
    judged = _told(_JUDGED, behaviour)
    late = _told(", with a lag of {lag_ms:.1f} ms", behaviour)
    lines = [*(_told(form, row) for form in _POLLED), judged and f"{judged}{late}."]
    yield [line for line in lines if line]


def _loads(title: str, words: str, found: Row) -> list[str]:
    rows = [{**each, "load": _load(each["what"])} for each in found.get("stretches", [])]
    return _section(title, _table(_LOADS, rows), [*_apart(rows)], before=words)


def _load(what: str) -> str:
    kind, *spans_s = what.split()
    spans_ms = " / ".join(f"{float(each) * 1e3:g}" for each in spans_s)
    return f"{spans_ms} ms" if kind == "pulses" else what


def _apart(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how far the readings are from the counter, on steady work and on pulses."""
    for kind in ("steady", "pulses"):
        for name in ("average", "instant"):
            apart = [
                100 * (row[f"{name}_w"] / row["counter_w"] - 1)
                for row in rows
                if row["what"].startswith(kind) and row[f"{name}_w"] and row["counter_w"]
            ]
            if apart:
                ends = dict.fromkeys((f"{min(apart):+.1f}", f"{max(apart):+.1f}"))
                yield f"- {kind}: the {name} is {' to '.join(ends)} % from the counter."


def _splits(runs: Sequence[Row]) -> Iterator[Row]:
    for run in runs:
        if run["split"].get("prefill_per_input_token_j") is not None:
            yield {**run, **run["split"]}


def _cost(engine: Row, runs: Sequence[Row]) -> list[str]:
    ratios = engine.get("meter_on_over_off") or []
    shares = [run["recorder_cpu_share"] for run in runs if run["recorder_cpu_share"] is not None]
    row: dict[str, Any] = {"pairs": len(ratios), "mean": figures.mean_ratio(ratios)}
    if ratios:
        row |= {"median": np.median(ratios), "least": min(ratios), "most": max(ratios)}
    if shares:
        row["shares"] = (min(shares), max(shares))
    return [line for form in _COST if (line := _told(form, row))]


def _summary(found: Sequence[Check]) -> str:
    counts = dict.fromkeys(("ok", "not ok", "inconclusive"), 0)
    for check in found:
        counts[check.verdict] += 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return _INCONCLUSIVE.format(counts=said)


def _verdicts(found: Sequence[Check]) -> list[Row]:
    order = ("not ok", "inconclusive", "ok")
    return [vars(check) for check in sorted(found, key=lambda check: order.index(check.verdict))]


def _ends(stages: Row, folder: Path) -> Iterator[Row]:
    for name, row in stages.items():
        ended = row.get("not_run") or row.get("error") or f"exit {row.get('exit')}"
        if "skipped" in row:
            ended = f"skipped: {row['skipped']}"
        files = sorted({path.name for path in (folder / name).rglob("*") if path.is_file()})
        files_said = ", ".join(f"`{each}`" for each in files)
        yield {**row, "name": name, "ended": ended, "files": files_said}
