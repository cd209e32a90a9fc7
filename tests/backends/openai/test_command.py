"""A server by its command: what it is started with, who may answer for it, and how it ends."""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving import listener
from llenergymeasure.backends.serving.guard import GRACE_S
from llenergymeasure.backends.serving.process import ServerProcess, free_port, key_for
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.errors import BackendError, ConfigurationError
from llenergymeasure.redact import KEY_VARIABLE, make_key
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.engine import traffic_server
from llenergymeasure.run.result.flops_record import workload_flops
from llenergymeasure.workload.load_study import study_from_mapping
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.prompts import traffic_prompts
from support import serving_server
from support.attempts import start
from support.studies import living, wait_for

SERVER = serving_server.command("{port}")


def experiment(openai: dict[str, Any], **values: Any) -> ExperimentConfig:
    settings = {"model": "tiny-llama", "backend": "openai", **values, "openai": openai}
    return ExperimentConfig.model_validate(settings)


def started(openai: dict[str, Any], **values: Any) -> ServerCommand:
    backend = registry.get("openai")
    return backend.server(experiment(openai, **values), 4321)


def test_llem_measures_it_from_start_to_end(tmp_path: Path) -> None:
    lengths = {"distribution": "uniform", "min_tokens": 1, "max_tokens": 64}
    attempt = start(
        tmp_path,
        backend="openai",
        openai={
            "command": [*SERVER, "--first-ms", "5", "--next-ms", "{gap_ms}"],
            "environment": {"LLEM_TEST_KEY": "{api_key}"},
            "values": {"gap_ms": 1.5},
            "model": "sim",
            "gauges": {"requests": "sim:requests"},
            "metrics_path": "/metrics",
        },
        n=1,
        serving={"arrivals": "closed", "concurrency": 4, "output_tokens": lengths},
        window={"min_seconds": 1},
        answer_length="natural",
        decoder={"temperature": 0},
    )
    assert attempt.process.wait(240) == 0, attempt.outcome()
    result = attempt.result()
    engine = result["environment"]["engine"]["resolved_config"]
    assert engine["server"]["argv"][-1] == "1.5"
    assert engine["server"]["environment"]["LLEM_TEST_KEY"] == "{api_key}"
    assert len(engine["program_sha256"]) == 64
    assert "foreign_requests" not in result["validity"]
    assert "load" in [phase["name"] for phase in result["phases"]]
    # Operations are of the requests answered in the window: of one prompt that names the traffic
    # nothing follows for the others' lengths.
    start_ns, end_ns = (result["window"][f"{end}_monotonic_ns"] for end in ("start", "end"))
    rows = pq.read_table(attempt.folder / "requests.parquet").to_pylist()
    window_requests = [
        (row["input_tokens"], row["output_tokens"])
        for row in rows
        if start_ns <= row["end_monotonic_ns"] <= end_ns
    ]
    expected = workload_flops(resolve_model(experiment({"command": SERVER})), window_requests)
    assert len(set(window_requests)) > 5
    for name in ("per_request", "per_output_token", "decode_per_request"):
        assert result["flops"][name] == pytest.approx(expected[name])
    attempt.nothing_left()


def test_placeholders_are_the_run_s_the_command_s_own_and_any_setting() -> None:
    command = started(
        {
            "command": [
                *("serve", "{model}", "--at=127.0.0.1:{port}", "--threads", "{threads}"),
                *("--tokens", "{max_output_tokens}", "--users={serving.concurrency}"),
                *("--json", '{"a": {}, "flash": {flash}}'),
            ],
            "environment": {"KEY": "{api_key}"},
            "values": {"threads": 2, "flash": True},
        },
        max_output_tokens=7,
        serving={"arrivals": "closed", "concurrency": 3},
    )
    program, model, *rest = command.argv
    assert program == "serve"
    assert Path(model, "config.json").is_file()
    assert command.model == model
    assert rest == [
        *("--at=127.0.0.1:4321", "--threads", "2", "--tokens", "7", "--users=3"),
        *("--json", '{"a": {}, "flash": true}'),
    ]
    assert command.environment["KEY"] == "{api_key}"
    assert command.base_url == "http://127.0.0.1:4321/v1"
    assert command.ready_path == "/v1/models"


