"""Every sentence that claims something, and the studies in which it must not stand."""

import random
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
from llenergymeasure.report.page import write_report
from llenergymeasure.report.plain_text import study_text
from llenergymeasure.report.relations import (
    ONE_ORDER,
    Pairs,
    difference_sentence,
    inconclusive_sentence,
    relations_content,
)
from llenergymeasure.report.serving import ramp_experiments
from llenergymeasure.results.record import Tokens
from report.studies import MakeRecord, config, machine, table, without_drawing, write_study
from results.synthetic import make_result, write_plan

FOUR = [config(size) for size in (1, 2, 4, 8)]
LEVELS = (1000.0, 1100.0, 1200.0, 1300.0)


def noise(run: Any, place: int) -> float:
    return random.Random(f"{run['cycle']}/{place}").gauss(1.0, 0.01)


def null(run: Any, place: int) -> dict[str, Any]:
    return {"energy_j": 1000.0 * noise(run, place)}


def apart(run: Any, place: int) -> dict[str, Any]:
    return {"energy_j": LEVELS[place] * noise(run, place)}


def two_meters(run: Any, place: int) -> dict[str, Any]:
    return {**apart(run, place), **({"source": "rapl", "kind": "measured"} if place % 2 else {})}


def two_machines(run: Any, place: int) -> dict[str, Any]:
    return {**apart(run, place), **machine("node-1" if place % 2 else "node-2")}


def missing_level(run: Any, place: int) -> dict[str, Any]:
    return {"energy_j": None} if place == 1 else apart(run, place)


def one_token_more(run: Any, place: int) -> dict[str, Any]:
    tokens = Tokens(input=4000 + 10 * place, output=2000, requests=10, prompt_hash="a" * 64)
    return {**apart(run, place), "tokens": tokens}


def shorter_answers(run: Any, place: int) -> dict[str, Any]:
    tokens = (2000, 2000, 1000)[place]
    counts = Tokens(input=8000, output=tokens, requests=20, prompt_hash="a" * 64)
    return {**apart(run, place), "tokens": counts, "output_tokens": tokens}


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


def estimated(record: MakeRecord) -> MakeRecord:
    return lambda run, place: {**record(run, place), "kind": "estimated", "source": "codecarbon"}


BACKENDS = [{**config(1), "backend": name} for name in ("pytorch", "vllm")]
STUDIES: dict[str, tuple[MakeRecord, dict[str, Any]]] = {
    "apart": (apart, {"configs": FOUR}),
    "null": (null, {"configs": FOUR}),
    "unpaired": (apart, {"configs": FOUR, "sequential": True}),
    "unpaired null": (null, {"configs": FOUR, "sequential": True}),
    "two meters": (two_meters, {}),
    "two machines": (two_machines, {}),
    "missing level": (missing_level, {"configs": FOUR}),
    "one cycle": (apart, {"configs": FOUR, "cycles": 1}),
    "one token": (one_token_more, {"configs": BACKENDS}),
    "other work": (
        shorter_answers,
        {"configs": [*BACKENDS, {**BACKENDS[1], "max_output_tokens": 50}]},
    ),
    "undersampled": (undersampled, {"configs": FOUR}),
    "barely undersampled": (barely_undersampled, {"configs": FOUR}),
    "estimated": (estimated(apart), {"configs": FOUR}),
    "estimated null": (estimated(null), {"configs": FOUR}),
}


@pytest.fixture(scope="module")
def text_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    @cache
    def text(name: str) -> str:
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        record, options = STUDIES[name]
        write_study(folder, record, **options)
        return claims(folder)

    return text


def claims(folder: Path) -> str:
    """Return the page's sentences and verdicts, and the terminal's text."""
    summary, runs = findings.ranked(table(folder, "summary")), table(folder, "runs")
    content = relations_content(folder, summary)
    verdicts = [f"verdict: {row['verdict']}; note: {row['note']}" for row in content.pairs]
    sentences = findings.headline(
        summary, runs, content.verdicts, ramp_experiments(read_plan(folder / "plan.json"))
    )
    sentences += [*verdicts, method.paragraph(summary, runs, used_runs(runs))]
    sentences += ["would look like an effect here"] if content.unpaired else []
    return "\n".join([*sentences, study_text(folder)])


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


