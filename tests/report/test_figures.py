"""Axes, intervals and the figures against settings, as specifications: nothing is drawn here."""

from typing import Any

import pytest

from llenergymeasure.analysis.summary import SUMMARY_SCHEMA
from llenergymeasure.report.charts import (
    CLIPPED,
    Axis,
    clipped_note,
    interval_marks,
    kind_points,
)
from llenergymeasure.report.sweep import make_sweep, setting_channel, sweep_figures, swept_settings

ENERGY_PER_TOKEN = "energy_per_output_token_j"
BATCH = "pytorch.batch_size"


def experiment(
    mean: float, low: float | None = None, high: float | None = None, **more: Any
) -> Any:
    row = dict.fromkeys(SUMMARY_SCHEMA.names)
    energy = {
        f"{ENERGY_PER_TOKEN}_mean": mean,
        f"{ENERGY_PER_TOKEN}_ci95_low": low,
        f"{ENERGY_PER_TOKEN}_ci95_high": high,
    }
    meter = {"kind": "measured", "energy_source": "nvml", "energy_scopes": ["gpu"]}
    label = ", ".join(map(str, more.values()))
    return {**row, "experiment": label, "label": label, "n": 3, **meter, **energy, **more}


def marks_of(rows: list[Any], along: Any = "x") -> tuple[Axis, list[dict[str, Any]]]:
    axis = Axis.for_rows(rows, ENERGY_PER_TOKEN)
    return axis, interval_marks([axis.values(row) for row in rows], axis, along, {})


@pytest.mark.parametrize(
    ("rows", "along", "heads", "clipped"),
    [
        ([experiment(3, 1, 40), experiment(4, 3.9, 4.1)], "x", ["triangle-right"], (1, 40)),
        ([experiment(3, 1, 40), experiment(4, 3.9, 4.1)], "y", ["triangle-up"], (1, 40)),
        ([experiment(3, -1, 7)], "x", ["triangle-left"], (-1, 7)),
        ([experiment(3, 2.9, 3.1), experiment(4, 3.9, 4.1)], "x", [], None),
    ],
    ids=["beyond the axis", "above the axis", "below zero", "within the axis"],
)
def test_an_interval_beyond_the_axis_ends_in_an_arrow_head_at_its_end(rows, along, heads, clipped):
    axis, marks = marks_of(rows, along)
    assert [mark["mark"].get("shape") for mark in marks[1:]] == heads
    if clipped is None:
        assert not axis.clips(2.9, 3.1)
        return
    end = axis.high if clipped[1] == 40 else axis.low
    assert [value["end"] for value in marks[1]["data"]["values"]] == [end]
    assert axis.clips(*clipped)
    assert (axis.low, axis.high < 40) == (0, True)


def test_a_caption_says_where_an_interval_goes_on_beyond_its_axis():
    wide, narrow = [experiment(3, 1, 40)], [experiment(3, 2.9, 3.1), experiment(4)]
    (axis, _), (other, _) = marks_of(wide), marks_of(narrow)
    assert clipped_note(wide, other, axis) == CLIPPED
    assert clipped_note(narrow, other) == ""


def test_means_far_apart_stand_on_a_logarithmic_axis_with_their_intervals():
    axis, marks = marks_of([experiment(1, 0.8, 1.2), experiment(100, 90, 190)])
    assert axis.logarithmic
    assert axis.low < 800  # mJ
    assert len(marks) == 1


def grid(**values: list[Any]) -> list[Any]:
    names = [name.replace("__", ".") for name in values]
    rows: list[dict[str, Any]] = [{}]
    for name, choices in zip(names, values.values(), strict=True):
        rows = [{**row, name: choice} for row in rows for choice in choices]
    return [experiment(1.0 + place, **row) for place, row in enumerate(rows)]


def test_numbers_come_before_texts_and_load_before_all():
    rows = grid(precision=["bf16", "fp8"], pytorch__batch_size=[1, 8], serving__rate_per_s=[1, 2])
    assert swept_settings(rows) == ["serving.rate_per_s", BATCH, "precision"]


def test_settings_that_move_together_have_one_figure():
    rows = [
        experiment(1, runner="local", backend="pytorch"),
        experiment(2, runner="docker", backend="vllm"),
    ]
    assert swept_settings(rows) == ["backend"]


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 2, 32], "log"), ([1, 2, 4], None), ([0, 2, 32], None)]
)
def test_a_number_that_spans_a_factor_of_eight_is_on_an_axis_of_base_two(values, kind):
    sweep = make_sweep(grid(pytorch__batch_size=values), BATCH, [], {})
    channel = setting_channel(sweep)
    assert channel["scale"].get("type") == kind
    assert channel["scale"].get("base") == (2 if kind else None)
    assert channel["title"] == BATCH + (" (log scale)" if kind else "")
    assert channel["axis"]["values"] == values


