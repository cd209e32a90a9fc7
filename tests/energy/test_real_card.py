"""The recordings of a real H100: what its counter is, and the energies that it gave."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.characterise import characterise
from llenergymeasure.energy.device import open_device
from llenergymeasure.recording.samples import Samples, read_samples
from llenergymeasure.sensors.base import SensorInfo

ROOT = Path(__file__).resolve().parents[2]
H100 = ROOT / "docs" / "validation" / "nvidia-h100-80gb-hbm3-580.159.04"
RUNS = ("first/first/8cb54a876efa-1", "vllm/vllm/492f4a291291-1", "vllm/vllm/91ed556cf29a-1")
AS_RECORDED = 0.0035
"""The meter that recorded them gave its ends ±0.3 to ±0.8 %."""


def recorded(folder: str) -> tuple[Samples, SensorInfo]:
    samples = read_samples(H100 / folder / "samples.parquet")
    (info,) = [info for info in samples.header.sensors if info.sensor == "nvml"]
    return samples, info


PROBE, CARD = recorded("probe")
FOUND = characterise(PROBE, CARD.device)
KNOWN = {("nvml", CARD.device): FOUND}


def windows(folder: str) -> list[dict[str, Any]]:
    records = json.loads((H100 / folder / "windows.json").read_text())
    return [record for record in records if record.get("meter_j")]


def metered(
    samples: Samples, window: tuple[int, int], phases: Any = (), known: Any = None
) -> Account:
    return account(samples, window, phases, headline="nvml", behaviours=known)


def test_a_probe_shows_that_its_counter_is_none_of_the_readings() -> None:
    """A read of it takes 3 to 15 ms there, and once 94."""
    assert FOUND.counter == "independent"
    assert FOUND.counter_period_s == pytest.approx(0.1, rel=0.005)
    assert {part.quantity for part in FOUND.power} == {"power_instant_w", "power_average_w"}
    assert all(part.update_period_s == pytest.approx(0.1, rel=0.01) for part in FOUND.power)


@pytest.mark.parametrize("folder", ["engine", "pulses", *RUNS])
def test_no_recording_of_it_shows_a_sum_and_no_step_is_impossible(folder: str) -> None:
    samples, info = recorded(folder)
    assert open_device(samples, info).behaviour.counter != "sum"
    device = open_device(samples, info, FOUND)
    assert device.behaviour.counter == "independent"
    assert len(device.resets_s) == len(device.jumps_s) == 0


@pytest.mark.parametrize("each", windows("engine"), ids=lambda each: each["window"])
@pytest.mark.parametrize("known", [None, KNOWN], ids=["not probed", "probed"])
def test_an_engines_windows_have_the_energy_that_was_given_then(
    each: dict[str, Any], known: Any
) -> None:
    samples, _ = recorded("engine")
    result = metered(samples, (each["start_ns"], each["end_ns"]), known=known)
    (reading,) = result.headline
    assert reading.gross_j == pytest.approx(each["meter_j"], rel=AS_RECORDED)
    assert reading.gross_u95_j < 0.01 * reading.gross_j
    assert set(result.validity) <= {"throttled", "temperature_drift"}


@pytest.mark.parametrize("each", windows("pulses"), ids=lambda each: each["window"])
def test_pulses_in_step_with_the_readings_do_not_mislead_the_counter(each: dict[str, Any]) -> None:
    samples, _ = recorded("pulses")
    result = metered(samples, (each["start_ns"], each["end_ns"]), known=KNOWN)
    (reading,) = result.headline
    apart_j = abs(reading.gross_j - each["meter_j"])
    then_j = each["meter_u95_j"] or 0.0
    assert apart_j <= max(0.003 * reading.gross_j, reading.gross_u95_j, then_j)
    assert not {"counter_jump", "counter_reset", "counter_unverified"} & set(result.validity)


@pytest.mark.parametrize("folder", RUNS)
def test_a_runs_energy_is_that_of_its_record(folder: str) -> None:
    samples, _ = recorded(folder)
    record = json.loads((H100 / folder / "result.json").read_text())
    window = (record["window"]["start_monotonic_ns"], record["window"]["end_monotonic_ns"])
    phases = [
        (phase["name"], phase["start_monotonic_ns"], phase["end_monotonic_ns"])
        for phase in record["phases"]
    ]
    result = metered(samples, window, phases, KNOWN)
    # The first run's recorder was held up at the window's end: what it gave then was unsure by 2 %.
    then_j = max(AS_RECORDED * result.total.gross_j, record["energy"]["u95_j"])
    assert result.total.gross_j == pytest.approx(record["energy"]["gross_j"], abs=then_j)
    assert "channel_mismatch" not in result.validity
    assert result.headline[0].gross_u95_j < 0.02 * result.total.gross_j


def test_counter_and_average_agree_as_the_page_on_the_method_says() -> None:
    """How sure the difference is in nine runs, and how large in the seven that show one."""
    unsure, apart = [], []
    for path in sorted(H100.rglob("result.json")):
        record = json.loads(path.read_text())
        window = (record["window"]["start_monotonic_ns"], record["window"]["end_monotonic_ns"])
        samples = read_samples(path.parent / "samples.parquet")
        (card,) = metered(samples, window).gpus
        off, u95 = (100 * card[f"channel_disagreement_{part}"] for part in ("rel", "u95_rel"))
        unsure.append(u95)
        apart += [off] if abs(off) > u95 else []
    *most, worst = sorted(unsure)
    assert (round(most[0], 3), round(most[-1], 2), round(worst, 1)) == (0.005, 0.12, 1.4)
    assert len(unsure) == 9
    assert len(apart) == 7
    assert (round(min(apart), 2), round(max(apart), 2)) == (0.05, 0.45)
