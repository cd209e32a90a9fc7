"""Every sentence that claims something, and the studies in which it must not stand."""

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llenergymeasure.analysis.blocks import Blocks
from llenergymeasure.analysis.pairwise_comparison import compare
from llenergymeasure.analysis.selection import used_runs
from llenergymeasure.analysis.tables import read_plan, write_tables
from llenergymeasure.energy.account import METHOD
from llenergymeasure.report import findings, method, relations
from llenergymeasure.report.charts import IN_MEANS, LEFT_OUT
from llenergymeasure.report.experiments import footprint_units, table_rows
from llenergymeasure.report.formatting import scale_for
from llenergymeasure.report.plain_text import study_text
from llenergymeasure.report.relations import (
    ONE_ORDER,
    Pairs,
    difference_sentence,
    inconclusive_sentence,
    relations_content,
)
from llenergymeasure.results.record import Tokens
from report.studies import MakeRecord, config, machine, page_of, table, write_study
from results.synthetic import make_result, write_plan

FOUR = [config(size) for size in (1, 2, 4, 8)]
BACKENDS = [{**config(1), "backend": name} for name in ("pytorch", "vllm")]
LEVELS = (1000.0, 1100.0, 1200.0, 1300.0)
ESTIMATED = {"kind": "estimated", "source": "codecarbon"}


def noise(run: Any, place: int) -> float:
    return random.Random(f"{run['cycle']}/{place}").gauss(1.0, 0.01)


def null(run: Any, place: int) -> dict[str, Any]:
    return {"energy_j": 1000.0 * noise(run, place)}


def apart(run: Any, place: int) -> dict[str, Any]:
    return {"energy_j": LEVELS[place] * noise(run, place)}


def at(*levels_j: float) -> MakeRecord:
    return lambda run, place: {"energy_j": levels_j[place] * noise(run, place)}


def each(*changes: Mapping[str, Any], of: MakeRecord = apart) -> MakeRecord:
    """Return records that are changed, in each experiment in its own way."""
    return lambda run, place: {**of(run, place), **changes[place % len(changes)]}


def in_cycles(*cycles: int, first: bool = False, **changes: Any) -> MakeRecord:
    """Return records that are changed in some cycles, of the first experiment alone or of all."""
    return lambda run, place: {
        **apart(run, place),
        **(changes if run["cycle"] in cycles and not (first and place) else {}),
    }


def by_method(number: int | None) -> dict[str, Any]:
    return {"provenance": {"energy_method": number}}


def with_vllm(version: str | None) -> dict[str, Any]:
    packages = {} if version is None else {"vllm": version}
    return {"environment": {**machine()["environment"], "engine": {"versions": packages}}}


def limited_to(limit_w: float) -> dict[str, Any]:
    card = machine()["environment"]["gpus"][0]
    return {"environment": {"host": "node-1", "gpus": [{**card, "power_limit_w": limit_w}]}}


def with_tokens(counts: Callable[[Any, int], dict[str, Any]]) -> MakeRecord:
    """Return records of which a run and the place of its experiment say what was counted."""
    return lambda run, place: {
        **apart(run, place),
        "tokens": make_result(run).tokens.model_copy(update=counts(run, place)),
    }


def shorter_answers(run: Any, place: int) -> dict[str, Any]:
    tokens = (2000, 2000, 1000)[place]
    return {**with_tokens(lambda *_: {"output": tokens})(run, place), "output_tokens": tokens}


def undersampled(run: Any, place: int) -> dict[str, Any]:
    """Runs 10 % apart of a sensor that sees a quarter of the time, and may be off by 40 %."""
    return _unseen(run, place, 0.4)


def barely_undersampled(run: Any, place: int) -> dict[str, Any]:
    return _unseen(run, place, 0.02)


