"""A trace that is no good is refused with one line that says where and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvml_sim import sim

UNKNOWN, DRIVER_NOT_LOADED = 999, 9

INIT = """
import pynvml
try:
    pynvml.nvmlInit()
    print("initialised", pynvml.nvmlDeviceGetCount())
except pynvml.NVMLError as error:
    print("refused", error.value)
"""


def refusal(path: Path, **environment: object) -> str:
    """The one line on stderr with which the library refuses a trace."""
    done = sim.run_python(INIT, sim.environment(path, **environment))
    assert done.stdout == f"refused {UNKNOWN}\n", done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [
        ("", 0, "not JSON: the text ends where a value is expected"),
        ('{"devices": [{}', 15, "expected ',' or the end of the list"),
        ('{"devices" []}', 11, "expected ':' after a key"),
        ("{devices: []}", 1, "expected a key in quotes"),
        ('{"devices": [{"name": "a}]}', 22, "string without its closing quote"),
        ('{"devices": [{"name": "\\u0041"}]}', 23, "an escape that is not read here"),
        ('{"devices": [?]}', 13, "expected a value"),
        ('{"devices": []} x', 16, "unexpected text after the end"),
        ("{}", 0, "devices: expected a list"),
        ('{"devices": [7]}', 13, "devices[0]: expected an object, found 7"),
        ('{"devices": [{"power_w": [[0, "x"]]}]}', 30, "expected a number from 0 to 1e+06"),
        ('{"devices": [{"power_w": [[1, 5], [0, 5]]}]}', 34, "pairs [t_s, value], in order"),
        ('{"devices": [{"power_w": [[0, -5]]}]}', 30, "a number from 0 to 1e+06, found -5"),
        ('{"devices": [{"counter_supported": 1}]}', 35, "expected true or false, found 1"),
        ('{"devices": [{"uuid": 7}]}', 22, "devices[0].uuid: expected a string"),
        ('{"devices": [{"compute_capability": "9"}]}', 36, 'expected [9, 0], found "9"'),
    ],
)
def test_refusals_name_file_offset_and_reason(tmp_path, text, offset, reason) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    line = refusal(path)
    assert line.startswith(f"nvml_sim: {path}: offset {offset}: ")
    assert reason in line


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("update_ms", 0, "a number from 1 to 1e+09, found 0"),
        ("counter_skip", 1, "a number from 0 to 0.99"),
        ("counter_from", '"x"', 'one of "true" "samples" "own_samples", found "x"'),
        ("counter_resets_s", "[3, 2]", "times in s, in order"),
        ("counter_resets_s", "3", "a list"),
        ("counter_stalls", '[[1, 2, "forget"]]', 'one of "catch_up" "lose"'),
        ("counter_stalls", '[[1, 3, "lose"], [2, 4, "lose"]]', "[from_s, until_s, "),
        ("call_ms", '{"counter": -1}', "a number from 0 to 60000"),
    ],
)
def test_a_sensor_that_makes_no_sense_is_refused(tmp_path, key, value, expected) -> None:
    path = tmp_path / "trace.json"
    path.write_text(f'{{"devices": [{{"sensor": {{"{key}": {value}}}}}]}}')
    line = refusal(path)
    assert f": devices[0].sensor.{key}" in line
    assert f"expected {expected}" in line


def test_a_counter_may_not_move_its_steps_past_each_other(tmp_path) -> None:
    path = sim.Trace([sim.Device(sensor=sim.Sensor(counter_jitter_ms=51))]).write(tmp_path)
    assert "at most half its counter_update_ms" in refusal(path)


def test_a_missing_file_and_a_missing_variable_are_named(tmp_path) -> None:
    assert "absent.json: No such file or directory" in refusal(tmp_path / "absent.json")
    variables = sim.environment(tmp_path / "absent.json")
    del variables["NVML_SIM_TRACE"]
    done = sim.run_python(INIT, variables)
    assert done.stdout == f"refused {DRIVER_NOT_LOADED}\n"
    assert "NVML_SIM_TRACE is not set" in done.stderr


def test_a_clock_that_cannot_be_had_is_refused(tmp_path) -> None:
    path = sim.Trace().write(tmp_path)
    assert "NVML_SIM_CLOCK=x3: No such file" in refusal(path, clock="x3")
    (tmp_path / "short").write_bytes(b"1234")
    assert "short: Invalid argument" in refusal(path, clock=tmp_path / "short")


def test_an_unknown_key_is_named_and_not_used(tmp_path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"comment": "x", "devices": [{"sensor": {"updat_ms": 3, "_note": 1}}]}')
    done = sim.run_python(INIT, sim.environment(path))
    assert done.stdout == "initialised 1\n"
    assert 'devices[0].sensor: key "updat_ms" is not known' in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_name_may_hold_any_sign(open_reader) -> None:
    name = 'Karte "Ü" \U0001f50b \\ /'
    assert open_reader(sim.Device(name=name)).call("nvmlDeviceGetName") == name
