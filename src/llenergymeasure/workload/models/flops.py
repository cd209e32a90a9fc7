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

from llenergymeasure.workload.models.architecture import Architecture


def prefill_flops(architecture: Architecture, input_len: int) -> int:
    """Return the operations from a prompt of ``input_len`` tokens to the first output token."""
    keys = min(architecture.sliding_window or input_len, input_len)
    return _layer_flops(architecture, input_len, input_len * keys) + _head_flops(architecture)


def decode_flops(architecture: Architecture, input_len: int, output_len: int) -> int:
    """Return the operations for all output tokens but the first."""
    steps = max(0, output_len - 1)
    window = architecture.sliding_window
    if window is None:
        pairs = steps * input_len + steps * (steps + 1) // 2
    else:
        pairs = sum(min(window, input_len + step) for step in range(1, steps + 1))
    return _layer_flops(architecture, steps, pairs) + steps * _head_flops(architecture)


def _layer_flops(architecture: Architecture, tokens: int, pairs: int) -> int:
    """Return the operations of all layers."""
    experts = architecture.experts_per_token or 1
    router = architecture.hidden_size * architecture.experts
    weights = architecture.attention_weights() + experts * architecture.mlp_weights() + router
    scores_and_values = 2 * architecture.heads * architecture.head_dim
    return 2 * architecture.layers * (tokens * weights + pairs * scores_and_values)


def _head_flops(architecture: Architecture) -> int:
    return 2 * architecture.hidden_size * architecture.vocab_size