def _unseen(run: Any, place: int, share: float) -> dict[str, Any]:
    energy = make_result(run, **apart(run, place)).energy
    unseen_j, gross_j = share * (energy.gross_j or 0.0), energy.gross_j or 0.0
    widths = {"u95_j": unseen_j, "shared_u95_j": unseen_j, "bound_j": 1.2 * gross_j}
    return {"energy": energy.model_copy(update=widths), "validity": ["undersampled"]}


def undersampled_by_an_earlier_method(run: Any, place: int) -> dict[str, Any]:
    return {**undersampled(run, place), **by_method(4 if run["cycle"] == 1 else METHOD)}


def silent(cycles: tuple[int, ...], places: tuple[int, ...]) -> MakeRecord:
    """Return runs of which some wrote no token, and their energy is known."""

    def record(run: Any, place: int) -> dict[str, Any]:
        usual = apart(run, place)
        if run["cycle"] not in cycles or place not in places:
            return usual
        energy = make_result(run, **usual).energy.model_copy(update={"per_output_token_j": None})
        tokens = Tokens(input=100, output=0, requests=20, prompt_hash="a" * 64)
        return {"tokens": tokens, "energy": energy}

    return record


def estimate_without_uncertainty(run: Any, place: int) -> dict[str, Any]:
    energy = make_result(run, **apart(run, place), **ESTIMATED).energy
    return {"energy": energy.model_copy(update={"u95_j": None, "u_sys_j": None})}


def levels_by_cycle(run: Any, place: int) -> dict[str, Any]:
    """Pairs by cycle part what overlapping intervals do not."""
    level_j = (1000.0, 1200.0, 1401.0)[run["cycle"] - 1]
    return {"energy_j": (0.9 if place else 1.0) * level_j + run["cycle"] % 2}


