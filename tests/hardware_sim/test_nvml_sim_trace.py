"""A trace that is no good is refused with one line that says where and why, and never crashes."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        ("", 0, "the text ends where a value is expected"),
        ('{"devices": [', 13, "the text ends where a value is expected"),
        ('{"devices": [{}', 15, "expected ',' or ']'"),
        ('{"devices" []}', 11, "expected ':' after a key"),
        ("{devices: []}", 1, "expected a key in quotes"),
        ('{"devices": []} x', 16, "unexpected text after the end"),
        ('{"devices": [{"name": "a\\q"}]}', 24, "unknown escape"),
        ('{"devices": [{"name": "a}]}', 22, "string without its closing quote"),
        ('{"devices": [{"name": "\\ud800"}]}', 23, "half of a surrogate pair"),
        ('{"devices": [{"power_w": 1e999}]}', 25, "number out of range"),
        ('{"devices": [{"power_w": 01}]}', 26, "expected ',' or '}'"),
        ('{"devices": [{"power_w": NaN}]}', 25, "expected a value"),
        ("[" * 100, 65, "nested too deeply"),
        ("[]", 0, 'expected an object with a list "devices", found an array'),
        ("{}", 0, 'expected a list "devices"'),
        ('{"devices": [7]}', 13, "devices[0]: expected an object, found 7"),
        ('{"devices": [{"power_w": []}]}', 25, "devices[0].power_w: expected a list"),
        ('{"devices": [{"power_w": [[0, "x"]]}]}', 26, "expected a pair of numbers [t_s, value]"),
        ('{"devices": [{"power_w": [[1, 5], [0, 5]]}]}', 35, "expected a time from 1 (the one bef"),
        ('{"devices": [{"power_w": [[0, -5]]}]}', 30, "expected a value from 0 to 1e+06, found -5"),
        (
            '{"devices": [{"sensor": {"update_ms": 0}}]}',
            38,
            "devices[0].sensor.update_ms: expected",
        ),
        ('{"devices": [{"sensor": {"counter_from": "x"}}]}', 41, 'expected "true" or "samples"'),
        ('{"devices": [{"counter_supported": 1}]}', 35, "expected true or false, found 1"),
        ('{"devices": [{"uuid": "a b"}]}', 22, "devices[0].uuid"),
        ('{"devices": [{"uuid": "a"}, {"uuid": "a"}]}', 12, "a different uuid for each device"),
        ('{"devices": [{"processes": [{}]}]}', 0, "devices[0].processes[0].pid: expected a proc"),
    ],
)
def test_refusals_name_file_offset_and_reason(tmp_path, text, offset, reason) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    line = refusal(path)
    assert line.startswith(f"nvml_sim: {path}: offset {offset}: ")
    assert reason in line


def test_text_that_is_not_utf8_is_refused(tmp_path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(b'{"devices": [{"name": "\xff\xfe"}]}')
    assert "offset 23: not valid JSON: string is not valid UTF-8" in refusal(path)


def test_a_missing_file_and_a_missing_variable_are_named(tmp_path) -> None:
    assert "absent.json: No such file or directory" in refusal(tmp_path / "absent.json")
    variables = sim.environment(tmp_path / "absent.json")
    del variables["NVML_SIM_TRACE"]
    done = sim.run_python(INIT, variables)
    assert done.stdout == f"refused {DRIVER_NOT_LOADED}\n"
    assert "NVML_SIM_TRACE is not set" in done.stderr


@pytest.mark.parametrize("clock", ["y3", "x0", "x-1", "xx"])
def test_a_clock_that_cannot_be_had_is_refused(tmp_path, clock) -> None:
    path = sim.Trace().write(tmp_path)
    assert f"NVML_SIM_CLOCK={clock}" in refusal(path, clock=clock)


def test_an_unknown_key_is_named_and_not_used(tmp_path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"comment": "x", "devices": [{"sensor": {"updat_ms": 3, "_note": 1}}]}')
    done = sim.run_python(INIT, sim.environment(path))
    assert done.stdout == "initialised 1\n"
    assert 'devices[0].sensor: key "updat_ms" is not known' in done.stderr
    assert done.stderr.count("\n") == 1


def test_strings_are_decoded_as_json_has_them(open_reader, tmp_path) -> None:
    name = 'Karte "Ü" \U0001f50b \\ /'
    path = tmp_path / "trace.json"
    for ascii_only in (True, False):
        content = json.dumps({"devices": [{"name": name}]}, ensure_ascii=ascii_only)
        path.write_text(content, encoding="utf-8")
        assert open_reader(path).call("nvmlDeviceGetName") == name


# --- random damage -------------------------------------------------------------------------------

WHOLE = {
    "driver_version": "550.54.15",
    "cuda_version": "12.4",
    "permission": {"set_clocks": True},
    "devices": [
        {
            "name": "NVIDIA H200",
            "uuid": "GPU-f",
            "power_w": [[0, 100], [1.5, 700.25], [1.5, 80]],
            "sensor": {
                "update_ms": 20,
                "window_ms": 10,
                "counter_update_ms": 50,
                "gain": 0.95,
                "offset_w": -2,
                "counter_from": "samples",
                "average_window_ms": 1000,
                "phase_ms": 3,
                "power_noise_w": 1,
            },
            "temperature_c": [[0, 35], [100, 70]],
            "throttle": [[0, 0], [3, 32]],
            "processes": [{"pid": 9, "used_memory_bytes": 10, "name": "p", "from_s": 0}],
            "memory": {"total_bytes": 1000, "used_bytes": [[0, 1]]},
            "utilization": {"gpu": 3, "memory": [[0, 4]]},
            "clocks": {"sm_mhz": 1500, "max": {"sm_mhz": 1980}, "min": 200},
            "power_limit_w": {"default": 600, "min": 100, "max": 700},
            "mig": {"enabled": True, "devices": [{"uuid": "MIG-f"}]},
            "ecc": {"current": True},
            "c2c": {"enabled": True},
            "compute_capability": "9.0",
            "pci": {"bus": 3},
            "fail_after_s": None,
            "counter_supported": True,
            "not_supported": ["nvmlDeviceGetFanSpeed", 4],
        },
        {"load_file": "load.csv", "idle_w": 70, "max_w": 600, "pci": "00000000:04:00.0"},
        {
            "power_w": [[0, 100], [5, 300]],
            "sensor": {
                "power_skip": 0.1,
                "power_stalls": [[2, 3]],
                "zero_every": 5,
                "samples_ms": 20,
                "call_ms": {"counter": 3.2, "power": 0.01},
                "counter_from": "own_samples",
                "counter_sample_ms": 20,
                "counter_sample_phase_ms": 5,
                "counter_window_ms": 10,
                "counter_lag_ms": 10,
                "counter_jitter_ms": 2,
                "counter_skip": 0.1,
                "counter_gain": 1.01,
                "counter_resets_s": [1, 2],
                "counter_wrap_mj": 100000,
                "counter_jumps": [[1, 5], [3, -5]],
                "counter_stalls": [[1, 2, "lose"], [3, 4, "catch_up"]],
            },
        },
    ],
}

EXERCISE = """
import ctypes, os, sys
lib = ctypes.CDLL("libnvidia-ml.so.1")
readers = [name for name in (
    "PowerUsage TotalEnergyConsumption EnforcedPowerLimit PowerManagementLimit PersistenceMode "
    "PerformanceState ComputeMode MinorNumber Index Architecture CurrentClocksEventReasons "
    "MaxMigDeviceCount NumFans FanSpeed").split()]
