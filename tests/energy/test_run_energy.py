"""A run's energy for its record: from its recording and its table of requests."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llenergymeasure.energy.characterise import characterise
from llenergymeasure.recording.samples import HOST_DEVICE, RECORDER, SampleRow
from llenergymeasure.run.result.batch_requests import REQUEST_SCHEMA, batch_tokens, group_batches
from llenergymeasure.run.result.run_energy import run_energy
from llenergymeasure.sensors.known_behaviour import Characterisation
from support import energy_card as card

LOAD = card.steps(60)
INFO = card.info(driver="570.1", quantities=("energy_counter_j", "power_instant_w"))
ROWS = card.rows_of(LOAD, card.Sensor(window_s=0.025), 60)
PROBED = {
    ("nvml", card.UUID): Characterisation.now(
        INFO, characterise(card.recording(ROWS, INFO), card.UUID)
    )
}
WINDOW = (card.ns(20), card.ns(40))


def requests(count: int = 10) -> pa.Table:
    rows = [
        {
            "request": 2 * batch + one,
            "prompt": one,
            "batch": batch,
            "input_tokens": 100,
            "output_tokens": 51,
            "start_monotonic_ns": card.ns(20 + 2 * batch),
            "first_token_monotonic_ns": card.ns(20.4 + 2 * batch),
            "end_monotonic_ns": card.ns(22 + 2 * batch),
        }
        for batch in range(count)
        for one in range(2)
    ]
    return pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)


def energy_of(rows: list[SampleRow], table: pa.Table | None = None, **more):
    arguments = {"devices": [card.UUID], "settings": {}, "characterised": {}, **more}
    table = requests() if table is None else table
    batches, tokens = group_batches(table), batch_tokens(table, "")
    return run_energy(card.recording(rows, INFO), WINDOW, [], batches, tokens, **arguments)


def calibrated(folder: Path, entry: dict[str, Any], *devices: str) -> dict[str, str]:
    """Settings that name a calibration of these devices."""
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"gpus": dict.fromkeys(devices, entry)}))
    return {"calibration": str(path)}


def test_every_request_says_the_energy_of_its_batch() -> None:
    result = energy_of(ROWS)
    table = result.with_batches(requests()).to_pylist()
    assert [row["batch_energy_unavailable"] for row in table] == [None] * 20
    assert all(row["batch_energy_u95_j"] > 0 for row in table)
    assert sum(row["batch_energy_j"] for row in table) / 2 == pytest.approx(result.record.gross_j)
    assert table[0]["batch_energy_j"] == table[1]["batch_energy_j"]
    assert result.with_batches(requests()).schema.equals(REQUEST_SCHEMA)


def test_a_card_that_the_engine_used_and_nobody_recorded_leaves_no_energy() -> None:
    result = energy_of(ROWS, devices=[card.UUID, "GPU-2"])
    assert result.record.gross_j is None
    assert "GPU-2, which was not recorded" in str(result.record.unavailable)
    assert {energy.energy_j for energy in result.record.phases} <= {None}


PREFILL_J, DECODE_J = 10 * 0.4 * 400 / 2000, 10 * 1.6 * 200 / 1000


def phases_rows(gain: float = 1.0, offset_w: float = 0.0) -> list[SampleRow]:
    """What is shown of 400 W for the 0.4 s of each prefill, 200 W for the 1.6 s of each decode."""
    begins_s = 20 + 2.0 * np.arange(10)
    edges_s = np.column_stack((begins_s, begins_s + 0.4)).ravel()
    levels_w = gain * np.array([60.0, *[400.0, 200.0] * 10, 60.0]) + offset_w
    power = card.Power([-10.0, *edges_s, 40.0], levels_w)
    return card.rows_of(power, card.Sensor(window_s=0.025), 60)


def test_unlike_requests_have_energies_of_their_own_that_add_up() -> None:
    table = requests().to_pylist()
    for row in table:
        begin_s = 20 + 2 * row["batch"]
        if row["request"] % 2:
            row["output_tokens"] = 21
        else:
            row["step_monotonic_ns"] = [card.ns(begin_s + 0.4 + 0.032 * n) for n in range(51)]
    unlike = pa.Table.from_pylist(table, schema=REQUEST_SCHEMA)
    result = energy_of(phases_rows(), unlike, characterised=PROBED)
    energies = result.with_batches(unlike).to_pylist()
    total_j = sum(row["request_energy_j"] for row in energies)
    assert total_j == pytest.approx(result.record.gross_j, rel=1e-12)
    # Half of 0.4 s at 400 W and of 20 steps at 200 W; the other 30 steps are the longer one's.
    shorter_j, longer_j = 80 + 20 * 0.032 * 100, 80 + 20 * 0.032 * 100 + 30 * 0.032 * 200
    for row in energies:
        true_j = shorter_j if row["request"] % 2 else longer_j
        assert abs(row["request_energy_j"] - true_j) <= row["request_energy_u95_j"] < 0.05 * true_j
    silent = energy_of(ROWS, unlike, characterised=PROBED).with_batches(unlike).to_pylist()
    assert {row["request_energy_j"] for row in silent} == {None}
    assert "unexplained" in silent[0]["request_energy_unavailable"]


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_prefill_and_decode_stand_in_the_record(tmp_path: Path, is_calibrated: bool) -> None:
    """A calibration holds for them too, next to a window's energy."""
    rows, settings = phases_rows(), {}
    if is_calibrated:
        entry = {"gain": 0.8, "offset_w": 20, "u_gain_rel": 0.01, "source": "a meter"}
        rows, settings = phases_rows(0.8, 20), calibrated(tmp_path, entry, card.UUID)
    record = energy_of(rows, characterised=PROBED, settings=settings).record
    split = record.split
    assert split.method == "ticks"
    prefill_j, decode_j = split.prefill_per_input_token_j, split.decode_per_output_token_j
    assert abs(prefill_j - PREFILL_J) <= split.prefill_u95_j < 0.01 * PREFILL_J
    assert abs(decode_j - DECODE_J) <= split.decode_u95_j < 0.01 * DECODE_J
    assert 2000 * prefill_j + 1000 * decode_j == pytest.approx(record.gross_j, rel=1e-3)


