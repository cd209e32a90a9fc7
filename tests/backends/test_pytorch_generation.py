"""The tiny model, for real, on the CPU."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.backends.pytorch.generation import generation_config
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("nothing_to_collect")

Load = Callable[..., Engine]
END = 1
"""The tiny model's end of sequence."""


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


def always_writes(engine: Any, *token_ids: int) -> None:
    """Put an output head on the model that writes these tokens alone, each as often."""
    model = engine._loaded.model
    model.lm_head = torch.nn.Linear(256, 2048, bias=True, dtype=model.dtype)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.fill_(-1e4)
        model.lm_head.bias[list(token_ids)] = 0.0


def request(index: int, length: int, output: int) -> Request:
    return Request(index, tuple(range(10, 10 + length)), output)


@pytest.fixture(scope="module")
def four() -> Iterator[Engine]:
    """An engine for batches of up to four, of the settings by default."""
    engine = registry.get("pytorch").load(experiment(pytorch={"batch_size": 4}))
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("precision", "dtype", "batch_size"),
    [("fp32", "float32", 1), ("bf16", "bfloat16", 3), ("fp16", "float16", 3)],
)
def test_exactly_the_tokens_asked_for(
    load: Load, precision: str, dtype: str, batch_size: int
) -> None:
    engine = load(precision=precision, pytorch={"batch_size": batch_size})
    assert [
        (each.index, each.input_tokens, each.output_tokens, each.finish_reason)
        for each in answer(engine)
    ] == [(index, 12, 9, "length") for index in range(4)]
    assert engine.resolved_config()["dtype"] == dtype


def test_times_are_in_order(four: Engine) -> None:
    before = time.monotonic_ns()
    first, *others = answer(four)
    after = time.monotonic_ns()
    assert first.first_token_monotonic_ns is not None
    assert first.step_monotonic_ns is not None
    assert before <= first.start_monotonic_ns < first.first_token_monotonic_ns
    steps_ns = [*first.step_monotonic_ns]
    assert len(steps_ns) == first.output_tokens
    assert steps_ns == sorted(steps_ns)
    assert first.first_token_monotonic_ns <= steps_ns[0]
    assert first.first_token_monotonic_ns < first.end_monotonic_ns <= after
    assert steps_ns[-1] <= first.end_monotonic_ns
    # A batch has its times in common; of its steps the first request alone says them.
    alike = replace(first, index=0, step_monotonic_ns=None)
    assert [replace(each, index=0) for each in others] == [alike] * 3


@pytest.mark.parametrize(
    "lengths",
    [[(5, 4), (30, 4), (1, 4)], [(5, 3), (6, 11)], [(5, 1)], []],
    ids=["padded", "shorter answers", "the prefill alone", "nothing"],
)
def test_each_request_counts_what_it_asked(four: Engine, lengths: list[tuple[int, int]]) -> None:
    completions = four.generate([request(index, *each) for index, each in enumerate(lengths)])
    assert [(each.input_tokens, each.output_tokens) for each in completions] == lengths


def test_more_than_a_batch_is_refused(four: Engine) -> None:
    with pytest.raises(ValueError, match="5 requests in a batch of 4"):
        four.generate([request(index, 5, 1) for index in range(5)])


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


@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("deterministic", {"num_beams": 3, "batch_size": 2}),
        ("creative", {"num_beams": 3, "batch_size": 2}),
        (
            "deterministic",
            {
                "num_beams": 2,
                "early_stopping": True,
                "length_penalty": 0.5,
                "no_repeat_ngram_size": 2,
            },
        ),
        ("creative", {"use_cache": False, "attn_implementation": "eager"}),
        ("creative", {"cache_implementation": "static", "attn_implementation": "sdpa"}),
        ("creative", {"cache_implementation": "sliding_window", "use_cache": True}),
        ("deterministic", {"device_map": "cpu", "num_threads": 1, "trust_remote_code": False}),
        ("deterministic", {"device_map": "auto", "max_memory": {"cpu": "4GiB"}}),
    ],
    ids=str,
)
def test_every_setting_writes_what_was_asked(
    load: Load, preset: str, settings: dict[str, Any]
) -> None:
    engine = load(pytorch=settings, decoder={"preset": preset})
    batch = [request(index, 7 + index, 8) for index in range(settings.get("batch_size", 1))]
    assert [completion.output_tokens for completion in engine.generate(batch)] == [8] * len(batch)
    resolved = engine.resolved_config()
    given = resolved | resolved["generation_config"]
    # transformers 5 takes a layer's window from the model in every static cache.
    static = {"cache_implementation": "static"} if "cache_implementation" in settings else {}
    named = set(settings) & set(given) - {"device_map"}
    assert {name: given[name] for name in named} == {
        name: (settings | static)[name] for name in named
    }


