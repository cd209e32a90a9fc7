"""Limits on the simulated card through the real nvidia-ml-py; kills are real."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Call
from llenergymeasure.machine.gpus import limits
from llenergymeasure.machine.gpus.limits import (
    abandoned_limits,
    restore_abandoned_limits,
    restore_limits,
    set_limits,
)
from llenergymeasure.machine.gpus.locks import GpuLocks, lock_gpus
from llenergymeasure.machine.gpus.nvml_limits import Limits, LimitsError
from machine.conftest import LIMITED, UUID, read_back, set_limit
from nvml_sim import sim
from support.limits import AS_FOUND, HELD, held_by_another, killed_while_holding

BOTH = Limits(250, 1200)
RESTORED = {"restored": True, "unchanged_meanwhile": True, "left": {}}


def lock(*uuids: str) -> GpuLocks:
    locks = lock_gpus(uuids or [UUID], "this run", wait_s=0)
    assert locks is not None
    return locks


def hang(environment: dict[str, str], *, hanging: bool = True) -> None:
    """From now on a call on the card takes a minute, to processes that start; or none again."""
    path = Path(environment["NVML_SIM_TRACE"])
    slow = "card\nsensor.call_ms.other 60000\n"
    usual = path.read_text().replace(slow, "card\n")
    path.write_text(usual.replace("card\n", slow) if hanging else usual)


def records(environment: dict[str, str]) -> list[Path]:
    return sorted(Path(environment["LLEM_RUNTIME_DIR"]).glob("limits-*"))


def test_limits_are_set_read_back_and_put_back(simulated: Any) -> None:
    environment = simulated()
    with lock() as locks:
        assert set_limits(locks, BOTH) == {
            UUID: {
                "power_limit_before_w": 400.0,
                "power_limit_w": 250.0,
                "enforced_power_limit_w": 250.0,
                "sm_clock_mhz": 1200,
            }
        }
        assert read_back(environment) == HELD
        assert restore_limits(locks) == RESTORED
    assert read_back(environment) == AS_FOUND
    assert records(environment) == []


def test_the_limit_that_was_found_comes_back_and_not_the_default(simulated: Any) -> None:
    environment = simulated()
    set_limit(environment, 300)
    with lock() as locks:
        set_limits(locks, Limits(200))
        assert read_back(environment)[0] == 200
        restore_limits(locks)
    assert read_back(environment)[0] == 300


def test_one_limit_alone_leaves_the_other_alone(simulated: Any) -> None:
    environment = simulated()
    with lock() as locks:
        set_limits(locks, Limits(sm_clock_mhz=600))
        assert read_back(environment) == (400.0, 600)
        restore_limits(locks)
    assert read_back(environment) == AS_FOUND


def test_a_driver_that_hangs_is_never_taken_for_one_that_has_put_back(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = simulated()
    with lock() as locks:
        set_limits(locks, BOTH)
        hang(environment)
        monkeypatch.setattr(limits, "NVML_TIMEOUT_S", 0.5)
        assert restore_limits(locks) == {
            "restored": False,
            "unchanged_meanwhile": None,
            "left": {UUID: "the driver did not answer within 0.5 s"},
        }
    hang(environment, hanging=False)
    monkeypatch.setattr(limits, "NVML_TIMEOUT_S", 60.0)
    assert read_back(environment) == HELD
    assert len(records(environment)) == 1
    assert restore_abandoned_limits() == {UUID: None}
    assert read_back(environment) == AS_FOUND


def test_a_driver_that_hangs_while_limits_are_set_leaves_a_record(
    simulated: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = simulated()
    with lock() as locks:
        set_limits(locks, BOTH)
        hang(environment)
        (record,) = records(environment)
        content = record.read_text()
        record.unlink()
        monkeypatch.setattr(limits, "NVML_TIMEOUT_S", 0.5)
        with pytest.raises(
            LimitsError,
            match=r"the driver did not answer within 0\.5 s; what it may have set is put",
        ):
            set_limits(locks, BOTH)
        record.write_text(content)
    hang(environment, hanging=False)
    monkeypatch.setattr(limits, "NVML_TIMEOUT_S", 60.0)
    assert restore_abandoned_limits() == {UUID: None}
    assert read_back(environment) == AS_FOUND


def test_what_a_killed_supervisor_left_is_put_back_by_the_next_start(simulated: Any) -> None:
    environment = simulated()
    killed_while_holding(environment)
    assert abandoned_limits() == [UUID]
    assert restore_abandoned_limits() == {UUID: None}
    assert read_back(environment) == AS_FOUND
    assert (restore_abandoned_limits(), abandoned_limits(), records(environment)) == ({}, [], [])


def test_clean_shows_what_a_killed_run_left_and_puts_it_back(simulated: Any, call: Call) -> None:
    environment = simulated()
    killed_while_holding(environment)
    leftovers = json.loads(call("clean", "--json").out)
    assert [(leftover["kind"], leftover["name"]) for leftover in leftovers] == [("GPU limit", UUID)]
    assert read_back(environment) == HELD
    assert call("clean", "--yes").code == 0
    assert read_back(environment) == AS_FOUND
    assert json.loads(call("clean", "--json").out) == []


def test_a_living_runs_limits_are_left_alone(simulated: Any) -> None:
    environment = simulated()
    with held_by_another(environment):
        assert restore_abandoned_limits() == {}
        assert abandoned_limits() == []
        assert read_back(environment) == HELD


def test_a_limit_that_somebody_changes_during_the_run_stays_and_is_reported(
    simulated: Any,
) -> None:
    environment = simulated()
    with lock() as locks:
        set_limits(locks, BOTH)
        set_limit(environment, 450)
        assert restore_limits(locks) == {**RESTORED, "unchanged_meanwhile": False}
    assert read_back(environment) == (450.0, 1980)


def test_a_card_that_is_lost_is_not_restored(simulated: Any) -> None:
    environment = simulated()
    with lock() as locks:
        set_limits(locks, BOTH)
        path = Path(environment["NVML_SIM_TRACE"])
        trace_text = path.read_text()
        path.write_text(trace_text.replace("card\n", "card\nfail_after_s -1\n", 1))
        closed = restore_limits(locks)
        assert closed["restored"] is False
        assert UUID in closed["left"]
        path.write_text(trace_text)
        assert restore_limits(locks) == RESTORED
    assert read_back(environment) == AS_FOUND


def test_limits_of_another_boot_are_forgotten(simulated: Any) -> None:
    environment = simulated()
    killed_while_holding(environment)
    (record,) = records(environment)
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "boot_id": "another"}))
    assert restore_abandoned_limits() == {UUID: None}
    assert read_back(environment)[0] == 250
    assert records(environment) == []


def test_half_a_record_means_that_nothing_was_set_yet(simulated: Any) -> None:
    environment = simulated()
    folder = Path(environment["LLEM_RUNTIME_DIR"])
    folder.mkdir()
    (folder / f"limits-{os.geteuid()}-{UUID}.json").write_text('{"format": 1, "uu')
    assert restore_abandoned_limits() == {UUID: None}
    assert records(environment) == []
    assert read_back(environment) == AS_FOUND


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_record_that_somebody_else_made_sets_nothing(simulated: Any) -> None:
    environment = simulated()
    killed_while_holding(environment)
    (record,) = records(environment)
    os.chown(record, 65534, 65534)
    assert restore_abandoned_limits() == {}
    with lock() as locks:
        set_limits(locks, Limits(150))
        assert read_back(environment)[0] == 150
        assert restore_limits(locks)["restored"]
    assert read_back(environment) == HELD
    assert records(environment) == [record]


def test_a_planted_link_is_not_followed(simulated: Any, tmp_path: Path) -> None:
    environment = simulated()
    folder = Path(environment["LLEM_RUNTIME_DIR"])
    folder.mkdir()
    target = tmp_path / "precious"
    target.write_text("as it was")
    (folder / f"limits-{os.geteuid()}-{UUID}.json").symlink_to(target)
    with lock() as locks, pytest.raises(LimitsError, match="not put back yet"):
        set_limits(locks, BOTH)
    (reason,) = restore_abandoned_limits().values()
    assert reason is not None
    assert target.read_text() == "as it was"
    assert read_back(environment) == AS_FOUND


REFUSALS = [
    ({"power_limit_w": 99.0}, {}, r"gpu\.power_limit_w: .*takes 100 to 500 W \(found 99\)"),
    ({"power_limit_w": 501.0}, {}, r"takes 100 to 500 W \(found 501\)"),
    ({"sm_clock_mhz": 100}, {}, r"gpu\.sm_clock_mhz: .*supports 210 to 1980 MHz"),
    ({"sm_clock_mhz": 1201}, {}, r"near it 1200 and 1215 \(found 1201\)"),
    (
        {"power_limit_w": 250.0},
        {"permission": {"set_power_limit": False}},
        r"gpu\.power_limit_w: not permitted .*takes root",
    ),
    (
        {"sm_clock_mhz": 1200},
        {"permission": {"set_clocks": False}},
        r"gpu\.sm_clock_mhz: not permitted",
    ),
    (
        {"power_limit_w": 250.0},
        {"not_supported": ["nvmlDeviceGetPowerManagementLimitConstraints"]},
        "no power limit that can be set",
    ),
    (
        {"sm_clock_mhz": 1200},
        {"not_supported": ["nvmlDeviceSetGpuLockedClocks"]},
        r"gpu\.sm_clock_mhz: .*does not support it",
    ),
]


@pytest.mark.parametrize(("wish", "keys", "reason"), REFUSALS)
def test_a_refusal_says_why_and_changes_nothing(
    simulated: Any, wish: dict[str, Any], keys: dict[str, Any], reason: str
) -> None:
    environment = simulated(sim.Device(keys={**LIMITED, **keys}))
    with lock() as locks, pytest.raises(LimitsError, match=reason):
        set_limits(locks, Limits(**wish))
    assert read_back(environment) == AS_FOUND
    assert records(environment) == []


def test_all_cards_or_none(simulated: Any) -> None:
    first, second = ("GPU-first", "GPU-second")
    strict = {**LIMITED, "permission": {"set_clocks": False}}
    environment = simulated(
        sim.Device(uuid=first, keys=LIMITED), sim.Device(uuid=second, keys=strict)
    )
    with (
        lock(first, second) as locks,
        pytest.raises(LimitsError, match=f"not permitted on GPU {second}"),
    ):
        set_limits(locks, BOTH)
    for uuid in (first, second):
        assert read_back(environment, uuid) == AS_FOUND


def test_an_unknown_card_is_refused(simulated: Any) -> None:
    simulated()
    with (
        lock("GPU-other") as locks,
        pytest.raises(LimitsError, match="GPU GPU-other does not answer"),
    ):
        set_limits(locks, BOTH)


def test_without_a_driver_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setenv("NVML_SIM_TRACE", str(tmp_path / "none"))
    monkeypatch.setenv("LLEM_RUNTIME_DIR", str(tmp_path))
    with (
        lock() as locks,
        pytest.raises(LimitsError, match="cannot be set: limits need"),
    ):
        set_limits(locks, BOTH)


def test_what_a_supervisor_imports_is_the_standard_library_alone() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"  # a distribution's sitecustomize, as Debian's
        "from llenergymeasure.machine.gpus import allotment, limits, locks, memory_release\n"
        "imported = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "others = imported - set(sys.stdlib_module_names)\n"
        "print(sorted(name for name in others if not name.startswith('_')))\n"
    )
    result = sim.run_python(code, dict(os.environ))
    assert result.stdout.strip() == "['llenergymeasure']", result.stdout + result.stderr
