"""Well-known architectures, for ``weights: random``: a cost can be measured without a download.

Random weights cost the same energy per token as trained ones at a fixed token count, so the
dimensions are enough. ``known.json`` holds of each model the ``config.json`` that its owner
publishes, and a stretch of token ids that are ordinary text.
"""

import difflib
import json
import re
from importlib.resources import files

from llenergymeasure.workload.models.architecture import Architecture

TINY_LLAMA = "tiny-llama"


def _read_table() -> dict[str, Architecture]:
    content = json.loads(files(__package__).joinpath("known.json").read_text("utf-8"))
    architectures = {}
    for name, model in content.items():
        first, end = model["text_tokens"]
        architecture = Architecture.from_config(model["config"], name, (first, end))
        assert architecture is not None, name
        architectures[name] = architecture
    return architectures


KNOWN = _read_table()

_TRUSTED_OWNERS = {
    "huggingfacetb",
    "meta-llama",
    "mistralai",
    "nousresearch",
    "openai-community",
    "qwen",
    "tinyllama",
    "unsloth",
}
"""Whose model names are trusted to mean the architecture; others may reuse a name for their own."""

_SPELLINGS = {
    "mistral-7b": "mistral-7b-v0-3",
    "mistral-7b-v0-2": "mistral-7b-v0-3",
    "mixtral-8x7b": "mixtral-8x7b-v0-1",
    "gpt2": "gpt-2",
    "gpt2-small": "gpt-2",
    "gpt2-medium": "gpt-2-medium",
    "gpt2-large": "gpt-2-large",
    "gpt2-xl": "gpt-2-xl",
    "tinyllama-1-1b-v1-0": "tinyllama-1-1b",
}
_VARIANT_SUFFIX = re.compile(r"-(instruct|chat|hf|base|it|bf16)(?=-|$)")


def known_architecture(name: str) -> Architecture | None:
    """Return the architecture a model name means; None if it is not in the table.

    Accepts the table's names, Hugging Face ids of the models' owners, any case, and the names of
    fine-tuned variants of the same shape (``-Instruct``, ``-chat``, ``-hf``).
    """
    owner, _, rest = name.rpartition("/")
    if owner and owner.lower() not in _TRUSTED_OWNERS:
        return None
    return _BY_NAME.get(_normalise(rest))


def closest_known(name: str) -> str | None:
    """Return the table's name that looks most like ``name``, for a suggestion."""
    matches = difflib.get_close_matches(_normalise(name.rpartition("/")[2]), _BY_NAME, n=1)
    return _BY_NAME[matches[0]].name if matches else None


def _normalise(name: str) -> str:
    plain = re.sub(r"[._ ]+", "-", name.strip().lower()).removeprefix("meta-")
    plain = _VARIANT_SUFFIX.sub("", plain)
    return _SPELLINGS.get(plain, plain)


_BY_NAME = {_normalise(name): architecture for name, architecture in KNOWN.items()}