@pytest.mark.parametrize("preset", ["deterministic", "standard"])
def test_prompt_lookup(load: Load, preset: str) -> None:
    engine = load(pytorch={"prompt_lookup_num_tokens": 3}, decoder={"preset": preset})
    assert engine.resolved_config()["generation_config"]["prompt_lookup_num_tokens"] == 3
    repetitive = Request(0, (10, 11, 12, 13) * 6, 20)
    (completion,) = engine.generate([repetitive])
    assert completion.output_tokens == 20
    assert completion.first_token_monotonic_ns is not None


def test_sampling_is_as_the_study_says(load: Load) -> None:
    decoder = {"temperature": 0.7, "min_p": 0.1, "repetition_penalty": 1.3, "top_k": 0}
    passed = {"typical_p": 0.9, "rms_norm_eps": 0.25}  # one for generation, one for loading
    engine = load(decoder=decoder, passthrough_kwargs=passed)
    (completion,) = engine.generate([request(0, 5, 6)])
    assert completion.output_tokens == 6
    resolved = engine.resolved_config()
    options = resolved["generation_config"]
    assert {name: options[name] for name in decoder} == decoder
    assert (options["typical_p"], resolved["model_config"]["rms_norm_eps"]) == (0.9, 0.25)
    assert generation_config(experiment(decoder={"temperature": 0.0}), 9, ()).do_sample is False


def test_the_end_of_sequence_ends_only_where_asked(load: Load) -> None:
    greedy = {"preset": "deterministic"}
    ignoring = load(decoder=greedy, pytorch={"batch_size": 2})
    always_writes(ignoring, END)
    batch = [request(0, 5, 9), request(1, 8, 9)]
    assert [completion.output_tokens for completion in ignoring.generate(batch)] == [9, 9]
    ending = load(decoder={**greedy, "min_new_tokens": 4}, pytorch={"batch_size": 2})
    always_writes(ending, END)
    completions = ending.generate(batch)
    assert [completion.output_tokens for completion in completions] == [5, 5]
    assert {completion.finish_reason for completion in completions} == {"stop"}
    natural = load(decoder=greedy, answer_length="natural", pytorch={"batch_size": 2})
    always_writes(natural, END)
    assert [completion.output_tokens for completion in natural.generate(batch)] == [2, 2]


def test_each_cycle_draws_natural_answers_of_its_own(load: Load) -> None:
    """With an output head by which one token in twelve ends an answer."""

    def lengths(cycle: int, **values: Any) -> list[int]:
        config = experiment(answer_length="natural", pytorch={"batch_size": 4}, **values)
        engine = load(**config.with_cycle_seed(cycle).plain)
        always_writes(engine, *range(END, END + 12))
        batch = [request(index, 5, 60) for index in range(4)]
        return [completion.output_tokens for completion in engine.generate(batch)]

    first = lengths(1)
    assert lengths(1, precision="fp32") == first != lengths(2)


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


def test_what_is_in_force_is_recorded(four: Engine) -> None:
    resolved = four.resolved_config()
    assert resolved["num_threads"] == torch.get_num_threads() == 1
    assert resolved["parameters"] == 4_000_000
    assert resolved["attn_implementation"] == "sdpa"
    assert resolved["generation_config"]["max_new_tokens"] == 9
    assert resolved["generation_config"]["top_k"] == 50
    assert "_name_or_path" not in resolved["model_config"]
    assert four.devices == ()
    assert four.peak_memory_bytes() is None
    four.synchronize()


def test_a_closed_engine_says_so(load: Load) -> None:
    engine = load()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.generate([request(0, 5, 1)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["num_processes", "tensor_parallel_size"])
def test_processes_share_the_work(load: Load, kind: str) -> None:
    engine = load(pytorch={kind: 2, "batch_size": 2})
    assert engine.batch_size == (4 if kind == "num_processes" else 2)
    completions = answer(engine)
    assert [completion.index for completion in completions] == [0, 1, 2, 3]
    assert [completion.output_tokens for completion in completions] == [9] * 4
    assert engine.resolved_config()[kind] == 2
    assert engine.resolved_config()["parameters"] == 4_000_000
    assert len(engine.generate([request(7, 5, 2)])) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("num_processes", "process 1 ended unasked, with exit code -9"),
        ("tensor_parallel_size", "process"),
    ],
)
def test_a_process_that_dies_fails_the_batch_and_does_not_hang(
    load: Load, kind: str, says: str
) -> None:
    engine: Any = load(pytorch={kind: 2})
    os.kill(engine._workers[1].process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match=says):
        engine.generate([request(0, 5, 2), request(1, 5, 2)][: engine.batch_size])


@pytest.mark.slow
def test_a_process_that_cannot_load_ends_the_others(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(BackendError, match="cannot be loaded"):
        load(model=str(tmp_path), pytorch={"num_processes": 2})


@pytest.mark.slow
def test_torch_compile(load: Load) -> None:
    engine = load(pytorch={"torch_compile": True, "torch_compile_backend": "aot_eager"})
    for length in (5, 6):
        assert engine.generate([request(0, length, 4)])[0].output_tokens == 4