LATE = {"validity": ["over_saturated"]}
LEFT_OUT_CODE = {"validity": ["counter_reset"]}
RAMP = {"serving": {"arrivals": "ramp"}}
STUDIES: dict[str, tuple[MakeRecord, dict[str, Any]]] = {
    "apart": (apart, {"configs": FOUR}),
    "null": (null, {"configs": FOUR}),
    "shuffled": (apart, {"configs": FOUR, "shuffled": True}),
    "unpaired": (apart, {"configs": FOUR, "sequential": True}),
    "unpaired null": (null, {"configs": FOUR, "sequential": True}),
    "one cycle": (apart, {"configs": FOUR, "cycles": 1}),
    "two cycles": (apart, {"cycles": 2}),
    "four cycles": (apart, {"cycles": 4}),
    "four of five cycles": (in_cycles(1, first=True, **LEFT_OUT_CODE), {}),
    "levels by cycle": (levels_by_cycle, {"cycles": 3}),
    "a close second": (at(1000.0, 1000.0, 1300.0), {"configs": FOUR[:3]}),
    "no scatter": (lambda _, place: {"energy_j": 1000.0 * (1 + place)}, {}),
    "no scatter, equal": (lambda *_: {"energy_j": 1000.0}, {}),
    "wide": (lambda run, _: {"energy_j": 1000.0 + 100 * run["cycle"]}, {"cycles": 2}),
    "missing level": (each({}, {"energy_j": None}, {}, {}), {"configs": FOUR}),
    "no sensor": (lambda *_: {"energy_j": None}, {}),
    "one silent run": (silent((2,), (1,)), {}),
    "all silent": (silent((1, 2, 3, 4, 5), (0, 1)), {}),
    "all disqualified": (each(LEFT_OUT_CODE), {}),
    "disqualified, on another machine": (each({}, LEFT_OUT_CODE | machine("node-2")), {}),
    "two meters": (each({}, {"source": "rapl"}), {}),
    "two machines": (each(machine("node-2"), machine()), {}),
    "five machines": (
        lambda run, place: {"energy_j": 1000.0 + 10 * noise(run, 0), **machine(f"node-{place}")},
        {"configs": [config(size) for size in range(1, 6)]},
    ),
    "two cards": (
        lambda run, place: apart(run, place) | machine(uuid=f"GPU-{run['cycle'] % 2}"),
        {},
    ),
    "a power limit": (
        each(limited_to(300.0), limited_to(400.0)),
        {
            "configs": [config(1, gpu={"power_limit_w": limit}) for limit in (300.0, 400.0)],
            "swept": ["gpu.power_limit_w"],
        },
    ),
    "two of our versions": (
        in_cycles(1, provenance={"llenergymeasure_version": "9.9", "energy_method": METHOD}),
        {},
    ),
    "two versions of an engine": (each(with_vllm("0.9"), with_vllm("0.10")), {}),
    "one version of an engine": (each(with_vllm("0.9")), {}),
    "an unknown version of an engine": (each(with_vllm(None), with_vllm("0.10")), {}),
    "versions of two engines": (each(with_vllm("0.9"), with_vllm("0.10")), {"configs": BACKENDS}),
    "one token": (
        with_tokens(lambda _, place: {"input": 4000 + 10 * place, "requests": 10}),
        {"configs": BACKENDS},
    ),
    "other work": (
        shorter_answers,
        {"configs": [*BACKENDS, {**BACKENDS[1], "max_output_tokens": 50}]},
    ),
    "answers as long": (with_tokens(lambda _, place: {"output": 2000 + 40 * place}), {}),
    "longer answers": (with_tokens(lambda _, place: {"output": 2000 + 1000 * place}), {}),
    "thinking": (
        with_tokens(lambda run, place: {"thinking": 1500 if place and run["cycle"] == 1 else None}),
        {},
    ),
    "undersampled": (undersampled, {"configs": FOUR}),
    "barely undersampled": (barely_undersampled, {"configs": FOUR}),
    "earlier method": (undersampled_by_an_earlier_method, {"configs": FOUR}),
    "method without a name": (each(by_method(None), by_method(METHOD)), {}),
    "estimated": (each(ESTIMATED), {"configs": FOUR}),
    "estimated null": (each(ESTIMATED, of=null), {"configs": FOUR}),
    "estimated by two methods": (each(ESTIMATED | by_method(3), ESTIMATED | by_method(METHOD)), {}),
    "estimated once": (estimate_without_uncertainty, {"cycles": 1}),
    "an estimate among measurements": (each({}, ESTIMATED | {"energy_j": 1.0}), {}),
    "a late best": (each(LATE, {}), {}),
    "a late worst": (each({}, LATE), {}),
    "a late run that is in no mean": (
        in_cycles(1, first=True, validity=["over_saturated", "counter_reset"]),
        {},
    ),
    # A rate that rises is none to keep up with.
    "a late ramp": (each(LATE, {}), {"configs": [{**config(size), **RAMP} for size in (1, 8)]}),
}


NO_MEAN = {"no sensor", "all silent", "all disqualified"}
APART = {
    *("two meters", "two machines", "five machines", "one token"),
    "an estimate among measurements",
}
"""Studies whose experiments may not be compared with each other."""
ALONE = {"one silent run", "disqualified, on another machine"}
"""Studies of which one experiment alone has a mean."""
ONE_CYCLE = {"one cycle", "estimated once"}
OPEN = {
    *ONE_CYCLE,
    *("null", "unpaired null", "estimated null", "two cycles", "wide"),
    *("no scatter", "no scatter, equal"),
}
SHOWN = set(STUDIES) - NO_MEAN - APART - ALONE - OPEN
"""Studies in which the least is shown to use less than the most."""
SEQUENTIAL = {"unpaired", "unpaired null"}
FEW = {
    *("two cycles", "four cycles", "four of five cycles", "levels by cycle", "wide"),
    "a late run that is in no mean",
}
ONE_ORDER_STUDIES = (SHOWN | OPEN) - SEQUENTIAL - ONE_CYCLE - {"shuffled"}
ESTIMATES = {"estimated", "estimated null", "estimated by two methods", "estimated once"}
UNSEEN = {"undersampled", "barely undersampled", "earlier method"}
DISQUALIFIED = {
    *("all disqualified", "disqualified, on another machine"),
    *("four of five cycles", "a late run that is in no mean"),
}
UNLIKE_MACHINES = {"two machines", "five machines", "disqualified, on another machine"}

