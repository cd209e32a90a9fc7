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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

from llenergymeasure.analysis.selection import Meter, Row, Selection, kind_rank
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.requested_work import may_end_early
from llenergymeasure.plan.fairness import configs_by_experiment, planned_work
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

WORK = ("model", "precision", "prompts", "input tokens per request", "output tokens per request")
"""What two backends must have in common to have done the same work."""

_UNLIKE_WORK_CODES = {"cached_prompts", "empty_answers", "length_mismatch", "token_mismatch"}
"""Codes of traffic in which requests were not what was asked for: no other backend did the same."""

CLOCK_TOLERANCE = 0.02
"""Clocks further apart than this have been set differently. A step is 15 MHz, below 1 %, and on the
H100 whose recordings are in docs/validation the free clock of every run was the same."""

HEAT_TOLERANCE = 0.05
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
        fixed_columns: of :data:`MACHINE`, what was the same in all its runs.
        clocks: the SM clock that is set, the memory clock, and the share of time that heat held
            them down: the least and the most in its runs, where known, in two digits.
        heat_text: that share in words, which two digits would call 0.
        study_limit_w: the power limit that the study sets; two that differ are a setting.
        study_clock_mhz: likewise the SM clock.
        backend: its backend.
        planned_work: what it was to do.
        work: its values of :data:`WORK_SETTINGS`; its prompts each with the cycle that drew them.
        unlike_codes: codes of :data:`_UNLIKE_WORK_CODES` that its traffic has.
    """

    meter: Meter
    machine: tuple[Values, ...]
    fixed_columns: frozenset[str]
    clocks: tuple[Span | None, ...]
    study_limit_w: float | None
    study_clock_mhz: int | None
    backend: str
    planned_work: str
    work: tuple[Values, ...]
    unlike_codes: Values
    heat_text: str = field(compare=False)


class Comparable:
    """Which experiments of a study may be compared, and why others may not."""

    def __init__(
        self, selections: Mapping[str, Selection], planned_runs: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Take what the runs of each experiment have in common.

        Args:
            selections: of the experiments' runs.
            planned_runs: the plan's runs, with their settings.
        """
        configs = configs_by_experiment(planned_runs)
        self._facts = {
            name: _facts(selection, configs.get(name) or {})
            for name, selection in selections.items()
            if selection.matching_runs
        }
        # Without the plan's settings nothing says that two experiments are alike in the rest.
        self._duplicates = _duplicates(selections, configs) if configs else {}
        self._in_means = {name for name, selection in selections.items() if selection.used_runs}

    def incomparable_reason(self, a: str, b: str) -> str | None:
        """Return why two experiments may not be compared; None if they may, or one has no run."""
        if a not in self._facts or b not in self._facts:
            return None
        facts_a, facts_b = self._facts[a], self._facts[b]
        if reason := self._duplicates.get(b) or self._duplicates.get(a):
            return reason
        return _measurement_difference(facts_a, facts_b) or _work_difference(facts_a, facts_b)

    @cached_property
    def groups(self) -> list[tuple[str, ...]]:
        """The experiments that have runs, in groups of which all may be compared.

        Those with runs in means come first, then measured energy, then what most experiments are.
        Backends that were planned to do other work are in one group all the same, because the
        study asks for both; :meth:`incomparable_reason` parts them pair by pair.
        """
        place = {experiment: number for number, experiment in enumerate(self._facts)}.__getitem__
        groups = [tuple(sorted(group.experiments, key=place)) for group in self._groups]
        return groups + [(experiment,) for experiment in self._duplicates]

    @cached_property
    def outside(self) -> dict[str, str]:
        """Why each experiment that is not in the first group is not."""
        others = [name for group in self._groups[1:] for name in group.experiments]
        reasons = {name: self._groups[0].incomparable_reason(self._facts[name]) for name in others}
        return {name: why for name, why in reasons.items() if why is not None} | self._duplicates

    @cached_property
    def _groups(self) -> list["_Group"]:
        experiments_by_facts: dict[_Facts, list[str]] = {}
        for experiment, facts in self._facts.items():
            if experiment not in self._duplicates:
                experiments_by_facts.setdefault(facts, []).append(experiment)

        def rank(facts: _Facts) -> tuple[bool, int, int]:
            names = experiments_by_facts[facts]
            return self._in_means.isdisjoint(names), kind_rank(facts.meter[0]), -len(names)

        remaining = sorted(experiments_by_facts, key=rank)
        groups = []
        while remaining:
            group = _Group()
            rest = []
            for facts in remaining:
                if group.incomparable_reason(facts) is None:
                    group.add(facts, experiments_by_facts[facts])
                else:
                    rest.append(facts)
            groups.append(group)
            remaining = rest
        return groups


