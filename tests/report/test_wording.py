"""Numbers, names and lists as words: a row is a call and what it says."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.report.formatting import (
    change,
    change_range,
    count_text,
    join_words,
    mean_text,
    p_value,
    plain,
    rounded_range,
    scale_for,
    scopes_text,
    shortened,
    with_interval,
)
from llenergymeasure.units import percent

Row = tuple[Callable[..., str], tuple[Any, ...], str]


def unit(*values: float | None) -> str:
    return scale_for(values, "J").unit


ROWS: list[Row] = [
    # Digits follow the interval.
    (mean_text, (0.070212, 0.068682, 0.071742), "0.0702"),
    (mean_text, (3.6751, 3.6401, 3.7101), "3.675"),
    (mean_text, (1234.56, 1222.26, 1246.86), "1,235"),
    (mean_text, (5.0, 5.0, 5.0), "5.00"),
    (mean_text, (1234.56, None, None), "1,235"),
    (mean_text, (0.0123456, None, None), "0.0123"),
    (mean_text, (41.7, None, None), "41.7"),
    (mean_text, (0.0, None, None), "0"),
    (mean_text, (None, None, None), "-"),
    # How far an interval reaches stands beside its value.
    (with_interval, (0.21184, 0.20681, 0.21687), "0.2118 ± 0.0050"),
    (with_interval, (1.0, 0.8, 1.25), "1.00 +0.25 -0.20"),
    (with_interval, (2.0, 0.001, 4000.0), "2 +3,998 -2"),
    (with_interval, (28.0, 28.0 - 4e-15, 28.0 + 4e-15), "28.0"),
    (with_interval, (28.0, None, None), "28.0"),
    (with_interval, (None, None, None), "-"),
    (rounded_range, (0.20666, 0.21682), "0.2067 to 0.2168"),
    (rounded_range, (None, None), "-"),
    # What is not zero does not read as zero in a wide interval.
    (rounded_range, (0.3, 52.0), "0.3 to 52"),
    (rounded_range, (0.0002, 52.0), "0.0002 to 52"),
    (rounded_range, (0.0, 52.0), "0 to 52"),
    (rounded_range, (-0.3, 52.0), "-0.3 to 52"),
    (rounded_range, (-52.0, -0.3), "-52 to -0.3"),
    (rounded_range, (0.6, 52.0), "1 to 52"),
    (mean_text, (0.31, 0.002, 52.0), "0.3"),
    (mean_text, (0.0, -26.0, 26.0), "0"),
    (with_interval, (0.31, 0.002, 52.0), "0.3 +52 -0.3"),
    (with_interval, (3.0, 3.0, 52.0), "3 +49 -0"),
    # A unit puts the largest value in reach.
    (unit, (0.07, 0.4), "mJ"),
    (unit, (1.2, None), "J"),
    (unit, (4300.0,), "kJ"),
    (unit, (2e-6,), "µJ"),
    (unit, (), "J"),
    (unit, (None, 0.0), "J"),
    (unit, (1e-12,), "nJ"),
    # A share has two digits, and what is not all does not read as all.
    (percent, (0.05,), "5.0 %"),
    (percent, (0.123,), "12 %"),
    (percent, (-0.000032,), "-0.0032 %"),
    (percent, (0.0,), "0 %"),
    (percent, (None,), "-"),
    (percent, (0.994,), "99.4 %"),
    (percent, (0.996,), "99.6 %"),
    (percent, (0.9995,), "99.95 %"),
    (percent, (-0.999,), "-99.9 %"),
    (percent, (1.0,), "100 %"),
    (percent, (1.004,), "100 %"),
    (percent, (0.999999,), "99.9999 %"),
    (percent, (0.9999999,), "100 %"),
    # A ratio is what it saves or adds; a large one has no exponent.
    (change, (0.004,), "99.6 % less"),
    (change, (0.5,), "50 % less"),
    (change, (1.12,), "12 % more"),
    (change, (6.21,), "6.2 times"),
    (change, (99.4,), "99 times"),
    (change, (99.5,), "100 times"),
    (change, (123.4,), "123 times"),
    (change, (4321.0,), "4,321 times"),
    (change_range, (0.001, 0.004), "99.6 % to 99.9 % less"),
    (change_range, (0.85, 0.91), "9.0 % to 15 % less"),
    (change_range, (0.97, 1.02), "3.0 % less to 2.0 % more"),
    (change_range, (1.02, 1.5), "2.0 % to 50 % more"),
    (change_range, (1.5, 3.0), "50 % more to 3 times"),
    (change_range, (2.5, 3.0), "2.5 to 3 times"),
    (change_range, (2.5, 150.0), "2.5 to 150 times"),
    # A verdict and its p value do not contradict each other.
    (p_value, (None,), "-"),
    (p_value, (0.0001,), "< 0.001"),
    (p_value, (0.0123,), "0.012"),
    (p_value, (0.0496,), "0.0496"),
    (p_value, (0.05,), "0.05"),
    (p_value, (0.0504,), "0.0504"),
    (p_value, (1.0,), "1"),
    # Names and lists.
    (plain, ("a\x1b[31m\nb\u202ec  ü 中",), "a [31m b c ü 中"),
    (plain, ("x" * 50, 10), "xxxxxxx..."),
    (count_text, (1, "run"), "1 run"),
    (count_text, (2000, "run"), "2,000 runs"),
    (join_words, (["a", "b", "c"],), "a, b and c"),
    (join_words, ([],), ""),
    (scopes_text, (["cpu", "dram"],), "CPU and memory"),
    (scopes_text, (None,), "unknown scope"),
]


@pytest.mark.parametrize(("say", "values", "text"), ROWS)
def test_it_says(say: Callable[..., str], values: tuple[Any, ...], text: str) -> None:
    assert say(*values) == text


@pytest.mark.parametrize("interval", [(6.566, 6.468, 6.667), (497.4461, 495.5055, 499.3944)])
def test_a_mean_has_the_same_digits_wherever_its_interval_stands(
    interval: tuple[float, float, float],
) -> None:
    assert with_interval(*interval).split()[0] == mean_text(*interval)


def test_scaled_value_is_the_same_quantity() -> None:
    assert scale_for([0.07], "J")(0.07) == pytest.approx(70)


@given(st.text())
def test_plain_text_steers_no_terminal(text: str) -> None:
    cleaned = plain(text)
    assert cleaned.isprintable()
    assert "\x1b" not in cleaned


def test_long_names_are_cut_in_their_middle() -> None:
    names = [shortened(f"{'long/' * 20}{end}", 30) for end in ("one", "two")]
    assert names[0] != names[1]
    assert all(len(name) == 30 for name in names)
