"""Random numbers that are the same in every release of NumPy and in every engine's process.

Only the raw stream of a generator is promised to stay (NEP 19), so distributions are made here
from uniform numbers, where that takes a line.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

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