class _Group:
    """Experiments of which all may be compared.

    Experiments with equal facts are represented by one of them, and those that differ in their
    clocks by the extreme ones, so that not every pair of a large study has to be checked.
    """

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self._measured: dict[object, list[_Facts]] = {}
        self._work: dict[str, dict[str, dict[object, _Facts]]] = {}

    def add(self, facts: _Facts, experiments: Iterable[str]) -> None:
        """Take experiments of these facts in."""
        self.experiments += experiments
        settings = facts.study_limit_w, facts.study_clock_mhz
        key = facts.meter, facts.machine, facts.fixed_columns, settings
        self._measured[key] = _extremes([*self._measured.get(key, ()), facts])
        work = self._work.setdefault(facts.planned_work, {}).setdefault(facts.backend, {})
        work.setdefault((facts.work, facts.unlike_codes), facts)

    def incomparable_reason(self, facts: _Facts) -> str | None:
        """Return how one of the group was measured apart, or did other work by the same plan."""
        work_by_backend = self._work.get(facts.planned_work, {})
        other_work = [work for name, work in work_by_backend.items() if name != facts.backend]
        members = chain.from_iterable(self._measured.values())
        reasons = chain(
            (_measurement_difference(member, facts) for member in members),
            (_work_difference(member, facts) for work in other_work for member in work.values()),
        )
        return next(filter(None, reasons), None)


def _extremes(all_facts: Sequence[_Facts]) -> list[_Facts]:
    """Return which of experiments that differ in their clocks alone others can be apart from.

    Clocks are apart if the least of one is far above the most of the other: who is not apart from
    those with the highest least and the lowest most is apart from none.
    """
    extremes = [all_facts[0]]
    for index in range(len(all_facts[0].clocks)):
        spans = [(span, facts) for facts in all_facts if (span := facts.clocks[index]) is not None]
        if spans:
            extremes.append(max(spans, key=lambda item: item[0][0])[1])
            extremes.append(min(spans, key=lambda item: item[0][1])[1])
    return list(dict.fromkeys(extremes))


def _facts(selection: Selection, config: Mapping[str, Any]) -> _Facts:
    runs, matching = selection.used_runs or selection.matching_runs, selection.matching_runs
    set_clock = _span(map(_set_clock_range, runs))
    memory_clock, heat = (
        _span((run[name], run[name]) for run in runs)
        for name in ("memory_clock_median_mhz", "slowed_by_heat_share")
    )
    return _Facts(
        meter=selection.meter,
        machine=tuple(_values(runs, name) for name in MACHINE),
        fixed_columns=frozenset(name for name in MACHINE if len({run[name] for run in runs}) == 1),
        clocks=tuple(map(_two_digits, (set_clock, memory_clock, heat))),
        study_limit_w=(config.get("gpu") or {}).get("power_limit_w"),
        study_clock_mhz=(config.get("gpu") or {}).get("sm_clock_mhz"),
        backend=runs[0]["backend"],
        planned_work=planned_work(config),
        work=(
            *(_values(matching, name) for name in ("model", "precision")),
            frozenset((run["cycle"], run["prompt_hash"]) for run in matching if run["prompt_hash"]),
            _tokens_per_request(matching, "input_tokens"),
            _tokens_per_request(() if may_end_early(config) else matching, "output_tokens"),
        ),
        unlike_codes=frozenset(
            code
            for run in runs
            for code in run["validity"] or ()
            if code == "remote_server"  # the machine that did the work is not the one measured
            or (code in _UNLIKE_WORK_CODES and run["offered_requests_per_s"] is not None)
        ),
        heat_text=_shares(heat) if heat else "",
    )


