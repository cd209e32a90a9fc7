"""Whether engines that were to do the same work did it: prompts, tokens, one run beside another.

The settings promise it (``plan.fairness``); a tokenizer of another release, or a server that cuts
a prompt, can break the promise, and only the runs together show it. So it is looked at when they
are merged. A run that did other work than those it stands beside is not compared: it carries
``not_comparable``, and ``differs_in`` says what differs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from llenergymeasure.plan.fairness import configs_of, may_end_early, same_work
from llenergymeasure.results.table import RUN_SCHEMA

CODE = "not_comparable"

WORK_COLUMNS = ("model", "precision", "prompt_hash")
"""Columns that tell what work a run was given."""

_HASH_DIGITS = 64

Row: TypeAlias = Mapping[str, Any]
Fact: TypeAlias = tuple[str | None, float | None, float | None]
"""A run's prompts by their hash, its input tokens and its output tokens a request; null where they
are not to be looked at."""

_COLUMNS = (
    *("experiment", "backend", "status", "validity", "differs_in"),
    *("prompt_hash", "input_tokens", "output_tokens", "requests"),
)


def flag_unlike_work(runs: pa.Table, planned: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the runs with ``not_comparable`` on those that did other work than was planned alike.

    Looked at are experiments of several backends that were to do the same work. What most of
    their runs did is taken for it; where no such majority is, none of them can be compared.
    Output tokens are left out where the study lets answers end early, and all counts where a
    window holds whichever requests arrived in it.

    Args:
        runs: one row a run, with the fixed columns.
        planned: the plan's runs, with their settings.
    """
    configs = configs_of(planned)
    rows = runs.select(_COLUMNS).to_pylist()
    differs: dict[int, str] = {}
    for members in same_work(configs):
        group = set(members)
        places = [
            place
            for place, row in enumerate(rows)
            if row["experiment"] in group and row["status"] == "completed" and row["requests"]
        ]
        if len({rows[place]["backend"] for place in places}) > 1:
            facts = {
                place: _fact(rows[place], configs[rows[place]["experiment"]]) for place in places
            }
            differs |= _odd(rows, facts)
    if not differs:
        return runs
    codes = [
        sorted({*(row["validity"] or ()), CODE}) if place in differs else row["validity"]
        for place, row in enumerate(rows)
    ]
    texts = [differs.get(place, row["differs_in"]) for place, row in enumerate(rows)]
    return _with(_with(runs, "validity", codes), "differs_in", texts)


def unlike_work(one: Row, other: Row) -> str | None:
    """Return why runs of two backends cannot be compared, in words; null if they can.

    What one backend does when its own settings vary is its user's to compare.
    """
    if one["backend"] == other["backend"]:
        return None
    found = [
        f"{name} is {_short(one[name])} and {_short(other[name])}"
        for name in WORK_COLUMNS
        if None not in (one[name], other[name]) and one[name] != other[name]
    ]
    return f"not comparable: {', '.join(found)}" if found else None


def _short(value: str) -> str:
    return value[:12] if len(value) == _HASH_DIGITS else value


def _odd(rows: Sequence[Row], facts: Mapping[int, Fact]) -> dict[int, str]:
    """Return the runs that did other work than most, and what differs, by their place."""
    ranked = Counter(facts.values()).most_common()
    if len(ranked) == 1:
        return {}
    usual, times = ranked[0]
    tied = times == ranked[1][1]
    found = {}
    for place, fact in facts.items():
        if fact != usual or tied:
            against = ranked[1][0] if fact == usual else usual
            beside = next(each for each in facts if facts[each] == against)
            found[place] = f"{', '.join(_told(fact, against))} ({rows[beside]['backend']})"
    return found


def _fact(row: Row, config: Mapping[str, Any]) -> Fact:
    if config.get("serving") is not None:
        return row["prompt_hash"], None, None
    output = None if may_end_early(config) else row["output_tokens"] / row["requests"]
    return row["prompt_hash"], row["input_tokens"] / row["requests"], output


def _told(own: Fact, other: Fact) -> Iterator[str]:
    if own[0] != other[0]:
        yield f"prompts: {str(own[0])[:12]} here, {str(other[0])[:12]} there"
    for name, one, two in (("input", own[1], other[1]), ("output", own[2], other[2])):
        if one is not None and two is not None and one != two:
            yield f"{name} tokens a request: {one:g} here, {two:g} there"


def _with(runs: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = RUN_SCHEMA.field(name)
    return runs.set_column(runs.schema.get_field_index(name), field, pa.array(values, field.type))
