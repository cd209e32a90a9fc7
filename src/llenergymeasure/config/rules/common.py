"""Checks that more than one engine makes in the same way."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from llenergymeasure.config.rules.rule import Facts, Found, Rule

DTYPES: Mapping[str, frozenset[str]] = {
    "fp32": frozenset({"float", "float32"}),
    "fp16": frozenset({"half", "float16"}),
    "bf16": frozenset({"bfloat16"}),
}
"""How engines spell each precision of a study."""


@dataclass(frozen=True)
class Method:
    """What a quantisation method asks for.

    Attributes:
        capability: least compute capability, times ten.
        precisions: those it computes in.
    """

    capability: int
    precisions: frozenset[str]


_MODEL_OVERRIDES = frozenset(
    {"hf_overrides", "rope_scaling", "json_model_override_args", "hf_config_path"}
)
"""Engines' arguments that change what a model is made for."""

HALF = frozenset({"fp16", "bf16"})
BF16 = frozenset({"bf16"})
ANY = frozenset({"fp32", "fp16", "bf16"})


def heads_divide(facts: Facts, key: str, size: int | None) -> Found:
    """Attention heads split evenly over tensor parallel GPUs; KV heads split, or repeat, evenly."""
    shape = facts.shape
    if shape is None or size is None or size <= 1:
        return
    if shape.heads % size:
        fit = ", ".join(str(each) for each in range(1, shape.heads + 1) if shape.heads % each == 0)
        yield key, f"{size} does not divide the model's {shape.heads} attention heads; use {fit}"
        return
    few, many = sorted((shape.kv_heads, size))
    if many % few:
        yield (
            key,
            f"the model's {shape.kv_heads} key and value heads neither split nor repeat evenly "
            f"over {size} GPUs",
        )


def enough_layers(facts: Facts, key: str, size: int | None) -> Found:
    """Each pipeline stage holds at least one layer."""
    if facts.shape is not None and size is not None and size > facts.shape.layers:
        yield key, f"{size} stages are more than the model's {facts.shape.layers} layers"


def within_positions(facts: Facts, key: str, length: int | None, override: str) -> Found:
    """The longest context asked for is one the model was made for.

    Where the study overrides the model's own configuration, or the variable is set that lets an
    engine go on, the engine is believed.
    """
    name, _, value = override.partition("=")
    if not _MODEL_OVERRIDES.isdisjoint(facts.engine) or os.environ.get(name) == value:
        return
    positions = None if facts.shape is None else facts.shape.max_positions
    if positions is not None and length is not None and length > positions:
        yield (
            key,
            f"{length} tokens are more than the {positions} the model is made for; lower it, or "
            f"set {override} where the engine runs",
        )


def workload_fits(facts: Facts, key: str, length: int | None) -> Found:
    """Prompt and answer fit into the context, or answers are cut short."""
    longest = None if length is None else facts.longest_tokens
    if length is not None and longest is not None and 0 < length < longest:
        yield (
            key,
            f"prompt and answer take {longest} tokens together, more than the context of {length}; "
            "raise it, or lower max_input_tokens or max_output_tokens",
        )


def quantisation_fits(facts: Facts, key: str, name: str | None, method: Method | None) -> Found:
    """The method computes in the study's precision, on GPUs that are new enough."""
    if method is None:
        return
    precision = facts.config.precision
    if precision not in method.precisions:
        fit = " or ".join(sorted(method.precisions))
        yield "precision", f"{key}: {name} computes in {fit}, and precision is {precision}"
    if facts.capability is not None:
        found = 10 * facts.capability[0] + facts.capability[1]
        if found < method.capability:
            least = divmod(method.capability, 10)
            yield (
                key,
                f"{name} needs compute capability {least[0]}.{least[1]}, and a GPU here has "
                f"{facts.capability[0]}.{facts.capability[1]}",
            )


def precision_agrees(facts: Facts, key: str, dtype: object) -> Found:
    """An engine's own data type, where it is set, is the study's precision."""
    if isinstance(dtype, str) and dtype not in ("auto", *DTYPES[facts.config.precision]):
        yield key, f"is {dtype}, but precision is {facts.config.precision}; set precision alone"


def seed_agrees(facts: Facts, key: str, seed: object) -> Found:
    """An engine's own seed, where it is set, is the study's."""
    if isinstance(seed, int) and seed != facts.config.random_seed:
        yield key, f"is {seed}, but random_seed is {facts.config.random_seed}; set that alone"


def greedy_gives_one(facts: Facts, key: str) -> Found:
    """Greedy decoding gives the same answer every time, so engines refuse several."""
    number = facts.sampling.get("n")
    temperature = facts.sampling.get("temperature", facts.config.decoder.temperature)
    greedy = not facts.config.decoder.do_sample or temperature == 0
    if isinstance(number, int) and number > 1 and greedy:
        yield key, f"asks for {number} answers of greedy decoding, which are all the same; sample"


def least_below_most(facts: Facts, key: str, least: int | None, most: int | None) -> Found:
    """The fewest tokens asked for are no more than the most."""
    most = facts.config.max_output_tokens if most is None else most
    least = facts.config.decoder.min_new_tokens if least is None else least
    if least is not None and least > most:
        yield key, f"the fewest tokens ({least}) are more than the most ({most})"


def share_above_zero(facts: Facts) -> Found:
    """A share of zero leaves no token to choose."""
    if facts.sampling.get("top_p", facts.config.decoder.top_p) == 0:
        yield "decoder.top_p", "a share of 0 leaves no token to choose; 1 is off"


def _natural_answers(facts: Facts) -> Found:
    """Answers that end by themselves are drawn anew in each cycle, by the study's own seed."""
    if facts.config.answer_length != "natural":
        return
    body = (facts.config.openai and facts.config.openai.body) or {}
    for part, given in (("engine", facts.engine), ("sampling", facts.sampling), ("body", body)):
        for name in ("seed", "random_seed", "sampling_seed", "ignore_eos"):
            if given.get(name) is not None and given[name] is not False:
                key = f"{facts.config.backend}.{part}.{name}"
                yield key, f"answer_length: natural settles {name}; remove it"


NATURAL = Rule(
    "seeds and ends of natural answers",
    "fairness: every engine of a study draws a cycle's answers by the same seed",
    _natural_answers,
)
