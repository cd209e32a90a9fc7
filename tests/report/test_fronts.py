"""Energy against a second objective: who is said to be on the front."""

from llenergymeasure.report.charts import Axis
from llenergymeasure.report.formatting import AS_IS
from llenergymeasure.report.pareto_figure import _labels, front_figure
from report.test_figures import experiment

SPEED = "output_tokens_per_s"


def test_only_those_on_the_front_are_said_to_be() -> None:
    rows = [
        {**experiment(energy_j, label=name), f"{SPEED}_mean": speed}
        for name, energy_j, speed in (("best", 1.0, 300.0), ("beaten", 2.0, 200.0))
    ]
    figure = front_figure(rows, {rows[0]["experiment"]}, SPEED)
    assert figure.text == "On the Pareto front: best."
    none = front_figure(rows, (), SPEED)
    assert none.text == "No Pareto front was computed."


def test_a_drawing_is_one_image_with_one_text() -> None:
    figure = front_figure([], (), SPEED)
    for svg in (figure.svg, figure.narrow_svg):
        assert svg.count("role=") == svg.count("aria-label=") == 1


def test_no_label_lies_on_another_and_the_front_keeps_its_names() -> None:
    places = ((1.0, 300.0), (1.01, 299.0), (1.0, 298.0), (20.0, 20.0))
    names = ["best", *"bcd"]
    rows = [
        {"value": energy, "x_value": speed, "front": name == "best", "name": name, "number": name}
        for name, (energy, speed) in zip(names, places, strict=True)
    ]
    energy = Axis("", "", AS_IS, 0.0, 25.0, logarithmic=False)
    speed = Axis("", "", AS_IS, 0.0, 350.0, logarithmic=False)
    charts = _labels(rows[::-1], energy, speed, wide=True)
    texts = [chart["data"]["values"][0]["text"] for chart in charts]
    assert texts[0] == "best"
    assert len(texts) < len(rows)


def test_where_the_front_is_crowded_numbers_stand_for_names_and_nothing_is_on_a_mark() -> None:
    rows = [
        {"value": 5.0 + n, "x_value": 3.0 + n, "front": True, "name": "n" * 20, "number": str(n)}
        for n in range(20)
    ]
    energy = Axis("", "", AS_IS, 0.0, 50.0, logarithmic=False)
    speed = Axis("", "", AS_IS, 0.0, 50.0, logarithmic=False)
    charts = [*_labels(rows, energy, speed, wide=True)]
    labels = [chart["data"]["values"][0] for chart in charts]
    assert {row["number"] for row in labels} == {row["number"] for row in rows}
    assert {row["text"] == row["name"] for row in labels} == {True, False}
    # The marks rise to the right: what is right of one but the last lies below it, or on the next.
    marks = [chart["mark"] for chart in charts[:-1]]
    assert {(mark["dx"] > 0, mark["dy"] > 0) for mark in marks} == {(True, True), (False, False)}
