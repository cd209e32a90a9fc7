"""A server that is running already: asked as told, metered, its engine stated as unknown."""

import html
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving import process
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.backends.serving.listener import server_root
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.results.energy import Energy
from llenergymeasure.run.result.run_validity import run_codes
from llenergymeasure.workload.prompts import traffic_prompts
from llenergymeasure.workload.requests import Request
from support import misbehaving_server as ways
from support.attempts import start
from support.misbehaving_server import misbehaving
from support.serving_server import Server, running
from support.studies import llem, wait_for, write_study

URL = "http://127.0.0.1:8000/v1"


def experiment(openai: dict[str, Any] | None = None, **values: Any) -> ExperimentConfig:
    settings = {"model": "tiny-llama", "backend": "openai", "openai": {"base_url": URL}}
    return ExperimentConfig.model_validate(
        {**settings, **values, "openai": {"base_url": URL, **(openai or {})}}
    )


def server_command(openai: dict[str, Any] | None = None, **values: Any) -> ServerCommand:
    backend = registry.get("openai")
    return backend.server(experiment(openai, **values), 1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path, "--first-ms", "20", "--next-ms", "5", "--slots", "1") as running_server:
        yield running_server


def test_is_asked_by_the_interface_s_own_names() -> None:
    command = server_command({"model": "served", "prompts": "text", "metrics_path": "/m"})
    assert command.argv == ()
    assert command.base_url == URL
    assert command.model == "served"
    assert command.ready_path == "/v1/models"
    assert not command.takes_token_ids
    assert command.metrics_path == "/m"
    assert server_command().model == "tiny-llama"
    assert server_command().takes_token_ids


@pytest.mark.parametrize(
    ("study", "extra", "body"),
    [
        ({"decoder": {"preset": "deterministic"}}, {}, {"temperature": 0.0, "ignore_eos": True}),
        (
            {
                "decoder": {
                    "temperature": 0.5,
                    "repetition_penalty": 1.1,
                    "min_p": 0.1,
                    "min_new_tokens": 3,
                }
            },
            {},
            {
                "temperature": 0.5,
                "top_p": 1.0,
                "top_k": 50,
                "min_p": 0.1,
                "repetition_penalty": 1.1,
                "min_tokens": 3,
            },
        ),
        (
            {"answer_length": "natural", "decoder": {"temperature": 0}},
            {},
            {"temperature": 0.0, "min_tokens": 1},
        ),
        (
            {"decoder": {"temperature": 0}},
            {"ignore_eos": None, "min_tokens": 128},
            {"temperature": 0.0, "min_tokens": 128},
        ),
    ],
    ids=["greedy", "sampled", "natural answers", "fields of the study's own"],
)
def test_sampling(study: dict[str, Any], extra: dict[str, Any], body: dict[str, Any]) -> None:
    assert server_command({"body": extra}, **study).body == {"seed": 42, **body}


def test_each_cycle_draws_natural_answers_of_its_own() -> None:
    config = experiment(answer_length="natural").with_cycle_seed(2)
    body = registry.get("openai").server(config, 1).body
    assert body["seed"] == config.random_seed != 42


def sent(
    body: dict[str, Any] | None = None, max_tokens: int = 128, **values: Any
) -> tuple[dict[str, Any], int]:
    """Return what a request for so many tokens says, and the most that its answer may have."""
    config = experiment({"body": body or {}}, decoder={"temperature": 0, **values})
    command = registry.get("openai").server(config, 1)
    running: Any = SimpleNamespace(ended=lambda: None, close=lambda: None)
    engine = ServedEngine(command, config, (), traffic_prompts(config), running)
    outgoing = engine.encode(Request(0, (1, 2), max_tokens))
    engine.close()
    return json.loads(outgoing.content.partition(b"\r\n\r\n")[2]), outgoing.max_tokens


USAGE = {"include_usage": True}


@pytest.mark.parametrize(
    ("body", "expected", "expected_limit"),
    [
        ({}, {"max_tokens": 128, "stream_options": USAGE}, 128),
        ({"max_tokens": None, "max_completion_tokens": 9}, {"stream_options": USAGE}, 9),
        ({"max_tokens": None, "max_new_tokens": 9}, {"stream_options": USAGE}, 9),
        ({"max_tokens": None, "n": 2}, {"stream_options": USAGE}, 256),
        ({"stream_options": None}, {"max_tokens": 128}, 128),
        # Studies of earlier versions may say so, and their results are to stay theirs.
        ({"stream": False}, {"max_tokens": 128, "stream_options": USAGE}, 128),
        ({"stream": None}, {"max_tokens": 128, "stream_options": USAGE}, 128),
        (
            {"stream_options": {"continuous_usage_stats": True}},
            {"max_tokens": 128, "stream_options": {**USAGE, "continuous_usage_stats": True}},
            128,
        ),
    ],
    ids=str,
)
def test_what_the_client_sends_by_itself_can_be_left_out_too(
    body: dict[str, Any], expected: dict[str, Any], expected_limit: int
) -> None:
    fields, limit = sent(body)
    limits = {name: fields[name] for name in ("max_tokens", "stream_options") if name in fields}
    assert (limits, limit) == (expected, expected_limit)
    assert fields["stream"] is True
    assert None not in fields.values()


