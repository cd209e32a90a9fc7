"""What must hold on any card, judged from what was kept: ok, not ok, or inconclusive."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpu_stages import figures
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
    stages: dict[str, Any] = results.get("stages", {})
    limit_w = _limit(stages)
    found: list[Check] = []
    for name, row in stages.items():
        if "skipped" in row or "not_run" in row:
            continue
        found.append(ended(name, row))
        runs = figures.runs(folder / name)
        for study, each in row.get("studies", {}).items():
            codes = [run["validity"] for run in runs if run["study"] == study]
            found.append(llem_exit(name, study, each, codes))
        for run in runs:
            title = name if run["study"] == name else f"{name}, {run['study']}"
            found += run_checks(f"{title}, {run['name']}", run, run["limit_w"] or limit_w)
        for window in figures.windows(folder / name):
            found += window_checks(f"{name}, {window['window']}", window)
    if "meter_on_over_off" in stages.get("engine", {}):
        found.append(meter_cost(stages["engine"]["meter_on_over_off"]))
    if (folder / "raw" / "raw.npz").is_file():
        found += list(sensor_checks(figures.raw(folder / "raw"), stages.get("probe", {})))
    if "faults" in stages:
        found += list(fault_checks(folder / "faults", simulated=bool(results.get("simulated"))))
    return found


def _limit(stages: dict[str, Any]) -> float | None:
    cards = stages.get("inventory", {}).get("cards") or [{}]
    limit: float | None = cards[0].get("power_limit_w")
    return limit


def ended(stage: str, row: dict[str, Any]) -> Check:
    good = row.get("exit") == 0 and not row.get("error")
    return Check(f"{stage}: ran to its end", "ok" if good else "not ok", _why(row))


def _why(row: dict[str, Any]) -> str:
    return str(row.get("error") or f"exit {row.get('exit')}, {row.get('took_s')} s")


def llem_exit(
    stage: str, study: str, row: dict[str, Any], codes: Sequence[Collection[str]] = ()
) -> Check:
    """Judge how a call ended; of runs that computed on the processor it must end with 1."""
    if row["exit"] == 1 and codes and all("computes_on_cpu" in each for each in codes):
        title = f"{stage}: llem run of {study} ends with 0"
        return Check(title, "inconclusive", "exit 1: its runs computed on the processor")
    refused = study == "refused"
    good = row["exit"] not in (0, "over its limit") if refused else row["exit"] == 0
    wanted = "does not end with 0" if refused else "ends with 0"
    verdict: Verdict = "ok" if good else "not ok"
    return Check(f"{stage}: llem run of {study} {wanted}", verdict, f"exit {row['exit']}")


def run_checks(name: str, run: dict[str, Any], limit_w: float | None) -> list[Check]:
    """Return what must hold of a run that has a result."""
    watts, rate, each = run["power_w"], run["tokens_per_s"], run["j_per_token"]
    if not watts or not rate or not each:
        return [Check(f"{name}: energy measured", "not ok", "no energy")]
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
    apart = made_w / run["power_w"] - 1
    room = 0.001 + 2 * TICK_S / run["window_s"]
    title = f"{name}: J/token times token/s is the power"
    verdict: Verdict = "ok" if abs(apart) <= room else "not ok"
    if room > _WIDE and verdict == "ok":
        verdict = "inconclusive"
    return Check(title, verdict, f"{made_w:.1f} and {run['power_w']:.1f} W, {apart:+.2%}")


def within_limit(name: str, watts: float, limit_w: float | None) -> Check:
    title = f"{name}: mean power within the limit"
    if limit_w is None:
        return Check(title, "inconclusive", f"{watts:.1f} W, the limit is not known")
    verdict: Verdict = "ok" if 0 < watts <= 1.02 * limit_w else "not ok"
    return Check(title, verdict, f"{watts:.1f} of {limit_w:g} W")


def recomputed(name: str, run: dict[str, Any]) -> Check:
    """The reported power is that of the recording's counter, computed by other code."""
    title = f"{name}: reported power is the counter's"
    if run["counter_w"] is None:
        return Check(title, "inconclusive", "no counter in the recording")
    apart = run["power_w"] / run["counter_w"] - 1
    # A tick is placed to half a read's length at each end: 5 ms of the window's power.
    room = 0.002 + 0.01 / run["window_s"] + (run.get("u95_rel") or 0)
    verdict: Verdict = "ok" if abs(apart) <= room else "not ok"
    if room > _WIDE and verdict == "ok":
        verdict = "inconclusive"
    return Check(title, verdict, f"{run['power_w']:.2f} and {run['counter_w']:.2f} W")


def no_mismatch(name: str, validity: Any) -> Check:
    """A counter and readings of one card that contradict each other: one of them was read wrong."""
    title = f"{name}: no channel_mismatch"
    there = "channel_mismatch" in validity
    return Check(title, "not ok" if there else "ok", ", ".join(validity) or "no code")


def given_back(name: str, released: list[Any]) -> Check:
    title = f"{name}: the card's memory given back"
    if not released:
        return Check(title, "inconclusive", "not told")
    return Check(title, "ok" if all(released) else "not ok", str(released))


