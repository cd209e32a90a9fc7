"""The page's part on traffic, from rows as runs leave them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from llenergymeasure.analysis.load_curve import LoadCurve
from llenergymeasure.report import serving
from llenergymeasure.report.serving import (
    BENT_LINE_NOTE,
    FIGURE_NAMES,
    LINE_NOTE,
    NO_LINE_NOTE,
    ServingContent,
    line_sentence,
    serving_content,
)
from llenergymeasure.results.columns import RUN_SCHEMA

RATE = "serving.rate_per_s"
LINE = {1: 103.0, 2: 106.0, 4: 112.0}
TWO_LOADS = {1: 103.0, 2: 106.0}
NO_SLOPE = {1: 100.0, 2: 103.0, 4: 99.0, 6: 101.0}
BENT = {1: 130.0, 2: 160.0, 3: 180.0, 4: 195.0, 5: 205.0, 6: 210.0}


def run(rate: float, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(RUN_SCHEMA.names)
    return {
        **row,
        "experiment": f"{int(rate):012x}",
        "cycle": 1,
        "status": "completed",
        "kind": "measured",
        "energy_source": "nvml",
        "energy_method": 5,
        "energy_scopes": ["gpu"],
        "validity": [],
        "backend": "vllm",
        "model": "tiny-llama",
        "precision": "bf16",
        RATE: rate,
        "offered_requests_per_s": rate,
        "requests_per_s": min(rate, 6.0),
        "over_saturated": rate > 6,
        "requests_failed": 0,
        "power_mean_w": 100 + 3 * min(rate, 6.0),
        "energy_u95_j": 0.1,
        "window_s": 10.0,
        "energy_per_output_token_j": (100 + 3 * rate) / max(rate, 1) / 32,
        "request_latency_p95_s": 0.1 * rate,
        "request_latency_p99_s": 0.12 * rate,
        "time_to_first_token_p50_s": 0.02,
        "time_to_first_token_p99_s": 0.03,
        "time_per_output_token_p50_s": 0.01,
        **more,
    }


def at_loads(watts: Mapping[float, float], **more: Any) -> list[dict[str, Any]]:
    """Return a run at each load, with its power."""
    name = more.get("backend", "")
    return [
        run(rate, experiment=f"{name}{rate}", power_mean_w=power_w, **more)
        for rate, power_w in watts.items()
    ]


def at_rates(*rates: float, **settings: Sequence[Any]) -> list[dict[str, Any]]:
    """Return a run at each rate for each of a setting's values."""
    ((name, values),) = settings.items()
    return [
        run(rate, experiment=f"{value}{rate}", **{name: value})
        for value in values
        for rate in rates
    ]


def served(
    runs: Sequence[Any],
    settings: Sequence[str] = (RATE,),
    groups: Mapping[str, int] | None = None,
    ramps: Collection[str] = (),
) -> ServingContent:
    content = serving_content(runs, settings, groups or {}, ramps)
    assert content is not None
    return content


def names(content: ServingContent) -> list[str]:
    """Return of what each sentence is."""
    return [sentence.split(":")[0] for sentence in content.sentences]


def test_knee_and_curve_are_told_and_drawn() -> None:
    content = served([run(rate) for rate in (1, 2, 4, 8)])
    assert "keeps up with 4 and no longer with 8" in content.sentences[0]
    assert "100" in content.sentences[1]
    assert "3 runs" in content.sentences[1]
    assert set(content.figures) == set(FIGURE_NAMES)
    for figure in content.figures.values():
        assert "<svg" in figure.svg
        assert "<svg" in figure.narrow_svg
    assert [row["state"] for row in content.rows] == ["", "", "", "over-saturated"]


def test_a_rate_from_which_traffic_rose_is_none_that_was_kept_up_with_or_not() -> None:
    runs = [run(rate, over_saturated=True) for rate in (1, 2)]
    content = served(runs, ramps={row["experiment"] for row in runs})
    assert "keeps up" not in " ".join(content.sentences)


def test_a_rate_whose_slo_was_missed_is_not_said_to_be_one_of_saturation_alone() -> None:
    runs = [run(rate, slo_attained=rate < 4) for rate in (1, 2, 4)]
    content = served(runs)
    assert "keeps up within its SLO with 2 and no longer with 4" in content.sentences[0]


