"""Prompts made from a seed: exact lengths, no download, no tokenizer."""

import numpy as np
from numpy.typing import NDArray


def synthetic_prompts(
    n: int, input_len: int, seed: int, token_ids: NDArray[np.int64]
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
    """
    bits = np.random.PCG64(seed)
    # The bias of a remainder of 64 bits is below 2**-46 for any vocabulary.
    size = np.uint64(len(token_ids))
    return [tuple(token_ids[bits.random_raw(input_len) % size].tolist()) for _ in range(n)]
