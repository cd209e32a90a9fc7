"""TensorRT-LLM's published signatures, without anything behind them."""

from tensorrt_llm._signatures import TorchLLM
from tensorrt_llm.sampling import SamplingParams

__version__ = "1.2.1"
LLM = TorchLLM
__all__ = ["LLM", "SamplingParams"]