def window_checks(name: str, row: dict[str, Any]) -> list[Check]:
    """Return what must hold of a window that three meters saw."""
    found = [no_mismatch(name, row["validity"]), channels_agree(name, row)]
    if row["zeus_w"] is not None:
        found.append(zeus_agrees(name, row))
    return found


def channels_agree(name: str, row: dict[str, Any]) -> Check:
    """The intervals of counter and integrated power meet."""
    title = f"{name}: counter and integrated power within their intervals"
    counter, power = (row["channels"].get(each) or {} for each in ("counter", "power"))
    parts = [counter.get("j"), power.get("j"), counter.get("u95_j"), power.get("u95_j")]
    if any(part is None for part in parts):
        return Check(title, "inconclusive", "one of them is not known")
    one, two, own, other = (part / row["meter_s"] for part in parts)
    seen = f"{one:.1f} ± {own:.1f} and {two:.1f} ± {other:.1f} W"
    if abs(one - two) > own + other:
        return Check(title, "not ok", seen)
    return Check(title, "inconclusive" if own + other > _WIDE * one else "ok", seen)


def zeus_agrees(name: str, row: dict[str, Any]) -> Check:
    """Zeus reads the counter as it stands: up to a tick's energy is missing at one end."""
    title = f"{name}: Zeus within its ends"
    if row["meter_w"] is None or row["most_w"] is None:
        return Check(title, "inconclusive", "our meter has no energy")
    room = TICK_S * row["most_w"] / row["seconds"] + (row["meter_u95_w"] or 0)
    apart = row["meter_w"] - row["zeus_w"]
    seen = f"ours {row['meter_w']:.1f}, Zeus {row['zeus_w']:.1f} W, room {room:.1f} W"
    if abs(apart) > room:
        return Check(title, "not ok", seen)
    return Check(title, "inconclusive" if room > _WIDE * row["meter_w"] else "ok", seen)


def meter_cost(ratios: list[float]) -> Check:
    """Tokens/s with the meter on over those with it off; the interval must exclude 1 % less."""
    title = "the meter costs less than 1 % of tokens/s"
    made = figures.mean_ratio(ratios)
    if made is None:
        return Check(title, "inconclusive", f"{len(ratios)} pairs")
    centre, low, high = made
    seen = f"on over off {centre:.4f}, 95 % interval {low:.4f} to {high:.4f} of {len(ratios)} pairs"
    if high < 0.99:
        return Check(title, "not ok", seen)
    return Check(title, "ok" if low >= 0.99 else "inconclusive", seen)


def sensor_checks(raw: dict[str, Any], probe: dict[str, Any]) -> Iterator[Check]:
    """Yield what the sensor must do, and what our characterisation must find of it."""
    yield regular(raw["ticks"])
    cards = probe.get("characterised") or [{}]
    behaviour = cards[0].get("behaviour")
    if behaviour is None:
        return
    power = {each["quantity"]: each for each in behaviour["power"]}
    found = {
        "counter": behaviour["counter_period_s"],
        "instant": power.get("power_instant_w", {}).get("update_period_s"),
        "average": power.get("power_average_w", {}).get("update_period_s"),
    }
    for name, period_s in found.items():
        yield period_found(name, period_s, raw["gaps_ms"].get(name))


def regular(grid: figures.Ticks | None) -> Check:
    title = "the counter ticks on a regular grid"
    if grid is None:
        return Check(title, "inconclusive", "fewer than 20 ticks")
    worst_ms = max(abs(each) for each in grid.off_ms)
    seen = f"each {grid.period_s * 1e3:.2f} ms, 90 % of ticks within {worst_ms:.1f} ms of it"
    return Check(title, "ok" if worst_ms <= 0.1e3 * grid.period_s else "not ok", seen)


def period_found(name: str, period_s: float | None, gaps: Any) -> Check:
    title = f"{name}: the characterisation's period is that of plain polling"
    if gaps is None:
        return Check(title, "inconclusive", "polling saw too few changes")
    if period_s is None:
        return Check(title, "not ok", f"not found; polling saw {gaps[1]:.1f} ms")
    verdict: Verdict = "ok" if abs(period_s * 1e3 / gaps[1] - 1) <= 0.1 else "not ok"
    return Check(title, verdict, f"{period_s * 1e3:.1f} and {gaps[1]:.1f} ms")


def fault_checks(folder: Path, *, simulated: bool) -> Iterator[Check]:
    """Yield whether a stranger was noticed, and whether two runs at once took turns."""
    if not simulated:
        yield stranger_refused(dict(figures.failures(folder)).get("refused"))
    yield took_turns({run["study"]: run["span_s"] for run in figures.runs(folder)})


def stranger_refused(message: str | None) -> Check:
    title = "a run next to a stranger on the card is refused"
    good = message is not None and "in use by" in message
    return Check(title, "ok" if good else "not ok", (message or "it was not refused")[:120])


def took_turns(spans: dict[str, tuple[float, float]]) -> Check:
    title = "two runs started at once are measured one after the other"
    if not {"one", "two"} <= set(spans):
        return Check(title, "not ok", f"results of {', '.join(spans) or 'none'}")
    (start, end), (begin, stop) = sorted((spans["one"], spans["two"]))
    seen = f"{begin - end:.1f} s between their windows"
    return Check(title, "ok" if end > start and stop > begin >= end else "not ok", seen)
