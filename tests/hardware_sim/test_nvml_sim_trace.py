"""A trace that is no good is refused with one line that says where and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware_sim.conftest import run_code
from nvml_sim import sim

UNKNOWN, DRIVER_NOT_LOADED = 999, 9

INIT = """
try:
    n.nvmlInit()
    print("initialised", n.nvmlDeviceGetCount())
except n.NVMLError as error:
    print("refused", error.value)
"""


def refusal(path: Path, **environment: object) -> str:
    """The one line on stderr with which the library refuses a trace."""
    result = run_code(INIT, sim.environment(path, **environment))
    assert result.stdout == f"refused {UNKNOWN}\n", result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nam x", 'nam: expected a key of a card, found "nam"'),
        ("cuda_version 12.8", "expected a key of a card"),
        ("power_w", 'power_w: expected a number from 0 to 1e+06, found ""'),
        ("power_w 0 x", "expected a number from 0 to 1e+06"),
        ("power_w 1 5 0 5", 'expected a number from 1 to 1e+09, found "0"'),
        ("power_w 0 -5", 'a number from 0 to 1e+06, found "-5"'),
        ("power_w 0 5 1", 'a number from 0 to 1e+06, found ""'),
        ("counter_supported 1", 'expected one of false true, found "1"'),
        (f"uuid {'x' * 80}", "uuid: expected less text"),
        ("compute_capability 9", "compute_capability: expected a number from 0 to 999"),
        ("idle_w 5 6", 'idle_w: expected the end of the line, found "6"'),
        ("process 5 computes", "process: expected one of compute graphics"),
        ("sensor.updat_ms 3", "sensor.updat_ms: expected a key of a card"),
        ("sensor.update_ms 0", "expected a number from 1 to 1e+09"),
        ("sensor.counter_skip 1", "a number from 0 to 0.99"),
        ("sensor.counter_from x", 'one of true samples own_samples, found "x"'),
        ("sensor.counter_resets_s 3 2", "a number from 3 to 1e+09"),
        ("sensor.counter_stalls 1 2 forget", "one of catch_up lose"),
        ("sensor.counter_stalls 1 3 lose 2 4 lose", "a number from 3 to 1e+09"),
        ("sensor.call_ms.counter -1", "a number from 0 to 60000"),
    ],
)
def test_refusals_name_file_line_and_reason(tmp_path, line, reason) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(f"driver_version 1\ncard\n{line}\ncard\n")
    message = refusal(path)
    assert message.startswith(f"nvml_sim: {path}: line 3: ")
    assert reason in message


def test_more_cards_than_there_is_room_for_are_refused(tmp_path) -> None:
    path = sim.Trace([sim.Device()] * 65).write(tmp_path)
    assert "card: expected fewer of them" in refusal(path)


def test_a_counter_may_not_move_its_steps_past_each_other(tmp_path) -> None:
    path = sim.Trace([sim.Device(sensor=sim.Sensor(counter_jitter_ms=51))]).write(tmp_path)
    assert "at most half its counter_update_ms" in refusal(path)


def test_a_missing_file_and_a_missing_variable_are_named(tmp_path) -> None:
    assert "absent.txt: No such file or directory" in refusal(tmp_path / "absent.txt")
    variables = sim.environment(tmp_path / "absent.txt")
    del variables["NVML_SIM_TRACE"]
    result = run_code(INIT, variables)
    assert result.stdout == f"refused {DRIVER_NOT_LOADED}\n"
    assert "NVML_SIM_TRACE is not set" in result.stderr


def test_a_clock_that_cannot_be_had_is_refused(tmp_path) -> None:
    path = sim.Trace().write(tmp_path)
    assert "NVML_SIM_CLOCK=x3: No such file" in refusal(path, clock="x3")
    (tmp_path / "short").write_bytes(b"1234")
    assert "short: Invalid argument" in refusal(path, clock=tmp_path / "short")


def test_a_name_may_hold_any_sign(open_reader) -> None:
    name = 'Karte "Ü" \U0001f50b \\ /'
    assert open_reader(sim.Device(name=name)).call("nvmlDeviceGetName") == name