@pytest.mark.parametrize(
    ("openai", "word"),
    [
        ({"command": ["serve"]}, "no {port}"),
        ({"command": ["serve", "{port}", "{threads}"]}, "{threads}"),
        ({"command": ["serve", "{port}"], "values": {"threads": 1}}, "values.threads"),
        ({"command": ["serve", "{port}", "{model}"], "values": {"model": "a"}}, "values.model"),
        ({"command": ["serve", "{port}"], "values": {"port": 80}}, "values.port"),
        ({"command": ["serve", "{port}"], "base_url": "http://127.0.0.1:1"}, "not both"),
        ({}, "give base_url"),
        ({"base_url": "http://127.0.0.1:1", "values": {"a": 1}}, "belongs to command"),
        ({"command": ["serve", "{port}"], "api_key_env": "HOME"}, "{api_key}"),
        ({"command": ["serve", "{port}", "--api-key", "abcdefgh"]}, "holds a secret"),
        ({"command": ["serve", "{port}"], "environment": {"API_KEY": "abcd"}}, "holds a secret"),
    ],
)
def test_what_means_nothing_is_refused(openai: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment(openai)
    assert word in str(caught.value)


def test_a_swept_value_is_an_experiment_each() -> None:
    study = study_from_mapping(
        {
            "model": "tiny-llama",
            "backend": "openai",
            "openai": {"command": ["serve", "{port}", "-t", "{threads}"]},
            "sweep": {"openai.values.threads": [1, 2]},
        }
    )
    values = [point.model.openai.values for point in study.experiments if point.model.openai]
    assert values == [{"threads": 1}, {"threads": 2}]
    assert len({point.id for point in study.experiments}) == 2


def test_a_program_that_is_missing_is_told_beforehand() -> None:
    config = experiment({"command": ["no-such-server", "{port}"]})
    (problem,) = registry.get("openai").problems(config)
    assert problem.key == "openai.command"


@pytest.mark.parametrize(
    ("openai", "runner", "word"),
    [
        ({"base_url": "http://127.0.0.1:1"}, "docker:an-image", "can only be local"),
        ({"command": ["serve", "{port}"]}, "docker", "name the image"),
        ({"command": ["serve", "{port}"]}, "docker:an-image", None),
    ],
)
def test_an_image_is_for_a_server_that_is_started(
    openai: dict[str, Any], runner: str, word: str | None
) -> None:
    settings = {"backend": "openai", "openai": openai, "runners": {"openai": runner}}
    study = study_from_mapping({"model": "tiny-llama", **settings})
    with nullcontext() if word is None else pytest.raises(ConfigurationError, match=word):
        runners = choose_runners(study, apptainer_offered=False).runners
        assert str(runners["openai"]) == runner


def own_server(port: int, *argv: str) -> ServerCommand:
    argv = argv or tuple(serving_server.command(str(port)))
    return ServerCommand(argv, f"http://127.0.0.1:{port}/v1", "sim", ready_limit_s=60)


@pytest.fixture
def squatter(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[bytes]]]:
    """Another process that has the port, and what it has heard."""
    monkeypatch.setattr(listener, "_STRANGER_LIMIT_S", 0.3)
    code = (
        "import socket\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    print(server.accept()[0].recv(1), flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    heard: list[bytes] = []
    yield int(child.stdout.readline()), heard
    child.kill()
    heard += child.stdout.read().splitlines()
    child.stdout.close()
    child.wait()
    assert heard == []


@pytest.mark.parametrize("argv", [(), (sys.executable, "-c", "import time; time.sleep(60)")])
def test_a_port_that_another_process_has_is_refused_and_gets_no_word(
    squatter: tuple[int, list[bytes]], argv: tuple[str, ...]
) -> None:
    port, _ = squatter
    with pytest.raises(BackendError, match="taken by another process"):
        ServerProcess(own_server(port, *argv), None)


def test_a_server_that_other_machines_reach_is_refused() -> None:
    port = free_port()
    code = f"import http.server as h; h.HTTPServer(('0.0.0.0', {port}), None).serve_forever()"
    with pytest.raises(BackendError, match=r"listens on 0\.0\.0\.0"):
        ServerProcess(own_server(port, sys.executable, "-c", code), None)
    assert not living(f"'0.0.0.0', {port}")


def test_a_server_that_leaves_the_foreground_is_told_to_stay() -> None:
    with pytest.raises(BackendError, match="has to stay in the foreground"):
        ServerProcess(own_server(free_port(), sys.executable, "-c", "pass"), None)


def test_addresses_as_the_kernel_writes_them() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        (listening,) = listener._listeners(server.getsockname()[1])
        assert str(listening.address) == "::1"
        assert not listening.accepts_loopback
        assert listening.uid == os.getuid()
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        (listening,) = listener._listeners(server.getsockname()[1])
        assert listening.accepts_loopback
        assert not listening.address.is_loopback


def test_each_run_s_server_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLEM_IN_USE", "")
    monkeypatch.setenv(KEY_VARIABLE, "")
    command = own_server(1)
    assert key_for(command) is None
    takes = replace(command, environment={"KEY": "{api_key}"})
    key = key_for(takes)
    assert key == key_for(takes) == os.environ[KEY_VARIABLE]
    assert len(key or "") > 30
    assert KEY_VARIABLE in os.environ["LLEM_IN_USE"]
    assert make_key() != key


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_that_a_server_started_outlives_the_run(tmp_path: Path, end: int) -> None:
    """A worker in a session of its own, below a server whose run is killed."""
    mark = f"worker-of-{tmp_path}"
    worker = f"{sys.executable} -c 'import time; time.sleep(600)' {mark}"
    server = shlex.join(serving_server.command("{port}")).replace("'{port}'", "{port}")
    script = tmp_path / "serve.sh"
    script.write_text(f"setsid {worker} &\n{server.replace('{port}', '$1')} &\nwait\n")
    attempt = start(
        tmp_path,
        backend="openai",
        openai={"command": ["bash", str(script), "{port}"], "model": "sim"},
        window={"min_seconds": 120.0},
    )
    attempt.wait_for_phase("measure")
    assert living(mark)
    victim = attempt.process.pid
    os.kill(victim, end)
    attempt.process.wait(60)
    # Sooner than a server's time to end by itself, which nobody is there to give.
    wait_for(lambda: not living(mark) and not living(str(script)), GRACE_S - 5)


@pytest.mark.parametrize(
    ("openai", "root"),
    [
        ({"base_url": "http://127.0.0.1:8000/v1"}, "4711"),
        ({"command": ["serve", "{port}"]}, "the run's own"),
    ],
)
def test_what_a_server_does_that_runs_already_is_the_run_s_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openai: dict[str, Any], root: str
) -> None:
    """It descends from no process of the run, as one that the run starts does."""
    folder = RunFolder(tmp_path / "0123456789ab" / "1")
    folder.engine_pid.parent.mkdir(parents=True)
    folder.engine_pid.write_text("the run's own")
    monkeypatch.setattr(traffic_server, "server_root", lambda _: 4711)
    monkeypatch.setattr(traffic_server, "ServedEngine", lambda *_: None)
    config, backend = experiment(openai), registry.get("openai")
    traffic_server.start_server(backend, config, (), traffic_prompts(config), folder.engine_pid)
    assert folder.engine_pid.read_text() == root