lists = "ComputeRunningProcesses_v3 GraphicsRunningProcesses_v3 SupportedMemoryClocks".split()
for line in sys.stdin:
    os.environ["NVML_SIM_TRACE"] = line.strip()
    code = lib.nvmlInit_v2()
    if code == 0:
        count = ctypes.c_uint()
        lib.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for i in range(count.value):
            handle, big = ctypes.c_void_p(), (ctypes.c_char * 4096)()
            if lib.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(handle)) != 0:
                continue
            for name in readers:
                getattr(lib, "nvmlDeviceGet" + name)(handle, big)
            for name in "Name UUID Serial VbiosVersion".split():
                getattr(lib, "nvmlDeviceGet" + name)(handle, big, 96)
            for name in "MemoryInfo UtilizationRates PciInfo_v3".split():
                getattr(lib, "nvmlDeviceGet" + name)(handle, big)
            for kind in range(6):
                lib.nvmlDeviceGetClockInfo(handle, kind, big)
                lib.nvmlDeviceGetTemperature(handle, kind, big)
            for name in lists:
                getattr(lib, "nvmlDeviceGet" + name)(handle, ctypes.byref(ctypes.c_uint(64)), big)
            fields = (ctypes.c_char * (40 * 8))()
            for k, field in enumerate((83, 185, 186, 187, 190, 82, 4, 70000)):
                fields[k * 40 : k * 40 + 4] = field.to_bytes(4, "little")
            lib.nvmlDeviceGetFieldValues(handle, 8, fields)
            lib.nvmlDeviceGetSamples(handle, 0, 0, big, ctypes.byref(ctypes.c_uint(120)), big)
            lib.nvmlDeviceSetPowerManagementLimit(handle, 150000)
            lib.nvmlDeviceGetTotalEnergyConsumption(handle, big)
        lib.nvmlShutdown()
    print(code, flush=True)
