"""Prompts made from a seed: exact lengths, no download, no tokenizer."""

import numpy as np
from numpy.typing import NDArray


def synthetic_prompts(
    n: int,
    input_len: int,
    seed: int,
    token_ids: NDArray[np.int64],
    shared_prefix_len: int = 0,
) -> list[tuple[int, ...]]:
    """Return ``n`` prompts of ``input_len`` tokens drawn evenly from ``token_ids``.

    A prompt depends on the seed, its place and the length, not on ``n``. Only the generator's raw
    stream is taken: NumPy keeps it the same in every release, its distributions not (NEP 19), and
    every engine's own process must get the same prompts.

    Args:
        n: how many.
        input_len: tokens in each.
        seed: at least 0.
        token_ids: shape (ordinary tokens,).
        shared_prefix_len: tokens of the first prompt that all others begin with too.
    """
    bits = np.random.PCG64(seed)
    # The bias of a remainder of 64 bits is below 2**-46 for any vocabulary.
    size = np.uint64(len(token_ids))
    prompts = [tuple(token_ids[bits.random_raw(input_len) % size].tolist()) for _ in range(n)]
    shared = prompts[0][:shared_prefix_len]
    return [shared + prompt[shared_prefix_len:] for prompt in prompts]
