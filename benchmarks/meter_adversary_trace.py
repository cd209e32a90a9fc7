"""True power over time, whose energy is known exactly."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """True power over time, linear between points; two points at one time are a step.

    Attributes:
        name: the load in a word or two.
        t_s: times from the recording's zero, shape (n,), not falling.
        power_w: power at them, shape (n,).
        edges_s: when the probe stepped.
    """

    name: str
    t_s: Floats
    power_w: Floats
    edges_s: Floats

    def energy_j(self, start_s: Floats, end_s: Floats) -> Floats:
        """Return the true energy of stretches, exact but for rounding."""
        return self._up_to(end_s) - self._up_to(start_s)

    def _up_to(self, moment_s: Floats) -> Floats:
        steps_j = np.diff(self.t_s) * (self.power_w[1:] + self.power_w[:-1]) / 2
        knots_j = np.concatenate(([0.0], np.cumsum(steps_j)))
        place = np.clip(np.searchsorted(self.t_s, moment_s, side="right") - 1, 0, len(self.t_s) - 2)
        span_s = self.t_s[place + 1] - self.t_s[place]
        x_s = moment_s - self.t_s[place]
        slope = np.divide(
            self.power_w[place + 1] - self.power_w[place],
            span_s,
            out=np.zeros_like(x_s),
            where=span_s > 0,
        )
        energy: Floats = knots_j[place] + self.power_w[place] * x_s + slope * x_s**2 / 2
        return energy
