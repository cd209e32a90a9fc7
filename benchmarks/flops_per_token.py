"""Operations of one decoded token and of one prompt, part by part, for a known architecture.

python benchmarks/flops_per_token.py Llama-3.1-8B --context 512
"""

import sys

import harness

from llenergymeasure.workload.models.flops import decode_flops, prefill_flops
from llenergymeasure.workload.models.known import KNOWN


def main() -> int:
    """Print the sum's parts; return 1 if it is not what a run records."""
    parser = harness.parser(__doc__)
    parser.add_argument("model", nargs="?", default="Llama-3.1-8B", choices=sorted(KNOWN))
    parser.add_argument("--context", type=int, default=512, help="tokens of the prompt")
    options = harness.begin(parser)
    shape, context = KNOWN[options.model], options.context
    experts = shape.experts_per_token or 1
    pairs = context + 1  # the prompt's keys and the token's own
    if shape.sliding_window is not None:
        pairs = min(pairs, shape.sliding_window)
    parts = {
        "attention projections": shape.layers * shape.attention_weights(),
        "MLP": shape.layers * experts * shape.mlp_weights(),
        "router": shape.layers * shape.hidden_size * shape.experts,
        "output head": shape.hidden_size * shape.vocab_size,
        "scores and values": shape.layers * pairs * 2 * shape.heads * shape.head_dim,
    }
    print(f"{options.model}, one token decoded after {context}: multiply-accumulates, times 2")
    total = 2 * sum(parts.values())
    for name, products in {**parts, "sum": total // 2}.items():
        if products:
            print(f"  {name:<22}{products:>18,}  {2 * products / 1e9:>9.4f} GFLOP")
    prefill = prefill_flops(shape, context)
    print(f"prefill of {context} tokens, with the first output token: {prefill / 1e12:.4f} TFLOP")
    if total == decode_flops(shape, context, 2):
        return 0
    print("the sum is not what a run records", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