def test_phases_that_do_not_explain_the_steps_are_a_code() -> None:
    result = energy_of(ROWS, characterised=PROBED)
    assert result.record.split.unexplained_rel > 0.1
    assert "unexplained" in result.account.validity["split_poor_fit"]
    well = energy_of(phases_rows(), characterised=PROBED)
    assert "split_poor_fit" not in well.account.validity


def test_a_run_without_energy_has_no_split_and_no_footprint() -> None:
    result = energy_of([], carbon={"grid_gco2e_per_kwh": 300.0, "pue": 1.0})
    assert result.record.gross_j is None
    assert result.record.split is None
    assert result.record.footprint is None
    assert {energy.energy_j for energy in result.batches} == {None}


def test_a_calibration_is_named_with_its_hash_and_what_it_was_used_for(tmp_path: Path) -> None:
    entry = {"gain": 0.9, "u_gain_rel": 0.01, "source": "a meter"}
    settings = calibrated(tmp_path, entry, card.UUID, "GPU-2")
    plain, result = energy_of(ROWS), energy_of(ROWS, settings=settings)
    assert result.record.gross_j == pytest.approx(plain.record.gross_j / 0.9)
    assert result.record.u_sys_j == pytest.approx(0.01 * result.record.gross_j)
    used = result.provenance["calibration"]
    assert list(used["gains"]) == [card.UUID]
    assert len(used["sha256"]) == 64
    assert plain.provenance["calibration"] is None


def test_what_a_probe_found_is_used_and_stands_in_the_record() -> None:
    flat = card.rows_of(card.constant(250.0), card.Sensor(window_s=0.025), 60)
    assert "counter_unverified" in energy_of(flat).account.validity
    result = energy_of(flat, characterised=PROBED)
    assert result.account.validity == {}
    assert result.account.gpus[0]["probed"] is True
    assert result.provenance["known_sensors"] == [asdict(PROBED["nvml", card.UUID])]


def test_the_recorders_own_cost_stands_beside_the_energy() -> None:
    cost = [
        SampleRow(card.ns(t), HOST_DEVICE, RECORDER, "recorder_cpu_s", 0.01 * t)
        for t in range(0, 60, 2)
    ]
    reads = [SampleRow(card.ns(t), card.UUID, "nvml", "read_s", 4e-5) for t in range(0, 60, 2)]
    cost = energy_of(ROWS + cost + reads).provenance["recorder_cost"]
    assert cost["cpu_share"] == pytest.approx(0.01)
    assert cost["read_s"] == {"nvml": pytest.approx(4e-5)}
    assert energy_of(ROWS).provenance["recorder_cost"]["cpu_share"] is None
