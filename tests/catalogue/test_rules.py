"""Rules across settings: each is broken by something, names its source, and lets the rest pass."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.rules import RULES, Capability, Shape, breaches
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.models.known import KNOWN
from llenergymeasure.workload.studies import load_study, model_shape, study_from_mapping

SHAPE = Shape(heads=12, kv_heads=4, layers=6, max_positions=2048)

Case = tuple[str, dict[str, Any], str]


def vllm(**engine: Any) -> dict[str, Any]:
    return {"backend": "vllm", "vllm": {"engine": engine}}


def vllm_sampling(**sampling: Any) -> dict[str, Any]:
    return {"backend": "vllm", "vllm": {"sampling": sampling}}


def trt(**engine: Any) -> dict[str, Any]:
    return {"backend": "tensorrt", "tensorrt": {"engine": engine}}


def sglang(**engine: Any) -> dict[str, Any]:
    return {"backend": "sglang", "sglang": {"engine": engine}}


def found(
    settings: dict[str, Any],
    shape: Shape | None = SHAPE,
    capability: Capability | None = None,
) -> list[str]:
    config = ExperimentConfig.model_validate({"model": "x", "max_input_tokens": 64, **settings})
    return [f"{each.key}: {each}" for each in breaches(config, shape, capability)]


BROKEN: list[Case] = [
    ("heads against tensor_parallel_size", vllm(tensor_parallel_size=5), "12 attention heads"),
    ("heads against tensor_parallel_size", vllm(tensor_parallel_size=6), "4 key and value heads"),
    ("layers against pipeline_parallel_size", vllm(pipeline_parallel_size=7), "6 layers"),
    (
        "key and value heads against decode_context_parallel_size",
        vllm(decode_context_parallel_size=2, tensor_parallel_size=4),
        "above the model's 4",
    ),
    (
        "key and value heads against decode_context_parallel_size",
        vllm(decode_context_parallel_size=4, tensor_parallel_size=12),
        "3 at most",
    ),
    ("max_model_len against the model's positions", vllm(max_model_len=4096), "2048"),
    ("prompt and answer against max_model_len", vllm(max_model_len=128), "192 tokens together"),
    (
        "max_num_batched_tokens against the context, chunked prefill and max_num_seqs",
        vllm(max_num_batched_tokens=1024, enable_chunked_prefill=False),
        "context of 2048",
    ),
    (
        "max_num_batched_tokens against the context, chunked prefill and max_num_seqs",
        vllm(max_num_batched_tokens=16, max_num_seqs=32),
        "fewer than max_num_seqs",
    ),
    (
        "max_num_active_seqs against max_num_seqs",
        vllm(max_num_active_seqs=9, max_num_seqs=8),
        "more than max_num_seqs",
    ),
    (
        "long_prefill_token_threshold against the context",
        vllm(long_prefill_token_threshold=4096),
        "context of 2048",
    ),
    (
        "offloaded layers against their group",
        vllm(offload_group_size=2, offload_num_in_group=3),
        "more than the group",
    ),
    (
        "offloaded layers against their group",
        vllm(offload_group_size=2, offload_prefetch_step=0),
        "at least 1",
    ),
    (
        "quantization against precision and compute capability",
        {**vllm(quantization="awq"), "precision": "fp32"},
        "bf16 or fp16",
    ),
    (
        "kv_cache_dtype against precision",
        {**vllm(kv_cache_dtype="float16"), "precision": "bf16"},
        "precision is bf16",
    ),
    (
        "speculative_config's parts",
        vllm(speculative_config={"num_speculative_tokens": 3}),
        "needs a model, or a method",
    ),
    (
        "speculative_config's parts",
        vllm(
            speculative_config={"method": "ngram", "prompt_lookup_min": 5, "prompt_lookup_max": 2}
        ),
        "more than prompt_lookup_max",
    ),
    (
        "speculative_config's parts",
        vllm(
            tensor_parallel_size=4,
            speculative_config={"model": "d", "draft_tensor_parallel_size": 2},
        ),
        "1 or the tensor_parallel_size",
    ),
    ("elastic expert parallelism", vllm(enable_elastic_ep=True), "enable_eplb"),
    (
        "enable_expert_parallel against the model",
        vllm(enable_expert_parallel=True),
        "no experts",
    ),
    ("dtype and seed against precision and random_seed", vllm(dtype="half"), "precision is bf16"),
    ("dtype and seed against precision and random_seed", vllm(seed=7), "random_seed is 42"),
    (
        "sampling parameters",
        {**vllm_sampling(n=2), "decoder": {"preset": "deterministic"}},
        "greedy",
    ),
    ("sampling parameters", vllm_sampling(min_tokens=200), "fewest tokens"),
    ("sampling parameters", {"backend": "vllm", "decoder": {"top_p": 0.0}}, "no token"),
    ("sampling parameters", vllm_sampling(stop=["x"], detokenize=False), "detokenize"),
    ("heads against tp_size", sglang(tp_size=5), "12 attention heads"),
    ("layers and speculative decoding against pp_size", sglang(pp_size=7), "6 layers"),
    (
        "layers and speculative decoding against pp_size",
        sglang(pp_size=2, speculative_algorithm="NGRAM"),
        "does not go with pp_size",
    ),
    ("context_length against the model's positions", sglang(context_length=4096), "2048"),
    ("prompt and answer against context_length", sglang(context_length=128), "192"),
    (
        "chunked_prefill_size against page_size",
        sglang(chunked_prefill_size=100, page_size=16),
        "multiple",
    ),
    (
        "CUDA graph padding against torch.compile",
        sglang(disable_cuda_graph_padding=True, enable_torch_compile=True),
        "enable_torch_compile",
    ),
    (
        "priorities against the policy",
        sglang(enable_priority_scheduling=True, schedule_policy="lpm"),
        "fcfs or lof",
    ),
    ("priorities against the policy", sglang(retraction_policy="priority"), "needs enable"),
    ("moe_dense_tp_size against tp_size", sglang(moe_dense_tp_size=3), "can only be 1"),
    (
        "quantization against precision and compute capability",
        {**sglang(quantization="w8a8_int8"), "precision": "fp32"},
        "precision is fp32",
    ),
    (
        "the parts of EAGLE's tree",
        sglang(speculative_algorithm="EAGLE", speculative_eagle_topk=4),
        "speculative_num_steps",
    ),
    ("dtype and random_seed against the study's", sglang(random_seed=1), "random_seed is 42"),
    (
        "sampling parameters",
        {"backend": "sglang", "decoder": {"repetition_penalty": 3.0}},
        "SGLang's 2",
    ),
    (
        "sampling parameters",
        {"backend": "sglang", "sglang": {"sampling": {"beam_width": 2, "n": 3}}},
        "beam_width of 2",
    ),
    (
        "prompt lookup against batches, beams and the cache",
        {"pytorch": {"prompt_lookup_num_tokens": 3, "batch_size": 2}},
        "one prompt at a time",
    ),
    (
        "heads against tensor_parallel_size",
        {"pytorch": {"tensor_parallel_size": 5}},
        "12 attention heads",
    ),
    (
        "heads against tensor parallelism",
        {"backend": "tensorrt", "tensorrt": {"tp_size": 5}},
        "12 attention heads",
    ),
    (
        "heads against tensor parallelism",
        {"backend": "tensorrt", "tensorrt": {"engine": {"tensor_parallel_size": 5}}},
        "12 attention heads",
    ),
    (
        "layers against pipeline parallelism",
        trt(pipeline_parallel_size=13),
        "6 layers",
    ),
    (
        "arguments against the backend",
        trt(fast_build=False, backend="pytorch"),
        "backend: tensorrt",
    ),
    ("arguments against the backend", trt(attn_backend="X", backend="tensorrt"), "to PyTorch"),
    (
        "arguments against the backend",
        trt(load_format="VISION_ONLY", backend="tensorrt"),
        "auto or dummy",
    ),
    (
        "arguments against the backend",
        {
            "backend": "tensorrt",
            "tensorrt": {"quantization": "fp8", "engine": {"backend": "pytorch"}},
        },
        "backend: tensorrt",
    ),
    (
        "the cache's data type in a compiled engine",
        trt(kv_cache_config={"dtype": "fp8"}, backend="tensorrt"),
        "can only be auto",
    ),
    (
        "CUDA graphs' largest batch against their list",
        trt(cuda_graph_config={"batch_sizes": [1, 8], "max_batch_size": 4}),
        "must be left out where batch_sizes lists",
    ),
    (
        "speculative decoding against the backend, its draft and its length",
        trt(speculative_config={"decoding_type": "Medusa", "max_draft_len": 3}),
        "Medusa does not run in the PyTorch backend",
    ),
    (
        "speculative decoding against the backend, its draft and its length",
        trt(speculative_config={"decoding_type": "NGram", "max_draft_len": 4}),
        "above 0 for NGram",
    ),
    (
        "speculative decoding against the backend, its draft and its length",
        trt(speculative_config={"decoding_type": "Eagle", "max_draft_len": 3}),
        "needs a draft model",
    ),
    (
        "speculative decoding against the backend, its draft and its length",
        trt(speculative_config={"max_draft_len": 3}),
        "must be given: one of AUTO",
    ),
    (
        "guided decoding against the backend",
        trt(guided_decoding_backend="llguidance", backend="tensorrt"),
        "PyTorch alone",
    ),
    (
        "Ray's settings against the orchestrator",
        trt(ray_placement_config={"defer_workers_init": True}),
        "orchestrator_type: ray",
    ),
    ("prompt and answer against max_seq_len", trt(max_seq_len=64), "192 tokens together"),
    ("dtype and seed against the study's", trt(dtype="float16"), "precision is bf16"),
    (
        "dtype and seed against the study's",
        {"backend": "tensorrt", "tensorrt": {"sampling": {"seed": 1}}},
        "random_seed is 42",
    ),
    (
        "sampling parameters",
        {"backend": "tensorrt", "tensorrt": {"sampling": {"n": 3, "best_of": 2}}},
        "fewer than the 3 answers",
    ),
    *(
        ("seeds and ends of natural answers", {"answer_length": "natural", **own}, "settles")
        for own in (
            {"backend": "vllm", "vllm": {"engine": {"seed": 42}}},
            {"backend": "sglang", "sglang": {"sampling": {"sampling_seed": 3}}},
            {"backend": "tensorrt", "tensorrt": {"sampling": {"ignore_eos": True}}},
            {
                "backend": "openai",
                "openai": {"base_url": "http://127.0.0.1:1/v1", "body": {"seed": 0}},
            },
        )
    ),
]


@pytest.mark.parametrize(("about", "settings", "words"), BROKEN)
def test_is_found_with_its_source(about: str, settings: dict[str, Any], words: str) -> None:
    backend = settings.get("backend", "pytorch")
    rule = next(rule for rule in RULES[backend] if rule.about == about)
    (message,) = found(settings)
    assert words in message
    assert rule.source in message


def test_every_rule_is_broken_by_one_of_these() -> None:
    shown = {(settings.get("backend", "pytorch"), about) for about, settings, _ in BROKEN}
    rules = {(backend, rule.about) for backend, each in RULES.items() for rule in each}
    assert rules == shown


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
    assert found(settings) == []


def test_what_is_not_known_breaks_nothing() -> None:
    assert found(vllm(tensor_parallel_size=5, max_model_len=10**6), shape=None) == []
    open_ended = Shape(heads=4, kv_heads=4, layers=4, max_positions=None)
    assert found(vllm(max_model_len=10**6), shape=open_ended) == []
    assert found({**vllm(max_model_len=64), "dataset": "prompts.jsonl"}) == []


@pytest.mark.parametrize(
    ("settings", "capability", "words"),
    [
        (vllm(quantization="fp8"), (7, 0), "needs compute capability 7.5"),
        (vllm(quantization="fp8"), (8, 0), None),
        (vllm(quantization="fp_quant"), (9, 0), "needs compute capability 10.0"),
        (sglang(quantization="w8a8_fp8"), (8, 6), "needs compute capability 8.9"),
        (sglang(quantization="w8a8_fp8"), (8, 9), None),
    ],
)
def test_quantisation_needs_a_gpu_new_enough(
    settings: dict[str, Any], capability: Capability, words: str | None
) -> None:
    messages = found(settings, capability=capability)
    assert (words in messages[0]) if words else not messages


def test_points_are_left_out_of_the_grid_by_the_models_shape() -> None:
    study = study_from_mapping(
        {
            "model": "tiny-llama",
            "backend": "vllm",
            "sweep": {"vllm.engine.tensor_parallel_size": [1, 2, 3, 4]},
        }
    )
    sizes = [each.swept["vllm.engine.tensor_parallel_size"] for each in study.experiments]
    assert sizes == [1, 2, 4]
    (left_out,) = study.left_out
    assert "3 does not divide the model's 4 attention heads; use 1, 2, 4" in left_out.reason
    assert "ModelConfig.verify_with_parallel_config" in left_out.reason


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
    assert found(vllm(**longer)) != []
    assert found(vllm(**longer, hf_overrides={"max_position_embeddings": 8192})) == []
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert found(vllm(**longer)) == []
