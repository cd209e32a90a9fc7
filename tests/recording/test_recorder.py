"""The recorder as a process, on the simulated card: what it catches and what it survives."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llenergymeasure.errors import ConfigurationError, MeterError
from llenergymeasure.processes import start_ticks
from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.recording.samples import Samples, read_samples
from nvml_sim import sim
from support.recording import (
    READY_S,
    STOP_S,
    card_environment,
    environment,
    recorder,
    uuid,
)
from support.studies import wait_for

RAMP = [(0.0, 100.0), (600.0, 700.0)]
MS = 1_000_000
PERIOD_NS = 100 * MS


def _notes(samples: Samples, device: str, quantity: str) -> list[str]:
    return [
        row["note"]
        for row in samples.table.to_pylist()
        if (row["device"], row["quantity"]) == (device, quantity)
    ]


def _last_t_ns(samples: Samples, device: str, quantity: str) -> int:
    return int(samples.series(device, "nvml", quantity).t_ns[-1])


@pytest.mark.slow
def test_every_tick_of_every_card_is_caught_and_placed(tmp_path: Path) -> None:
    phases_ms = (0.0, 33.0)
    cards = [
        sim.Device(
            power_w=RAMP,
            uuid=uuid(number),
            sensor=sim.Sensor(counter_phase_ms=phase_ms, counter_start_mj=5_000_000.0),
        )
        for number, phase_ms in enumerate(phases_ms)
    ]
    variables = card_environment(tmp_path, cards)
    t0_ns = int(variables["NVML_SIM_T0"])

    with recorder(tmp_path, variables, sensors="nvml") as (process, ready):
        assert ready["devices"] == [uuid(0), uuid(1)]
        time.sleep(5)
        assert process.stop(STOP_S) == 0

    samples = read_samples(tmp_path / "samples.arrows")
    assert samples.complete
    for card, phase_ms in zip(cards, phases_ms, strict=True):
        assert card.uuid is not None
        series = samples.series(card.uuid, "nvml", "energy_counter_j")
        ticks = series.t_before_ns < series.t_ns
        t_ns, before_ns, value = series.t_ns[ticks], series.t_before_ns[ticks], series.value[ticks]
        # Each bracket holds the true step, and the value is what the counter stepped to.
        step_ns = (t_ns - t0_ns - phase_ms * MS) // PERIOD_NS * PERIOD_NS + phase_ms * MS
        assert np.all(before_ns - t0_ns <= step_ns)
        expected_j = [card.counter_mj(int(at)) / 1000 for at in t_ns - t0_ns]
        assert value == pytest.approx(expected_j, abs=1e-9)
        # Placed to about 1 ms, and to some on a machine that is busy with other things.
        assert np.median(t_ns - before_ns) < 5 * MS
        assert np.median(t_ns - t0_ns - step_ns) < 5 * MS
        # None is lost: the steps follow each other, but where the machine stood still.
        missed = np.diff(step_ns) // PERIOD_NS - 1
        assert missed.sum() <= 0.1 * len(step_ns)


@pytest.mark.slow
def test_a_counter_that_takes_3_ms_to_answer_is_placed_in_its_brackets_at_little_cost(
    tmp_path: Path,
) -> None:
    card = sim.Device(
        power_w=RAMP, uuid=uuid(1), sensor=sim.Sensor(call_ms={"counter": 3.0}, window_ms=25)
    )
    variables = card_environment(tmp_path, [card])
    t0_ns = int(variables["NVML_SIM_T0"])

    with recorder(tmp_path, variables, sensors="nvml") as (process, _):
        time.sleep(6)
        assert process.stop(STOP_S) == 0

    samples = read_samples(tmp_path / "samples.arrows")
    series = samples.series(uuid(1), "nvml", "energy_counter_j")
    ticks = series.t_before_ns < series.t_ns
    t_ns, before_ns, value = series.t_ns[ticks], series.t_before_ns[ticks], series.value[ticks]
    assert len(t_ns) >= 30
    shown_ns = t_ns - t0_ns
    step_ns = shown_ns // PERIOD_NS * PERIOD_NS
    # A call answers as things are at its end, so the step lies between the start of the call before
    # and the end of this one.
    assert np.all(before_ns - t0_ns <= step_ns)
    assert value == pytest.approx([card.counter_mj(int(at)) / 1000 for at in shown_ns], abs=1e-9)
    assert np.median(t_ns - before_ns) < 25 * MS
    cpu = samples.series("host", "recorder", "recorder_cpu_s")
    lasted_s = (cpu.t_ns[-1] - cpu.t_ns[0]) / 1e9
    assert (cpu.value[-1] - cpu.value[0]) / lasted_s < 0.5
    read = samples.series(uuid(1), "nvml", "read_s")
    assert np.all(read.value < 0.1)


@pytest.mark.slow
def test_all_quantities_are_there_and_the_recorder_counts_its_own_cost(tmp_path: Path) -> None:
    variables = card_environment(tmp_path, [sim.Device(power_w=RAMP, uuid=uuid(1))])

    with recorder(tmp_path, variables, sensors="nvml") as (process, ready):
        time.sleep(3)
        process.stop(STOP_S)

    samples = read_samples(tmp_path / "samples.arrows")
    assert samples.header.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert ready["sensors"][0]["device"] == uuid(1)
    quantities = set(samples.table["quantity"].to_pylist())
    assert quantities >= {
        "energy_counter_j",
        "power_instant_w",
        "power_average_w",
        "temperature_celsius",
        "sm_clock_mhz",
        "memory_used_bytes",
        "utilization_gpu_percent",
        "utilization_memory_percent",
        "throttle_reasons",
        "power_limit_w",
        "heartbeat",
        "recorder_cpu_s",
        "read_s",
    }
    assert "unavailable" not in quantities
    assert "stranger_pid" not in quantities
    cpu = samples.series("host", "recorder", "recorder_cpu_s")
    assert np.all(np.diff(cpu.value) >= 0)
    reads = samples.series(uuid(1), "nvml", "read_s")
    assert np.all((reads.value > 0) & (reads.value < 1))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Two seconds of a card of the same power always, one without a counter and one that draws."""
    sim.library_or_skip()
    folder = tmp_path_factory.mktemp("recorded")
    draws = {"processes": [{"pid": 1, "name": "Xorg", "type": "graphics"}]}
    cards = [
        sim.Device(power_w=[(0.0, 250.0)], uuid=uuid(1)),
        sim.Device(uuid=uuid(2), keys={"counter_supported": False}),
        sim.Device(uuid=uuid(3), keys=draws),
    ]
    variables = card_environment(folder, cards)
    with recorder(folder, variables, sensors="nvml", run_pid=os.getpid()) as (process, _):
        time.sleep(2)
        process.stop(STOP_S)
    return read_samples(folder / "samples.arrows")


