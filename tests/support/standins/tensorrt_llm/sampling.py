"""``SamplingParams``: a dataclass that takes its own fields by keyword alone."""

from typing import Any

from llenergymeasure.config.engine_parameters import parameters
from tensorrt_llm.llmapi import GuidedDecodingParams


class SamplingParams:
    def __init__(self, **given: Any) -> None:
        fields = parameters("tensorrt.sampling")
        unknown = sorted(set(given) - set(fields))
        if unknown:
            raise TypeError(f"SamplingParams got an unexpected keyword argument {unknown[0]!r}")
        values = {name: each.get("default") for name, each in fields.items()} | given
        if values["best_of"] is not None and values["best_of"] < values["n"]:
            raise ValueError("best_of cannot be less than n")
        grammar = values["guided_decoding"]
        if grammar is not None and not isinstance(grammar, GuidedDecodingParams):
            raise AttributeError("guided_decoding has no attribute '_validate'")
        self.given = given
        self.__dict__.update(values)