# A claim that begins with a line's end is the terminal's, the others are the page's.
CLAIMS: dict[str, set[str]] = {
    # What is ranked.
    "Least energy:": SHOWN,
    "Most:": SHOWN,
    "less energy per output token than": SHOWN,
    "uses 10.0 % less energy per output token than batch_size=1": {"levels by cycle"},
    "power_limit_w=300 uses 9.5 % less energy": {"a power limit"},
    "verdict: differ": SHOWN,
    "paired over 5 cycles": (SHOWN | OPEN) - SEQUENTIAL - ONE_CYCLE - FEW,
    "unpaired, 5 and 5 runs": SEQUENTIAL,
    "Not shown to use more than it: batch_size=": {"a close second"},
    "Inconclusive": OPEN,
    "no difference between the 4 experiments is shown (batch_size=": {
        *("null", "unpaired null", "estimated null")
    },
    "one run, no interval": ONE_CYCLE,
    "(one run, no interval; the meter alone ±": {"one cycle"},
    "it needs two runs of each, there are 1 and 1": ONE_CYCLE,
    "cycles (execution.n_cycles) would": {
        *("null", "unpaired null", "estimated null", "two cycles", "wide", "levels by cycle")
    },
    "The interval is wide, it reaches": {"wide", "levels by cycle"},
    "verdict: inconclusive; note: interval: repeats do not scatter": {
        *("no scatter", "no scatter, equal", "wide")
    },
    "do not differ": set(),
    "1 times": set(),
    # What is not.
    "not ranked with the rest": APART,
    "\nbatch_size=2 is not ranked with the rest": APART - {"one token"}
    | {"disqualified, on another machine"},
    "input tokens per request are 400 and 401": {"one token"},
    "host is node-2 and node-1": {"two machines"},
    "measured by nvml (gpu) and measured by rapl": {"two meters"},
    "is not ranked with the rest: energy is measured by nvml": {
        *("two meters", "an estimate among measurements")
    },
    "Nor are others; further reasons: 1.": {"five machines"},
    "1 experiment that may not be compared with these is in the table alone": APART
    - {"five machines"},
    "Not ranked, as not every run of theirs has energy per output token: batch_size=2": {
        *("missing level", "one silent run")
    },
    "Not ranked, as no run of theirs counts: batch_size=2.": {"disqualified, on another machine"},
    "1 experiment is not compared with pytorch: other work: output tokens per": {"other work"},
    "No energy was observed: no sensor.": {"no sensor"},
    "\nEnergy: not observed (no sensor)": {"no sensor"},
    "No experiment has a mean of energy.": {"no sensor", "all disqualified"},
    "Energy was observed, but no experiment has it per output token": {"all silent"},
    "Every completed run was disqualified: there is no mean to report.": {"all disqualified"},
    "outside the means": DISQUALIFIED,
    "left out of means": DISQUALIFIED,
    # What else may look like a difference.
    "Apart from settings they differ in": {"two versions of an engine", "longer answers"},
    "they differ in engine_version": {"two versions of an engine"},
    "they differ in the answers' length (100 and 150 tokens)": {"longer answers"},
    # In the order of the table's columns: B, the longer ones, against A.
    "the answers' length (150 and 100 tokens)": {"longer answers"},
    "Answers are 100 to 150 output tokens long": {"longer answers"},
    "Energy per output token compares them better. Where two settings had the same prompts, and "
    "each request an energy of its own, llem compare": {
        *("longer answers", "one silent run", "other work")
    },
    "thought before its answer is 15 % with batch_size=2. Its energy, and that of the answers, is "
    "in the columns": {"thinking"},
    "thought": {"thinking"},
    "The runs differ in host": UNLIKE_MACHINES,
    "The runs differ in version of LLenergyMeasure.": {"two of our versions"},
    "Not all runs are alike": UNLIKE_MACHINES | {"two of our versions"},
    # At the top, and with the pairs.
    "in no interval. Each cycle ran in the same order": ONE_ORDER_STUDIES,
    f"{ONE_ORDER} Setting": ONE_ORDER_STUDIES,
    "Whether energy drifted over the study is not known": set(STUDIES)
    - {"shuffled", "disqualified, on another machine"},
    "No drift with the order shows": {"shuffled", "disqualified, on another machine"},
    "would look like an effect here": SEQUENTIAL,
    "a drift, or a difference of the machines, would look the same": {"unpaired"},
    "With batch_size=1 requests came faster than they were answered in 5 of 5 runs": {
        "a late best"
    },
    "requests came faster": {"a late best"},
    # What the energy is, and what no interval holds.
    "Estimated, not measured.": ESTIMATES | {"an estimate among measurements"},
    "\nEnergy: estimated, not measured, by codecarbon (CPU)": ESTIMATES
    | {"an estimate among measurements"},
    "estimated to use": {
        *("estimated", "estimated by two methods", "an estimate among measurements")
    },
    "is estimated to use 23 % less energy": {"estimated"},
    "Estimated means": {"estimated null", "estimated once"},
    "A hollow mark is an estimate.": ESTIMATES,
    "Energy was measured by nvml (GPU).": set(STUDIES)
    - ESTIMATES
    - {"no sensor", "all disqualified"},
    "\nEnergy: measured by nvml (GPU)": set(STUDIES) - ESTIMATES - {"no sensor"},
    "no idle draw is taken off.": set(STUDIES) - {"no sensor", "all disqualified"},
    "Student t intervals over runs": set(STUDIES) - NO_MEAN - ONE_CYCLE,
    "Single runs, without intervals": ONE_CYCLE,
    "bars are 95 % intervals, often": set(STUDIES) - ONE_CYCLE - {"no sensor", "all disqualified"},
    "a dashed line shows the meter's own uncertainty": {"one cycle"},
    "take all experiments to scatter alike": FEW,
    "all values together": set(STUDIES) - NO_MEAN - APART - {"two cards", "estimated once"},
    "all values of one meter and card together": APART | {"two cards"},
    "; less than what the sensor leaves open, ±57 %).": {"undersampled", "earlier method"},
    "note: less than what the sensor leaves open, ±57 %": {"undersampled", "earlier method"},
    "less than what the sensor leaves open": {"undersampled", "earlier method"},
    "may move each value by up to ±40 %": {"undersampled", "earlier method"},
    "smears over a window's ends": UNSEEN - {"earlier method"},
    "longer windows shrink": UNSEEN - {"earlier method"},
    "Records of an earlier energy method": {
        *("earlier method", "method without a name", "estimated by two methods")
    },
    "unlike methods of the meter": {"earlier method", "method without a name"},
    f"computed by unlike methods of the meter, 4 and {METHOD}:": {"earlier method"},
    f"\nEnergies were computed by unlike methods of the meter, {METHOD} and one that records do "
    "not name: they may": {"method without a name"},
    "of a load that repeats in step": UNSEEN,
    "the energy may be off by up to ±120 %": UNSEEN,
    "In 20 of 20 runs nothing shows that the sensor saw all of the time": UNSEEN,
    "precision": set(),
    "Power over time": set(),
    "None": set(),
    "nan": set(),
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_claim_stands_where_it_is_true_and_nowhere_else(tmp_path: Path, study: str) -> None:
    record, options = STUDIES[study]
    write_study(tmp_path, record, **options)
    pairs = relations_content(tmp_path, findings.ranked(table(tmp_path, "summary"))).pairs
    verdicts = [f"verdict: {row['verdict']}; note: {row['note']}" for row in pairs]
    page = " ".join([page_of(tmp_path).text, *verdicts])
    terminal = study_text(tmp_path)
    stand = {claim for claim in CLAIMS if claim in (terminal if claim[0] == "\n" else page)}
    assert stand == {claim for claim, studies in CLAIMS.items() if study in studies}
    assert not any(word in terminal for word in ("None", "nan", "1 times"))


def test_what_a_sensor_leaves_open_is_in_no_interval_or_p_value_of_a_difference(tmp_path):
    tables = []
    for name, record in (("seen", apart), ("unseen", undersampled)):
        write_study(tmp_path / name, record, configs=FOUR)
        tables.append([table(tmp_path / name, key) for key in ("comparisons", "levels", "pareto")])
    seen, unseen = tables
    assert seen[1:] == unseen[1:]
    for row, changed in zip(seen[0], unseen[0], strict=True):
        is_energy = changed["metric"].startswith("energy_")
        assert row["shared_u95_rel"] is None
        expected = pytest.approx(0.4 * 2**0.5) if is_energy else None
        assert changed == {**row, "shared_u95_rel": expected}


def test_equal_studies_are_told_apart_in_five_per_cent_at_most() -> None:
    rng, experiments, cycles, claims, studies = np.random.default_rng(7), 8, 5, 0, 150
    names = tuple(f"{number:012x}" for number in range(experiments))
    for _ in range(studies):
        logs = rng.normal(0, 0.01, (cycles, experiments)) + rng.normal(0, 0.02, (cycles, 1))
        order = np.array([rng.permutation(experiments) for _ in range(cycles)], float)
        order += experiments * np.arange(cycles)[:, None]
        data = Blocks(names, tuple(range(cycles)), logs, order, np.zeros_like(logs), order)
        pairs = Pairs(asdict(comparison) | {"differs": []} for comparison in compare(data))
        means = [
            {"experiment": name, "label": name, "kind": "measured", "mean": value}
            for name, value in zip(names, np.exp(logs).mean(axis=0), strict=True)
        ]
        means.sort(key=lambda row: row["mean"])
        claims += difference_sentence(pairs, means[0], means[-1]) is not None
    assert claims / studies <= 0.08  # 5 %, and what 150 studies may stray


PAIR = {
    "experiment_a": "a",
    "experiment_b": "b",
    "method": "paired",
    "n": 5,
    "n_a": 5,
    "n_b": 5,
    "ratio": 1.1,
    "ci95_low": 1.05,
    "ci95_high": 1.15,
    "degrees_of_freedom": 4.0,
    "p": 0.003,
    "p_holm": 0.003,
    "differs": [],
    "unavailable": None,
}
A, B = ({"experiment": name, "label": name.upper(), "kind": "measured"} for name in "ab")


def test_a_difference_is_told_with_its_pair_and_what_else_differs() -> None:
    sentence = difference_sentence(Pairs([PAIR]), A, B)
    assert sentence == (
        "A uses 9.1 % less energy per output token than B (paired over 5 cycles; p = 0.003; "
        "95 % interval 5.0 % to 13 % less)."
    )
    longer = difference_sentence(Pairs([{**PAIR, "differs": ["host"]}]), A, B)
    assert longer is not None
    assert longer.endswith("Apart from settings they differ in host.")


@pytest.mark.parametrize(
    "row",
    [
        {**PAIR, "p_holm": 0.05},
        {**PAIR, "p_holm": None},
        {**PAIR, "ratio": 0.9, "ci95_low": 0.85, "ci95_high": 0.95},  # The other way round.
        {**PAIR, "experiment_b": "c"},
    ],
)
def test_no_difference_is_told_without_its_verdict(row: dict[str, Any]) -> None:
    assert difference_sentence(Pairs([row]), A, B) is None


def test_the_interval_of_a_chosen_pair_holds_for_all_pairs_and_no_less() -> None:
    other_pairs = [{**PAIR, "experiment_a": f"x{n}", "experiment_b": f"y{n}"} for n in range(5)]
    sentence = difference_sentence(Pairs([PAIR, *other_pairs]), A, B)
    assert sentence is not None
    assert "p = 0.003 after Holm; 95 % interval for all 6 pairs 1.7 % to 16 % less" in sentence
    # Holm may show what the joint interval does not: then no interval stands beside it.
    wide_sentence = difference_sentence(Pairs([{**PAIR, "ci95_low": 1.001}, *other_pairs]), A, B)
    assert wide_sentence is not None


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({**PAIR, "p_holm": 0.2}, "p = 0.2 after Holm; paired over 5 cycles). More cycles"),
        ({**PAIR, "p_holm": 0.2, "cycles_to_decide": 12}, "About 12 cycles (execution.n_cycles)"),
        ({**PAIR, "p_holm": None, "unavailable": "ratio: one run"}, "is shown (ratio: one run)"),
        ({**PAIR, "experiment_b": "c"}, "were not compared with each other"),
        ({**PAIR, "ratio": 0.9}, "point in opposite ways"),
    ],
)
def test_what_is_not_shown_says_why_and_what_would_decide_it(
    row: dict[str, Any], part: str
) -> None:
    assert part in inconclusive_sentence(Pairs([row]), [A, B])


