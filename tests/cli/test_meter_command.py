"""``llem meter``: the energy of a command, its exit code, and signals passed through."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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
    options_json = json.dumps(options, default=str)
    return run_forked(
        METER, variables, options_json, *command, modules=("llenergymeasure.cli.meter",)
    )


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
    out, samples_path = tmp_path / "meter.json", tmp_path / "samples.parquet"

    result = meter(["sleep", "3"], variables, json_path=out, samples_path=samples_path)

    assert result.returncode == 0, result.stderr
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
    assert abs(reading["gross_j"] - true_j) <= 2 * reading["gross_u95_j"]
    assert document["command_exit_code"] == 0
    assert isinstance(document["validity"], list)
    assert read_samples(samples_path).complete
    assert uuid(1) in result.stderr
    assert "measured" in result.stderr


def _ran(document: dict[str, Any], began: Path) -> tuple[float, float]:
    """How long the window lasted, and how long after its start the command began."""
    window = document["window"]
    began_ns = int(began.read_text())
    return window["duration_s"], (began_ns - window["start_monotonic_ns"]) / 1e9


@pytest.mark.parametrize("align", [True, False])
def test_the_window_is_the_commands_and_the_rests_are_outside_it(
    tmp_path: Path, variables: dict[str, str], align: bool
) -> None:
    out, samples_path, clock = (
        tmp_path / "meter.json",
        tmp_path / "samples.arrows",
        tmp_path / "said",
    )
    code = f"import time; open({str(clock)!r}, 'w').write(str(time.monotonic_ns())); time.sleep(1)"
    command = [sys.executable, "-S", "-c", code]

    result = meter(command, variables, json_path=out, samples_path=samples_path, align=align)

    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    assert set(document) == {
        "window",
        "readings",
        "validity",
        "validity_reasons",
        "command_exit_code",
        "command",
        "unavailable",
        "sensors",
        "gpus",
        "calibration",
        "recorder_cost",
    }
    lasted_s, began_s = _ran(document, clock)
    assert 0 <= began_s <= lasted_s - 1
    series = read_samples(samples_path).series(uuid(1), "nvml", "energy_counter_j")
    recorded_s = (series.t_ns[-1] - series.t_ns[0]) / 1e9
    assert recorded_s - lasted_s >= (0.7 if align else 0)


def test_a_card_in_slices_or_that_draws_is_in_the_document(tmp_path: Path) -> None:
    desktop = [{"pid": 1, "name": "Xorg", "type": "graphics"}]
    cards = [
        sim.Device(uuid=uuid(1), keys={"mig": True}),
        sim.Device(uuid=uuid(2), keys={"processes": desktop}),
    ]
    out = tmp_path / "meter.json"

    result = meter(["sleep", "1"], card_environment(tmp_path, cards), json_path=out)

    document = json.loads(out.read_text())
    assert {"mig_slice", "graphics_process"} <= set(document["validity"])
    assert set(document["validity_reasons"]) == set(document["validity"])
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
command.meter(["sleep", "1"], json_path=folder / "m.json", samples_path=folder / "s.parquet")
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
    tmp_path: Path, variables: dict[str, str]
) -> None:
    result = sim.run_python(SAME, variables, str(tmp_path))

    assert result.returncode == 0, result.stderr
    numbers = json.loads(result.stdout)
    document = json.loads((tmp_path / "m.json").read_text())
    reading = _headline(document)
    one = [reading[key] for key in ("gross_j", "gross_u95_j", "u_sys_j")]
    assert numbers["metered"] == pytest.approx(one, rel=1e-12)  # a sum of one is rounded once more
    assert numbers["readings"] == document["readings"]
    assert numbers["again"] == numbers["metered"]
    assert numbers["validity"] == [sorted(document["validity"])] * 2


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What a metered command leaves ignored is put back: later tests' processes inherit it."""
    before = {number: signal.getsignal(number) for number in END_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
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

    result = meter(command, variables, json_path=out, align=False)

    assert result.returncode == code, result.stderr
    assert json.loads(out.read_text())["command_exit_code"] == code
    assert ("Energy of" in result.stderr) == (code not in (126, 127))


def test_a_key_on_the_command_s_line_is_in_no_file_and_no_output(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    key, out = "c4n4ry0123456789", tmp_path / "meter.json"
    command = ["true", "-H", f"X-Api-Key: {key}", "--api-key", "0ther-s1gns", "--n", "4"]
    secret = {**variables, "OPENAI_API_KEY": key}
    result = meter(command, secret, json_path=out, align=False)
    output = result.stdout + result.stderr + out.read_text()
    assert key not in output
    assert "0ther-s1gns" not in output
    assert json.loads(out.read_text())["command"][-2:] == ["--n", "4"]


def test_the_commands_output_is_its_own(variables: dict[str, str]) -> None:
    result = meter(["echo", "hello"], variables, align=False)

    assert result.stdout == "hello\n"
    assert "* in the total: " in result.stderr


@pytest.mark.parametrize("code", [0, 7])
def test_a_file_that_cannot_be_written_loses_neither_the_energy_nor_the_exit_code(
    tmp_path: Path, variables: dict[str, str], code: int
) -> None:
    for name in ("m.json", "m.parquet"):
        (tmp_path / name).mkdir()

    result = meter(
        ["sh", "-c", f"exit {code}"],
        variables,
        align=False,
        json_path=tmp_path / "m.json",
        samples_path=tmp_path / "m.parquet",
    )

    assert result.returncode == (code or 1)
    assert "* in the total: " in result.stderr
    for name in ("m.json", "m.parquet"):
        assert f"llem: {tmp_path / name}: Is a directory" in result.stderr


@pytest.mark.parametrize("visible", [uuid(1), f"{uuid(1)},7"])
def test_who_reads_no_further_does_not_change_the_exit_code(
    variables: dict[str, str], visible: str
) -> None:
    """The second list of cards leads to a warning before the command."""
    variables = {**variables, "CUDA_VISIBLE_DEVICES": visible}
    process = start(["sh", "-c", "exit 7"], variables, align=False)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(60) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_commands_end_does_not_lose_its_energy(
    tmp_path: Path, variables: dict[str, str], number: signal.Signals
) -> None:
    out, end_mark = tmp_path / "meter.json", tmp_path / "ended"
    process = start(["touch", str(end_mark)], variables, json_path=out, rest_s=2.0)
    wait_for(end_mark.exists, 60)
    time.sleep(0.5)  # its end is seen; now it rests
    while process.poll() is None and not out.exists():  # and sums up
        process.send_signal(number)
        time.sleep(0.1)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(out.read_text())["readings"]
    assert "Energy of" in stderr


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_reaches_no_command(
    tmp_path: Path, variables: dict[str, str], number: signal.Signals
) -> None:
    """As ``nohup`` and a script's ``&`` start it."""
    start_mark = tmp_path / "began"
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = start(
            ["sh", "-c", f"touch {start_mark}; sleep 2; exit 7"], variables, align=False
        )
    finally:
        signal.signal(number, before)
    wait_for(start_mark.exists, 60)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 7, stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_commands_whole_group(
    tmp_path: Path, variables: dict[str, str], number: signal.Signals
) -> None:
    out, start_mark = tmp_path / "meter.json", tmp_path / "began"
    # The grandchild shows that the group is reached, not the command alone.
    loop = f"touch {start_mark}; while :; do sleep 0.05; done"
    script = f"(trap 'echo inner; exit 0' {number.name[3:]}; {loop})"
    process = start(["bash", "-c", script], variables, json_path=out)
    wait_for(start_mark.exists, 60)
    time.sleep(0.2)

    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)

    assert "inner" in stdout, stderr
    document = json.loads(out.read_text())
    assert process.returncode == document["command_exit_code"]
    assert document["window"]["duration_s"] > 0


def test_where_nothing_measures_the_reasons_are_given_and_the_command_runs(
    tmp_path: Path, nothing: dict[str, str]
) -> None:
    out = tmp_path / "meter.json"

    result = meter(["sh", "-c", "sleep 1; exit 3"], nothing, json_path=out)

    assert result.returncode == 3
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

    result = meter(["touch", str(trace)], nothing, require=True)

    assert result.returncode == 2
    assert not trace.exists()
    lines = result.stderr.splitlines()
    assert len(set(lines)) == len(lines)
    assert "nvml" in result.stderr
    assert "rapl" in result.stderr


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(
    variables: dict[str, str],
) -> None:
    result = meter(["true"], variables, devices="GPU-nonsense")

    assert result.returncode == 2
    assert uuid(1) in result.stderr


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
def server(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A server's address, and the variables of processes that see it compute on a card."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        card = sim.Device(uuid=uuid(1), keys={"processes": [{"pid": process.pid}]})
        yield f"http://127.0.0.1:{port}/v1", card_environment(tmp_path, [card])
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
def test_a_benchmarks_own_window_is_reported_and_its_server_is_no_stranger_once_named(
    tmp_path: Path, server: tuple[str, dict[str, str]], named: bool
) -> None:
    url, variables = server
    out, written = tmp_path / "meter.json", tmp_path / "bench.json"
    path = os.pathsep.join(sys.path)

    result = meter(
        [sys.executable, "-c", BENCHMARK, str(written)],
        {**variables, "PYTHONPATH": path},
        json_path=out,
        result_path=written,
        server=url if named else None,
    )

    assert result.returncode == 0, result.stderr
    document = json.loads(out.read_text())
    (benchmark,) = document["benchmarks"]
    whole = document["window"]
    assert benchmark["window"]["start_monotonic_ns"] > whole["start_monotonic_ns"]
    assert benchmark["window"]["end_monotonic_ns"] < whole["end_monotonic_ns"]
    energy = benchmark["energy"]
    per_token_j = energy["gross_j"] / benchmark["output_tokens"]
    assert energy["per_output_token_j"] == pytest.approx(per_token_j)
    assert energy["gross_j"] < _headline(document)["gross_j"]
    assert energy["net_j"] is not None
    assert ("other_process" in benchmark["validity"]) != named
    assert "J per output token" in result.stderr
    assert "J per request" in result.stderr


def test_a_benchmark_that_wrote_nothing_costs_its_own_energy_alone(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    out = tmp_path / "meter.json"

    nowhere = tmp_path / "none.json"
    result = meter(["sleep", "1"], variables, json_path=out, result_path=nowhere, rest_s=0.5)

    assert result.returncode == 2
    document = json.loads(out.read_text())
    assert document["benchmarks"] == []
    assert "the command did not write it" in document["benchmarks_unavailable"]
    assert "no energy of the benchmark" in result.stderr
    assert _headline(document)["gross_j"] > 0


def test_a_server_that_is_not_there_is_an_error_before_the_command(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    trace = tmp_path / "ran"

    result = meter(["touch", str(trace)], variables, server="http://127.0.0.1:9")

    assert result.returncode == 2
    assert "127.0.0.1:9" in result.stderr
    assert not trace.exists()