@pytest.mark.parametrize(("rates", "said"), [((1, 2, 4), "kept up with"), ((1, 4, 8), "keeps up")])
def test_runs_that_crashed_are_counted_with_the_rates_that_a_server_kept_up_with(
    rates: tuple[int, ...], said: str
) -> None:
    lost = {"status": "failed", "offered_requests_per_s": None, "over_saturated": None}
    runs = [run(rate) for rate in rates]
    runs += [run(4, cycle=cycle, **lost) for cycle in (2, 3)] + [run(5, **lost), run(9, **lost)]
    content = served(runs)
    assert said in content.sentences[0]
    last = "" if said == "keeps up" else " and 1 of 1 at 9/s"
    counts = f"2 of 3 at 4/s{',' if last else ' and'} 1 of 1 at 5/s{last}"
    assert f"; of its runs {counts} have no result that shows it." in content.sentences[0]
    assert content.rows_total == len(rates)


def test_a_bent_power_whose_slope_is_open_is_not_said_to_be_the_same_at_all_loads() -> None:
    curve = LoadCurve(90.0, 200.0, 30.0, 215.0, 9, off_line=True)
    (sentence,) = line_sentence("vllm", curve)
    assert "power is bent over them, or off at each by itself (30 ± 215 J" in sentence
    assert (
        "that power changes with load is not shown"
        in line_sentence("vllm", replace(curve, off_line=False))[0]
    )


def test_groups_are_named_by_what_they_differ_in() -> None:
    content = served(at_rates(1, 2, backend=("vllm", "sglang")))
    assert names(content) == ["vllm", "sglang"]


def test_settings_that_a_group_does_not_set_are_not_in_its_name() -> None:
    arrivals, turns = "serving.arrivals", "serving.turns"
    both = ({arrivals: "poisson", turns: None}, {arrivals: "closed", turns: 2.0})
    runs = [
        {**run(rate, experiment=f"{settings[arrivals]}{rate}"), **settings}
        for settings in both
        for rate in (1, 2)
    ]
    content = served(runs, [RATE, arrivals, turns])
    assert names(content) == ["arrivals=poisson", "arrivals=closed, turns=2"]
    content = served([row | {arrivals: "poisson"} for row in runs], [RATE, turns])
    assert names(content) == ["turns not set", "turns=2"]


def test_groups_have_the_settings_of_their_names_as_their_experiments_do() -> None:
    """Those without a section too: 16 and 32 alone may be anything."""
    runs = at_rates(1, 2, max_output_tokens=(16, 32))
    for place, row in enumerate(runs):
        row["decoder.top_p"] = 0.1234567 if place < 2 else 0.1234568
    content = served(runs, [RATE, "max_output_tokens", "decoder.top_p"])
    assert names(content) == [
        "max_output_tokens=16, top_p=0.1234567",
        "max_output_tokens=32, top_p=0.1234568",
    ]


def test_groups_whose_names_look_alike_keep_their_own_lines() -> None:
    runs = at_rates(1, 2, 4, model=("a b", "a  b"))
    for place, row in enumerate(runs):
        row["power_mean_w"] = 100 + (3 if place < 3 else 7) * row[RATE]
    content = served(runs)
    text = " ".join(content.sentences)
    assert "3.000 ± 0.030 J for each request more" in text
    assert "7.000 ± 0.030 J for each request more" in text
    assert len(set(names(content))) == 2
    for figure in content.figures.values():
        assert figure.svg.count('class="mark-line role-mark') == 2


def test_without_traffic_there_is_nothing_to_say() -> None:
    assert serving_content([run(1, offered_requests_per_s=None)], [], {}) is None


def test_runs_without_energy_or_answers_are_listed_all_the_same() -> None:
    idle = run(0, energy_per_output_token_j=None, request_latency_p95_s=None, power_mean_w=None)
    content = served([idle])
    assert len(content.rows) == 1


def test_models_whose_names_begin_alike_keep_their_own_sentences() -> None:
    folder = "/data/models/of/a/long/name/that/goes/on/and/on/to/more/than/sixty"
    runs = at_rates(1, 2, 4, model=[f"{folder}/{name}" for name in ("one", "two")])
    for place, row in enumerate(runs):
        row["power_mean_w"] = (10 if place < 3 else 20) * row[RATE]
    content = served(runs)
    lines = [sentence for sentence in content.sentences if "for each request more" in sentence]
    assert [sentence.split(":")[0].rpartition("/")[2] for sentence in lines] == ["one", "two"]
    assert "and 10" in lines[0]
    assert "and 20" in lines[1]


