"""Rules across settings: each is broken by something, and lets the rest pass."""

from typing import Any

import pytest

from llenergymeasure.config.conflicting_settings import RULES, Shape, broken_rules
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, model_shape, study_from_mapping
from llenergymeasure.workload.models.known import KNOWN

SHAPE = Shape(heads=12, kv_heads=4, layers=6, max_positions=2048)

Case = tuple[str, dict[str, Any], str]
"""The rule that is broken, by what, and words of the message."""


def vllm(**engine: Any) -> dict[str, Any]:
    return {"backend": "vllm", "vllm": {"engine": engine}}


def vllm_sampling(**sampling: Any) -> dict[str, Any]:
    return {"backend": "vllm", "vllm": {"sampling": sampling}}


def trt(**engine: Any) -> dict[str, Any]:
    return {"backend": "tensorrt", "tensorrt": {"engine": engine}}


def sglang(**engine: Any) -> dict[str, Any]:
    return {"backend": "sglang", "sglang": {"engine": engine}}


def messages(
    settings: dict[str, Any],
    shape: Shape | None = SHAPE,
) -> list[str]:
    config = ExperimentConfig.model_validate({"model": "x", "max_input_tokens": 64, **settings})
    return [str(problem) for problem in broken_rules(config, shape)]


BROKEN: list[Case] = [
    ("adapter_needs_pytorch", {"backend": "vllm", "lora": {"adapter_id": "a/b"}}, "pytorch alone"),
    ("heads_divide", vllm(tensor_parallel_size=5), "12 attention heads"),
    ("heads_divide", vllm(tensor_parallel_size=6), "4 key and value heads"),
    ("heads_divide", sglang(tp_size=5), "12 attention heads"),
    ("heads_divide", {"pytorch": {"tensor_parallel_size": 5}}, "12 attention heads"),
    ("heads_divide", {"backend": "tensorrt", "tensorrt": {"tp_size": 5}}, "12 attention heads"),
    ("heads_divide", trt(tensor_parallel_size=5), "12 attention heads"),
    ("stages_have_layers", vllm(pipeline_parallel_size=7), "6 layers"),
    ("stages_have_layers", sglang(pp_size=7), "6 layers"),
    ("stages_have_layers", trt(pipeline_parallel_size=7), "6 layers"),
    ("context_within_positions", vllm(max_model_len=4096), "2048"),
    ("context_within_positions", sglang(context_length=4096), "2048"),
    ("workload_fits", vllm(max_model_len=128), "192 tokens together"),
    ("workload_fits", sglang(context_length=128), "192 tokens together"),
    ("workload_fits", trt(max_seq_len=64), "192 tokens together"),
    ("one_precision", vllm(dtype="half"), "precision is bf16"),
    ("one_precision", sglang(dtype="float16"), "precision is bf16"),
    ("one_precision", trt(dtype="float16"), "precision is bf16"),
    ("one_seed", vllm(seed=7), "random_seed is 42"),
    ("one_seed", sglang(random_seed=1), "random_seed is 42"),
    ("one_seed", {"backend": "tensorrt", "tensorrt": {"sampling": {"seed": 1}}}, "is 42"),
    ("answer_lengths_agree", vllm_sampling(min_tokens=200), "fewest tokens"),
    (
        "answer_lengths_agree",
        {"backend": "sglang", "decoder": {"min_new_tokens": 200}},
        "fewest tokens",
    ),
    (
        "greedy_gives_one_answer",
        {**vllm_sampling(n=3), "decoder": {"temperature": 0.0}},
        "all the same",
    ),
    ("top_p_leaves_tokens", {"backend": "vllm", "decoder": {"top_p": 0.0}}, "no token"),
    ("top_p_leaves_tokens", {"backend": "sglang", "decoder": {"top_p": 0.0}}, "no token"),
    *(
        (
            "prompt_lookup_conditions",
            {"pytorch": {"prompt_lookup_num_tokens": 3, **settings}},
            words,
        )
        for settings, words in (
            ({"batch_size": 2}, "one prompt at a time"),
            ({"num_beams": 2}, "does not go with beams"),
            ({"use_cache": False}, "needs the cache"),
            ({"cache_implementation": "static"}, "needs the default cache"),
        )
    ),
    *(
        ("natural_answers_have_no_seed", {"answer_length": "natural", **settings}, "settles")
        for settings in (
            vllm_sampling(ignore_eos=True),
            {"backend": "sglang", "sglang": {"sampling": {"sampling_seed": 3}}},
            {"backend": "tensorrt", "tensorrt": {"sampling": {"ignore_eos": True}}},
            {
                "backend": "openai",
                "openai": {"base_url": "http://127.0.0.1:1/v1", "body": {"seed": 1}},
            },
        )
    ),
]


