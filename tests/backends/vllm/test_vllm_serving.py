"""vLLM's own server under traffic, on a CPU: started, asked with token ids, read and ended."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.studies import living, write_study
from support.vllm import llem_with_vllm

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose engine was vLLM's server."""
    folder = tmp_path_factory.mktemp("served")
    path = write_study(
        folder,
        name="served",
        n=8,
        max_input_tokens=16,
        max_output_tokens=8,
        window={"min_seconds": 3},
        warmup={"n_warmup": 1, "convergence_detection": False},
        decoder={"preset": "deterministic"},
        backend="vllm",
        vllm={"engine": {"enforce_eager": True, "max_model_len": 256}},
        serving={"arrivals": "poisson", "rate_per_s": 5, "ramp_up_max_seconds": 2},
        runners={"vllm": "local"},
    )
    process = llem_with_vllm(folder, "run", str(path))
    assert process.returncode == 0, f"{process.stdout[-4000:]}\n{process.stderr[-8000:]}"
    (result,) = (folder / "results" / "served").glob("runs/*/*/result.json")
    return result.parent


@pytest.fixture(scope="module")
def record(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "result.json").read_text())
    return content


@pytest.mark.long
def test_every_request_is_answered_and_counted(run: Path, record: dict[str, Any]) -> None:
    assert record["serving"]["requests_failed"] == 0
    assert record["serving"]["requests_completed"] > 0
    requests = pq.read_table(run / "requests.parquet").to_pylist()
    assert {request["input_tokens"] for request in requests} == {16}
    assert {request["output_tokens"] for request in requests} == {8}
    assert {request["finish_reason"] for request in requests} == {"length"}


def test_prompts_reach_the_model_as_the_tokens_they_are(run: Path, record: dict[str, Any]) -> None:
    cached_tokens = pq.read_table(run / "requests.parquet")["input_tokens_cached"].to_pylist()
    assert set(cached_tokens) == {0}  # it says so, and computes each
    assert record["serving"]["input_tokens_checked"] > 0
    assert record["serving"]["input_tokens_differ"] == 0


def test_tokens_are_timed_one_by_one(record: dict[str, Any]) -> None:
    assert record["serving"]["time_to_first_token"]["p50_s"] > 0
    assert record["serving"]["inter_token_latency"]["p50_s"] > 0


def test_its_metrics_and_settings_are_read(record: dict[str, Any]) -> None:
    assert record["serving"]["waiting_mean"] is not None
    assert record["performance"]["kv_cache_share_max"] is not None
    settings = record["environment"]["engine"]["resolved_config"]["settings"]["vllm_config"]
    assert settings["model_config"]["enforce_eager"] is True
    assert settings["model_config"]["max_model_len"] == 256
    assert settings["model_config"]["dtype"] == "torch.bfloat16"


def test_nothing_of_the_server_is_left(record: dict[str, Any]) -> None:
    command = record["environment"]["engine"]["resolved_config"]["server"]["argv"]
    port = command[command.index("--port") + 1]
    assert living(f"--port {port}") == []
