"""The tiny model, for real, on the CPU."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

Load = Callable[..., Engine]


def experiment(**values: Any) -> ExperimentConfig:
    defaults = {"model": "tiny-llama", "n": 4, "dataset": {"input_len": 12, "output_len": 9}}
    return ExperimentConfig.model_validate({**defaults, **values})


@pytest.fixture
def load() -> Iterator[Load]:
    """Load engines that are closed in the end."""
    engines: list[Engine] = []

    def load_one(**values: Any) -> Engine:
        config = experiment(**values)
        backend = registry.get("pytorch")
        assert backend.problems(config) == []
        engines.append(backend.load(config))
        return engines[-1]

    yield load_one
    for engine in engines:
        engine.close()


def answer(engine: Engine, **values: Any) -> list[Completion]:
    """Put an experiment's workload through an engine, batch by batch."""
    requests = build_workload(experiment(**values)).requests
    size = engine.batch_size
    assert size is not None
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    return [completion for batch in batches for completion in engine.generate(batch)]


def request(index: int, length: int, output: int) -> Request:
    return Request(index, tuple(range(10, 10 + length)), output)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_exactly_the_tokens_asked_for(load: Load, precision: str, batch_size: int) -> None:
    engine = load(precision=precision, pytorch={"batch_size": batch_size})
    completions = answer(engine)
    assert [completion.index for completion in completions] == [0, 1, 2, 3]
    assert [completion.input_tokens for completion in completions] == [12] * 4
    assert [completion.output_tokens for completion in completions] == [9] * 4
    assert {completion.finish_reason for completion in completions} == {"length"}
    assert (
        engine.resolved_config()["dtype"]
        == {
            "fp32": "float32",
            "bf16": "bfloat16",
            "fp16": "float16",
        }[precision]
    )


def test_times_are_in_order(load: Load) -> None:
    import time

    engine = load(pytorch={"batch_size": 4})
    before = time.monotonic_ns()
    completions = answer(engine)
    after = time.monotonic_ns()
    for completion in completions:
        assert completion.first_token_monotonic_ns is not None
        assert before <= completion.start_monotonic_ns < completion.first_token_monotonic_ns
        assert completion.first_token_monotonic_ns < completion.end_monotonic_ns <= after
    assert (
        len(
            {
                (completion.start_monotonic_ns, completion.end_monotonic_ns)
                for completion in completions
            }
        )
        == 1
    )
    steps_ns = completions[0].step_monotonic_ns
    assert steps_ns is not None
    assert len(steps_ns) == completions[0].output_tokens
    assert steps_ns[0] >= (completions[0].first_token_monotonic_ns or 0)
    assert list(steps_ns) == sorted(steps_ns)
    assert steps_ns[-1] <= completions[0].end_monotonic_ns
    assert [completion.step_monotonic_ns for completion in completions[1:]] == [None] * 3


def test_padding_is_not_counted(load: Load) -> None:
    engine = load(pytorch={"batch_size": 3})
    completions = engine.generate([request(0, 5, 4), request(1, 30, 4), request(2, 1, 4)])
    assert [(completion.input_tokens, completion.output_tokens) for completion in completions] == [
        (5, 4),
        (30, 4),
        (1, 4),
    ]


def test_padding_does_not_change_what_is_written(load: Load) -> None:
    """Greedy tokens of a prompt are the same alone and padded beside a longer one."""
    engine: Any = load(
        precision="fp32", decoder={"preset": "deterministic"}, pytorch={"batch_size": 2}
    )
    written: list[list[list[int]]] = []
    model = engine._loaded.model
    generate = model.generate

    def recorded(**arguments: Any) -> Any:
        out = generate(**arguments)
        written.append(out[:, arguments["input_ids"].shape[1] :].tolist())
        return out

    model.generate = recorded
    engine.generate([request(0, 5, 12)])
    engine.generate([request(0, 5, 12), request(1, 21, 12)])
    assert written[0][0] == written[1][0]
    assert written[0][0] != written[1][1]


def test_shorter_answers_of_a_batch_count_what_they_asked(load: Load) -> None:
    engine = load(pytorch={"batch_size": 2})
    completions = engine.generate([request(0, 5, 3), request(1, 6, 11)])
    assert [completion.output_tokens for completion in completions] == [3, 11]


def test_one_token_is_the_prefill_alone(load: Load) -> None:
    (completion,) = load().generate([request(0, 5, 1)])
    assert completion.output_tokens == 1