@pytest.mark.parametrize(("max_tokens", "min_tokens"), [(1, 1), (16, 16), (64, 32)])
def test_the_fewest_tokens_are_no_more_than_the_most_of_a_request(
    max_tokens: int, min_tokens: int
) -> None:
    """Servers refuse that: the first request, of one token, and short ones of a traffic."""
    assert sent(max_tokens=max_tokens, min_new_tokens=32)[0]["min_tokens"] == min_tokens
    assert sent({"ignore_eos": None, "min_tokens": 32}, max_tokens)[0]["min_tokens"] == min_tokens


@pytest.mark.parametrize("name", ["prompt", "messages"])
def test_what_each_request_has_of_its_own_is_refused(name: str) -> None:
    for value in ("Hello", None):
        with pytest.raises(ValidationError, match=f"body.{name} is the run's own"):
            experiment({"body": {name: value}})


def test_a_server_elsewhere_is_taken_only_when_asked_for() -> None:
    elsewhere = {"base_url": "http://10.0.0.7:8000/v1"}
    with pytest.raises(ValidationError, match="allow_remote: true"):
        experiment(elsewhere)
    assert experiment({**elsewhere, "allow_remote": True}).openai is not None


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLEM_TEST_KEY", "sk-secret-of-the-test")
    command = server_command({"api_key_env": "LLEM_TEST_KEY"})
    assert command.api_key == "sk-secret-of-the-test"
    assert "sk-secret" not in repr(command)
    monkeypatch.setenv("LLEM_TEST_KEY", "sk-of-a-file-that-ends-a-line\n")
    assert (
        server_command({"api_key_env": "LLEM_TEST_KEY"}).api_key == "sk-of-a-file-that-ends-a-line"
    )
    monkeypatch.delenv("LLEM_TEST_KEY")
    config = experiment({"api_key_env": "LLEM_TEST_KEY"})
    (problem,) = registry.get("openai").problems(config)
    assert problem.key == "openai.api_key_env"


def test_what_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = experiment(
        {"base_url": "https://127.0.0.1/v1"},
        passthrough_kwargs={"x": 1},
        lora={"adapter_path": "a"},
    )
    keys = [problem.key for problem in registry.get("openai").problems(config)]
    assert keys == ["openai.base_url", "passthrough_kwargs", "lora"]
    with pytest.raises(BackendError, match="nothing to load"):
        registry.get("openai").load(config)


def test_the_server_s_process_is_found_by_its_port(server: Server) -> None:
    # It shares our process group, as one that a script starts beside us does.
    assert server_root(server.base_url) == server.process.pid


def test_a_server_with_workers_beside_it_goes_by_its_group(tmp_path: Path) -> None:
    port, worker = tmp_path / "port", tmp_path / "worker.py"
    worker.write_text(
        "import pathlib, socket, sys, time\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "place.with_suffix('.part').write_text(str(listener.getsockname()[1]))\n"
        "place.with_suffix('.part').rename(place)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, *sys.argv[1:]])\n"
        "time.sleep(60)\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, str(worker), str(port)], start_new_session=True
    )
    try:
        wait_for(port.exists)
        assert server_root(f"http://127.0.0.1:{port.read_text()}/v1") == launcher.pid
    finally:
        os.killpg(launcher.pid, 9)
        launcher.wait()


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FOREIGN_READY_S", 0.1)
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert server_root(url) is None
    config = experiment({"base_url": url})
    with pytest.raises(BackendError, match=re.escape(url)):
        ServedEngine(registry.get("openai").server(config, 1), config, (), traffic_prompts(config))


@pytest.mark.slow
def test_llem_run_measures_it_one_request_at_a_time(server: Server, tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        backend="openai",
        openai={"base_url": server.base_url, "model": "sim"},
        window={"min_seconds": 1.0},
    )
    process = llem(tmp_path, "run", str(study), "--quiet")
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = (tmp_path / "results").glob("*/runs/*/*/result.json")
    result = json.loads(path.read_text())
    engine = result["environment"]["engine"]
    assert engine["versions"] == {}
    assert engine["resolved_config"]["engine"].startswith("unknown")
    # The server's usage is what is counted: 8 tokens in, 4 out, for each request.
    tokens = result["tokens"]
    # The window's ends may each cut one: of it the share of its work counts.
    assert tokens["output"] == pytest.approx(4 * tokens["requests_worked"], abs=0.5)
    assert abs(tokens["output_came"] - 4 * tokens["requests"]) < 4
    assert tokens["input"] == pytest.approx(8 * tokens["requests_worked"], abs=0.5)
    requests = pq.read_table(path.parent / "requests.parquet")
    starts = requests["start_monotonic_ns"].to_pylist()
    ends = requests["end_monotonic_ns"].to_pylist()
    assert all(end <= begin for end, begin in zip(ends, starts[1:], strict=False))
    assert server.process.poll() is None  # It is not ours to end.
    energy = result["energy"]
    assert energy["per_request_j"] == pytest.approx(energy["gross_j"] / tokens["requests_worked"])
    assert tokens["requests_worked"] == pytest.approx(tokens["requests"], abs=1)
    verified = llem(tmp_path, "verify", str(path.parents[3]))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.slow
