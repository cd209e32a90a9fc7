"""What may be compared, decided once: rankings, pairs, fronts, load lines and figures ask here.

Two experiments may be compared if their energy is of the same kind, sensors and scopes, and their
runs had the same GPU model, driver and power limit, clocks in the same state, and a host and a card
in common, or several of each, so that what parts these is in their spread. Experiments of two
backends must also have done the same work: what one backend does when its own settings vary is its
user's to compare. All of this is a property of the pair: each of the two keeps its own mean. Of
experiments whose settings an engine has resolved to the same values only the first is compared.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

from llenergymeasure.analysis.selection import Meter, Row, Selection, kind_rank
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.requested_work import may_end_early
from llenergymeasure.plan.fairness import configs_of, planned_work
from llenergymeasure.units import percent

Values: TypeAlias = frozenset[Any]
"""The known values that an experiment's runs have in one column."""

Span: TypeAlias = tuple[float, float]

MACHINE = {
    "gpu_name": "GPU",
    "driver_version": "driver",
    "power_limit_w": "power limit in W",
    "host": "host",
    "gpu_uuid": "card",
}
"""Columns that distinguish two machines, and their words."""

WORK = (
    *("model", "precision", "prompts"),
    *("input tokens per request", "output tokens per request"),
)
"""What two backends must have in common to have done the same work."""

_OTHER_WORK = {"cached_prompts", "empty_answers", "length_mismatch", "token_mismatch"}
"""Codes of traffic in which requests were not what was asked for: no other backend did the same."""

CLOCK_APART = 0.02
"""Clocks further apart than this have been set differently. A step is 15 MHz, below 1 %, and on the
H100 whose recordings are in docs/validation the free clock of every run was the same."""

HEAT_APART = 0.05
"""More of the time, in whole per cent, held down by heat or power supply is another state."""

COLUMNS = (
    *("sm_clock_free_mhz", "sm_clock_max_mhz", "memory_clock_median_mhz", "slowed_by_heat_share"),
    *("backend", "model", "precision", "prompt_hash", "input_tokens", "output_tokens"),
    *("cycle", "requests", "offered_requests_per_s", "validity", "settings_in_force", *MACHINE),
)
"""Columns of ``runs.parquet`` that are compared, in addition to those of the selection."""

_HASH_DIGITS = 64


@dataclass(frozen=True)
class _Facts:
    """The facts that decide on comparisons; experiments with equal facts may be compared.

    Attributes:
        meter: kind, sensor and scopes of its energy.
        machine: its values of :data:`MACHINE`.
        fixed: of :data:`MACHINE`, what was the same in all its runs.
        clocks: the SM clock that is set, the memory clock, and the share of time that heat held
            them down: the least and the most in its runs, where known, in two digits.
        heat: that share in words, which two digits would call 0.
        limit_asked: the power limit that the study sets; two that differ are a setting.
        clock_asked: likewise the SM clock.
        backend: its backend.
        planned: what it was to do.
        work: its values of :data:`WORK`; its prompts each with the cycle that drew them.
        odd: codes of :data:`_OTHER_WORK` that its traffic has.
    """

    meter: Meter
    machine: tuple[Values, ...]
    fixed: frozenset[str]
    clocks: tuple[Span | None, ...]
    limit_asked: float | None
    clock_asked: int | None
    backend: str
    planned: str
    work: tuple[Values, ...]
    odd: Values
    heat: str = field(compare=False)