def test_power_that_does_not_change_is_still_written(recorded: Samples) -> None:
    power = recorded.series(uuid(1), "nvml", "power_instant_w")
    assert set(power.value) == {250.0}
    assert np.median(np.diff(power.t_ns)) < 200 * MS


@pytest.mark.slow
def test_a_card_that_vanishes_is_unavailable_and_the_other_goes_on(tmp_path: Path) -> None:
    failing = sim.Device(power_w=RAMP, uuid=uuid(1), keys={"fail_after_s": 6.0})
    well = sim.Device(power_w=RAMP, uuid=uuid(2))
    variables = card_environment(tmp_path, [failing, well])
    t0_ns = int(variables["NVML_SIM_T0"])

    with recorder(tmp_path, variables, sensors="nvml") as (process, ready):
        assert all(sensor["unavailable"] is None for sensor in ready["sensors"])
        time.sleep(max(0.0, 8.5 - (time.monotonic_ns() - t0_ns) / 1e9))
        assert process.stop(STOP_S) == 0

    samples = read_samples(tmp_path / "samples.arrows")
    gone = samples.series(uuid(1), "nvml", "unavailable")
    assert len(gone) >= 2
    assert np.all(np.isnan(gone.value))
    assert np.all(gone.t_ns - t0_ns > 5.9e9)
    assert any("energy_counter_j: " in note for note in _notes(samples, uuid(1), "unavailable"))
    counter = samples.series(uuid(1), "nvml", "energy_counter_j")
    assert np.all(counter.value > 0)
    assert counter.t_ns[-1] - t0_ns < 6.2e9
    assert _last_t_ns(samples, uuid(2), "energy_counter_j") - t0_ns > 8e9
    assert len(samples.series(uuid(2), "nvml", "unavailable")) == 0