def test_an_answer_without_a_token_and_odd_words_lose_no_run(tmp_path: Path) -> None:
    with misbehaving() as odd:
        nothing = [ways.event(ways.part("", "stop")), ways.event(ways.counted(output=0)), ways.DONE]
        odd.way = lambda number: ways.answer() if number % 8 else ways.answer([], nothing)
        deep = b"[" * 500 + b"]" * 500
        odd.page = lambda: [ways.page(b'{"id": "m\\ud800", "deep": ' + deep + b"}")]
        attempt = start(
            tmp_path,
            backend="openai",
            openai={"base_url": odd.base_url},
            max_output_tokens=ways.TOKENS,
            max_input_tokens=ways.PROMPT,
            window={"min_seconds": 1.0},
        )
        assert attempt.process.wait(120) == 0
    result = attempt.result()
    assert {"empty_answers", "length_mismatch"} <= set(result["validity"])
    assert "answers had no token" in result["provenance"]["validity_details"]["empty_answers"]
    assert result["environment"]["engine"]["resolved_config"]["settings"]["id"] == "m\ufffd"


UNREAD = b"prompt: data did not match any variant of untagged enum StringOrArray"


@pytest.mark.slow
def test_why_all_requests_failed_is_said_wherever_the_study_is_shown(tmp_path: Path) -> None:
    study = {"backend": "openai", "warmup": {"enabled": False}, "window": {"min_seconds": 3.0}}
    with misbehaving() as odd:
        odd.way = lambda _: [ways.page(UNREAD, b"422 Unprocessable Entity")]
        path = write_study(tmp_path, **study, openai={"base_url": odd.base_url})
        process = llem(tmp_path, "run", str(path))
    assert process.returncode == 1
    (folder,) = (tmp_path / "results").iterdir()
    status = llem(tmp_path, "status", str(folder)).stdout
    page = html.unescape((folder / "report.html").read_text())
    for shown in (process.stdout + process.stderr, status, page):
        assert "failed_requests: " in shown
        assert f"the first: refused: HTTP 422: {UNREAD.decode()}" in shown
    verified = llem(tmp_path, "verify", str(folder))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize(
    ("status", "prompts", "hint"),
    [
        (b"422 Unprocessable Entity", "token_ids", True),
        (b"400 Bad Request", None, True),
        (b"400 Bad Request", "text", False),
        (b"404 Not Found", None, False),
        (b"500 Internal Server Error", None, False),
    ],
)
def test_a_server_that_may_take_texts_alone_is_said_to(
    status: bytes, prompts: str | None, hint: bool
) -> None:
    with misbehaving() as odd:
        odd.way = lambda _: [ways.page(UNREAD, status)]
        config = experiment({"base_url": odd.base_url, "prompts": prompts})
        traffic = traffic_prompts(config)
        engine = ServedEngine(registry.get("openai").server(config, 1), config, (), traffic)
        try:
            with pytest.raises(BackendError, match=r"HTTP [45]") as raised:
                engine.generate(engine.warmup_requests()[:1])
        finally:
            engine.close()
    assert ("openai.prompts: text" in str(raised.value)) is hint


@pytest.mark.parametrize(
    ("address", "marked"),
    [
        ("http://gpu.example.org:8000/v1", True),
        ("http://node7.elsewhere.org:8000", True),
        ("http://192.0.2.1:8000", True),
        ("http://[2001:db8::1]:8000", True),
        ("http://[::1]:8000", False),
        ("http://node7:8000/v1", False),
        ("http://NODE7.example.org:8000", False),
        ("http://localhost.:8000", False),
        ("http://0.0.0.0:8000", False),
        ("http://[::]:8000", False),
        ("http://[::ffff:127.0.0.1]:8000", False),
        ("http://OWN:8000", False),
    ],
)
def test_a_run_of_a_server_elsewhere_says_that_the_energy_is_the_clients(
    address: str, marked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(("192.0.2.9", 9))  # where there is a network at all
        address = address.replace("OWN", route.getsockname()[0])
    address = address.replace("OWN", "127.0.0.1")
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "getfqdn", lambda: "node7.example.org")
    config = experiment({"base_url": address, "allow_remote": True}).plain
    engine_record = {"resolved_config": {}, "devices": [], "computes_on_gpu": False}
    energy = Energy(kind="measured", source="x", readings=[], gross_j=1.0)
    codes = run_codes(config, engine_record, energy, steady=None, quality=None)
    assert ("remote_server" in codes) == marked