def test_runs_of_another_machine_are_counted_named_and_drawn_as_left_out(tmp_path: Path) -> None:
    def record(run: Any, place: int) -> dict[str, Any]:
        moved = run["cycle"] > 3
        card = machine(name="NVIDIA A100") if moved else machine()
        return {**card, "energy_j": (2.0 if moved else 1.0) * apart(run, place)["energy_j"]}

    write_study(tmp_path, record)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    scale = scale_for([1.0], "J")
    run_counts = table_rows(summary, scale, scale)[0]["runs"]
    assert run_counts == "3 (2 other machine: gpu_name: NVIDIA H200 in the mean, not NVIDIA A100)"
    assert "4 runs stand outside the means: 4 of another machine" in method.paragraph(
        summary, runs, used_runs(runs)
    )
    states = [point["state"] for point in findings.order_points(summary, runs, used_runs(runs))]
    assert (states.count(LEFT_OUT), states.count(IN_MEANS)) == (4, 6)
    text = study_text(tmp_path)
    assert "10 of 10 runs completed, 4 left out of the means" in text
    assert "4 made on an unlike machine (gpu_name: NVIDIA H200 in the mean, not NVIDIA A100" in text


def test_the_windows_are_said_to_be_as_long_as_they_were(tmp_path: Path) -> None:
    """Not as long as each experiment's are in the mean."""
    write_study(tmp_path, apart)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    for number, run in enumerate(runs):
        run["window_s"] = 40.0 + number
    assert f"over windows of 40.0 to {39 + len(runs)}.0 s" in method.paragraph(
        summary, runs, used_runs(runs)
    )
    runs[0]["validity"] = ["other_gpu"]
    assert f"over windows of 41.0 to {39 + len(runs)}.0 s" in method.paragraph(
        summary, runs, used_runs(runs)
    )


