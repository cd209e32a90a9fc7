"""``llem sensors``: everything tried is listed, what is missing with its reason and remedy."""

import json
import os
from pathlib import Path

import pytest

from llenergymeasure.api.sensors import channel_lines, channel_report, sensors_report, sensors_text
from llenergymeasure.sensors.known_behaviour import Behaviour, Characterisation, PowerBehaviour
from nvml_sim import sim
from support import energy_card
from support.recording import card_environment, environment, uuid


def test_a_card_is_listed_with_what_was_seen_of_its_pace(tmp_path: Path) -> None:
    card = sim.Device(
        power_w=[(0.0, 100.0), (60.0, 700.0)], uuid=uuid(1), sensor=sim.Sensor(update_ms=50)
    )

    with environment(card_environment(tmp_path, [card])):
        report = sensors_report()

    (nvml,) = [sensor for sensor in report["sensors"] if sensor["sensor"] == "nvml"]
    assert nvml["unavailable"] is None
    assert nvml["counter_resolution_j"] == 0.001
    assert nvml["observed"]["energy_counter_j_period_s"] == pytest.approx(0.1, rel=0.1)
    assert nvml["observed"]["power_instant_w_period_s"] == pytest.approx(0.05, rel=0.2)
    assert nvml["observed"]["read_s"] > 0
    assert {sensor["sensor"] for sensor in report["sensors"]} == {
        "nvml",
        "rapl",
        "zeus",
        "codecarbon",
        "node",
    }
    json.dumps(report)
    text = sensors_text(report)
    assert uuid(1) in text
    assert "measured, scope gpu" in text


def test_what_is_missing_has_a_reason_and_a_remedy() -> None:
    hidden = ("NVML_SIM", "CUDA_")
    base = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}

    with environment(base):
        report = sensors_report()

    missing = [sensor for sensor in report["sensors"] if sensor["unavailable"] is not None]
    text = sensors_text(report)
    for sensor in missing:
        assert sensor["remedy"]
        assert sensor["unavailable"] in text
        assert f"to fix: {sensor['remedy']}" in text
        assert "not installed" in sensor["unavailable"] or "pip install" not in sensor["remedy"]
    estimates = [s for s in report["sensors"] if s["sensor"] == "codecarbon"]
    assert {sensor["kind"] for sensor in estimates} == {"estimated"}


@pytest.mark.parametrize(
    ("counter", "words", "window_s"),
    [
        ("independent", "counts what the power readings do not see; it counts 20 ms late", 1.0),
        ("sum", "is the sum of the power readings", 3.125),
        ("unverified", "nothing has shown yet what it counts", 3.125),
    ],
)
def test_what_a_probe_has_found_is_said_in_words(counter: str, words: str, window_s: float) -> None:
    parts = (
        PowerBehaviour("power_instant_w", 0.1, 0.025, "found"),
        PowerBehaviour("power_average_w", 0.1, None, "found"),
    )
    lag_s = 0.02 if counter == "independent" else None
    info = energy_card.info(quantities=energy_card.H100.quantities, driver="580.1")
    report = channel_report(info, Characterisation.now(info, Behaviour(counter, 0.1, lag_s, parts)))
    assert report["shortest_window_s"] == pytest.approx(window_s)
    json.dumps(report)
    text = "\n".join(channel_lines(report))
    assert "counter: a step every 100 ms; " in text
    assert words in text
    assert "a mean over 25 ms: it sees 25 % of the time" in text
    assert "power_average_w: updated every 100 ms, averaging window not found" in text
    assert "driver 580.1" in text
