"""transformers' rules, each from a check in its sources."""

from llenergymeasure.config.rules import common
from llenergymeasure.config.rules.rule import Facts, Found, Rule

_RELEASE = "transformers 5.23.0"
_PREFIX = "pytorch"


def _assisted(facts: Facts) -> Found:
    settings = facts.config.pytorch
    key = f"{_PREFIX}.prompt_lookup_num_tokens"
    if settings is None or settings.prompt_lookup_num_tokens is None:
        return
    if (settings.batch_size or 1) > 1:
        yield key, "works on one prompt at a time; set pytorch.batch_size: 1"
    if (settings.num_beams or 1) > 1:
        yield key, "does not go with beams; set pytorch.num_beams: 1"
    if settings.use_cache is False:
        yield key, "needs the cache; remove pytorch.use_cache: false"


def _tensor_parallel(facts: Facts) -> Found:
    settings = facts.config.pytorch
    size = None if settings is None else settings.tensor_parallel_size
    yield from common.heads_divide(facts, f"{_PREFIX}.tensor_parallel_size", size)


RULES = (
    Rule(
        "prompt lookup against batches, beams and the cache",
        f"{_RELEASE}, generation/utils.py: GenerationMixin._assisted_decoding",
        _assisted,
    ),
    Rule(
        "heads against tensor_parallel_size",
        "arithmetic of splitting attention by heads",
        _tensor_parallel,
    ),
)
