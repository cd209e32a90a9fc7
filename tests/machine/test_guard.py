"""Limits on the simulated card through the real nvidia-ml-py; kills are real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.machine.gpus.guard import Guard, GuardError, repair_left_limits
from llenergymeasure.machine.gpus.locks import GpuBusyError, lock_gpus
from machine.conftest import LIMITED, UUID, read_back
from nvml_sim import sim

AS_FOUND = (400.0, 1980)
HELD = (250.0, 1200)

SUPERVISOR = """
import json, os, sys
from llenergymeasure.machine.gpus.guard import Guard
from llenergymeasure.machine.gpus.locks import lock_gpus
locks = lock_gpus(sys.argv[1:], "run a", wait_s=0)
guard = Guard.start(sys.argv[1:], 250, 1200, inherit=locks.handles)
print(json.dumps({"guard": guard.pid, "held": guard.held}), flush=True)
sys.stdin.read()
"""


@contextmanager
def supervisor(environment: dict[str, str]) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that holds limits as a run's supervisor does."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, UUID],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        answer = json.loads(process.stdout.readline())
        assert read_back(environment) == HELD
        yield process, answer["guard"]
        if process.poll() is None:
            process.kill()


def wait_until(condition: Callable[[], bool], what: str, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def records(environment: dict[str, str]) -> list[Path]:
    return sorted(Path(environment["LLEM_RUNTIME_DIR"]).glob("limits-*"))


def test_limits_are_set_read_back_and_put_back(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250, 1200)
    assert guard.held == {
        UUID: {
            "power_limit_before_w": 400.0,
            "power_limit_w": 250.0,
            "enforced_power_limit_w": 250.0,
            "sm_clock_mhz": 1200,
        }
    }
    assert guard.alive()
    assert read_back(environment) == HELD
    assert guard.close() == {"restored": True, "unchanged_meanwhile": True, "left": {}}
    assert read_back(environment) == AS_FOUND
    assert records(environment) == []


def test_the_limit_that_was_found_comes_back_and_not_the_default(simulated: Any) -> None:
    environment = simulated()
    outer = Guard.start([UUID], 300)
    (folder,) = {path.parent for path in records(environment)}
    inner = Guard.start([UUID], 200, folder=folder.parent)
    assert read_back(environment)[0] == 200
    inner.close()
    assert read_back(environment)[0] == 300
    outer.close()
    assert read_back(environment) == AS_FOUND


def test_one_limit_alone_leaves_the_other_alone(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], sm_clock_mhz=600)
    assert read_back(environment) == (400.0, 600)
    guard.close()
    assert read_back(environment) == AS_FOUND


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_limits_come_back_however_the_supervisor_ends(simulated: Any, number: int) -> None:
    environment = simulated()
    with supervisor(environment) as (process, guard):
        process.send_signal(number)
        process.wait()
        wait_until(lambda: not alive(guard), "the guard is still there")
    assert read_back(environment) == AS_FOUND
    assert records(environment) == []


def test_nobody_gets_the_card_before_its_limits_are_back(simulated: Any) -> None:
    environment = simulated()
    with supervisor(environment) as (process, guard):
        os.kill(guard, signal.SIGSTOP)
        process.kill()
        process.wait()
        with pytest.raises(GpuBusyError):
            lock_gpus([UUID], "run b", wait_s=0.3)
        assert read_back(environment) == HELD
        os.kill(guard, signal.SIGCONT)
        with lock_gpus([UUID], "run b", wait_s=30):
            assert read_back(environment) == AS_FOUND


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_guard_that_is_told_to_end_puts_limits_back(simulated: Any, number: int) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250, 1200)
    os.kill(guard.pid, number)
    wait_until(lambda: not guard.alive(), "the guard is still there")
    assert read_back(environment) == AS_FOUND
    assert guard.close()["restored"]


def test_closing_makes_good_for_a_guard_that_was_killed(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250, 1200)
    os.kill(guard.pid, signal.SIGKILL)
    wait_until(lambda: not guard.alive(), "the guard is still there")
    assert read_back(environment) == HELD
    assert guard.close() == {"restored": True, "unchanged_meanwhile": None, "left": {}}
    assert read_back(environment) == AS_FOUND


def test_what_a_killed_guard_and_supervisor_left_is_mended_by_the_next_start(
    simulated: Any,
) -> None:
    environment = simulated()
    with supervisor(environment) as (process, guard):
        os.kill(guard, signal.SIGKILL)
        process.kill()
    assert read_back(environment) == HELD
    assert repair_left_limits() == [{"uuid": UUID, "repaired": True, "reason": None}]
    assert read_back(environment) == AS_FOUND
    assert repair_left_limits() == []


def test_the_next_guard_mends_first_and_then_restores_what_was_there_at_first(
    simulated: Any,
) -> None:
    environment = simulated()
    with supervisor(environment) as (process, guard):
        os.kill(guard, signal.SIGKILL)
        process.kill()
    second = Guard.start([UUID], 150)
    assert second.repaired == [{"uuid": UUID, "repaired": True, "reason": None}]
    assert second.held[UUID]["power_limit_before_w"] == 400
    second.close()
    assert read_back(environment) == AS_FOUND


def test_a_living_guards_limits_are_not_mended_away(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250, 1200)
    assert repair_left_limits() == []
    assert read_back(environment) == HELD
    guard.close()


def test_what_somebody_set_after_a_kill_is_left_as_it_is(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250)
    os.kill(guard.pid, signal.SIGKILL)
    set_limit(environment, 450)
    assert guard.close()["restored"]
    assert read_back(environment) == (450.0, 1980)


def test_a_limit_that_somebody_changes_during_the_run_is_told(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250)
    set_limit(environment, 450)
    assert guard.close() == {"restored": True, "unchanged_meanwhile": False, "left": {}}
    assert read_back(environment) == AS_FOUND


def test_limits_of_another_boot_are_forgotten(simulated: Any) -> None:
    environment = simulated()
    guard = Guard.start([UUID], 250)
    os.kill(guard.pid, signal.SIGKILL)
    (record,) = records(environment)
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "boot_id": "another"}))
    assert guard.close()["restored"]
    assert read_back(environment)[0] == 250
    assert records(environment) == []


def test_half_a_record_means_that_nothing_was_set_yet(simulated: Any) -> None:
    environment = simulated()
    folder = Path(environment["LLEM_RUNTIME_DIR"])
    folder.mkdir()
    (folder / f"limits-{os.geteuid()}-{UUID}.json").write_text('{"format": 1, "uu')
    assert repair_left_limits() == []
    assert records(environment) == []
    assert read_back(environment) == AS_FOUND


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_record_that_somebody_else_made_sets_nothing(simulated: Any) -> None:
    environment = simulated()
    with supervisor(environment) as (process, guard):
        os.kill(guard, signal.SIGKILL)
        process.kill()
    (record,) = records(environment)
    os.chown(record, 65534, 65534)
    (repaired,) = repair_left_limits()
    assert not repaired["repaired"]
    assert "belongs to somebody else" in repaired["reason"]
    assert read_back(environment) == HELD


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
    with pytest.raises(GuardError, match=reason):
        Guard.start([UUID], **wish)
    assert read_back(environment) == AS_FOUND
    assert records(environment) == []


def test_all_cards_or_none(simulated: Any) -> None:
    first, second = ("GPU-first", "GPU-second")
    strict = {**LIMITED, "permission": {"set_clocks": False}}
    environment = simulated(
        sim.Device(uuid=first, keys=LIMITED), sim.Device(uuid=second, keys=strict)
    )
    with pytest.raises(GuardError, match=f"not permitted on GPU {second}"):
        Guard.start([first, second], 250, 1200)
    for uuid in (first, second):
        assert read_back(environment, uuid) == AS_FOUND


def test_an_unknown_card_is_refused(simulated: Any) -> None:
    simulated()
    with pytest.raises(GuardError, match="GPU GPU-other does not answer"):
        Guard.start(["GPU-other"], 250)


def test_without_a_driver_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setenv("NVML_SIM_TRACE", str(tmp_path / "none"))
    with pytest.raises(GuardError, match=r"cannot be set: (limits need|a simulated GPU)"):
        Guard.start([UUID], 250, folder=tmp_path)


def test_a_test_never_sets_a_real_cards_limits(
    simulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated()
    monkeypatch.delenv("NVML_SIM_TRACE")
    with pytest.raises(GuardError, match="never set on a real GPU by a test"):
        Guard.start([UUID], 250, folder=tmp_path)


def test_a_library_that_is_not_the_simulated_one_is_refused(
    simulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = simulated()
    source = tmp_path / "real.c"
    source.write_text("int nvmlInitWithFlags(unsigned flags) { return (int)flags; }\n")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        [os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-o", library, source], check=True
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{environment['LD_LIBRARY_PATH']}")
    with pytest.raises(GuardError, match="but the real driver answers"):
        Guard.start([UUID], 250)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def set_limit(environment: dict[str, str], limit_w: float) -> None:
    code = (
        "import sys, pynvml\n"
        "pynvml.nvmlInit()\n"
        "card = pynvml.nvmlDeviceGetHandleByUUID(sys.argv[1])\n"
        "pynvml.nvmlDeviceSetPowerManagementLimit(card, int(sys.argv[2]))\n"
    )
    done = sim.run_python(code, environment, UUID, str(round(limit_w * 1000)))
    assert done.returncode == 0, done.stderr


def test_what_a_supervisor_imports_is_the_standard_library_alone() -> None:
    code = (
        "import sys\n"
        "from llenergymeasure.machine.gpus import allotment, guard, locks\n"
        "others = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "print(sorted(name for name in others if not name.startswith('_')))\n"
    )
    done = sim.run_python(code, dict(os.environ))
    assert done.stdout.strip() == "['llenergymeasure']", done.stdout + done.stderr
