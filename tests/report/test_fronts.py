"""Energy against a second objective: who is said to be on the front."""

from llenergymeasure.report.fronts import front_figure
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
