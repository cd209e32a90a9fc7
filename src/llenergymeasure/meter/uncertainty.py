"""From single effects to one interval, by the rules of the GUM (JCGM 100:2008).

Each effect that makes an energy uncertain is a component with a standard uncertainty; many are
bounded besides, such as the unknown part of an update period. Components are independent: their
standard uncertainties add in quadrature (GUM 5.1.2), and the half width of the 95 % interval is
1.96 times the sum, but never more than the bounds added up. The sensor's gain is no component:
repeats do not shrink it, so it stands apart as the band ``u_sys_j``.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem

COVERAGE_FACTOR = 1.96
"""Half width of the central 95 % of a normal distribution in standard deviations (GUM G.1.3)."""

UNCALIBRATED_GAIN_BAND = 0.05
"""Half width of the gain of an uncalibrated on-board sensor, relative.

NVML states ±5 % for power readings on Fermi and Kepler and nothing for newer cards; most of over 70
cards held against an external meter were off by about that, mainly by gain and offset (arXiv
2312.02741). A convention, then, not a promise.
"""


@dataclass(frozen=True)
class Component:
    """One effect that makes an energy uncertain.

    Attributes:
        name: the effect in a word or two.
        standard_j: its standard uncertainty.
        limit_j: the largest error it can make; null if it has no bound.
    """

    name: str
    standard_j: float
    limit_j: float | None = None

    @classmethod
    def bounded(cls, name: str, limit_j: float) -> "Component":
        """Return an effect known to lie within ±limit and no more (GUM 4.3.7: limit/√3)."""
        return cls(name, limit_j / math.sqrt(3), limit_j)


def expanded(components: Iterable[Component]) -> float:
    """Return the half width of the 95 % interval of the components together, in joules."""
    parts = list(components)
    whole = COVERAGE_FACTOR * math.sqrt(sum(part.standard_j**2 for part in parts))
    free = math.sqrt(sum(part.standard_j**2 for part in parts if part.limit_j is None))
    bounds = sum(part.limit_j for part in parts if part.limit_j is not None)
    return min(whole, bounds + COVERAGE_FACTOR * free)


@dataclass(frozen=True)
class Gain:
    """How a sensor's reading stands to the truth.

    Attributes:
        gain: indicated energy over true energy.
        band: relative half width at 95 % of what is left unknown.
        source: what the figures rest on.
    """

    gain: float = 1.0
    band: float = UNCALIBRATED_GAIN_BAND
    source: str = "uncalibrated: ±5 % by convention"


@dataclass(frozen=True)
class Calibration:
    """Gains found against an external meter, by a card's UUID or its name."""

    gains: Mapping[str, Gain]

    def of(self, device: str, name: str) -> Gain:
        """Return the gain of a card: of this very card, else of its model, else uncalibrated."""
        return self.gains.get(device) or self.gains.get(name) or Gain()


NO_CALIBRATION = Calibration({})


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file, YAML or JSON: a mapping ``gpus`` of UUID or name to its gain.

    Each entry has ``gain`` (indicated over true), ``u_gain_rel`` (relative half width at 95 %)
    and ``source``.

    Raises:
        ConfigurationError: the file cannot be used; every fault is named.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(
            Problem(f"cannot be read as YAML or JSON: {error}", file=path)
        ) from error
    entries = content.get("gpus") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(
            Problem("needs a mapping of GPU UUIDs or names", key="gpus", file=path)
        )
    problems: list[Problem] = []
    gains = {str(card): _gain(str(card), entry, path, problems) for card, entry in entries.items()}
    if problems:
        raise ConfigurationError(problems)
    return Calibration(gains)


def _gain(card: str, entry: Any, path: Path, problems: list[Problem]) -> Gain:
    known = {"gain": (0.5, 2.0), "u_gain_rel": (0.0, 1.0)}
    if not isinstance(entry, dict):
        problems.append(
            Problem("needs gain, u_gain_rel and source", f"gpus.{card}", repr(entry), path)
        )
        return Gain()
    unknown = sorted(set(entry) - {*known, "source"})
    message = "is not known; gain, u_gain_rel and source are"
    problems += [Problem(message, f"gpus.{card}.{key}", None, path) for key in unknown]
    numbers = {}
    for key, (low, high) in known.items():
        value = entry.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            message = f"needs a number from {low} to {high}"
            problems.append(Problem(message, f"gpus.{card}.{key}", repr(value), path))
            value = 1.0
        numbers[key] = float(value)
    source = entry.get("source")
    if not isinstance(source, str) or not source.strip():
        message = "needs a text: which meter, when, by whom"
        problems.append(Problem(message, f"gpus.{card}.source", repr(source), path))
    return Gain(numbers["gain"], numbers["u_gain_rel"], str(source))
