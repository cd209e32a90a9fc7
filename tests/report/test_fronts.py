"""Energy against a second objective: who is said to be on the front."""

from llenergymeasure.report.charts import Axis
from llenergymeasure.report.fronts import _labels, front_figure
from llenergymeasure.report.wording import AS_IS
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
    shown = [chart["data"]["values"][0]["text"] for chart in charts]
    assert shown == ["best", "d"]