def test_no_line_is_told_through_two_machines() -> None:
    rates = {1: "H100", 2: "H100", 4: "H100", 3: "L4", 5: "L4"}
    runs = [
        run(rate, gpu_name=name, power_mean_w=(100 + 3 * rate) / (1 if name == "H100" else 5))
        for rate, name in rates.items()
    ]
    group_of = {f"{rate:012x}": 1 if name == "H100" else 2 for rate, name in rates.items()}
    content = served(runs, groups=group_of)
    text = " ".join(content.sentences)
    assert "H100: 100.000 ± 0.079 W at no load by the line" in text
    assert "L4: kept up with every rate that was measured" in text
    assert text.count("for each request more") == 1
    assert "Not drawn, because they may not be compared with what is: L4" in text


def test_a_slope_that_is_not_shown_is_not_told() -> None:
    content = served(at_loads(NO_SLOPE, energy_u95_j=None))
    assert "that power changes with load is not shown" in " ".join(content.sentences)
    assert "for each request more" not in " ".join(content.sentences)


def test_runs_left_out_of_the_lines_are_counted() -> None:
    runs = [run(1), run(1, cycle=2), run(1, cycle=3, gpu_name="L4"), run(1, cycle=4, gpu_name="H1")]
    runs[0]["gpu_name"] = runs[1]["gpu_name"] = "H1"
    content = served(runs)
    assert content.sentences[-1].startswith("1 run of another meter or machine")


def test_disqualified_runs_are_no_points_of_power_against_load() -> None:
    runs = [run(1), run(2), run(4, validity=["other_process"])]
    content = served(runs)
    assert content.figures["serving_power_load"].text.startswith("2 runs")


@pytest.mark.parametrize(
    ("groups", "note"),
    [
        ((LINE,), LINE_NOTE),
        ((TWO_LOADS,), NO_LINE_NOTE),
        ((NO_SLOPE,), NO_LINE_NOTE),
        ((BENT,), BENT_LINE_NOTE),
        ((LINE, TWO_LOADS), f"{LINE_NOTE} {NO_LINE_NOTE}"),
        ((BENT, TWO_LOADS), f"{BENT_LINE_NOTE} {NO_LINE_NOTE}"),
    ],
    ids=["line", "two loads", "no slope", "bent", "line and two loads", "bent and two loads"],
)
def test_a_line_is_drawn_and_explained_only_where_it_is_shown(
    groups: tuple[dict[float, float], ...], note: str
) -> None:
    runs = [
        row
        for backend, watts in zip(("vllm", "sglang"), groups, strict=False)
        for row in at_loads(watts, backend=backend)
    ]
    figure = served(runs).figures["serving_power_load"]
    assert figure.note == note
    assert ("lines are given in words" in figure.text) == (LINE in groups)


def test_runs_that_are_not_listed_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(serving, "LISTED_RUNS", 2)
    content = served([run(rate) for rate in (1, 2, 4)])
    assert (len(content.rows), content.rows_total) == (2, 3)


@pytest.mark.parametrize(
    ("cycles", "power"), [(0, None), (1, "60.0 W"), (2, "60 ± 13 W")], ids=["none", "one", "two"]
)
def test_power_that_is_no_line_has_that_of_runs_without_traffic_alone(
    cycles: int, power: str | None
) -> None:
    watts = BENT if power is None else {0: 60.0, **BENT}
    runs = [
        run(rate, power_mean_w=power_w + (cycles > 1) * (-1) ** cycle, cycle=cycle)
        for rate, power_w in watts.items()
        for cycle in range(1, max(1, cycles) + 1)
    ]
    text = " ".join(served(runs).sentences)
    assert "power is no straight line over these loads" in text
    assert "W at no load" not in text
    said = f"without traffic it is {power} in the mean of such runs"
    assert (said in text) == (power is not None)
    assert ("only a run without traffic" in text) == (power is None)


def test_a_run_that_is_in_no_mean_is_marked_in_the_table() -> None:
    runs = [
        run(1),
        run(8, validity=["over_saturated"]),
        run(8, cycle=2, validity=["other_process"]),
    ]
    content = served(runs)
    states = [row["state"] for row in content.rows]
    assert states == ["", "over-saturated", "over-saturated, left out of means"]


def test_groups_differ_by_shape_in_every_figure() -> None:
    runs = at_rates(1, 2, backend=("vllm", "sglang"))
    two, one = served(runs), served(runs[:2])
    for name in FIGURE_NAMES:
        assert ">sglang</text>" in two.figures[name].svg
        assert ">vllm</text>" not in one.figures[name].svg


def test_latencies_next_to_each_other_are_drawn_so() -> None:
    chart = serving._energy_latency_chart([], "J", {"value": "circle"}, wide=True)
    for encoding in (layer["encoding"] for layer in chart["layer"]):
        assert encoding["x"]["scale"] == encoding["y"]["scale"] == {"zero": True}