class Comparable:
    """Which experiments of a study may be compared, and why others may not."""

    def __init__(
        self, selections: Mapping[str, Selection], planned: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Take what the runs of each experiment have in common.

        Args:
            selections: of the experiments' runs.
            planned: the plan's runs, with their settings.
        """
        configs = configs_of(planned)
        self._facts = {
            name: _facts(chosen, configs.get(name) or {})
            for name, chosen in selections.items()
            if chosen.alike
        }
        # Without the plan's settings nothing says that two experiments are alike in the rest.
        self._twins = _twins(selections, configs) if configs else {}
        self._in_means = {name for name, chosen in selections.items() if chosen.used}

    def why_not(self, one: str, other: str) -> str | None:
        """Return why two experiments may not be compared; None if they may, or one has no run."""
        if one not in self._facts or other not in self._facts:
            return None
        a, b = self._facts[one], self._facts[other]
        twin = self._twins.get(other) or self._twins.get(one)
        return twin or _measured_apart(a, b) or _unlike_work(a, b)

    @cached_property
    def groups(self) -> list[tuple[str, ...]]:
        """The experiments that have runs, in groups of which all may be compared.

        Those with runs in means come first, then measured energy, then what most experiments are.
        Backends that were planned to do other work are in one group all the same, because the
        study asks for both; :meth:`why_not` parts them pair by pair.
        """
        found = [tuple(sorted(group.experiments, key=self._place)) for group in self._groups]
        return found + [(twin,) for twin in self._twins]

    @cached_property
    def outside(self) -> dict[str, str]:
        """Why each experiment that is not in the first group is not."""
        others = [name for group in self._groups[1:] for name in group.experiments]
        reasons = {name: self._groups[0].why_not(self._facts[name]) for name in others}
        return {name: why for name, why in reasons.items() if why is not None} | self._twins

    @cached_property
    def _groups(self) -> list["_Group"]:
        alike: dict[_Facts, list[str]] = {}
        for experiment, facts in self._facts.items():
            if experiment not in self._twins:
                alike.setdefault(facts, []).append(experiment)

        def rank(facts: _Facts) -> tuple[bool, int, int]:
            names = alike[facts]
            return self._in_means.isdisjoint(names), kind_rank(facts.meter[0]), -len(names)

        left = sorted(alike, key=rank)
        found = []
        while left:
            group = _Group()
            others = []
            for facts in left:
                if group.why_not(facts) is None:
                    group.add(facts, alike[facts])
                else:
                    others.append(facts)
            found.append(group)
            left = others
        return found

    @cached_property
    def _place(self) -> Callable[[str], int]:
        return {experiment: number for number, experiment in enumerate(self._facts)}.__getitem__


class _Group:
    """Experiments of which all may be compared.

    Experiments with equal facts are represented by one of them, and those that differ in their
    clocks by the extreme ones, so that not every pair of a large study has to be checked.
    """

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self._measured: dict[object, list[_Facts]] = {}
        self._done: dict[str, dict[str, dict[object, _Facts]]] = {}

    def add(self, facts: _Facts, experiments: Iterable[str]) -> None:
        """Take experiments of these facts in."""
        self.experiments += experiments
        asked = (facts.limit_asked, facts.clock_asked)
        seen = (facts.meter, facts.machine, facts.fixed, asked)
        self._measured[seen] = _at_the_ends([*self._measured.get(seen, ()), facts])
        of_backend = self._done.setdefault(facts.planned, {}).setdefault(facts.backend, {})
        of_backend.setdefault((facts.work, facts.odd), facts)

    def why_not(self, facts: _Facts) -> str | None:
        """Return why experiments of these facts are not of the group; None if they may be.

        They were measured apart from one that is in it, or did other work by the same plan.
        """
        asked = self._done.get(facts.planned, {})
        by_others = (each for name, each in asked.items() if name != facts.backend)
        reasons = chain(
            (_measured_apart(each, facts) for ends in self._measured.values() for each in ends),
            (_unlike_work(each, facts) for done in by_others for each in done.values()),
        )
        return next(filter(None, reasons), None)


def _at_the_ends(alike: Sequence[_Facts]) -> list[_Facts]:
    """Return which of experiments that differ in their clocks alone others can be apart from.

    Clocks are apart if the least of one is far above the most of the other: who is not apart from
    those with the highest least and the lowest most is apart from none.
    """
    found = [alike[0]]
    for place in range(len(alike[0].clocks)):
        spans = [(span, each) for each in alike if (span := each.clocks[place]) is not None]
        if spans:
            found.append(max(spans, key=lambda item: item[0][0])[1])
            found.append(min(spans, key=lambda item: item[0][1])[1])
    return list(dict.fromkeys(found))


def _facts(chosen: Selection, config: Mapping[str, Any]) -> _Facts:
    runs, done = chosen.used or chosen.alike, chosen.alike
    heat = _span((run["slowed_by_heat_share"],) * 2 for run in runs)
    return _Facts(
        meter=chosen.meter,
        machine=tuple(_values(runs, name) for name in MACHINE),
        fixed=frozenset(name for name in MACHINE if len({run[name] for run in runs}) == 1),
        clocks=(
            _rounded(_span(map(_set_clock, runs))),
            _rounded(_span((run["memory_clock_median_mhz"],) * 2 for run in runs)),
            _rounded(heat),
        ),
        limit_asked=(config.get("gpu") or {}).get("power_limit_w"),
        clock_asked=(config.get("gpu") or {}).get("sm_clock_mhz"),
        backend=runs[0]["backend"],
        planned=planned_work(config),
        work=(
            *(_values(done, name) for name in ("model", "precision")),
            frozenset((run["cycle"], run["prompt_hash"]) for run in done if run["prompt_hash"]),
            frozenset(_a_request(done, "input_tokens")),
            frozenset() if may_end_early(config) else frozenset(_a_request(done, "output_tokens")),
        ),
        odd=frozenset(
            code
            for run in runs
            for code in run["validity"] or ()
            if code == "remote_server"  # the machine that did the work is not the one measured
            or (code in _OTHER_WORK and run["offered_requests_per_s"] is not None)
        ),
        heat=_shares(heat) if heat else "",
    )


def _twins(
    selections: Mapping[str, Selection], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return why experiments are not ones of their own: an earlier one has the same in force."""
    firsts: dict[tuple[str, str], str] = {}
    found = {}
    for experiment, chosen in selections.items():
        told = {run.get("settings_in_force") for run in chosen.alike}
        text = told.pop() if len(told) == 1 else None
        if text is None:
            continue
        in_force = json.loads(text)
        named = tuple(f"{key}." for key in in_force)  # one that is a mapping has leaves of its own
        others = {
            key: value
            for key, value in leaves(configs.get(experiment) or {})
            if value is not None and not f"{key}.".startswith(named)
        }
        first = firsts.setdefault((text, json.dumps(others, sort_keys=True)), experiment)
        if first != experiment:
            how = ", ".join(f"{key} is {value}" for key, value in in_force.items())
            found[experiment] = f"the engine ran it as experiment {first}: {how} in both"
    return found


def _values(runs: Iterable[Row], name: str) -> Values:
    """Return the values of a column; several cards count as separate values."""
    known = {run[name] for run in runs} - {None}
    if name == "gpu_uuid":
        return frozenset(card for cards in known for card in cards.split(", "))
    return frozenset(known)


def _set_clock(run: Row) -> tuple[float | None, float | None]:
    """Return the SM clock that is set; of a run that was always held down only the least it is."""
    free = run["sm_clock_free_mhz"]
    return (run["sm_clock_max_mhz"], math.inf) if free is None else (free, free)


def _span(ends: Iterable[tuple[float | None, float | None]]) -> Span | None:
    """Return the least and the most in any run; None where nothing is known."""
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _rounded(span: Span | None) -> Span | None:
    return None if span is None else (round(span[0], 2), round(span[1], 2))


def _a_request(runs: Iterable[Row], name: str) -> Iterator[float]:
    """Yield tokens per request; under traffic a window holds whichever requests arrived in it."""
    for run in runs:
        if run["requests"] and run[name] is not None and run["offered_requests_per_s"] is None:
            yield run[name] / run["requests"]


def _measured_apart(one: _Facts, other: _Facts) -> str | None:
    if one.meter != other.meter and None not in (one.meter[0], other.meter[0]):
        return f"energy is {_meter_words(one.meter)} and {_meter_words(other.meter)}"
    differing = {
        name: (mine, others)
        for name, mine, others in zip(MACHINE, one.machine, other.machine, strict=True)
        if mine and others and not mine & others
        # If runs of one experiment had several of these, the difference is in their spread.
        if name not in ("host", "gpu_uuid") or name in one.fixed | other.fixed
    }
    if one.limit_asked != other.limit_asked:
        differing.pop("power_limit_w", None)
    if "host" in differing:
        differing.pop("gpu_uuid", None)
    told = [f"{MACHINE[name]} is {_told(*values)}" for name, values in differing.items()]
    return f"other machines: {', '.join(told)}" if told else _unlike_clocks(one, other)


def _unlike_clocks(one: _Facts, other: _Facts) -> str | None:
    """Return how the clocks' states of two differ: settings from outside, and heat.

    A clock that the power limit slows is a result of the work, and no reason against comparing.
    """
    told = []
    for place, name in enumerate(("SM clock", "memory clock")):
        mine, others = one.clocks[place], other.clocks[place]
        asked = place == 0 and one.clock_asked != other.clock_asked
        if asked or mine is None or others is None:
            continue
        (_, slow), (fast, _) = sorted((mine, others), key=lambda span: span[0])
        if fast > (1 + CLOCK_APART) * slow:
            told.append(f"{name} is {_mhz(mine)} and {_mhz(others)} MHz")
    mine, others = one.clocks[2], other.clocks[2]
    if mine and others and round(max(mine[0] - others[1], others[0] - mine[1]), 2) > HEAT_APART:
        told.append(f"heat held them down for {one.heat} and {other.heat} of the time")
    return f"other clocks: {', '.join(told)}" if told else None


def _mhz(span: Span) -> str:
    low, high = span
    return f"{low:g}" + ("" if low == high else " or more" if math.isinf(high) else f" to {high:g}")


def _shares(span: Span) -> str:
    low, high = map(percent, span)
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _unlike_work(one: _Facts, other: _Facts) -> str | None:
    if one.backend == other.backend:
        return None
    told = []
    for name, mine, others in zip(WORK, one.work, other.work, strict=True):
        if name == "prompts":
            mine, others = _of_common_cycles(mine, others)
        if mine and others and mine != others:
            verb = "is" if name in ("model", "precision") else "are"
            told.append(f"{name} {verb} {_told(mine, others)}")
    if odd := one.odd | other.odd:
        told.append(f"requests were not all answered here as asked for ({', '.join(sorted(odd))})")
    return f"other work: {', '.join(told)}" if told else None


def _of_common_cycles(one: Values, other: Values) -> tuple[Values, Values]:
    """Return the hashes of prompts of the first cycle in which two differ, else all of them."""
    mine, others = dict(one), dict(other)
    both = sorted(mine.keys() & others.keys())
    cycle = next((cycle for cycle in both if mine[cycle] != others[cycle]), None)
    if cycle is not None:
        return frozenset({mine[cycle]}), frozenset({others[cycle]})
    return (frozenset(),) * 2 if both else (frozenset(mine.values()), frozenset(others.values()))


def _meter_words(meter: Meter) -> str:
    kind, sensor, scopes = meter
    return f"{kind} by {sensor} ({', '.join(scopes)})"


def _told(one: Values, other: Values) -> str:
    return " and ".join(" or ".join(sorted(map(_short, values))) for values in (one, other))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:12] if len(value) == _HASH_DIGITS else str(value)
