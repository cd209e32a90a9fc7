"""Settings that exclude each other, found before anything runs.

An engine checks its own parameters, and its own messages are shown. Here are only rules that no
engine checks, or only late: after it has loaded a model, or by silently cutting answers short.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llenergymeasure.config.backends.facts import ParameterNames, parameter_names
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.requested_work import MAX_TOKENS_NAMES
from llenergymeasure.errors import Problem

Capability = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """What rules need to know about a model.

    Attributes:
        heads: attention heads a layer.
        kv_heads: key and value heads a layer.
        layers: transformer blocks.
        max_positions: longest sequence, in tokens; None where its configuration leaves it open.
        experts: experts a layer; 0 for a dense model.
    """

    heads: int
    kv_heads: int
    layers: int
    max_positions: int | None
    experts: int = 0


@dataclass(frozen=True)
class Facts:
    """The input of a rule; a rule that needs something unknown reports nothing.

    Attributes:
        config: the experiment.
        names: what its engine calls the parameters.
        settings: the settings of its engine that are set, as in a study.
        shape: the model's, if it is known.
    """

    config: ExperimentConfig
    names: ParameterNames
    settings: Mapping[str, Any]
    shape: Shape | None

    def value(self, name: str | None) -> Any:
        """Return a setting by its dotted name; None where it is not set."""
        return value_at(self.settings, name or "")

    def number(self, name: str | None) -> int | None:
        """Return a setting's value if it is a whole number; otherwise None."""
        value = self.value(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def sampling_value(self, name: str, default: Any = None) -> Any:
        """Return a sampling parameter of the engine's section, or else ``default``."""
        value = self.value(f"{self.config.backend}.sampling.{name}")
        return default if value is None else value

    def has(self, *names: str) -> bool:
        """Return whether one of these parameters of the engine is set, and on."""
        return any(self.value(f"{self.config.backend}.engine.{name}") for name in names)


Breaches = Iterator[tuple[str, str]]
"""The key to change and the message, for each breach."""

PRECISIONS: Mapping[str, frozenset[str]] = {
    "fp32": frozenset({"float", "float32"}),
    "fp16": frozenset({"half", "float16"}),
    "bf16": frozenset({"bfloat16"}),
}
"""How engines spell each precision of a study."""

MODEL_OVERRIDES = ("hf_overrides", "rope_scaling", "json_model_override_args", "hf_config_path")
"""Engines' parameters that change what a model is made for."""


def heads_divide(facts: Facts) -> Breaches:
    """Attention heads split evenly over tensor parallel GPUs; KV heads split, or repeat, evenly."""
    study_name = "tensorrt.tp_size" if facts.config.backend == "tensorrt" else None
    shape = facts.shape
    # With data parallel attention each GPU holds all heads of its share of the requests.
    if shape is None or facts.has("enable_dp_attention", "attn_dp_size"):
        return
    for key in filter(None, (facts.names.tensor_parallel, study_name)):
        size = facts.number(key) or 1
        if size == 1:
            continue
        if shape.heads % size:
            divisors = [str(n) for n in range(1, shape.heads + 1) if shape.heads % n == 0]
            yield (
                key,
                f"{size} does not divide the model's {shape.heads} attention heads; "
                f"use {', '.join(divisors)}",
            )
            continue
        smaller, larger = sorted((shape.kv_heads, size))
        if larger % smaller:
            yield (
                key,
                f"the model's {shape.kv_heads} key and value heads neither split nor repeat "
                f"evenly over {size} GPUs",
            )


def stages_have_layers(facts: Facts) -> Breaches:
    """Each pipeline stage holds at least one layer."""
    key = facts.names.pipeline_parallel
    size = facts.number(key)
    if key and facts.shape is not None and size is not None and size > facts.shape.layers:
        yield key, f"{size} stages are more than the model's {facts.shape.layers} layers"


def context_within_positions(facts: Facts) -> Breaches:
    """The longest context asked for is within the model's own.

    If the study overrides the model's own configuration, or the variable is set by which engines
    accept longer contexts, the engine decides.
    """
    key, variable = facts.names.context, facts.names.long_context_variable
    if key is None or variable is None or facts.has(*MODEL_OVERRIDES):
        return
    length = facts.number(key)
    positions = None if facts.shape is None else facts.shape.max_positions
    if positions is None or length is None or os.environ.get(variable) == "1":
        return
    if length > positions:
        yield (
            key,
            f"{length} tokens are more than the {positions} the model is made for; lower it, or "
            f"set {variable}=1 where the engine runs",
        )


def workload_fits(facts: Facts) -> Breaches:
    """Prompt and answer fit into the context, or engines cut answers short silently."""
    length = facts.number(facts.names.context)
    synthetic = None if length is None else facts.config.synthetic()
    if length is None or synthetic is None:
        return
    traffic = facts.config.serving
    prompt, answer = synthetic.input_len, synthetic.output_len
    if traffic is not None and traffic.input_tokens is not None:
        prompt = traffic.input_tokens.longest or 0
    if traffic is not None and traffic.output_tokens is not None:
        answer = traffic.output_tokens.longest or 0
    longest = prompt + (facts.number(facts.names.max_tokens) or answer)
    if 0 < length < longest:
        yield (
            str(facts.names.context),
            f"prompt and answer take {longest} tokens together, more than the context of "
            f"{length}; raise it, or lower max_input_tokens or max_output_tokens",
        )


def one_precision(facts: Facts) -> Breaches:
    """An engine's own data type, where it is set, is the study's precision."""
    dtype, precision = facts.value(facts.names.dtype), facts.config.precision
    if isinstance(dtype, str) and dtype not in ("auto", *PRECISIONS[precision]):
        message = f"is {dtype}, but precision is {precision}; set precision alone"
        yield str(facts.names.dtype), message


def one_seed(facts: Facts) -> Breaches:
    """An engine's own seed, where it is set, is the study's."""
    seed, random_seed = facts.number(facts.names.seed), facts.config.random_seed
    if seed is not None and seed != random_seed:
        yield str(facts.names.seed), f"is {seed}, but random_seed is {random_seed}; set that alone"


def answer_lengths_agree(facts: Facts) -> Breaches:
    """The fewest tokens are no more than the most, and these replace no lengths of traffic."""
    min_tokens = facts.number(facts.names.min_tokens)
    key, max_tokens = _max_tokens(facts)
    min_tokens = facts.config.decoder.min_new_tokens if min_tokens is None else min_tokens
    limit = facts.config.max_output_tokens if max_tokens is None else max_tokens
    if facts.names.min_tokens and min_tokens is not None and min_tokens > limit:
        yield (
            facts.names.min_tokens,
            f"the fewest tokens ({min_tokens}) are more than the most ({limit})",
        )
    traffic = facts.config.serving
    if max_tokens is None or traffic is None:
        return
    lengths = traffic.output_tokens
    source = None
    if lengths is not None and lengths.tokens != max_tokens:
        source = "serving.output_tokens"
    elif lengths is None and traffic.arrivals == "trace":
        source = "the trace's lengths"
    if source is not None:
        yield (
            key,
            f"would be the limit of each answer in place of {source}; remove it or, for answers "
            f"of one limit, set serving.output_tokens: {{tokens: {max_tokens}}}",
        )


def _max_tokens(facts: Facts) -> tuple[str, int | None]:
    """Return the engine's own limit of an answer's tokens, and its key."""
    keys = (facts.names.max_tokens or "", *(f"openai.body.{name}" for name in MAX_TOKENS_NAMES))
    limits = ((key, facts.number(key)) for key in keys)
    return next(((key, limit) for key, limit in limits if limit is not None), ("", None))


def greedy_gives_one_answer(facts: Facts) -> Breaches:
    """Greedy decoding gives the same answer every time."""
    key = f"{facts.config.backend}.sampling.n"
    number, decoder = facts.number(key) or 1, facts.config.decoder
    greedy = not decoder.do_sample or facts.sampling_value("temperature", decoder.temperature) == 0
    if number > 1 and greedy and not facts.sampling_value("use_beam_search"):
        yield key, f"asks for {number} answers of greedy decoding, which are all the same; sample"


def top_p_leaves_tokens(facts: Facts) -> Breaches:
    """A share of zero leaves no token to choose."""
    share = facts.sampling_value("top_p", facts.config.decoder.top_p)
    if facts.config.backend in ("vllm", "sglang") and share == 0:
        yield "decoder.top_p", "a share of 0 leaves no token to choose; 1 is off"


def natural_answers_have_no_seed(facts: Facts) -> Breaches:
    """Answers that end by themselves are drawn in each cycle by the study's own seed."""
    if facts.config.answer_length != "natural" or facts.config.backend == "pytorch":
        return
    for part in ("engine", "sampling", "body"):
        for name in ("seed", "random_seed", "sampling_seed", "ignore_eos"):
            key = f"{facts.config.backend}.{part}.{name}"
            if facts.value(key) not in (None, False):
                yield key, f"answer_length: natural settles {name}; remove it"


def prompt_lookup_conditions(facts: Facts) -> Breaches:
    """Prompt lookup works on one prompt at a time, without beams, with the default cache."""
    settings = facts.config.pytorch
    if settings is None or settings.prompt_lookup_num_tokens is None:
        return
    key = "pytorch.prompt_lookup_num_tokens"
    if (settings.batch_size or 1) > 1:
        yield key, "works on one prompt at a time; set pytorch.batch_size: 1"
    if (settings.num_beams or 1) > 1:
        yield key, "does not go with beams; set pytorch.num_beams: 1"
    if settings.use_cache is False:
        yield key, "needs the cache; remove pytorch.use_cache: false"
    if settings.cache_implementation is not None:
        yield key, "needs the default cache; remove pytorch.cache_implementation"


def adapter_needs_pytorch(facts: Facts) -> Breaches:
    """Adapters are put on a model by pytorch alone; preflight says so of servers."""
    if facts.config.lora is not None and facts.config.backend not in ("pytorch", "openai"):
        message = "is for backend pytorch alone; merge the adapter into the model's folder first"
        yield "lora", message


RULES: tuple[Callable[[Facts], Breaches], ...] = (
    heads_divide,
    stages_have_layers,
    context_within_positions,
    workload_fits,
    one_precision,
    one_seed,
    answer_lengths_agree,
    greedy_gives_one_answer,
    top_p_leaves_tokens,
    natural_answers_have_no_seed,
    prompt_lookup_conditions,
    adapter_needs_pytorch,
)


def broken_rules(config: ExperimentConfig, shape: Shape | None) -> list[Problem]:
    """Return an experiment's settings that exclude each other, each with the key to change.

    Args:
        config: the experiment.
        shape: the model's, if it is known.
    """
    section = getattr(config, config.backend)
    if section is None and config.backend == "pytorch":
        return []  # All of its rules are about its own section.
    settings: dict[str, Any] = {config.backend: {} if section is None else section.plain}
    facts = Facts(config, parameter_names(config.backend), settings, shape)
    return [Problem(message, key) for rule in RULES for key, message in rule(facts)]