def test_a_precision_target_is_described_with_its_method_and_whether_it_was_met(
    tmp_path: Path,
) -> None:
    write_study(tmp_path, apart)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    for row, reached in zip(summary, (True, False), strict=True):
        row |= {"precision_target": 0.02, "precision_reached": reached, "cycles_needed": 15}
        row["interval_method"] = "stein"
    text = method.paragraph(summary, runs, used_runs(runs))
    assert (
        "the pilot's cycles, on the logarithm (two-stage procedure, Stein 1945), or from all"
        in text
    )
    assert "±2.0 % of energy per output token, which 1 of 2 experiments reached; 15 cycles" in text
    # All that the pilot asked for were made, and the later ones scatter more.
    summary[1]["cycles_needed"] = 5
    assert "which 1 of 2 experiments reached." in method.paragraph(summary, runs, used_runs(runs))
    (missed,) = findings.missed_precision_note(summary)
    assert "is not reached by 1 of 2 experiments" in missed
    summary[1]["precision_reached"] = True
    assert findings.missed_precision_note(summary) == []


@pytest.mark.parametrize("correlated", [True, False, None])
def test_cycles_that_are_alike_or_too_few_to_tell_are_said(
    tmp_path: Path, correlated: bool | None
) -> None:
    write_study(tmp_path, apart)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    for row in summary:
        row["cycles_correlated"] = correlated
    text = method.paragraph(summary, runs, used_runs(runs))
    assert (
        "In 2 of 2 experiments successive cycles look alike, as those of one in twenty" in text
    ) == (correlated is True)
    assert ("cycles are too few to show whether they are" in text) == (correlated is None)