@pytest.mark.parametrize(("rule", "settings", "words"), BROKEN)
def test_what_breaks_a_rule_is_found(rule: str, settings: dict[str, Any], words: str) -> None:
    assert any(words in message for message in messages(settings)), rule


def test_every_rule_is_broken_by_one_of_these() -> None:
    assert {rule for rule, _, _ in BROKEN} == {rule.__name__ for rule in RULES}
    assert len(RULES) <= 12


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"backend": "vllm"},
        {"backend": "sglang"},
        {"backend": "tensorrt"},
        {"backend": "openai", "openai": {"base_url": "http://127.0.0.1/v1"}},
        vllm(tensor_parallel_size=4, pipeline_parallel_size=6),
        vllm(tensor_parallel_size=12, decode_context_parallel_size=3),
        vllm(max_model_len=-1),
        vllm(max_model_len=2048, max_num_batched_tokens=2048, enable_chunked_prefill=False),
        vllm(max_num_batched_tokens=64, max_num_seqs=64),
        vllm(offload_group_size=4, offload_num_in_group=1),
        vllm(quantization="awq", dtype="bfloat16", seed=42, kv_cache_dtype="fp8"),
        vllm(speculative_config={"method": "ngram", "num_speculative_tokens": 3}),
        vllm(speculative_model="draft", num_speculative_tokens=3),
        vllm_sampling(n=4, min_tokens=3),
        sglang(tp_size=2, chunked_prefill_size=-1, page_size=16, dtype="auto"),
        sglang(tp_size=8, attn_dp_size=8),
        sglang(speculative_algorithm="EAGLE"),
        {"pytorch": {"prompt_lookup_num_tokens": 3}},
        trt(attn_backend="FLASHINFER", cuda_graph_config={"batch_sizes": [1, 8]}),
        trt(build_config={"max_batch_size": 8}),
        trt(cuda_graph_config={"batch_sizes": [4, 3, 2, 1], "max_batch_size": 4}),
        trt(
            cuda_graph_config={
                "batch_sizes": [1, 2, 4, *range(8, 129, 8), 256, 300],
                "max_batch_size": 300,
                "enable_padding": True,
            }
        ),
        trt(
            speculative_config={
                "decoding_type": "NGram",
                "max_draft_len": 4,
                "max_matching_ngram_size": 2,
            }
        ),
        {"backend": "tensorrt", "tensorrt": {"quantization": "fp8"}},
    ],
)
def test_what_goes_together_passes(settings: dict[str, Any]) -> None:
    assert messages(settings) == []


def test_traffics_own_lengths_are_those_that_must_fit() -> None:
    def traffic(prompt: dict[str, Any]) -> dict[str, Any]:
        return {
            **vllm(max_model_len=64),
            "serving": {"rate_per_s": 1, "input_tokens": prompt, "output_tokens": {"tokens": 4}},
        }

    assert messages(traffic({"tokens": 16})) == []
    assert any("84 tokens together" in message for message in messages(traffic({"tokens": 80})))
    bounded = {"distribution": "uniform", "min_tokens": 8, "max_tokens": 100}
    assert any("104 tokens together" in message for message in messages(traffic(bounded)))
    assert messages(traffic({"distribution": "lognormal", "mean_tokens": 50, "cv": 1})) == []


