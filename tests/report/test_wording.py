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


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [
        (0.070212, 0.00153, "0.0702"),
        (3.6751, 0.035, "3.675"),
        (1234.56, 12.3, "1,235"),
        (1234.56, None, "1,235"),
        (0.0123456, None, "0.0123"),
        (41.7, None, "41.7"),
        (0.0, None, "0"),
        (None, None, "-"),
        (5.0, 0.0, "5.00"),
    ],
)
def test_digits_follow_the_interval(value, half_width, text):
    ends = (None, None) if half_width is None else (value - half_width, value + half_width)
    assert mean_text(value, *ends) == text


def test_how_far_an_interval_reaches_stands_beside_its_value():
    assert with_interval(0.21184, 0.20681, 0.21687) == "0.2118 ± 0.0050"
    assert with_interval(1.0, 0.8, 1.25) == "1.00 +0.25 -0.20"
    assert with_interval(2.0, 0.001, 4000.0) == "2 +3,998 -2"
    assert with_interval(28.0, 28.0 - 4e-15, 28.0 + 4e-15) == "28.0"
    assert with_interval(28.0, None, None) == "28.0"
    assert with_interval(None, None, None) == "-"


def test_ends_of_an_interval_share_their_digits():
    assert rounded_range(0.20666, 0.21682) == "0.2067 to 0.2168"
    assert rounded_range(None, None) == "-"


def test_a_positive_number_does_not_read_as_0_in_a_wide_interval():
    assert rounded_range(0.3, 52.0) == "0.3 to 52"
    assert rounded_range(0.0002, 52.0) == "0.0002 to 52"
    assert rounded_range(0.0, 52.0) == "0 to 52"
    assert rounded_range(-0.3, 52.0) == "-0.3 to 52"
    assert rounded_range(-52.0, -0.3) == "-52 to -0.3"
    assert rounded_range(0.6, 52.0) == "1 to 52"
    assert mean_text(0.31, 0.002, 52.0) == "0.3"
    assert mean_text(0.0, -26.0, 26.0) == "0"


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([0.07, 0.4], "mJ"),
        ([1.2, None], "J"),
        ([4300.0], "kJ"),
        ([2e-6], "µJ"),
        ([], "J"),
        ([None, 0.0], "J"),
        ([1e-12], "nJ"),
    ],
)
def test_unit_puts_the_largest_value_in_reach(values, unit):
    assert scale_for(values, "J").unit == unit


def test_scaled_value_is_the_same_quantity():
    assert scale_for([0.07], "J")(0.07) == pytest.approx(70)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *[(0.05, "5.0 %"), (0.123, "12 %"), (-0.000032, "-0.0032 %"), (0.0, "0 %"), (None, "-")],
        *[(0.994, "99.4 %"), (0.996, "99.6 %"), (0.9995, "99.95 %"), (-0.999, "-99.9 %")],
        *[(1.0, "100 %"), (1.004, "100 %"), (0.999999, "99.9999 %"), (0.9999999, "100 %")],
    ],
)
def test_percent_has_two_digits_and_what_is_not_all_does_not_read_as_all(share, text):
    assert percent(share) == text


def test_a_hundredth_is_not_nothing():
    assert change(0.004) == "99.6 % less"
    assert change_range(0.001, 0.004) == "99.6 % to 99.9 % less"


@given(st.text())
def test_plain_text_steers_no_terminal(text):
    cleaned = plain(text)
    assert cleaned.isprintable()
    assert "\x1b" not in cleaned


def test_plain_text_keeps_letters_and_drops_direction_marks():
    assert plain("a\x1b[31m\nb\u202ec  ü 中") == "a [31m b c ü 中"
    assert plain("x" * 50, 10) == "xxxxxxx..."


def test_words():
    assert count_text(1, "run") == "1 run"
    assert count_text(2000, "run") == "2,000 runs"
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert join_words([]) == ""
    assert scopes_text(["cpu", "dram"]) == "CPU and memory"
    assert scopes_text(None) == "unknown scope"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.85, 0.91, "9.0 % to 15 % less"),
        (0.97, 1.02, "3.0 % less to 2.0 % more"),
        (1.02, 1.5, "2.0 % to 50 % more"),
        (1.5, 3.0, "50 % more to 3 times"),
        (2.5, 3.0, "2.5 to 3 times"),
    ],
)
def test_ratios_are_told_as_what_they_save_or_add(low, high, text):
    assert change_range(low, high) == text


def test_a_ratio_is_less_more_or_times():
    assert [change(ratio) for ratio in (0.5, 1.12, 6.21)] == ["50 % less", "12 % more", "6.2 times"]


def test_a_large_ratio_has_no_exponent():
    assert [change(ratio) for ratio in (99.4, 99.5, 123.4, 4321.0)] == [
        *("99 times", "100 times", "123 times", "4,321 times")
    ]
    assert change_range(2.5, 150.0) == "2.5 to 150 times"


def test_p_values_have_two_digits():
    assert [p_value(p) for p in (None, 0.0001, 0.0123, 1.0)] == ["-", "< 0.001", "0.012", "1"]
    # A verdict and its p value must not contradict each other.
    assert [p_value(p) for p in (0.0496, 0.05, 0.0504)] == ["0.0496", "0.05", "0.0504"]


def test_long_names_are_cut_in_their_middle():
    names = [shortened(f"{'long/' * 20}{end}", 30) for end in ("one", "two")]
    assert names[0] != names[1]
    assert all(len(name) == 30 for name in names)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [(6.566, 6.468, 6.667), (0.31, 0.002, 52.0), (497.4461, 495.5055, 499.3944)],
)
def test_a_mean_has_the_same_digits_wherever_its_interval_stands(
    value: float, low: float, high: float
) -> None:
    assert with_interval(value, low, high).split()[0] == mean_text(value, low, high)


def test_a_reach_that_is_not_zero_does_not_read_as_zero() -> None:
    assert with_interval(0.31, 0.002, 52.0) == "0.3 +52 -0.3"
    assert with_interval(3.0, 3.0, 52.0) == "3 +49 -0"