def _duplicates(
    selections: Mapping[str, Selection], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return why experiments are not ones of their own: an earlier one has the same in force."""
    firsts: dict[tuple[str, str], str] = {}
    reasons = {}
    for experiment, selection in selections.items():
        reports = {run.get("settings_in_force") for run in selection.matching_runs}
        report = reports.pop() if len(reports) == 1 else None
        if report is None:
            continue
        in_force = json.loads(report)
        reported = tuple(f"{key}." for key in in_force)  # a mapping has leaves of its own
        other_settings = {
            key: value
            for key, value in leaves(configs.get(experiment) or {})
            if value is not None and not f"{key}.".startswith(reported)
        }
        identity = report, json.dumps(other_settings, sort_keys=True)
        first = firsts.setdefault(identity, experiment)
        if first != experiment:
            settings = ", ".join(f"{key} is {value}" for key, value in in_force.items())
            reasons[experiment] = f"the engine ran it as experiment {first}: {settings} in both"
    return reasons


def _values(runs: Iterable[Row], name: str) -> Values:
    """Return the values of a column; several cards count as separate values."""
    values = {run[name] for run in runs} - {None}
    if name == "gpu_uuid":
        return frozenset(card for cards in values for card in cards.split(", "))
    return frozenset(values)


def _set_clock_range(run: Row) -> tuple[float | None, float | None]:
    """Return the SM clock that is set; of a run that was always held down only the least it is."""
    free = run["sm_clock_free_mhz"]
    return (run["sm_clock_max_mhz"], math.inf) if free is None else (free, free)


def _span(ends: Iterable[tuple[float | None, float | None]]) -> Span | None:
    """Return the least and the most in any run; None where nothing is known."""
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _two_digits(span: Span | None) -> Span | None:
    return None if span is None else (round(span[0], 2), round(span[1], 2))


def _tokens_per_request(runs: Iterable[Row], name: str) -> Values:
    """Return tokens per request; under traffic a window holds whichever requests arrived in it."""
    return frozenset(
        run[name] / run["requests"]
        for run in runs
        if run["requests"] and run[name] is not None and run["offered_requests_per_s"] is None
    )


def _measurement_difference(a: _Facts, b: _Facts) -> str | None:
    if a.meter != b.meter and None not in (a.meter[0], b.meter[0]):
        return f"energy is {_meter_words(a.meter)} and {_meter_words(b.meter)}"
    differing = {
        name: (values_a, values_b)
        for name, values_a, values_b in zip(MACHINE, a.machine, b.machine, strict=True)
        if values_a and values_b and not values_a & values_b
        # If runs of one experiment had several of these, the difference is in their spread.
        if name not in ("host", "gpu_uuid") or name in a.fixed_columns | b.fixed_columns
    }
    if a.study_limit_w != b.study_limit_w:
        differing.pop("power_limit_w", None)
    if "host" in differing:
        differing.pop("gpu_uuid", None)
    parts = [f"{MACHINE[name]} is {_alternatives(*pair)}" for name, pair in differing.items()]
    return f"other machines: {', '.join(parts)}" if parts else _clock_difference(a, b)


def _clock_difference(a: _Facts, b: _Facts) -> str | None:
    """Return how the clocks' states of two differ: settings from outside, and heat.

    A clock that the power limit slows is a result of the work, and no reason against comparing.
    """
    parts = []
    for name, span_a, span_b in zip(("SM clock", "memory clock"), a.clocks, b.clocks, strict=False):
        is_setting = name == "SM clock" and a.study_clock_mhz != b.study_clock_mhz
        if is_setting or span_a is None or span_b is None:
            continue
        (_, slower), (faster, _) = sorted((span_a, span_b), key=lambda span: span[0])
        if faster > (1 + CLOCK_TOLERANCE) * slower:
            parts.append(f"{name} is {_mhz(span_a)} and {_mhz(span_b)} MHz")
    span_a, span_b = a.clocks[2], b.clocks[2]
    if span_a and span_b:
        gap = max(span_a[0] - span_b[1], span_b[0] - span_a[1])
        if round(gap, 2) > HEAT_TOLERANCE:
            parts.append(f"heat held them down for {a.heat_text} and {b.heat_text} of the time")
    return f"other clocks: {', '.join(parts)}" if parts else None


def _mhz(span: Span) -> str:
    low, high = span
    return f"{low:g}" + ("" if low == high else " or more" if math.isinf(high) else f" to {high:g}")


def _shares(span: Span) -> str:
    low, high = map(percent, span)
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _work_difference(a: _Facts, b: _Facts) -> str | None:
    if a.backend == b.backend:
        return None
    parts = []
    for name, values_a, values_b in zip(WORK, a.work, b.work, strict=True):
        if name == "prompts":
            values_a, values_b = _prompts_to_compare(values_a, values_b)
        if values_a and values_b and values_a != values_b:
            verb = "is" if name in ("model", "precision") else "are"
            parts.append(f"{name} {verb} {_alternatives(values_a, values_b)}")
    if codes := ", ".join(sorted(a.unlike_codes | b.unlike_codes)):
        parts.append(f"requests were not all answered here as asked for ({codes})")
    return f"other work: {', '.join(parts)}" if parts else None


def _prompts_to_compare(a: Values, b: Values) -> tuple[Values, Values]:
    """Return the hashes of one cycle's prompts that differ; if no cycle is shared, of all."""
    hashes_a, hashes_b = dict(a), dict(b)
    shared = sorted(hashes_a.keys() & hashes_b.keys())
    if not shared:
        return frozenset(hashes_a.values()), frozenset(hashes_b.values())
    for cycle in shared:
        if hashes_a[cycle] != hashes_b[cycle]:
            return frozenset({hashes_a[cycle]}), frozenset({hashes_b[cycle]})
    return frozenset(), frozenset()


def _meter_words(meter: Meter) -> str:
    kind, sensor, scopes = meter
    return f"{kind} by {sensor} ({', '.join(scopes)})"


def _alternatives(a: Values, b: Values) -> str:
    return " and ".join(" or ".join(sorted(map(_short, values))) for values in (a, b))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)[:12] if len(value) == _HASH_DIGITS else str(value)
