"""What must hold on any card, judged from what was kept: ok, not ok, or inconclusive."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpu_stages import figures, sensor
from gpu_stages.keeping import RESULTS, read_json

Verdict = Literal["ok", "not ok", "inconclusive"]

TICK_S = 0.1
"""Slowest tick of a counter that a window's ends may be cut at."""
_WIDE = 0.1
"""An interval of more than this share of the energy could not tell of anything."""


@dataclass(frozen=True)
class Check:
    """One claim, and whether it held.

    Attributes:
        name: the claim.
        verdict: whether it held; ``inconclusive`` where the data could not show that it did not.
        seen: the figures that say so.
    """

    name: str
    verdict: Verdict
    seen: str

    def __str__(self) -> str:
        return f"{self.verdict:12} {self.name}: {self.seen}"


def judge(folder: Path) -> list[Check]:
    """Return all checks of an output folder."""
    results = read_json(folder / RESULTS)
    every: dict[str, Any] = results.get("stages", {})
    stages = {name: row for name, row in every.items() if not {"skipped", "not_run"} & {*row}}
    cards = stages.get("inventory", {}).get("cards") or [{}]
    limit_w: float | None = cards[0].get("power_limit_w")
    checks: list[Check] = []
    for name, row in stages.items():
        checks.append(stage_ended(name, row))
        runs = figures.runs(folder / name)
        for study, study_row in row.get("studies", {}).items():
            codes = [run["validity"] for run in runs if run["study"] == study]
            checks.append(llem_exit(name, study, study_row, codes))
        for run in runs:
            title = name if run["study"] == name else f"{name}, {run['study']}"
            checks += run_checks(f"{title}, {run['name']}", run, run["limit_w"] or limit_w)
        for window in figures.windows(folder / name):
            checks += window_checks(f"{name}, {window['window']}", window)
    if "meter_on_over_off" in stages.get("engine", {}):
        checks.append(meter_cost(stages["engine"]["meter_on_over_off"]))
    raw = sensor.raw(folder / "raw")
    if raw:
        checks += sensor_checks(raw, stages.get("probe", {}))
    if "faults" in stages:
        if not results.get("simulated"):
            checks.append(stranger_refused(figures.failures(folder / "faults").get("refused")))
        runs = figures.runs(folder / "faults")
        checks.append(took_turns({run["study"]: run["span_s"] for run in runs}))
    return checks


def _holds(title: str, good: bool, evidence: str) -> Check:
    return Check(title, "ok" if good else "not ok", evidence)


def _unknown(title: str, evidence: str) -> Check:
    return Check(title, "inconclusive", evidence)


def _within(title: str, difference: float, tolerance: float, scale: float, evidence: str) -> Check:
    """Judge a distance by the room that it has; a wide room could not tell of anything."""
    if abs(difference) <= tolerance and tolerance > _WIDE * scale:
        return _unknown(title, evidence)
    return _holds(title, abs(difference) <= tolerance, evidence)


def stage_ended(stage: str, row: dict[str, Any]) -> Check:
    good = row.get("exit") == 0 and not row.get("error")
    evidence = row.get("error") or f"exit {row.get('exit')}, {row.get('took_s')} s"
    return _holds(f"{stage}: ran to its end", good, str(evidence))


def llem_exit(
    stage: str, study: str, row: dict[str, Any], codes: Sequence[Collection[str]] = ()
) -> Check:
    """Judge how a call ended; of runs that computed on the processor it must end with 1."""
    if row["exit"] == 1 and codes and all("computes_on_cpu" in run_codes for run_codes in codes):
        title = f"{stage}: llem run of {study} ends with 0"
        return _unknown(title, "exit 1: its runs computed on the processor")
    refused = study == "refused"
    good = row["exit"] not in (0, "over its limit") if refused else row["exit"] == 0
    title_end = "does not end with 0" if refused else "ends with 0"
    return _holds(f"{stage}: llem run of {study} {title_end}", good, f"exit {row['exit']}")


def run_checks(name: str, run: dict[str, Any], limit_w: float | None) -> list[Check]:
    """Return what must hold of a run that has a result."""
    watts, rate, per_token_j = run["power_w"], run["tokens_per_s"], run["j_per_token"]
    if not watts or not rate or not per_token_j:
        return [_holds(f"{name}: energy measured", False, "no energy")]
    return [
        identity(name, run),
        within_limit(name, watts, limit_w),
        recomputed(name, run),
        no_mismatch(name, run["validity"]),
        given_back(name, run["released"]),
    ]


def identity(name: str, run: dict[str, Any]) -> Check:
    """J/token times token/s is W, but for the part of a window that was waited for ticks."""
    made_w = run["j_per_token"] * run["tokens_per_s"]
    difference = made_w / run["power_w"] - 1
    tolerance = 0.001 + 2 * TICK_S / run["window_s"]
    title = f"{name}: J/token times token/s is the power"
    evidence = f"{made_w:.1f} and {run['power_w']:.1f} W, {100 * difference:+.2f} %"
    return _within(title, difference, tolerance, 1.0, evidence)


def within_limit(name: str, watts: float, limit_w: float | None) -> Check:
    title = f"{name}: mean power within the limit"
    if limit_w is None:
        return _unknown(title, f"{watts:.1f} W, the limit is not known")
    return _holds(title, 0 < watts <= 1.02 * limit_w, f"{watts:.1f} of {limit_w:g} W")