@pytest.mark.slow
def test_a_killed_recorder_leaves_all_but_the_last_moment(tmp_path: Path) -> None:
    variables = card_environment(tmp_path, [sim.Device(power_w=RAMP, uuid=uuid(1))])

    with recorder(tmp_path, variables, sensors="nvml") as (process, _):
        time.sleep(4)
        killed_ns = time.monotonic_ns()
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not process.alive(), 30)
        assert process.stop(STOP_S) == -signal.SIGKILL

    samples = read_samples(tmp_path / "samples.arrows")
    assert not samples.complete
    assert killed_ns - _last_t_ns(samples, uuid(1), "energy_counter_j") < 2_000 * MS


PARENT = """
import sys, time
from pathlib import Path
from llenergymeasure.recording.recorder_process import RecorderProcess
folder = Path(sys.argv[1])
recorder = RecorderProcess.start(folder / "samples.arrows", sensors="nvml", log=2)
recorder.wait_ready(60)
print(recorder.pid, flush=True)
time.sleep(600)
"""


def test_the_recorder_ends_with_its_parent_and_ends_well(tmp_path: Path) -> None:
    variables = card_environment(tmp_path, [sim.Device(uuid=uuid(1))])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    wait_for(lambda: start_ticks(pid) is None, 30)
    assert read_samples(tmp_path / "samples.arrows").complete


def test_sigterm_ends_it_well_and_a_persons_interrupt_does_not_end_it(tmp_path: Path) -> None:
    variables = card_environment(tmp_path, [sim.Device(uuid=uuid(1))])

    with recorder(tmp_path, variables, sensors="nvml") as (process, _):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.7)
        assert process.alive()
        os.kill(process.pid, signal.SIGTERM)
        wait_for(lambda: not process.alive(), 30)
        assert process.stop(STOP_S) == 0

    assert read_samples(tmp_path / "samples.arrows").complete


def test_a_card_without_a_counter_is_recorded_by_power(recorded: Samples) -> None:
    assert len(recorded.series(uuid(1), "nvml", "energy_counter_j")) > 0
    assert len(recorded.series(uuid(2), "nvml", "energy_counter_j")) == 0
    assert len(recorded.series(uuid(2), "nvml", "power_instant_w")) > 0
    assert len(recorded.series(uuid(2), "nvml", "unavailable")) == 0


@pytest.mark.parametrize(
    ("visible", "asked", "expected"),
    [
        ("1", None, [2]),
        (uuid(2), None, [2]),
        ("", None, []),
        ("0", uuid(2), [2]),
        ("0", "1,0", [2, 1]),
    ],
)
def test_the_runs_cards_are_recorded_and_the_others_are_not(
    tmp_path: Path, visible: str, asked: str | None, expected: list[int]
) -> None:
    cards = [sim.Device(uuid=uuid(1)), sim.Device(uuid=uuid(2))]
    variables = card_environment(tmp_path, cards, CUDA_VISIBLE_DEVICES=visible)

    with recorder(tmp_path, variables, sensors="nvml", devices=asked) as (process, ready):
        process.stop(STOP_S)

    assert ready["devices"] == [uuid(number) for number in expected]
    samples = read_samples(tmp_path / "samples.arrows")
    recorded = set(samples.table["device"].to_pylist()) - {"host"}
    assert recorded == {uuid(number) for number in expected}