"""

TOKENS = ["null", "-1", "0", "1e308", "1e-320", '""', "[]", "{}", "true", '"x"', "[[0,1]]", "1e9"]


class Victim:
    """A process that loads one trace after the other."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "damaged.json"
        clock = sim.SteppedClock(folder / "clock", start_ns=10 * sim.NS_PER_S)
        self._log = (folder / "stderr").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-c", EXERCISE],
            env=sim.environment(self.path, t0_ns=3 * sim.NS_PER_S, clock=clock),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def load(self, content: bytes) -> tuple[int, str]:
        """NVML's answer to the trace and what was printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.path.write_bytes(content)
        self._log.seek(0)
        self._log.truncate()
        self._process.stdin.write(os.fsencode(self.path) + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 20)
        answer = self._process.stdout.readline() if ready else b""
        self._log.seek(0)
        printed = self._log.read().decode(errors="replace")
        assert answer, f"died or hung on {content!r}: {printed}"
        return int(answer), printed

    def close(self) -> None:
        self._process.communicate(timeout=20)
        self._log.close()


@pytest.fixture(scope="module")
def victim(tmp_path_factory) -> Iterator[Victim]:
    one = Victim(tmp_path_factory.mktemp("victim"))
    yield one
    one.close()


def check(victim: Victim, content: bytes) -> None:
    code, printed = victim.load(content)
    assert code in (0, UNKNOWN)
    refusals = [line for line in printed.splitlines() if "is not known and not used" not in line]
    assert len(refusals) == (1 if code else 0), printed


def test_the_undamaged_trace_loads(victim) -> None:
    assert victim.load(json.dumps(WHOLE).encode()) == (0, "")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_damaged_bytes_never_crash_it(victim, seed, count) -> None:
    content, chance = bytearray(json.dumps(WHOLE).encode()), random.Random(seed)
    for _ in range(count):
        at = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + chance.randrange(1, 20)]
            case 2:
                content[at:at] = chance.choice(TOKENS + list('{}[],:"\\')).encode()
            case _:
                del content[at:]
        content = content or bytearray(b" ")
    check(victim, bytes(content))


def replace_somewhere(tree: object, chance: random.Random, new: object) -> object:
    """The tree with one value at random replaced."""
    if not isinstance(tree, (dict, list)) or not tree or chance.random() < 0.15:
        return new
    if isinstance(tree, list):
        at = chance.randrange(len(tree))
        return [replace_somewhere(v, chance, new) if i == at else v for i, v in enumerate(tree)]
    key = chance.choice(sorted(tree))
    return {k: replace_somewhere(v, chance, new) if k == key else v for k, v in tree.items()}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    new=st.one_of(
        st.none(),
        st.booleans(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(2**70), 2**70),
        st.text(max_size=100),
        st.lists(st.integers(-5, 5), max_size=3),
        st.lists(st.tuples(st.floats(-1e10, 1e10), st.floats(-10, 1e7)), max_size=4),
    ),
)
def test_unfit_values_never_crash_it(victim, seed, new) -> None:
    check(victim, json.dumps(replace_somewhere(WHOLE, random.Random(seed), new)).encode())
