"""A card held against an external meter: known gains are found, and what cannot be has a word."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llenergymeasure.api import calibrate as calibrating
from llenergymeasure.api.calibrate import calibrate
from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.config.sensor_gain import Gain
from llenergymeasure.energy.meter_comparison import MeterSetup
from llenergymeasure.errors import ConfigurationError, MeterError
from llenergymeasure.recording.samples import SampleRow, make_samples, read_samples, write_samples
from llenergymeasure.sensors.base import SensorInfo
from support.recording import header, uuid
from support.studies import llem

S = 1_000_000_000
GPU = uuid(1)
CARD = SensorInfo(
    GPU, "Card", "nvml", "measured", "gpu", ("energy_counter_j",), power_limit_w={"max": 700}
)
BEGAN_S = 1735689600.0
"""2025-01-01, as the recording's header says."""
GAIN, OFFSET_W = 0.94, -3.0


def true_j(t_s: Any, regular: bool = False) -> Any:
    """Energy of a card that rests at 90 W and works at loads of its own, in turn."""
    rng = np.random.default_rng(5)
    spans_s = np.full(60, 15.0) if regular else rng.uniform(13, 18, 60)
    watts = np.where(np.arange(60) % 2 == 0, 90.0, rng.uniform(400, 650, 60))
    edges_s = np.concatenate(([0.0], np.cumsum(spans_s)))
    return np.interp(t_s, edges_s, np.concatenate(([0.0], np.cumsum(watts * spans_s))))


def recording(
    folder: Path, regular: bool = False, gain: float = GAIN, offset_w: float = OFFSET_W
) -> Path:
    """Ten minutes of the card's counter, which shows ``gain`` of the truth and an offset."""
    ticks_s = np.arange(0.1, 600, 0.1)
    shown_j = gain * true_j(ticks_s, regular) + offset_w * ticks_s
    rows = [
        SampleRow(
            int(t_s * S), GPU, "nvml", "energy_counter_j", float(joules), int(t_s * S) - S // 1000
        )
        for t_s, joules in zip(ticks_s, shown_j, strict=True)
    ]
    path = folder / "card.parquet"
    write_samples(make_samples(rows, header(CARD)), path)
    return path


def wall(
    folder: Path,
    *,
    lag_s: float = 2.0,
    period_s: float = 1.0,
    off_s: float = 0.0,
    gone: Collection[int] = (),
    jump: tuple[float, float] = (math.inf, 0.0),
    rest_w: float = 0.0,
    supply: float = 1.0,
    noise_w: float = 0.0,
    regular: bool = False,
) -> Path:
    """A meter's log; each reading is a mean over a second that ends ``lag_s`` before it.

    At ``jump[0]`` its clock is put forward by ``jump[1]``.
    """
    rng = np.random.default_rng(7)
    lines = ["time,watts"]
    for number, t_s in enumerate(np.arange(4.4, 598, period_s)):
        ends_j = true_j(np.array([t_s - lag_s - 1.0, t_s - lag_s]), regular)
        watts = float(np.diff(ends_j)[0]) + rng.normal(0, noise_w)
        if number not in gone:
            said_s = BEGAN_S + off_s + t_s + (jump[1] if t_s >= jump[0] else 0.0)
            lines.append(f"{said_s:.3f},{rest_w + watts / supply:.1f}")
    path = folder / "wall.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


EXACT = MeterSetup(accuracy=0.0)


def held(folder: Path, known: MeterSetup = EXACT, **meter: Any) -> tuple[Gain, str]:
    card = recording(folder, meter.get("regular", False))
    return held_against(wall(folder, **meter), card, known)


def held_against(log: Path, card: Path, known: MeterSetup = EXACT) -> tuple[Gain, str]:
    text, words = calibrate(log, card, known)
    calibration = card.with_name("calibration.yaml")
    calibration.write_text(text)
    return read_calibration(calibration).gains[GPU], " ".join(words)


@pytest.mark.parametrize(
    ("meter", "word"),
    [
        ({}, "s late"),
        ({"off_s": -6.0}, "behind at least"),
        ({"gone": range(100, 130)}, "30 s of the log are missing, in 1 places"),
        ({"jump": (450.0, 3600.0)}, "3600 s of the log are missing, in 1 places"),
        ({"jump": (450.0, -3600.0)}, "s of the log are missing, in 1 places"),
    ],
)
def test_gain_and_offset_are_found_and_their_intervals_hold(
    tmp_path: Path, meter: Any, word: str
) -> None:
    gain, words = held(tmp_path, **meter)
    assert gain.gain == pytest.approx(GAIN, rel=0.005)
    assert gain.offset_w == pytest.approx(OFFSET_W, abs=1)
    assert abs(gain.gain / GAIN - 1) <= gain.band + 1e-5
    assert abs(gain.offset_w - OFFSET_W) <= gain.u_offset_w + 0.001
    assert gain.band < 0.005
    assert word in words
    energy_j = gain.true_energy_j(GAIN * 5000.0 + OFFSET_W * 10, 10.0)
    assert abs(energy_j - 5000) <= gain.half_width_j(energy_j, 10.0) + 0.1