@pytest.mark.parametrize(
    "limit",
    [
        vllm_sampling(max_tokens=50),
        {"backend": "sglang", "sglang": {"sampling": {"max_new_tokens": 50}}},
        *(
            {
                "backend": "openai",
                "openai": {"base_url": "http://127.0.0.1:1/v1", "body": {name: 50}},
            }
            for name in ("max_tokens", "max_completion_tokens")
        ),
    ],
)
def test_an_engines_limit_does_not_replace_traffics_lengths(limit: dict[str, Any]) -> None:
    uniform = {"distribution": "uniform", "min_tokens": 8, "max_tokens": 100}
    for lengths in ({"tokens": 80}, uniform):
        (message,) = messages({**limit, "serving": {"rate_per_s": 1, "output_tokens": lengths}})
        assert "in place of serving.output_tokens" in message
        assert message.endswith("set serving.output_tokens: {tokens: 50}")  # as fits below
    recorded = {"arrivals": "trace", "trace": "requests.csv"}
    (message,) = messages({**limit, "serving": recorded})
    assert "in place of the trace's lengths" in message
    for fits in (
        {"rate_per_s": 1},
        {"rate_per_s": 1, "output_tokens": {"tokens": 50}},
        {**recorded, "output_tokens": {"tokens": 50}},
    ):
        assert messages({**limit, "serving": fits}) == []


def test_what_is_not_known_breaks_nothing() -> None:
    assert messages(vllm(tensor_parallel_size=5, max_model_len=10**6), shape=None) == []
    open_ended = Shape(heads=4, kv_heads=4, layers=4, max_positions=None)
    assert messages(vllm(max_model_len=10**6), shape=open_ended) == []
    assert messages({**vllm(max_model_len=64), "dataset": "prompts.jsonl"}) == []


def test_points_are_left_out_of_the_grid_by_the_models_shape() -> None:
    study = study_from_mapping(
        {
            "model": "tiny-llama",
            "backend": "vllm",
            "sweep": {"vllm.engine.tensor_parallel_size": [1, 2, 3, 4]},
        }
    )
    sizes = [
        experiment.swept["vllm.engine.tensor_parallel_size"] for experiment in study.experiments
    ]
    assert sizes == [1, 2, 4]
    (left_out,) = study.left_out
    assert "3 does not divide the model's 4 attention heads; use 1, 2, 4" in left_out["reason"]


def test_a_study_of_one_that_cannot_be_is_an_error_at_its_line(tmp_path: Any) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("model: tiny-llama\nbackend: vllm\nvllm:\n  engine:\n    max_model_len: 9999\n")
    with pytest.raises(ConfigurationError) as caught:
        load_study(path)
    message = str(caught.value)
    assert f"{path}:5" in message
    assert "vllm.engine.max_model_len: 9999 tokens are more than the 4096" in message


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_shapes_of_the_built_in_models_are_known(name: str) -> None:
    shape = model_shape(name)
    assert shape is not None
    assert shape.heads % shape.kv_heads == 0
    assert shape.max_positions


def test_shape_of_a_local_folder(tmp_path: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = '{"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, '
    config += '"num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 128, '
    config += '"vocab_size": 100, "max_position_embeddings": 512, '
    config += '"rope_scaling": {"rope_type": "linear", "factor": 2.0}}'
    (folder / "config.json").write_text(config)
    assert model_shape(str(folder)) == Shape(heads=8, kv_heads=2, layers=3, max_positions=None)
    assert model_shape(str(tmp_path)) is None
    assert model_shape("someone/unknown") is None


def test_a_longer_context_goes_where_the_study_or_a_variable_allows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longer = {"max_model_len": 4096}
    assert messages(vllm(**longer)) != []
    assert messages(vllm(**longer, hf_overrides={"max_position_embeddings": 8192})) == []
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert messages(vllm(**longer)) == []
