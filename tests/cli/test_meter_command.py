"""``llem meter``: the energy of a command, its exit code, and signals passed through."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.cli import metered_command
from llenergymeasure.processes import END_SIGNALS
from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim
from support.forks import run_forked
from support.recording import card_environment, uuid
from support.studies import wait_for

METER = """
import json, sys
from pathlib import Path
from llenergymeasure.cli import meter as command
from llenergymeasure.errors import LlemError
options = json.loads(sys.argv[1])
command.REST_S = options.pop("rest_s", command.REST_S)
for key in ("json_path", "samples_path", "result_path"):
    options[key] = Path(options[key]) if options.get(key) else None
options["no_align"] = not options.pop("align", True)
try:
    sys.exit(command.meter(sys.argv[2:], **options))
except LlemError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
RUN = """
import sys
from llenergymeasure.cli.metered_command import run_command
sys.exit(run_command(sys.argv[2:]).exit_code)
"""
"""The command alone, as the meter runs it: it starts in a tenth of the time."""

INNER = """
import signal, sys, time
def end(*_):
    print("inner", flush=True)
    sys.exit()
signal.signal(int(sys.argv[1]), end)
open(sys.argv[2], "w").close()
time.sleep(60)
"""
"""Says that it got a signal."""


@dataclass
class Meter:
    """The meter on a command, away from any terminal, where these variables say what measures."""

    out: Path
    variables: dict[str, str]

    def start(self, *command: str, program: str = METER, **options: Any) -> "subprocess.Popen[str]":
        """Start it."""
        return subprocess.Popen(
            [sys.executable, "-c", program, self._options(options), *command],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Meter a command to its end."""
        modules = ("llenergymeasure.cli.meter",)
        words = (self._options(options), *command)
        return run_forked(METER, self.variables, *words, modules=modules)

    def _options(self, options: dict[str, Any]) -> str:
        return json.dumps({"json_path": self.out, **options}, default=str)

    @property
    def document(self) -> dict[str, Any]:
        """What it wrote."""
        document: dict[str, Any] = json.loads(self.out.read_text())
        return document


@pytest.fixture(autouse=True)
def signals_as_at_a_prompt() -> Iterator[None]:
    """Children inherit what is ignored: by a script's ``&``, or by a command metered in here."""
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def card() -> sim.Device:
    """A card whose power rises steeply, so that a wrong window gives a wrong energy."""
    return sim.Device(power_w=[(0.0, 100.0), (120.0, 700.0)], uuid=uuid(1))


@pytest.fixture
def meter(tmp_path: Path, card: sim.Device) -> Meter:
    return Meter(tmp_path / "meter.json", card_environment(tmp_path, [card]))


@pytest.fixture
def sensorless(tmp_path: Path) -> Meter:
    """On a machine where nothing can be measured."""
    if Path("/sys/class/powercap/intel-rapl:0").exists():
        pytest.skip("this machine has RAPL")
    hidden = ("NVML_SIM", "CUDA_")
    base = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    return Meter(tmp_path / "meter.json", {**base, "CUDA_VISIBLE_DEVICES": ""})


def _headline(document: dict[str, Any]) -> dict[str, Any]:
    (reading,) = [reading for reading in document["readings"] if reading["headline"]]
    return reading


@pytest.mark.parametrize("align", [True, False])
def test_the_energy_is_the_true_one_of_the_command_s_window_and_the_rests_are_outside_it(
    tmp_path: Path, card: sim.Device, meter: Meter, align: bool
) -> None:
    samples_path, clock = tmp_path / "samples.arrows", tmp_path / "said"
    code = f"import time; open({str(clock)!r}, 'w').write(str(time.monotonic_ns())); time.sleep(1)"
    words = (sys.executable, "-S", "-c", code)
    result = meter(*words, samples_path=samples_path, align=align)
    assert result.returncode == 0, result.stderr
    document = meter.document
    assert set(document) == {
        *("window", "readings", "validity", "validity_reasons", "command_exit_code", "command"),
        *("unavailable", "sensors", "gpus", "calibration", "recorder_cost"),
    }
    window = document["window"]
    start_ns, end_ns = (window[f"{end}_monotonic_ns"] for end in ("start", "end"))
    assert window["duration_s"] == pytest.approx((end_ns - start_ns) / 1e9)
    assert 0 <= (int(clock.read_text()) - start_ns) / 1e9 <= window["duration_s"] - 1
    recording = read_samples(samples_path)
    series = recording.series(uuid(1), "nvml", "energy_counter_j")
    recorded_s = (series.t_ns[-1] - series.t_ns[0]) / 1e9
    assert recording.complete
    assert recorded_s - window["duration_s"] >= (0.7 if align else 0)
    reading, t0_ns = _headline(document), int(meter.variables["NVML_SIM_T0"])
    true_j = card.true_energy_j((start_ns - t0_ns) / 1e9, (end_ns - t0_ns) / 1e9)
    assert abs(reading["gross_j"] - true_j) <= 2 * reading["gross_u95_j"]
    where = [reading[key] for key in ("device", "sensor", "kind", "scope")]
    assert where == [uuid(1), "nvml", "measured", "gpu"]
    assert uuid(1) in result.stderr
    assert "measured" in result.stderr
    assert "* in the total: " in result.stderr


def test_a_card_in_slices_or_that_draws_is_in_the_document(tmp_path: Path, meter: Meter) -> None:
    desktop = [{"pid": 1, "name": "Xorg", "type": "graphics"}]
    cards = [
        sim.Device(uuid=uuid(1), keys={"mig": True}),
        sim.Device(uuid=uuid(2), keys={"processes": desktop}),
    ]
    meter.variables = card_environment(tmp_path, cards)
    result = meter("sleep", "1")
    assert {"mig_slice", "graphics_process"} <= set(meter.document["validity"])
    assert set(meter.document["validity_reasons"]) == set(meter.document["validity"])
    assert "mig_slice" in result.stderr


SAME = """
import contextlib, json, sys, time
from pathlib import Path
import llenergymeasure
from llenergymeasure.cli import meter as command
from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import read_samples
folder, metered = Path(sys.argv[1]), []
@contextlib.contextmanager
def kept(*arguments, **options):
    with llenergymeasure.meter(*arguments, **options) as energy:
        metered.append(energy)
        yield energy
command.metered_block = kept
command.meter(["sleep", "1"], json_path=folder / "meter.json", samples_path=folder / "s.parquet")
(energy,) = metered
again = account(read_samples(folder / "s.parquet"), energy.account.window, energy._phase_spans)
print(json.dumps({
    "metered": [energy.energy_j, energy.energy_u95_j, energy.energy_u_sys_j],
    "readings": [each.model_dump() for each in energy.readings],
    "again": [again.energy().gross_j, again.energy().u95_j, again.energy().u_sys_j],
    "validity": [sorted(energy.validity), sorted(again.validity)],
}))
"""


def test_the_command_and_the_block_give_the_same_number_on_the_same_recording(
    tmp_path: Path, meter: Meter
) -> None:
    result = sim.run_python(SAME, meter.variables, str(tmp_path))
    assert result.returncode == 0, result.stderr
    numbers = json.loads(result.stdout)
    reading = _headline(meter.document)
    one = [reading[key] for key in ("gross_j", "gross_u95_j", "u_sys_j")]
    assert numbers["metered"] == pytest.approx(one, rel=1e-12)  # a sum of one is rounded once more
    assert numbers["readings"] == meter.document["readings"]
    assert numbers["again"] == numbers["metered"]
    assert numbers["validity"] == [sorted(meter.document["validity"])] * 2


def test_what_is_nowhere_is_not_found_also_with_a_folder_that_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system's answer is then "permission denied"; a shell gives 127."""

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(metered_command.subprocess, "Popen", refused)
    outcome = metered_command.run_command(["no-such-program-anywhere"])
    assert (outcome.exit_code, outcome.error) == (
        127,
        "no-such-program-anywhere: No such file or directory",
    )
    assert metered_command.run_command(["sh"]).exit_code == 126


def test_the_exit_code_is_as_a_shell_gives_it() -> None:
    killed = metered_command.run_command(["sh", "-c", "kill -SEGV $$"])
    assert (killed.exit_code, killed.error) == (128 + signal.SIGSEGV, None)
    no_program = metered_command.run_command(["/dev/null"])
    assert (no_program.exit_code, no_program.error) == (126, "/dev/null: Permission denied")


@pytest.mark.parametrize(
    ("command", "code"),
    [(["sh", "-c", "echo hello; exit 7"], 7), (["no-such-program-anywhere"], 127)],
)
def test_exit_code_and_output_are_the_commands(
    meter: Meter, command: Sequence[str], code: int
) -> None:
    result = meter(*command, align=False)
    assert result.returncode == code, result.stderr
    assert meter.document["command_exit_code"] == code
    assert ("Energy of" in result.stderr) == (code == 7)
    assert result.stdout == ("hello\n" if code == 7 else "")


def test_a_key_on_the_command_s_line_is_in_no_file_and_no_output(meter: Meter) -> None:
    key = meter.variables["OPENAI_API_KEY"] = "c4n4ry0123456789"
    command = ["true", "-H", f"X-Api-Key: {key}", "--api-key", "0ther-s1gns", "--n", "4"]
    result = meter(*command, align=False)
    output = result.stdout + result.stderr + meter.out.read_text()
    assert key not in output
    assert "0ther-s1gns" not in output
    assert meter.document["command"][-2:] == ["--n", "4"]


@pytest.mark.parametrize("code", [0, 7])
def test_a_file_that_cannot_be_written_loses_neither_the_energy_nor_the_exit_code(
    tmp_path: Path, meter: Meter, code: int
) -> None:
    samples_path = tmp_path / "m.parquet"
    for path in (meter.out, samples_path):
        path.mkdir()
    result = meter("sh", "-c", f"exit {code}", align=False, samples_path=samples_path)
    assert result.returncode == (code or 1)
    assert "* in the total: " in result.stderr
    for path in (meter.out, samples_path):
        assert f"llem: {path}: Is a directory" in result.stderr


@pytest.mark.parametrize("visible", [uuid(1), f"{uuid(1)},7"], ids=["once", "also of a warning"])
def test_who_reads_no_further_does_not_change_the_exit_code(meter: Meter, visible: str) -> None:
    """The second list of cards leads to a warning before the command."""
    meter.variables["CUDA_VISIBLE_DEVICES"] = visible
    process = meter.start("sh", "-c", "exit 7", align=False)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(60) == 7


def test_a_signal_after_the_commands_end_does_not_lose_its_energy(
    tmp_path: Path, meter: Meter
) -> None:
    end_mark = tmp_path / "ended"
    process = meter.start("touch", str(end_mark), rest_s=2.0)
    wait_for(end_mark.exists, 60)
    time.sleep(0.5)  # its end is seen; now it rests
    while process.poll() is None and not meter.out.exists():  # and sums up
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        time.sleep(0.1)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert meter.document["readings"]
    assert "Energy of" in stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_reaches_no_command(
    tmp_path: Path, meter: Meter, number: signal.Signals
) -> None:
    """As ``nohup`` and a script's ``&`` start it."""
    start_mark = tmp_path / "began"
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = meter.start("sh", "-c", f"touch {start_mark}; sleep 1; exit 7", program=RUN)
    finally:
        signal.signal(number, before)
    wait_for(start_mark.exists, 60)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 7, stderr


@pytest.mark.parametrize(("program", "number"), [(RUN, signal.SIGTERM), (METER, signal.SIGINT)])
def test_signals_reach_the_commands_whole_group(
    tmp_path: Path, meter: Meter, program: str, number: signal.Signals
) -> None:
    start_mark = tmp_path / "began"
    # The grandchild shows that the group is reached, not the command alone.
    inner = shlex.join([sys.executable, "-S", "-c", INNER, str(int(number)), str(start_mark)])
    process = meter.start("sh", "-c", f"{inner}; exit 3", program=program)
    wait_for(start_mark.exists, 60)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout == "inner\n", stderr
    assert process.returncode == 128 + number
    if program is METER:
        assert meter.document["command_exit_code"] == process.returncode
        assert meter.document["window"]["duration_s"] > 0


def test_where_nothing_measures_the_reasons_are_given_and_the_command_runs(
    sensorless: Meter,
) -> None:
    result = sensorless("sh", "-c", "sleep 1; exit 3")
    assert result.returncode == 3
    readings = sensorless.document["readings"]
    kinds = {reading["kind"] for reading in readings if reading["gross_j"] is not None}
    assert kinds <= {"estimated"}
    assert all(reading["unavailable"] for reading in readings if reading["gross_j"] is None)
    assert {sensor["sensor"] for sensor in sensorless.document["sensors"]} >= {"nvml", "rapl"}


def test_required_where_nothing_measures_the_command_is_not_run(
    tmp_path: Path, sensorless: Meter
) -> None:
    result = sensorless("touch", str(tmp_path / "ran"), require=True)
    assert result.returncode == 2
    assert not (tmp_path / "ran").exists()
    lines = result.stderr.splitlines()
    assert len(set(lines)) == len(lines)
    assert "nvml" in result.stderr
    assert "rapl" in result.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [({"devices": "GPU-nonsense"}, uuid(1)), ({"server": "http://127.0.0.1:9"}, "127.0.0.1:9")],
    ids=["a device, with those that are there", "a server"],
)
def test_what_is_not_there_is_an_error_before_the_command(
    tmp_path: Path, meter: Meter, options: dict[str, str], named: str
) -> None:
    result = meter("touch", str(tmp_path / "ran"), **options)
    assert result.returncode == 2
    assert named in result.stderr
    assert not (tmp_path / "ran").exists()


