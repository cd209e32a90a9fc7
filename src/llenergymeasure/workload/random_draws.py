"""Random numbers and lengths that are the same in every release of NumPy, in every process.

Only the raw stream of a generator is promised to stay (NEP 19), so distributions are made here
from uniform numbers, where that takes a line.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.config.serving import LengthConfig
from llenergymeasure.workload.arrivals_trace import Trace

_NORMAL = NormalDist()


class Draws:
    """A seeded stream of numbers.

    Args:
        seed: of the study.
        stream: which of its streams, so that arrivals and lengths do not share numbers.
        index: which request's, where each has its own.
    """

    def __init__(self, seed: int, stream: int, index: int = 0) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, stream, index]))

    def raw(self, count: int) -> NDArray[np.uint64]:
        """Return whole numbers of 64 bits, shape (count,)."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers above 0 and below 1, shape (count,)."""
        return ((self.raw(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def exponential(self, count: int) -> NDArray[np.float64]:
        """Return exponential numbers of mean 1, shape (count,)."""
        return -np.log(self.uniform(count))

    def normal(self) -> float:
        """Return a standard normal number."""
        return _NORMAL.inv_cdf(float(self.uniform(1)[0]))

    def gamma(self, shape: float, count: int) -> NDArray[np.float64]:
        """Return gamma numbers of mean ``shape`` and scale 1, shape (count,).

        By the one class of NumPy whose distributions are frozen (NEP 19).
        """
        return np.asarray(np.random.RandomState(self._bits).standard_gamma(shape, count))


def choose_tokens(raw: NDArray[np.uint64], token_ids: NDArray[np.int64]) -> tuple[int, ...]:
    """Return a token for each raw number; the bias of a remainder of 64 bits is below 2**-46."""
    return tuple(token_ids[raw % np.uint64(len(token_ids))].tolist())


def _draw_length(config: LengthConfig, draws: Draws) -> int:
    """Return one length in tokens, within the limits of ``config``.

    A lognormal of mean m and coefficient of variation c has sigma² = ln(1 + c²) and
    mu = ln m - sigma² / 2.
    """
    if config.distribution == "fixed":
        assert config.tokens is not None
        return config.tokens
    if config.distribution == "uniform":
        assert config.min_tokens is not None
        assert config.max_tokens is not None
        span = config.max_tokens - config.min_tokens + 1
        return config.min_tokens + int(draws.uniform(1)[0] * span)
    assert config.mean_tokens is not None
    assert config.cv is not None
    variance = math.log1p(config.cv**2)
    location = math.log(config.mean_tokens) - variance / 2
    length = round(math.exp(location + math.sqrt(variance) * draws.normal()))
    return int(clip_lengths(length, config))


def draw_lengths(
    input_tokens: LengthConfig,
    output_tokens: LengthConfig,
    draws: Draws,
    trace: Trace | None,
    row: int | None = None,
) -> tuple[int, int]:
    """Return the lengths of one prompt and its answer.

    Those from data come from one row of the trace, so that long prompts keep their answers: from
    ``row``, or any.
    """
    if row is None:
        row = 0 if trace is None else int(draws.uniform(1)[0] * len(trace))
    lengths = []
    for index, config in enumerate((input_tokens, output_tokens)):
        if config.distribution == "data":
            assert trace is not None
            lengths.append(int(clip_lengths(trace.lengths(row)[index], config)))
        else:
            lengths.append(_draw_length(config, draws))
    return lengths[0], lengths[1]


def clip_lengths(tokens: int | NDArray[np.int64], config: LengthConfig) -> NDArray[np.int64]:
    """Return lengths, or one, cut to the limits of ``config``."""
    return np.asarray(np.clip(tokens, config.min_tokens or 1, config.max_tokens))
