"""Random numbers that are the same in every release of NumPy and in every engine's process.

Only the raw stream of a generator is promised to stay (NEP 19), so distributions are made here,
from uniform numbers alone.
"""

import math
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

        By rejection (G. Marsaglia and W. W. Tsang 2000, ACM Trans. Math. Softw. 26, 363), with
        their boost for shapes below 1.
        """
        boosted = shape + 1 if shape < 1 else shape
        d = boosted - 1 / 3
        c = 1 / math.sqrt(9 * d)
        kept: list[NDArray[np.float64]] = []
        missing = count
        while missing > 0:
            size = max(64, int(missing * 1.1))
            # Box and Muller 1958: two uniform numbers give a normal one.
            u1, u2, u3 = self.uniform(size), self.uniform(size), self.uniform(size)
            x = np.sqrt(-2 * np.log(u1)) * np.cos(2 * np.pi * u2)
            v = (1 + c * x) ** 3
            with np.errstate(invalid="ignore", divide="ignore"):
                taken = (v > 0) & (np.log(u3) < 0.5 * x * x + d - d * v + d * np.log(np.abs(v)))
            kept.append(d * v[taken])
            missing -= int(np.count_nonzero(taken))
        values = np.concatenate(kept)[:count]
        if shape < 1:
            values = values * self.uniform(count) ** (1 / shape)
        return values