def test_texts_are_categories():
    sweep = make_sweep(grid(precision=["fp8", "bf16"]), "precision", [], {})
    channel = setting_channel(sweep)
    assert (channel["type"], channel["sort"]) == ("nominal", ["bf16", "fp8"])


def test_a_third_setting_stands_still_and_the_caption_says_where():
    rows = grid(pytorch__batch_size=[1, 8], precision=["bf16", "fp8"], max_output_tokens=[16, 32])
    sweep = make_sweep(rows, BATCH, ["precision", "max_output_tokens"], {})
    assert {row["max_output_tokens"] for row in sweep.rows} == {16}
    assert sweep.notes == ["Drawn at max_output_tokens=16; 4 more experiments in the table."]


def test_a_setting_of_another_engine_is_not_drawn_and_said():
    rows = [*grid(pytorch__batch_size=[1, 8]), experiment(5, **{BATCH: None})]
    sweep = make_sweep(rows, BATCH, [], {})
    assert len(sweep.rows) == 2
    assert sweep.notes == ["Not drawn: 1 experiment without it."]


def test_under_traffic_the_axis_is_the_load_that_was_offered():
    rows = grid(serving__rate_per_s=[1, 2])
    offered = {row["experiment"]: 0.9 * row["serving.rate_per_s"] for row in rows}
    sweep = make_sweep(rows, "serving.rate_per_s", [], offered)
    assert sweep.title == "Requests offered per second"
    assert sweep.x_values == [0.9, 1.8]


def test_a_figure_tells_its_means_in_words():
    (figure,) = sweep_figures(grid(pytorch__batch_size=[1, 8]), {}).values()
    assert figure.text == "Energy per output token (J): 1.00 at 1, 2.00 at 8."
    assert figure.note == ""


def test_two_settings_that_begin_alike_have_a_figure_each():
    long = "pytorch__" + "a" * 60
    rows = grid(**{f"{long}_one": [1, 2], f"{long}_two": [3, 4]})
    figures = sweep_figures(rows, {})
    assert len(figures) == 2
    assert len({figure.text for figure in figures.values()}) == 2
    assert len({figure.title for figure in figures.values()}) == 2


def test_one_experiment_has_no_figure_against_settings():
    assert sweep_figures([experiment(1)], {}) == {}


def test_an_estimate_differs_from_a_measurement_in_shape_and_not_in_colour_alone():
    shape = kind_points([], {}, {})["encoding"]["shape"]["scale"]
    measured, estimated, unknown = shape["range"]
    assert shape["domain"] == ("measured", "estimated", "unknown")
    assert len({measured, estimated, unknown}) == 3


@pytest.mark.parametrize(("kind", "hollow"), [("measured", False), ("estimated", True)])
def test_estimates_are_hollow_in_the_figures_against_settings_as_captions_say(kind, hollow):
    rows = [{**row, "kind": kind} for row in grid(pytorch__batch_size=[1, 2])]
    (figure,) = sweep_figures(rows, {}).values()
    points = [part for part in figure.svg.split("<path") if 'stroke-width="1.8"' in part]
    assert len(points) >= 2
    assert all(('fill="#ffffff"' in part) is hollow for part in points)


def test_two_values_that_are_cut_alike_are_two_places_and_two_series():
    models = [f"/data/models/{name}/checkpoints/final" for name in ("llama-3-8b", "qwen-3-7b")]
    rows = [experiment(3, model=name, **{BATCH: size}) for name in models for size in (1, 8)]
    assert make_sweep(rows, "model", [BATCH], {}).x_values == models
    assert make_sweep(rows, BATCH, ["model"], {}).series_values == models


def test_words_for_a_figure_have_the_digits_of_the_table_and_the_values_of_the_study():
    rows = [
        {**experiment(0.5007, 0.4978, 0.5036, label="off"), "pytorch.torch_compile": False},
        {**experiment(0.4974, 0.4955, 0.4994, label="on"), "pytorch.torch_compile": True},
    ]
    (figure,) = sweep_figures(rows, {}).values()
    assert figure.text == "Energy per output token (mJ): 500.7 at false, 497.4 at true."
    rows = grid(serving__rate_per_s=[1, 2])
    offered = {row["experiment"]: 1.01 / 3 * row["serving.rate_per_s"] for row in rows}
    (figure,) = sweep_figures(rows, offered).values()
    assert figure.text == "Energy per output token (J): 1.00 at 0.337, 2.00 at 0.673."


def test_a_logarithmic_axis_is_said_to_be_one():
    assert Axis.for_rows([experiment(1), experiment(30)], ENERGY_PER_TOKEN).title.endswith(
        "(J, log scale)"
    )
    assert Axis.for_rows([experiment(1), experiment(3)], ENERGY_PER_TOKEN).title.endswith("(J)")