def test_declared_carbon_and_cost_are_shown_and_undeclared_ones_are_not(tmp_path: Path) -> None:
    write_study(tmp_path, apart)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    assert footprint_units(summary, runs) == {}
    assert "gCO2e" not in study_text(tmp_path)
    plan = read_plan(tmp_path / "plan.json")
    carbon = {"grid_gco2e_per_kwh": 300.0, "pue": 1.2, "price_per_kwh": 0.25, "currency": "EUR"}
    write_plan(tmp_path, {**plan, "sections": {"carbon": carbon}})
    write_tables(tmp_path, partial=False)
    summary, runs = table(tmp_path, "summary"), table(tmp_path, "runs")
    assert footprint_units(summary, runs) == {"carbon": "gCO2e", "cost": "EUR"}
    scale = scale_for([1.0], "J")
    carbon_texts = [row["carbon"].split()[0] for row in table_rows(summary, scale, scale)]
    # 1,000 requests of 50 J or so are 0.0139 kWh, at the site 1.2 times that.
    assert carbon_texts == ["4.988", "5.51"]
    text = study_text(tmp_path)
    assert "gCO2e/1000 requests  EUR/1000 requests" in text
    assert "0.004157" in text


def test_experiments_are_held_against_the_first_that_can_be_compared(tmp_path):
    def first_silent(run: Any, place: int) -> dict[str, Any]:
        energy = make_result(run).energy.model_copy(update={"per_output_token_j": None})
        return {"energy": energy} if place == 0 else apart(run, place)  # as a server that waits

    write_study(tmp_path, first_silent, configs=FOUR)
    summary = findings.ranked(table(tmp_path, "summary"))
    baseline = relations_content(tmp_path, summary).baseline
    assert [row["a"] for row in baseline] == ["batch_size=2"] * 2
    assert [row["verdict"] for row in baseline] == ["differ"] * 2


def test_pairs_and_values_that_are_not_listed_are_counted(tmp_path, monkeypatch):
    write_study(tmp_path, apart, configs=FOUR)
    monkeypatch.setattr(relations, "LISTED_PAIRS", 2)
    monkeypatch.setattr(relations, "LISTED_LEVELS", 1)
    content = relations_content(tmp_path, table(tmp_path, "summary"))
    assert (len(content.baseline), content.baseline_total) == (2, 3)
    assert (len(content.levels), content.levels_total) == (1, 3)


def test_small_shares_of_a_front_are_said_with_two_digits():
    point = {"objective": "perplexity", "on_front": True}
    shares = {"rare": 0.004, "often": 0.853, "always": 1.0, "unknown": None}
    rows = [{**point, "label": name, "front_share": share} for name, share in shares.items()]
    (text,) = relations._fronts(rows, [])
    assert text == (
        "Energy against perplexity: rare (0.40 %); often (85 %); always (100 %); unknown."
    )
    (text,) = relations._fronts(rows, [{"model": "a"}, {"model": "b"}])
    assert "perplexity (of a token, which models of one tokenizer alone have in common):" in text
