"""How a sensor's reading relates to the true energy, and what is assumed of it uncalibrated."""

import math
import re
from dataclasses import dataclass

_OLD_CARDS = re.compile(r"GTX|RTX 20[5-8]0|TITAN|Titan|Quadro|Tesla|V100|\bT(4|\d{3,4})\b")
GAIN_BAND, OLD_CARDS_BAND, OTHER_BAND = 0.08, 0.13, 0.05
"""Half widths of the gain of an uncalibrated on-board sensor, relative.

From the 16 cards, of 12 kinds, of the GPU_Power_Benchmark data that were held against an external
meter (arXiv 2312.02741, Overall_Results.xlsx, driver 535): from Ampere on the nine lie within
7.1 %, of the older seven all but one within 8 %, that one (RTX 2060 Super) 12.7 % off. None is a
Hopper or Blackwell. Other sensors (RAPL) have the 5 % that is custom, without evidence here.
"""


@dataclass(frozen=True)
class Gain:
    """How a sensor's reading relates to the true value: indicated = gain · true + offset.

    Attributes:
        gain: indicated energy over true energy.
        band: relative half width at 95 % of what is left unknown.
        source: where the figures come from.
        offset_w: the indicated power when none is drawn.
        u_offset_w: half width at 95 % of what is left unknown of that.
    """

    gain: float = 1.0
    band: float = GAIN_BAND
    source: str = "uncalibrated"
    offset_w: float = 0.0
    u_offset_w: float = 0.0

    def true_energy_j(self, indicated_j: float, span_s: float) -> float:
        """Return the true energy of an indicated one."""
        return (indicated_j - self.offset_w * span_s) / self.gain

    def half_width_j(self, true_j: float, span_s: float) -> float:
        """Return the half width of what gain and offset leave unknown of a true energy."""
        return math.hypot(abs(true_j) * self.band, self.u_offset_w * span_s / self.gain)


def uncalibrated_gain(device: str, name: str) -> Gain:
    """Return the gain that is assumed for a card without a calibration."""
    if not device.removeprefix("module:").startswith("GPU-"):
        return Gain(band=OTHER_BAND, source="uncalibrated: ±5 % by custom")
    band = OLD_CARDS_BAND if _OLD_CARDS.search(name) else GAIN_BAND
    source = f"uncalibrated: ±{100 * band:.0f} % from 16 published cards, none Hopper or Blackwell"
    return Gain(band=band, source=source)
