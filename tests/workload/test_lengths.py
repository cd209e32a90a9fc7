"""Lengths follow their distribution; conversations and prefixes hold what they share."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.prompts import traffic_prompts


def prompts(**serving: Any):
    serving = {"rate_per_s": 1, **serving}
    config = ExperimentConfig(model="tiny-llama", serving=serving, n=5, max_output_tokens=9)
    return traffic_prompts(config)


def lengths(count: int, **serving: Any) -> tuple[np.ndarray, np.ndarray]:
    traffic = prompts(**serving)
    requests = [traffic.turn(number).request for number in range(count)]
    inputs = np.array([len(request.prompt_token_ids) for request in requests])
    return inputs, np.array([request.max_output_tokens for request in requests])


def test_lengths_are_uniform_between_their_limits() -> None:
    inputs, answers = lengths(
        3000,
        input_tokens={"distribution": "uniform", "min_tokens": 3, "max_tokens": 12},
        output_tokens={"tokens": 4},
    )
    assert stats.chisquare(np.bincount(inputs)[3:]).pvalue > 1e-3
    assert (inputs.min(), inputs.max()) == (3, 12)
    assert set(answers) == {4}


def test_lognormal_lengths_have_their_mean_and_spread() -> None:
    _, answers = lengths(
        4000,
        input_tokens={"tokens": 1},
        output_tokens={"distribution": "lognormal", "mean_tokens": 200, "cv": 0.8},
    )
    assert np.mean(answers) == pytest.approx(200, rel=0.05)
    sigma = math.sqrt(math.log1p(0.8**2))
    logs = (np.log(answers) - (math.log(200) - sigma**2 / 2)) / sigma
    assert stats.kstest(logs, "norm").pvalue > 1e-3


def test_lengths_from_data_keep_prompt_and_answer_together(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = {(10, 1): 0, (20, 2): 1, (30, 3): 2}
    lines = [f"{time_s},{inputs},{answer}" for (inputs, answer), time_s in rows.items()]
    trace.write_text("timestamp,input_tokens,output_tokens\n" + "\n".join(lines))
    data = {"distribution": "data"}
    inputs, answers = lengths(300, trace=str(trace), input_tokens=data, output_tokens=data)
    assert set(zip(inputs.tolist(), answers.tolist(), strict=True)) == set(rows)
    inputs, answers = lengths(6, arrivals="trace", rate_per_s=None, trace=str(trace))
    assert inputs.tolist() == [10, 20, 30, 10, 20, 30]


def test_prompts_share_a_prefix_at_the_set_ratio() -> None:
    traffic = prompts(input_tokens={"tokens": 40}, shared_prefix_ratio=0.75, shared_prefixes=3)
    requests = [traffic.turn(number).request.prompt_token_ids for number in range(60)]
    assert len({prompt[:30] for prompt in requests}) == 3
    assert len({prompt[:31] for prompt in requests}) > 50


def test_a_data_sets_own_prefix_is_kept_under_traffic() -> None:
    dataset = {"input_len": 20, "output_len": 4, "shared_prefix_len": 15}
    config = ExperimentConfig(model="tiny-llama", serving={"rate_per_s": 1}, dataset=dataset)
    traffic = traffic_prompts(config)
    assert len({traffic.turn(number).request.prompt_token_ids[:15] for number in range(20)}) == 1
    assert len({traffic.turn(number).request.prompt_token_ids for number in range(20)}) == 20


def test_a_turn_holds_all_that_went_before() -> None:
    traffic = prompts(turns=3, input_tokens={"tokens": 6}, output_tokens={"tokens": 4})
    first, second, third = (traffic.turn(5, turn).request for turn in range(3))
    assert [len(request.prompt_token_ids) for request in (first, second, third)] == [6, 16, 26]
    assert second.prompt_token_ids[:6] == first.prompt_token_ids
    assert third.prompt_token_ids[:16] == second.prompt_token_ids
    assert [request.index for request in (first, second, third)] == [15, 16, 17]
    assert traffic.turn(6).request.prompt_token_ids != first.prompt_token_ids


def test_pauses_are_exponential_and_each_has_its_own() -> None:
    traffic = prompts(turns=2, think_seconds=3.0)
    pauses = [traffic.think_s(number, 1) for number in range(500)]
    assert stats.kstest(pauses, "expon", args=(0, 3.0)).pvalue > 1e-3
    assert prompts(turns=2).think_s(0, 1) == 0
