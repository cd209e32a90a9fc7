"""The part of an experiment's settings that says what work to do, not how."""

from collections.abc import Mapping
from typing import Any

WORK_SETTINGS = (
    "model",
    "weights",
    "precision",
    "dataset",
    "n",
    "random_seed",
    "max_input_tokens",
    "max_output_tokens",
    "answer_length",
    "chat",
    "decoder",
    "lora",
    "serving",
)
"""Settings that say what is to be done; all others say how."""

MAX_TOKENS_NAMES = ("max_completion_tokens", "max_tokens", "max_new_tokens")
"""Servers' names for the most tokens of an answer; the first one given counts."""
SHARED_SAMPLING_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""Settings of the decoder whose names engines' own sampling has too, which wins over them."""
_ENDS = ("stop", "stop_token_ids", "stop_regex")


def requested_work(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what work an experiment has to do, without how.

    ``answers`` is what an engine's own section says of their number and length.
    """
    work = {name: config[name] for name in WORK_SETTINGS if config.get(name) not in (None, "fixed")}
    backend = str(config.get("backend"))
    section = config.get(backend) or {}
    sampling = section.get("sampling") or section.get("beam_search") or section.get("body") or {}
    replaced = {
        name: _as_in_decoder(name, sampling[name])
        for name in SHARED_SAMPLING_NAMES
        if name in sampling
    }
    if replaced:
        work["decoder"] = {**(config.get("decoder") or {}), **replaced}
    answers: dict[str, Any] = {}
    limits = [sampling[name] for name in MAX_TOKENS_NAMES if isinstance(sampling.get(name), int)]
    if limits and limits[0] != config.get("max_output_tokens"):
        answers["longest"] = limits[0]
    number = sampling.get("n")
    if isinstance(number, int) and number > 1:
        answers["number"] = number
    if sampling.get("ignore_eos") is False or any(sampling.get(name) for name in _ENDS):
        answers["may_end"] = True
    return work | ({"answers": answers} if answers else {})


def _as_in_decoder(name: str, value: Any) -> Any:
    """Return an engine's own value as the decoder has it: top_k off is 0, other numbers floats."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return max(0, value) if name == "top_k" else float(value)


def may_end_early(config: Mapping[str, Any]) -> bool:
    """Whether the study itself allows answers shorter than asked for."""
    work = requested_work(config)
    if work.get("answer_length") or (work.get("answers") or {}).get("may_end"):
        return True
    return bool((config.get("decoder") or {}).get("min_new_tokens"))


def fewest_tokens(config: Mapping[str, Any], requested: int) -> int:
    """Return the fewest tokens that an answer may have of those asked for."""
    min_tokens = (config.get("decoder") or {}).get("min_new_tokens") or 0
    return min(min_tokens, requested) if may_end_early(config) else requested
