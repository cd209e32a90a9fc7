"""Where the class for compiled engines lies."""

from tensorrt_llm import _signatures

LLM = _signatures.CompilingLLM
