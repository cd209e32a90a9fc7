"""Floating-point operations of a request, from the model's dimensions.

Conventions, those of the PaLM paper's appendix B (Chowdhery et al. 2022, arXiv:2204.02311):

- a multiply-accumulate is two operations; only matrix products count, as norms, activations and
  the softmax are below one per cent of a model of useful size;
- in the prefill every prompt token is counted against every other, as a kernel without causal
  skipping computes it; while decoding, each token against the keys there are;
- grouped-query attention shrinks the projections, not the attention itself;
- of a mixture of experts, those count that a token is routed to, and the router;
- the output head counts once for each generated token: the prompt's other logits are not needed.

The first output token comes from the prefill, so a request has one decoding step fewer than it
has output tokens. Work that an engine adds (padding, beams, speculation, no cache) is not in here.
"""

from dataclasses import dataclass
from typing import Literal

from llenergymeasure.workload.models.architecture import Architecture

Method = Literal["architecture", "parameters"]
Confidence = Literal["high", "low"]


@dataclass(frozen=True)
class FlopsEstimate:
    """Operations of one request.

    Attributes:
        prefill: for the prompt and the first output token.
        decode: for all further output tokens.
        per_output_token: both, shared among the output tokens.
        method: ``architecture`` counts matrix by matrix; ``parameters`` takes two operations a
            parameter and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1), without
            attention.
        confidence: ``high`` is within one per cent of the operations torch counts in a run.
    """

    prefill: float
    decode: float
    per_output_token: float
    method: Method
    confidence: Confidence


def estimate_flops(
    architecture: Architecture | None,
    input_len: int,
    output_len: int,
    parameters: int | None = None,
) -> FlopsEstimate | None:
    """Return the operations of one request; None if neither shape nor size is known.

    Args:
        architecture: the model's dimensions; None for a family not known here.
        input_len: tokens of the prompt, at least 1.
        output_len: tokens generated, at least 1.
        parameters: their number, to fall back on.
    """
    if architecture is not None:
        prefill = float(prefill_flops(architecture, input_len))
        decode = float(decode_flops(architecture, input_len, output_len))
        return _estimate(prefill, decode, output_len, "architecture", "high")
    if parameters is None:
        return None
    prefill = 2.0 * parameters * input_len
    decode = 2.0 * parameters * (output_len - 1)
    return _estimate(prefill, decode, output_len, "parameters", "low")


def flops_per_output_token(architecture: Architecture, input_len: int, output_len: int) -> float:
    """Return a request's operations, prompt included, divided by its output tokens."""
    total = prefill_flops(architecture, input_len)
    return (total + decode_flops(architecture, input_len, output_len)) / output_len


def prefill_flops(architecture: Architecture, input_len: int) -> int:
    """Return the operations from a prompt of ``input_len`` tokens to the first output token."""
    pairs = input_len * _reach(architecture, input_len)
    return _layers(architecture, input_len, pairs) + _head(architecture)


def decode_flops(architecture: Architecture, input_len: int, output_len: int) -> int:
    """Return the operations for all output tokens but the first."""
    steps = output_len - 1
    window = architecture.sliding_window
    if window is None:
        pairs = steps * input_len + steps * (steps + 1) // 2
    else:
        pairs = sum(min(window, input_len + step) for step in range(1, steps + 1))
    return _layers(architecture, steps, pairs) + steps * _head(architecture)


def _reach(architecture: Architecture, keys: int) -> int:
    """Return how many of so many keys a token attends to."""
    window = architecture.sliding_window
    return keys if window is None else min(window, keys)


def _layers(architecture: Architecture, tokens: int, pairs: int) -> int:
    """Return the operations of all layers.

    Args:
        architecture: the model's dimensions.
        tokens: tokens put through.
        pairs: query and key pairs attended, over all tokens.
    """
    experts = architecture.experts_per_token or 1
    router = architecture.hidden_size * architecture.experts
    weights = architecture.attention_weights() + experts * architecture.mlp_weights() + router
    scores_and_values = 2 * architecture.heads * architecture.head_dim
    return 2 * architecture.layers * (tokens * weights + pairs * scores_and_values)


def _head(architecture: Architecture) -> int:
    return 2 * architecture.hidden_size * architecture.vocab_size


def _estimate(
    prefill: float, decode: float, output_len: int, method: Method, confidence: Confidence
) -> FlopsEstimate:
    return FlopsEstimate(prefill, decode, (prefill + decode) / output_len, method, confidence)