@pytest.mark.parametrize(
    ("gain", "offset_w"),
    # As in the data of arXiv 2312.02741.
    [(0.942, -1.2), (1.044, -22.6), (1.0, 0.0), (0.93, 4.0), (1.127, 1.0)],
)
def test_ten_minutes_of_a_noisy_meter_give_a_thousandth_of_the_gain_and_a_fifth_of_a_watt(
    tmp_path: Path, gain: float, offset_w: float
) -> None:
    card = recording(tmp_path, gain=gain, offset_w=offset_w)
    fitted, _ = held_against(wall(tmp_path, noise_w=0.3), card)
    assert fitted.gain == pytest.approx(gain, rel=0.001)
    assert fitted.offset_w == pytest.approx(offset_w, abs=0.2)
    assert abs(fitted.gain / gain - 1) <= fitted.band
    assert abs(fitted.offset_w - offset_w) <= fitted.u_offset_w


def test_the_meters_own_accuracy_is_in_the_gains_uncertainty(tmp_path: Path) -> None:
    gain, _ = held(tmp_path, MeterSetup(accuracy=0.01))
    assert 0.01 <= gain.band < 0.012


def test_a_meter_on_the_whole_machine_must_say_what_else_it_sees(tmp_path: Path) -> None:
    machine = {"rest_w": 240.0, "supply": 0.94}
    with pytest.raises(MeterError, match="not on the card alone"):
        held(tmp_path, **machine)
    gain, _ = held(tmp_path, MeterSetup(0.0, 240.0, 0.94), **machine)
    assert gain.gain == pytest.approx(GAIN, rel=0.005)
    assert gain.offset_w == pytest.approx(OFFSET_W, abs=1)


@pytest.mark.parametrize(
    ("meter", "word"),
    [
        ({"off_s": 3600.0}, "after the recording ends: its clock is wrong (a time zone"),
        ({"off_s": -7200.0}, "before the recording begins: its clock is wrong"),
        ({"off_s": 200.0}, "at any shift from -30 to 60 s (a wrong clock"),
        ({"jump": (200.0, 3600.0)}, "at any shift from -30 to 60 s (a wrong clock"),
        ({"period_s": 60.0, "lag_s": 30.0}, "it is slow, updated every 60 s"),
        ({"period_s": 4.0, "lag_s": 6.0}, "let the load work and rest in turn, each for over"),
        ({"off_s": 200.0, "regular": True}, "steps too regularly"),
    ],
)
def test_what_cannot_be_held_against_it_has_a_word(tmp_path: Path, meter: Any, word: str) -> None:
    with pytest.raises(MeterError) as raised:
        held(tmp_path, **meter)
    assert word in str(raised.value)


@pytest.mark.parametrize(
    ("known", "word"),
    [
        (MeterSetup(rest_w=500.0), "offset_w: must be"),
        (MeterSetup(rest_w=math.nan), "offset_w: must be"),
        (MeterSetup(accuracy=math.nan), "u_gain_rel: must be"),
        (MeterSetup(efficiency=90.0), "gain: must be"),
    ],
)
def test_what_no_calibration_file_may_hold_is_refused(
    tmp_path: Path, known: MeterSetup, word: str
) -> None:
    with pytest.raises(MeterError, match=f"is no calibration: .*{word}"):
        held(tmp_path, known)


@pytest.mark.parametrize("option", ["--supply-efficiency=0", "--supply-efficiency=90"])
def test_an_efficiency_in_per_cent_is_refused(tmp_path: Path, option: str) -> None:
    log, card = wall(tmp_path), recording(tmp_path)
    arguments = ["--calibrate-against", str(log), "--samples", str(card), option]
    process = llem(tmp_path, "sensors", *arguments)
    assert (process.returncode, process.stdout) == (2, "")
    assert "must be" in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_a_recording_that_cannot_be_kept_does_not_lose_the_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = read_samples(recording(tmp_path))
    monkeypatch.setattr(calibrating, "record_load", lambda *_: (samples, []))
    (tmp_path / "plan.json").touch()  # below a results folder no link is followed
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "kept.parquet", tmp_path / "link" / "kept.parquet"):
        text, words = calibrate(wall(tmp_path), place, EXACT)
        assert "gain: 0.94" in text
        assert "the recording is not kept" in words[-1]


def test_a_difference_that_may_be_other_parts_is_named(tmp_path: Path) -> None:
    _, words = held(tmp_path, MeterSetup(), rest_w=30.0)
    assert "say so with --rest-watts" in words
    _, words = held(tmp_path, MeterSetup(), rest_w=-30.0)
    assert "--rest-watts" not in words  # no part draws less than nothing
    for known in (MeterSetup(rest_w=30.0), MeterSetup(rest_w=0.0)):
        _, words = held(tmp_path, known, rest_w=30.0)
        assert "--rest-watts" not in words


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing\n")
    with pytest.raises(ConfigurationError, match="no column of times and watts"):
        calibrate(path, recording(tmp_path), MeterSetup())


def test_the_command_prints_a_file_that_the_meter_reads(tmp_path: Path) -> None:
    log, card = wall(tmp_path), recording(tmp_path)
    process = llem(tmp_path, "sensors", "--calibrate-against", str(log), "--samples", str(card))
    assert process.returncode == 0, process.stderr
    calibration = tmp_path / "made.yaml"
    calibration.write_text(process.stdout)
    assert read_calibration(calibration).gains[GPU].gain == pytest.approx(GAIN, rel=0.005)
    assert "s late" in process.stderr
