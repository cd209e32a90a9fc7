"""TensorRT-LLM's rules: those that hold for any engine that splits a model evenly."""

from llenergymeasure.config.rules import common
from llenergymeasure.config.rules.rule import Facts, Found, Rule


def _tensor_parallel(facts: Facts) -> Found:
    section = facts.config.tensorrt
    size = None if section is None else section.tp_size
    yield from common.heads_divide(facts, "tensorrt.tp_size", size)
    theirs = facts.engine.get("tensor_parallel_size")
    yield from common.heads_divide(facts, "tensorrt.engine.tensor_parallel_size", theirs)


RULES = (
    Rule(
        "heads against tensor parallelism",
        "arithmetic of splitting attention by heads; not read from TensorRT-LLM's sources",
        _tensor_parallel,
    ),
)
