"""The configurations: each refuses a key that is not its own."""

from tensorrt_llm.llmapi import llm_args
from tensorrt_llm.llmapi.llm_args import Configuration


class BuildConfig(Configuration):
    pass


class QuantConfig(Configuration):
    pass


class CalibConfig(Configuration):
    pass


class GuidedDecodingParams(Configuration):
    pass


__all__ = ["BuildConfig", "CalibConfig", "GuidedDecodingParams", "QuantConfig", "llm_args"]