@pytest.mark.parametrize("step", [0, 1])
def test_runs_that_do_not_scatter_are_compared_and_inconclusive(tmp_path, step):
    write_study(tmp_path, lambda _, place: {"energy_j": 1000.0 * (1 + step * place)})
    text = claims(tmp_path)
    assert "verdict: inconclusive; note: interval: repeats do not scatter" in text
    assert "do not differ" not in text


@pytest.mark.parametrize("place", [0, 1])
def test_a_best_load_that_was_not_kept_up_with_is_said_to_be(tmp_path, place):
    def record(run: Any, index: int) -> dict[str, Any]:
        return {**apart(run, index), "validity": ["over_saturated"] if index == place else []}

    write_study(tmp_path, record)
    sentence = "With batch_size=1 requests came faster than they were answered in 5 of 5 runs"
    assert (sentence in claims(tmp_path)) == (place == 0)


@pytest.mark.parametrize("case", ["a disqualified run", "a ramp"])
def test_of_a_load_that_is_in_no_mean_or_has_no_rate_nothing_is_said(tmp_path, case):
    def record(run: Any, index: int) -> dict[str, Any]:
        codes = ["over_saturated"] if case == "a ramp" else ["over_saturated", "counter_reset"]
        late = index == 0 and (case == "a ramp" or run["cycle"] == 1)
        return {**apart(run, index), "validity": codes if late else []}

    ramp = {"serving": {"arrivals": "ramp"}} if case == "a ramp" else {}
    write_study(tmp_path, record, configs=[{**config(size), **ramp} for size in (1, 8)])
    assert "requests came faster" not in claims(tmp_path)


def test_a_limit_that_the_study_sets_is_no_difference_apart_from_settings(tmp_path):
    limits, swept = (300.0, 400.0), "gpu.power_limit_w"

    def record(run: Any, place: int) -> dict[str, Any]:
        environment = machine()["environment"]
        return {
            **apart(run, place),
            "environment": {
                **environment,
                "gpus": [{**environment["gpus"][0], "power_limit_w": limits[place]}],
            },
        }

    configs = [config(1, gpu={"power_limit_w": limit}) for limit in limits]
    with patch("report.studies.SWEPT", [swept]):
        write_study(tmp_path, record, configs=configs)
    text = claims(tmp_path)
    assert "power_limit_w=300 uses 9.5 % less energy" in text
    assert "Apart from settings" not in text


def test_a_method_that_records_do_not_name_is_another_one(tmp_path):
    def record(run: Any, place: int) -> dict[str, Any]:
        return {**apart(run, place), "provenance": {"energy_method": [None, METHOD][place]}}

    write_study(tmp_path, record)
    sentence = f"unlike methods of the meter, {METHOD} and one that records do not name: they may"
    assert claims(tmp_path).count(sentence) == 2  # the page's and the terminal's


def test_of_estimates_no_method_of_the_meter_is_said(tmp_path):
    def record(run: Any, place: int) -> dict[str, Any]:
        estimate = {"source": "codecarbon", "kind": "estimated"}
        return {
            **apart(run, place),
            **estimate,
            "provenance": {"energy_method": [3, METHOD][place]},
        }

    write_study(tmp_path, record)
    assert "unlike methods" not in claims(tmp_path)


@pytest.mark.parametrize("method", [4, METHOD])
def test_of_runs_by_an_earlier_method_it_is_not_said_what_their_sensors_smear(tmp_path, method):
    def record(run: Any, place: int) -> dict[str, Any]:
        parts = undersampled(run, place)
        return {**parts, "provenance": {"energy_method": method if run["cycle"] == 1 else METHOD}}

    write_study(tmp_path, record, configs=FOUR)
    text = claims(tmp_path)
    assert "may move each value by up to ±40 %" in text
    assert ("smears over a window's ends" in text) == (method == METHOD)
    assert ("longer windows shrink" in text) == (method == METHOD)
    assert ("Records of an earlier energy method" in text) == (method != METHOD)
    assert (f"computed by unlike methods of the meter, {method} and {METHOD}:" in text) == (
        method != METHOD
    )