BENCHMARK = """
import sys, time
from pathlib import Path
from support.benchmark_files import vllm
start_ns = time.monotonic_ns()
time.sleep(2)
Path(sys.argv[1]).write_text(vllm(start_ns, time.monotonic_ns()))
"""
SERVER = """
import socket, sys, time
with socket.create_server(("127.0.0.1", 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def server(tmp_path: Path, meter: Meter) -> Iterator[str]:
    """The address of a server that the meter sees compute on a card."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        card = sim.Device(uuid=uuid(1), keys={"processes": [{"pid": process.pid}]})
        path = os.pathsep.join(sys.path)
        meter.variables = {**card_environment(tmp_path, [card]), "PYTHONPATH": path}
        yield f"http://127.0.0.1:{port}/v1"
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_a_benchmarks_own_window_is_reported_and_its_server_is_no_stranger_once_named(
    tmp_path: Path, meter: Meter, server: str, named: bool
) -> None:
    written = tmp_path / "bench.json"
    words = (sys.executable, "-c", BENCHMARK, str(written))
    result = meter(*words, result_path=written, server=server if named else None)
    assert result.returncode == 0, result.stderr
    (benchmark,) = meter.document["benchmarks"]
    whole, energy = meter.document["window"], benchmark["energy"]
    assert benchmark["window"]["start_monotonic_ns"] > whole["start_monotonic_ns"]
    assert benchmark["window"]["end_monotonic_ns"] < whole["end_monotonic_ns"]
    per_token_j = energy["gross_j"] / benchmark["output_tokens"]
    assert energy["per_output_token_j"] == pytest.approx(per_token_j)
    assert energy["gross_j"] < _headline(meter.document)["gross_j"]
    assert energy["net_j"] is not None
    assert ("other_process" in benchmark["validity"]) != named
    assert "J per output token" in result.stderr
    assert "J per request" in result.stderr


def test_a_benchmark_that_wrote_nothing_costs_its_own_energy_alone(
    tmp_path: Path, meter: Meter
) -> None:
    result = meter("sleep", "1", result_path=tmp_path / "none.json", rest_s=0.5)
    assert result.returncode == 2
    assert meter.document["benchmarks"] == []
    assert "the command did not write it" in meter.document["benchmarks_unavailable"]
    assert "no energy of the benchmark" in result.stderr
    assert _headline(meter.document)["gross_j"] > 0
