"""Characterising cards: under a load of one's own, kept, and refused where it would mislead."""

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest

from llenergymeasure.api import sensor_probe as probing
from llenergymeasure.api.sensor_probe import probe
from llenergymeasure.cli.sensors import sensors
from llenergymeasure.errors import MeterError
from llenergymeasure.sensors import stepping_load
from nvml_sim import sim
from support.recording import card_environment, environment, uuid


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "REST_S", 0.0)


def card_of(tmp_path: Path, **keys: object) -> dict[str, str]:
    device = sim.Device(power_w=[(0.0, 250.0)], uuid=uuid(1), keys=keys)
    return card_environment(tmp_path, [device], LLEM_CACHE=str(tmp_path / "cache"))


def test_power_that_does_not_change_is_not_kept(tmp_path: Path) -> None:
    with environment(card_of(tmp_path)):
        (probed,), _ = probe(command=["sleep", "1"])
    assert not probed.is_kept
    assert "changed too little" in probed.reason
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program-anywhere"], "cannot be started"),
        ([], "(?s)sees no GPU.*after --"),
        (["sh", "-c", "echo soon > $LLEM_STEPS"], "soon"),
    ],
)
def test_a_load_that_fails_is_reported(tmp_path: Path, command: list[str], message: str) -> None:
    with environment(card_of(tmp_path)), pytest.raises(MeterError, match=message):
        probe(command=command)


def test_a_card_that_others_use_is_not_characterised(tmp_path: Path) -> None:
    other = os.getppid()
    variables = card_of(tmp_path, processes=[{"pid": other, "used_memory_bytes": 2**30}])
    kept = tmp_path / "kept.parquet"
    with environment(variables), pytest.raises(MeterError, match=str(other)):
        probe(command=["sleep", "2"], samples_path=kept)
    assert not kept.exists()  # a later calibration would read it


def test_what_was_found_is_said_where_the_recording_cannot_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "kept.parquet"
    place.mkdir()
    with environment(card_of(tmp_path)):
        code = sensors(["true"], characterise=True, samples=place)
    output = capsys.readouterr()
    assert code == 1
    assert uuid(1) in output.out
    assert output.err == f"llem: the recording is not kept: {place}: Is a directory\n"


def test_without_a_card_there_is_nothing_to_characterise(tmp_path: Path) -> None:
    with environment({**card_of(tmp_path), "NVML_SIM_TRACE": ""}), pytest.raises(MeterError) as e:
        probe(command=["true"])
    assert "no card" in str(e.value)


def test_the_own_load_steps_at_uneven_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping_load, "SHORTEST_S", 0.01)
    monkeypatch.setattr(stepping_load, "LONGEST_S", 0.03)
    turns = []
    edges_ns = stepping_load.steps(lambda: turns.append(1), 6, random.Random(1))
    lengths_ns = {late - early for early, late in pairwise(edges_ns)}
    assert len(edges_ns) == 6
    assert len(lengths_ns) == 5
    assert min(lengths_ns) >= 10_000_000
    assert turns