def recomputed(name: str, run: dict[str, Any]) -> Check:
    """The reported power is that of the recording's counter, computed by other code."""
    title = f"{name}: reported power is the counter's"
    if run["counter_w"] is None:
        return _unknown(title, "no counter in the recording")
    # A tick may lie anywhere between two reads: at each end, half of what they are apart.
    unsure_s = max(0.005, run.get("counter_unsure_s") or 0)
    tolerance = 0.002 + 2 * unsure_s / run["window_s"] + (run.get("u95_rel") or 0)
    evidence = f"{run['power_w']:.2f} and {run['counter_w']:.2f} W"
    return _within(title, run["power_w"] / run["counter_w"] - 1, tolerance, 1.0, evidence)


def no_mismatch(name: str, validity: Collection[str]) -> Check:
    """A counter and readings of one card that contradict each other: one of them was read wrong."""
    title = f"{name}: no channel_mismatch"
    return _holds(title, "channel_mismatch" not in validity, ", ".join(validity) or "no code")


def given_back(name: str, released: list[Any]) -> Check:
    title = f"{name}: the card's memory given back"
    if not released:
        return _unknown(title, "not told")
    return _holds(title, all(released), str(released))


def window_checks(name: str, row: dict[str, Any]) -> list[Check]:
    """Return what must hold of a window that three meters saw."""
    checks = [no_mismatch(name, row["validity"]), channels_agree(name, row)]
    return checks if row["zeus_w"] is None else [*checks, zeus_agrees(name, row)]


def channels_agree(name: str, row: dict[str, Any]) -> Check:
    """The intervals of counter and integrated power meet."""
    title = f"{name}: counter and integrated power within their intervals"
    counter, power = (row["channels"].get(channel) or {} for channel in ("counter", "power"))
    parts = [counter.get("j"), power.get("j"), counter.get("u95_j"), power.get("u95_j")]
    if any(part is None for part in parts):
        return _unknown(title, "one of them is not known")
    counter_w, power_w, counter_u95_w, power_u95_w = (part / row["meter_s"] for part in parts)
    evidence = f"{counter_w:.1f} ± {counter_u95_w:.1f} and {power_w:.1f} ± {power_u95_w:.1f} W"
    return _within(title, counter_w - power_w, counter_u95_w + power_u95_w, counter_w, evidence)


def zeus_agrees(name: str, row: dict[str, Any]) -> Check:
    """Zeus reads the counter as it stands: up to a tick's energy is missing at one end."""
    title = f"{name}: Zeus within its ends"
    if row["meter_w"] is None or row["most_w"] is None:
        return _unknown(title, "our meter has no energy")
    tolerance_w = TICK_S * row["most_w"] / row["seconds"] + (row["meter_u95_w"] or 0)
    evidence = f"ours {row['meter_w']:.1f}, Zeus {row['zeus_w']:.1f} W, room {tolerance_w:.1f} W"
    return _within(title, row["meter_w"] - row["zeus_w"], tolerance_w, row["meter_w"], evidence)


def meter_cost(ratios: list[float]) -> Check:
    """Tokens/s with the meter on over those with it off; the interval must exclude 1 % less."""
    title = "the meter costs less than 1 % of tokens/s"
    interval = figures.mean_ratio(ratios)
    if interval is None:
        return _unknown(title, f"{len(ratios)} pairs")
    centre, low, high = interval
    evidence = (
        f"on over off {centre:.4f}, 95 % interval {low:.4f} to {high:.4f} of {len(ratios)} pairs"
    )
    if low < 0.99 <= high:
        return _unknown(title, evidence)
    return _holds(title, low >= 0.99, evidence)


def sensor_checks(raw: dict[str, Any], probe: dict[str, Any]) -> Iterator[Check]:
    """Yield what the sensor must do, and what our characterisation must find of it."""
    yield regular(raw["ticks"])
    behaviour = sensor.behaviour(probe)
    if behaviour:
        for name, gaps in raw["gaps_ms"].items():
            yield period_found(name, behaviour[name]["period_ms"], gaps)


def regular(grid: sensor.Ticks | None) -> Check:
    title = "the counter ticks on a regular grid"
    if grid is None:
        return _unknown(title, "fewer than 20 ticks")
    worst_ms = max(abs(offset_ms) for offset_ms in grid.off_ms)
    evidence = f"each {grid.period_s * 1e3:.2f} ms, 90 % of ticks within {worst_ms:.1f} ms of it"
    room_ms = 0.1e3 * grid.period_s
    if room_ms < worst_ms <= room_ms + grid.blind_ms / 2:
        return _unknown(title, f"{evidence}, reads around a tick {grid.blind_ms:.1f} ms apart")
    return _holds(title, worst_ms <= room_ms, evidence)


def period_found(name: str, period_ms: float | None, gaps: Any) -> Check:
    title = f"{name}: the characterisation's period is that of plain polling"
    if gaps is None:
        return _unknown(title, "polling saw too few changes")
    if period_ms is None:
        return _holds(title, False, f"not found; polling saw {gaps[1]:.1f} ms")
    good = abs(period_ms / gaps[1] - 1) <= 0.1
    return _holds(title, good, f"{period_ms:.1f} and {gaps[1]:.1f} ms")


def stranger_refused(message: str | None) -> Check:
    title = "a run next to a stranger on the card is refused"
    good = message is not None and "in use by" in message
    return _holds(title, good, (message or "no refusal was recorded")[:120])


def took_turns(spans: dict[str, tuple[float, float]]) -> Check:
    title = "two runs started at once are measured one after the other"
    if not {"one", "two"} <= set(spans):
        return _holds(title, False, f"results of {', '.join(spans) or 'none'}")
    (start, end), (begin, stop) = sorted((spans["one"], spans["two"]))
    evidence = f"{begin - end:.1f} s between their windows"
    return _holds(title, end > start and stop > begin >= end, evidence)
