"""The pytorch backend under traffic: from a spec to a result, with transformers' own batching."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends.pytorch.continuous_batching import Answer
from llenergymeasure.backends.pytorch.server import server_command
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from support.attempts import start

SERVING = {"arrivals": "constant", "rate_per_s": 2}


@pytest.mark.slow
def test_a_run_under_traffic_leaves_a_whole_result(tmp_path: Path) -> None:
    attempt = start(
        tmp_path,
        serving=SERVING,
        slo={"e2e_ms": 60_000},
        window={"min_seconds": 3.0},
        warmup={"n_warmup": 1},
    )
    assert attempt.process.wait(240) == 0, attempt.outcome()
    result = attempt.result()
    serving = result["serving"]
    assert serving["requests_failed"] == 0
    assert serving["input_tokens_differ"] == 0
    assert serving["input_tokens_checked"] > 0
    assert serving["requests_sent"] == pytest.approx(6, abs=2)
    assert serving["slo_share"] == 1.0
    assert result["tokens"]["output"] > 0
    assert [phase["name"] for phase in result["phases"]][-5:] == [
        *("prepare", "ramp_up", "measure", "drain", "release")
    ]
    assert result["performance"]["time_to_first_token_p50_s"] > 0
    attempt.nothing_left()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pytorch": {"num_beams": 2}}, "pytorch.num_beams"),
        ({"decoder": {"repetition_penalty": 1.2}}, "decoder.repetition_penalty"),
        ({"serving": {**SERVING, "endpoint": "chat"}}, "serving.endpoint"),
    ],
)
def test_what_continuous_batching_has_no_place_for_is_refused(
    settings: dict[str, object], says: str
) -> None:
    config = ExperimentConfig.model_validate(
        {"model": "tiny-llama", "serving": SERVING, **settings}
    )
    with pytest.raises(BackendError, match=says):
        server_command(config, 1)


def test_its_answers_show_where_a_thought_begins_and_ends() -> None:
    chunks: list[bytes] = []
    connection: Any = SimpleNamespace(chunk=chunks.append, end=lambda: None)
    batcher: Any = SimpleNamespace(markers={7: "<think>", 8: "</think>"}, in_flight=1)
    streamed = Answer(connection, {"prompt": [1], "max_tokens": 5}, batcher)
    written = [7, 5, 8, 9, 9]
    for count in range(1, len(written) + 1):
        finished = count == len(written)
        fields = {"generated_tokens": written[:count], "error": None}
        streamed.send_new_tokens(
            SimpleNamespace(**fields, is_finished=lambda finished=finished: finished)
        )
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=5)
    list(read_answer(exchange, [(100, b"".join(chunks) + b"data: [DONE]\n\n")], complete=True))
    assert (exchange.failure, exchange.output_tokens, exchange.thinking_tokens) == (None, 5, 3)