def test_nothing_asked_nothing_done(load: Load) -> None:
    assert load().generate([]) == []


def test_more_than_a_batch_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="2 requests in a batch of 1"):
        load().generate([request(0, 5, 1), request(1, 5, 1)])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 2, "early_stopping": True, "length_penalty": 0.5},
        {"no_repeat_ngram_size": 2},
        {"use_cache": False},
        {"use_cache": True},
        {"cache_implementation": "static"},
        {"cache_implementation": "sliding_window"},
        {"attn_implementation": "eager"},
        {"attn_implementation": "sdpa"},
        {"device_map": "cpu"},
        {"device_map": "auto", "max_memory": {"cpu": "4GiB"}},
        {"num_beams": 3, "batch_size": 2},
        {"num_threads": 1, "trust_remote_code": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("preset", ["deterministic", "creative"])
def test_every_setting_writes_what_was_asked(
    load: Load, settings: dict[str, Any], preset: str
) -> None:
    engine = load(pytorch=settings, decoder={"preset": preset})
    batch = [request(index, 7 + index, 8) for index in range(settings.get("batch_size", 1))]
    assert [completion.output_tokens for completion in engine.generate(batch)] == [8] * len(batch)


@pytest.mark.parametrize("preset", ["deterministic", "standard"])
def test_prompt_lookup(load: Load, preset: str) -> None:
    engine = load(pytorch={"prompt_lookup_num_tokens": 3}, decoder={"preset": preset})
    repetitive = Request(0, (10, 11, 12, 13) * 6, 20)
    (completion,) = engine.generate([repetitive])
    assert completion.output_tokens == 20
    assert completion.first_token_monotonic_ns is not None


def test_min_p_and_penalty(load: Load) -> None:
    decoder = {"temperature": 0.7, "min_p": 0.1, "repetition_penalty": 1.3, "top_k": 0}
    engine = load(decoder=decoder)
    (completion,) = engine.generate([request(0, 5, 6)])
    assert completion.output_tokens == 6
    options = engine.resolved_config()["generation_config"]
    assert {name: options[name] for name in decoder} == decoder


def test_temperature_zero_is_greedy(load: Load) -> None:
    options = load(decoder={"temperature": 0.0}).resolved_config()["generation_config"]
    assert options["do_sample"] is False


def test_the_end_of_sequence_ends_only_where_asked(load: Load) -> None:
    """With an output head that always writes the end of sequence."""

    def only_end(engine: Any) -> None:
        model = engine._loaded.model
        model.lm_head = torch.nn.Linear(256, 2048, bias=True, dtype=model.dtype)
        with torch.no_grad():
            model.lm_head.weight.zero_()
            model.lm_head.bias.zero_()
            model.lm_head.bias[1] = 10.0

    greedy = {"preset": "deterministic"}
    ignoring = load(decoder=greedy, pytorch={"batch_size": 2})
    only_end(ignoring)
    batch = [request(0, 5, 9), request(1, 8, 9)]
    assert [completion.output_tokens for completion in ignoring.generate(batch)] == [9, 9]
    ending = load(decoder={**greedy, "min_new_tokens": 4}, pytorch={"batch_size": 2})
    only_end(ending)
    completions = ending.generate(batch)
    assert [completion.output_tokens for completion in completions] == [5, 5]
    assert {completion.finish_reason for completion in completions} == {"stop"}
    natural = load(decoder=greedy, answer_length="natural", pytorch={"batch_size": 2})
    only_end(natural)
    assert [completion.output_tokens for completion in natural.generate(batch)] == [2, 2]


def test_each_cycle_draws_natural_answers_of_its_own() -> None:
    """With an output head by which one token in twelve ends an answer."""

    def lengths(cycle: int, **values: Any) -> list[int]:
        config = experiment(answer_length="natural", pytorch={"batch_size": 4}, **values)
        engine: Any = registry.get("pytorch").load(config.with_cycle_seed(cycle))
        model = engine._loaded.model
        model.lm_head = torch.nn.Linear(256, 2048, bias=True, dtype=model.dtype)
        with torch.no_grad():
            model.lm_head.weight.zero_()
            model.lm_head.bias.fill_(-1e4)
            model.lm_head.bias[1:13] = 0.0
        batch = [request(index, 5, 100) for index in range(4)]
        output_tokens = [completion.output_tokens for completion in engine.generate(batch)]
        engine.close()
        return output_tokens

    assert lengths(1) == lengths(1) != lengths(2)
    assert lengths(1, precision="fp32") == lengths(1)


def test_values_that_are_no_numbers_fail_the_run(load: Load) -> None:
    for decoder in ({"preset": "deterministic"}, {"preset": "standard"}):
        engine: Any = load(decoder=decoder)
        with torch.no_grad():
            engine._loaded.model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
        with pytest.raises(BackendError, match=r"nan|NaN"):
            engine.generate([request(0, 5, 6)])


def test_random_weights_of_a_known_architecture(load: Load) -> None:
    engine = load(model="tiny-mixtral", weights="random")
    (completion,) = engine.generate([request(0, 5, 6)])
    assert completion.output_tokens == 6
    resolved = engine.resolved_config()
    assert resolved["weights"] == "random"
    assert resolved["model_config"]["model_type"] == "mixtral"


def test_positions_that_a_model_does_not_have(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 2048,'
        '"n_positions": 16, "eos_token_id": 0, "bos_token_id": 0}'
    )
    engine = load(model=str(tmp_path), weights="random")
    assert engine.generate([request(0, 8, 8)])[0].output_tokens == 8
    with pytest.raises(BackendError, match="16 positions"):
        engine.generate([request(0, 8, 9)])


def test_what_is_in_force_is_told(load: Load) -> None:
    engine = load(pytorch={"batch_size": 2})
    resolved = engine.resolved_config()
    assert resolved["num_threads"] == torch.get_num_threads() == 1
    assert resolved["parameters"] == 4_000_000
    assert resolved["attn_implementation"] == "sdpa"
    assert resolved["generation_config"]["max_new_tokens"] == 9
    assert resolved["generation_config"]["top_k"] == 50
    assert "_name_or_path" not in resolved["model_config"]
    assert engine.devices == ()
    assert engine.peak_memory_bytes() is None
    engine.synchronize()


def test_a_closed_engine_says_so(load: Load) -> None:
    engine = load()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.generate([request(0, 5, 1)])


def test_passthrough_reaches_generation(load: Load) -> None:
    engine = load(passthrough_kwargs={"typical_p": 0.9, "low_cpu_mem_usage": True})
    assert engine.resolved_config()["generation_config"]["typical_p"] == 0.9
    assert engine.generate([request(0, 5, 3)])[0].output_tokens == 3


@pytest.mark.slow
def test_replicas_share_the_work(load: Load) -> None:
    engine = load(pytorch={"num_processes": 2, "batch_size": 2})
    assert engine.batch_size == 4
    completions = answer(engine)
    assert [completion.index for completion in completions] == [0, 1, 2, 3]
    assert [completion.output_tokens for completion in completions] == [9] * 4
    assert engine.resolved_config()["num_processes"] == 2
    assert len(engine.generate([request(7, 5, 2)])) == 1


@pytest.mark.slow
def test_a_replica_that_dies_fails_the_batch(load: Load) -> None:
    import os
    import signal

    engine: Any = load(pytorch={"num_processes": 2})
    os.kill(engine._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="process 1 ended unasked, with exit code -9"):
        engine.generate([request(0, 5, 2), request(1, 5, 2)])


@pytest.mark.slow
def test_a_process_that_cannot_load_ends_the_others(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(BackendError, match="cannot be loaded"):
        load(model=str(tmp_path), pytorch={"num_processes": 2})


@pytest.mark.slow
def test_slices_of_a_model_compute_together(load: Load) -> None:
    engine = load(pytorch={"tensor_parallel_size": 2, "batch_size": 2})
    assert engine.batch_size == 2
    completions = answer(engine)
    assert [completion.index for completion in completions] == [0, 1, 2, 3]
    assert [completion.output_tokens for completion in completions] == [9] * 4
    resolved = engine.resolved_config()
    assert resolved["tensor_parallel_size"] == 2
    assert resolved["parameters"] == 4_000_000


@pytest.mark.slow
def test_a_slice_that_dies_fails_the_batch_and_does_not_hang(load: Load) -> None:
    import os
    import signal

    engine: Any = load(pytorch={"tensor_parallel_size": 2})
    os.kill(engine._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="process"):
        engine.generate([request(0, 5, 2)])


@pytest.mark.slow
def test_torch_compile(load: Load) -> None:
    engine = load(pytorch={"torch_compile": True, "torch_compile_backend": "aot_eager"})
    for length in (5, 6):
        assert engine.generate([request(0, length, 4)])[0].output_tokens == 4