@pytest.mark.parametrize("options", [{"devices": "GPU-nonsense"}, {"sensors": "nvlm"}])
def test_what_does_not_exist_is_a_configuration_error(
    tmp_path: Path, options: dict[str, str]
) -> None:
    variables = card_environment(tmp_path, [sim.Device(uuid=uuid(1))])

    with environment(variables):
        process = RecorderProcess.start(
            tmp_path / "samples.arrows", log=subprocess.DEVNULL, **options
        )
    with pytest.raises(ConfigurationError, match="found"):
        process.wait_ready(READY_S)
    assert process.stop(STOP_S) == 2


def test_a_recorder_starts_from_a_process_with_a_thousand_open_files() -> None:
    """As a server's or a notebook's that measures itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("no process may have so many open files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    code = "import json, time; print(json.dumps({'ready': True}), flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process.stdout as low:
        process.stdout = os.fdopen(fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, 1100), "rb")
    recorder = RecorderProcess(process)
    try:
        assert recorder.wait_ready(READY_S) == {"ready": True}
    finally:
        recorder.stop(STOP_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_stream_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    process = RecorderProcess.start(
        tmp_path / "missing" / "samples.arrows", sensors="rapl", log=subprocess.DEVNULL
    )

    with pytest.raises(MeterError, match="missing"):
        process.wait_ready(READY_S)
    assert process.stop(STOP_S) == 1


@pytest.mark.slow
def test_strangers_are_seen_on_all_cards_and_the_runs_own_processes_are_none(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as ours:
        keys = [
            {"processes": [{"pid": ours.pid}]},
            {"processes": [{"pid": 1, "name": "init"}, {"pid": ours.pid}]},
        ]
        cards = [sim.Device(uuid=uuid(n), keys=keys[n]) for n in range(2)]
        variables = card_environment(tmp_path, cards, CUDA_VISIBLE_DEVICES="0")
        with recorder(tmp_path, variables, sensors="nvml", run_pid=os.getpid()) as (process, _):
            time.sleep(1.5)
            process.stop(STOP_S)
        ours.kill()

    samples = read_samples(tmp_path / "samples.arrows")
    assert len(samples.series(uuid(0), "nvml", "stranger_pid")) == 0
    assert set(samples.series(uuid(1), "nvml", "stranger_pid").value) == {1.0}


def test_what_draws_on_a_card_is_seen(recorded: Samples) -> None:
    assert set(recorded.series(uuid(3), "nvml", "graphics_pid").value) == {1.0}
    assert len(recorded.series(uuid(3), "nvml", "stranger_pid")) == 0


def test_a_card_in_slices_says_so(tmp_path: Path) -> None:
    cards = [sim.Device(uuid=uuid(1), keys={"mig": True}), sim.Device(uuid=uuid(2))]
    variables = card_environment(tmp_path, cards)

    with recorder(tmp_path, variables, sensors="nvml") as (process, ready):
        process.stop(STOP_S)

    assert {info["device"]: info["mig"] for info in ready["sensors"]} == {
        uuid(1): True,
        uuid(2): False,
    }
    infos = read_samples(tmp_path / "samples.arrows").header.sensors
    assert [info.mig for info in infos] == [True, False]


def test_a_machine_with_no_card_lists_what_is_missing_and_estimates(tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")
    base = {key: value for key, value in os.environ.items() if not key.startswith("NVML_SIM")}

    with recorder(tmp_path, base, devices="none") as (process, ready):
        time.sleep(1)
        process.stop(STOP_S)

    by_sensor = {sensor["sensor"]: sensor for sensor in ready["sensors"]}
    for sensor in by_sensor.values():
        assert (sensor["unavailable"] is None) or sensor["remedy"]
    if by_sensor["rapl"]["unavailable"] is None:
        pytest.skip("this machine has RAPL, so nothing is estimated")
    assert by_sensor["codecarbon"]["kind"] == "estimated"
    samples = read_samples(tmp_path / "samples.arrows")
    for device in ("cpu", "dram"):
        model = samples.series(device, "codecarbon", "power_model_w")
        assert np.all(model.value > 0)
        # Each value is the mean over the stretch since the one before.
        gaps_ns = model.t_before_ns[1:] - model.t_ns[:-1]
        assert np.all(np.abs(gaps_ns) < 50 * MS)
