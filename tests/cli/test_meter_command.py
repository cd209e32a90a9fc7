"""``llem meter``: the energy of a command, its exit code, and signals passed through."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim
from support.recording import card_environment, uuid, wait_for

METER = """
import json, sys
from pathlib import Path
from llenergymeasure.errors import LlemError
from llenergymeasure.cli.meter import run_meter
options = json.loads(sys.argv[1])
for key in ("json_path", "samples_path"):
    options[key] = Path(options[key]) if options.get(key) else None
try:
    sys.exit(run_meter(sys.argv[2:], **options))
except LlemError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start(
    command: Sequence[str], variables: Mapping[str, str], **options: Any
) -> "subprocess.Popen[str]":
    """Start the meter on a command, away from any terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", METER, json.dumps(options, default=str), *command],
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def meter(
    command: Sequence[str], variables: Mapping[str, str], **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Meter a command to its end."""
    with start(command, variables, **options) as process:
        out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.fixture
def card() -> sim.Device:
    """A card whose power rises steeply, so that a wrong window gives a wrong energy."""
    return sim.Device(power_w=[(0.0, 100.0), (120.0, 700.0)], uuid=uuid(1))


@pytest.fixture
def variables(tmp_path: Path, card: sim.Device) -> dict[str, str]:
    return card_environment(tmp_path, [card])


@pytest.fixture
def nothing() -> dict[str, str]:
    """A machine where nothing can be measured."""
    hidden = ("NVML_SIM", "CUDA_")
    base = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    if Path("/sys/class/powercap/intel-rapl:0").exists():
        pytest.skip("this machine has RAPL")
    return {**base, "CUDA_VISIBLE_DEVICES": ""}


def _headline(document: dict[str, Any]) -> dict[str, Any]:
    (reading,) = [reading for reading in document["readings"] if reading["headline"]]
    return reading


@pytest.mark.slow
def test_the_energy_of_the_window_is_the_true_one(
    tmp_path: Path, card: sim.Device, variables: dict[str, str]
) -> None:
    out, kept = tmp_path / "meter.json", tmp_path / "samples.parquet"

    done = meter(["sleep", "3"], variables, json_path=out, samples_path=kept)

    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    window, t0_ns = document["window"], int(variables["NVML_SIM_T0"])
    start_s = (window["start_monotonic_ns"] - t0_ns) / 1e9
    end_s = (window["end_monotonic_ns"] - t0_ns) / 1e9
    assert window["duration_s"] == pytest.approx(end_s - start_s)
    assert window["duration_s"] >= 3
    true_j = card.true_energy_j(start_s, end_s)
    reading = _headline(document)
    assert (reading["device"], reading["sensor"]) == (uuid(1), "nvml")
    assert (reading["kind"], reading["scope"]) == ("measured", "gpu")
    assert reading["gross_j"] == pytest.approx(true_j, rel=0.005)
    assert abs(reading["gross_j"] - true_j) <= 2 * reading["u95_j"]
    assert document["command_exit_code"] == 0
    assert isinstance(document["validity"], list)
    (phase,) = document["phases"]
    assert window["start_monotonic_ns"] <= phase["start_monotonic_ns"]
    assert phase["end_monotonic_ns"] <= window["end_monotonic_ns"]
    assert read_samples(kept).complete
    assert uuid(1) in done.stderr
    assert "measured" in done.stderr


@pytest.mark.slow
def test_an_aligned_window_is_cut_at_ticks_and_an_unaligned_one_at_the_command(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    out, kept = tmp_path / "meter.json", tmp_path / "samples.arrows"

    assert meter(["true"], variables, json_path=out, samples_path=kept).returncode == 0
    document = json.loads(out.read_text())
    ticks = read_samples(kept).series(uuid(1), "nvml", "energy_counter_j").t_ns.tolist()
    assert document["tick_aligned"] is True
    assert document["window"]["start_monotonic_ns"] in ticks
    assert document["window"]["end_monotonic_ns"] in ticks

    assert meter(["true"], variables, json_path=out, align=False).returncode == 0
    document = json.loads(out.read_text())
    (phase,) = document["phases"]
    assert document["tick_aligned"] is False
    assert document["window"]["start_monotonic_ns"] == phase["start_monotonic_ns"]
    assert document["window"]["end_monotonic_ns"] == phase["end_monotonic_ns"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -SEGV $$"], 128 + signal.SIGSEGV),
        (["no-such-program-anywhere"], 127),
        (["/dev/null"], 126),
    ],
)
def test_the_exit_code_is_the_commands(
    tmp_path: Path, variables: dict[str, str], command: list[str], code: int
) -> None:
    out = tmp_path / "meter.json"

    done = meter(command, variables, json_path=out)

    assert done.returncode == code, done.stderr
    assert json.loads(out.read_text())["command_exit_code"] == code


def test_the_commands_output_is_its_own(variables: dict[str, str]) -> None:
    done = meter(["echo", "hello"], variables)

    assert done.stdout == "hello\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_commands_whole_group(
    tmp_path: Path, variables: dict[str, str], number: signal.Signals
) -> None:
    out, began = tmp_path / "meter.json", tmp_path / "began"
    # The grandchild shows that the group is reached, not the command alone.
    loop = f"touch {began}; while :; do sleep 0.05; done"
    script = f"(trap 'echo inner; exit 0' {number.name[3:]}; {loop})"
    process = start(["bash", "-c", script], variables, json_path=out)
    assert wait_for(began.exists, 60)
    time.sleep(0.2)

    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)

    assert "inner" in stdout, stderr
    document = json.loads(out.read_text())
    assert process.returncode == document["command_exit_code"]
    assert document["window"]["duration_s"] > 0


def test_a_command_that_a_signal_ends_gives_128_and_the_number(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    began = tmp_path / "began"
    process = start(["sh", "-c", f"touch {began}; exec sleep 600"], variables)
    assert wait_for(began.exists, 60)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM


def test_where_nothing_measures_the_reasons_are_given_and_the_command_runs(
    tmp_path: Path, nothing: dict[str, str]
) -> None:
    out = tmp_path / "meter.json"

    done = meter(["sh", "-c", "sleep 1; exit 3"], nothing, json_path=out)

    assert done.returncode == 3
    document = json.loads(out.read_text())
    kinds = {reading["kind"] for reading in document["readings"] if reading["gross_j"] is not None}
    assert kinds <= {"estimated"}
    missing = [reading for reading in document["readings"] if reading["gross_j"] is None]
    assert all(reading["unavailable"] for reading in missing)
    assert {sensor["sensor"] for sensor in document["sensors"]} >= {"nvml", "rapl"}


def test_required_where_nothing_measures_the_command_is_not_run(
    tmp_path: Path, nothing: dict[str, str]
) -> None:
    trace = tmp_path / "ran"

    done = meter(["touch", str(trace)], nothing, require=True)

    assert done.returncode == 2
    assert not trace.exists()
    assert "nvml" in done.stderr
    assert "rapl" in done.stderr


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(
    variables: dict[str, str],
) -> None:
    done = meter(["true"], variables, devices="GPU-nonsense")

    assert done.returncode == 2
    assert uuid(1) in done.stderr