UNSEEN = {"undersampled", "barely undersampled"}
SHOWN = {"apart", "unpaired", "missing level", "other work", "estimated", *UNSEEN}
"""Studies in which the least is shown to use less than the most."""

CLAIMS = {
    "Least energy:": SHOWN,
    "Most:": SHOWN,
    "less energy per output token than": SHOWN,
    "verdict: differ": SHOWN,
    "paired over 5 cycles": SHOWN - {"unpaired"} | {"null", "estimated null"},
    "unpaired, 5 and 5 runs": {"unpaired", "unpaired null"},
    "Inconclusive": {"null", "unpaired null", "estimated null", "one cycle"},
    "; less than what the sensor leaves open, ±57 %).": {"undersampled"},
    "note: less than what the sensor leaves open, ±57 %": {"undersampled"},
    "less than what the sensor leaves open": {"undersampled"},
    "cycles (execution.n_cycles)": {"null", "unpaired null", "estimated null"},
    "may move each value by up to": UNSEEN,
    "of a load that repeats in step": UNSEEN,
    "the energy may be off by up to ±120 %": UNSEEN,
    "In 20 of 20 runs nothing shows that the sensor saw all of the time": UNSEEN,
    "would look like an effect here": {"unpaired", "unpaired null"},
    "estimated to use": {"estimated"},
    "Estimated means": {"estimated null"},
    "1 experiment is not compared with pytorch: other work: output tokens per": {"other work"},
    "a drift, or a difference of the machines, would look the same": {"unpaired"},
    "Student t intervals over runs": set(STUDIES) - {"one cycle"},
    "all values together": set(STUDIES) - {"two meters", "two machines", "one token"},
    "Not shown to use more than it": set(),
    "not ranked with the rest": {"two meters", "two machines", "one token"},
    "input tokens per request are 400 and 401": {"one token"},
    "host is node-2 and node-1": {"two machines"},
    "measured by nvml (gpu) and measured by rapl": {"two meters"},
    "precision": set(),
    "outside the means": set(),
    "None": set(),
    "1 times": set(),
    "nan": set(),
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_stands_where_it_is_true_and_nowhere_else(
    text_of: Callable[[str], str], claim: str, study: str
) -> None:
    assert (claim in text_of(study)) == (study in CLAIMS[claim])


def test_an_experiment_that_may_be_as_good_as_the_best_is_named(tmp_path: Path) -> None:
    def record(run: Any, place: int) -> dict[str, Any]:
        return {"energy_j": (1000.0, 1000.0, 1300.0)[place] * noise(run, place)}

    write_study(tmp_path, record, configs=FOUR[:3])
    text = claims(tmp_path)
    assert "Least energy" in text
    assert "Not shown to use more than it: batch_size=" in text


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
    assert "4 made on an unlike machine" in study_text(tmp_path)


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


def test_no_gain_shifts_the_values_of_two_cards_together(tmp_path):
    def on_two_cards(run: Any, place: int) -> dict[str, Any]:
        return {**apart(run, place), **machine(uuid=f"GPU-{run['cycle'] % 2}")}

    write_study(tmp_path, on_two_cards)
    text = claims(tmp_path)
    assert "gain may shift all values of one meter and card together" in text
    assert "not ranked with the rest" not in text


def silent(run: Any, place: int, *, cycles: tuple[int, ...], places: tuple[int, ...]) -> Any:
    """Return runs of which some wrote no token, and their energy is known."""
    record = apart(run, place)
    if run["cycle"] not in cycles or place not in places:
        return record
    energy = make_result(run, **record).energy.model_copy(update={"per_output_token_j": None})
    return {
        "tokens": Tokens(input=100, output=0, requests=20, prompt_hash="a" * 64),
        "energy": energy,
    }


def test_an_experiment_whose_mean_one_run_without_a_token_takes_away_is_named(tmp_path):
    write_study(tmp_path, lambda run, place: silent(run, place, cycles=(2,), places=(1,)))
    text = claims(tmp_path)
    assert (
        "Not ranked, as not every run of theirs has energy per output token: batch_size=2" in text
    )


def test_energy_without_a_token_is_not_said_to_be_unobserved(tmp_path):
    every = {"cycles": (1, 2, 3, 4, 5), "places": (0, 1)}
    write_study(tmp_path, lambda run, place: silent(run, place, **every))
    text = claims(tmp_path)
    assert "No energy was observed" not in text
    assert "Energy was observed, but no experiment has it per output token" in text
    assert "Energy: measured by nvml" in text


@pytest.mark.parametrize("name", [*STUDIES])
def test_only_experiments_without_a_mean_are_said_not_to_be_ranked(text_of, name):
    assert ("Not ranked, as not every run" in text_of(name)) == (name == "missing level")


@pytest.mark.parametrize("versions", [("0.9", "0.9"), ("0.9", "0.10"), (None, "0.10")])
def test_experiments_of_two_versions_of_an_engine_are_said_to_be(tmp_path, versions):
    def record(run: Any, place: int) -> dict[str, Any]:
        packages = {} if versions[place] is None else {"vllm": versions[place]}
        engine = {"engine": {"versions": packages}}
        return {**apart(run, place), "environment": {**machine()["environment"], **engine}}

    for name, configs in (("one", (config(1), config(2))), ("two", BACKENDS)):
        write_study(tmp_path / name, record, configs=configs)
        named = "they differ in engine_version" in claims(tmp_path / name)
        assert named == (name == "one" and versions == ("0.9", "0.10"))


@pytest.mark.parametrize(
    ("came", "worked", "expected"),
    [
        ((None, None), (None, None), []),
        ((None, None), (19.5, 20), []),
        ((195, 200), (19.5, 20), []),
        ((None, 200), (19.5, 20), ["1 of 2 runs"]),
        ((None, 200), (None, 20), ["1 of 2 runs"]),
        ((None, None), (None, 20), ["1 of 2 runs"]),
        ((None, None, 200), (None, 20, 20), ["2 of 3 runs"]),
    ],
)
def test_tokens_and_requests_that_two_versions_count_otherwise_are_named(
    came: tuple[int | None, ...], worked: tuple[float | None, ...], expected: list[str]
) -> None:
    rows = [
        {
            "status": "completed",
            "energy_gross_j": 1000.0,
            "validity": [],
            "kind": "measured",
            "offered_requests_per_s": 2.0,
            "output_tokens_came": tokens,
            "requests_worked": requests,
        }
        for tokens, requests in zip(came, worked, strict=True)
    ]
    sentences = findings.interval_caveats(rows)
    assert [sentence.partition(" under traffic")[0] for sentence in sentences] == expected


@pytest.mark.parametrize(
    ("how", "said"), [({}, True), ({"shuffled": True}, False), ({"sequential": True}, False)]
)
def test_cycles_of_one_order_are_said_where_experiments_are_compared_within_them(
    tmp_path: Path, how: dict[str, bool], said: bool
) -> None:
    write_study(tmp_path, apart, configs=FOUR, **how)
    with without_drawing():
        write_report(tmp_path, partial=False)
    page = (tmp_path / "report.html").read_text()
    assert page.count(ONE_ORDER) == (2 if said else 0)  # at the top, and with the pairs


@pytest.mark.parametrize(
    ("cycles", "failed", "said"),
    [(1, 0, False), (2, 0, True), (4, 0, True), (5, 0, False), (5, 1, True)],
)
def test_few_cycles_say_what_the_intervals_of_settings_take_for_granted(
    tmp_path: Path, cycles: int, failed: int, said: bool
) -> None:
    def record(run: Any, place: int) -> dict[str, Any]:
        left_out = place == 2 and run["cycle"] <= failed
        return {**apart(run, place), "validity": ["counter_reset"] if left_out else []}

    write_study(tmp_path, record, configs=FOUR, cycles=cycles)
    with without_drawing():
        write_report(tmp_path, partial=False)
    page = (tmp_path / "report.html").read_text()
    assert ("take all experiments to scatter alike" in page) == said
