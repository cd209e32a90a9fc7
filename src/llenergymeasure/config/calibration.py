"""A calibration file: how cards' sensors stand to an external meter."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem

UNCALIBRATED_GAIN_BAND = 0.05
"""Half width of the gain of an uncalibrated on-board sensor, relative.

NVML states ±5 % for power readings on Fermi and Kepler and nothing for newer cards; most of over 70
cards held against an external meter were off by about that, mainly by gain and offset (arXiv
2312.02741). A convention, then, not a promise.
"""


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
    """Gains found against an external meter, by a card's UUID or its name.

    Attributes:
        gains: each card's.
        path: the file they are from; null if there is none.
        sha256: of its bytes.
    """

    gains: Mapping[str, Gain]
    path: Path | None = None
    sha256: str | None = None

    def of(self, device: str, name: str) -> Gain:
        """Return the gain of a card: of this very card, else of its model, else uncalibrated."""
        return self.gains.get(device) or self.gains.get(name) or Gain()

    def for_record(self, cards: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
        """Return which file gave which gains to these cards (UUID and name); null without one."""
        if self.path is None:
            return None
        used = {uuid: asdict(self.of(uuid, name)) for uuid, name in cards if self.has(uuid, name)}
        return {"file": str(self.path), "sha256": self.sha256, "gains": used}

    def has(self, device: str, name: str) -> bool:
        """Return whether a card is calibrated."""
        return device in self.gains or name in self.gains


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
        raw = path.read_bytes()
        content = yaml.safe_load(raw.decode())
    except OSError as error:
        message = f"this calibration file cannot be read: {error.strerror}"
        raise ConfigurationError(Problem(message, file=path)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(Problem(f"is no YAML or JSON: {reason}", file=path)) from error
    entries = content.get("gpus") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(
            Problem("needs a mapping of GPU UUIDs or names", key="gpus", file=path)
        )
    problems: list[Problem] = []
    gains = {str(card): _gain(str(card), entry, path, problems) for card, entry in entries.items()}
    if problems:
        raise ConfigurationError(problems)
    return Calibration(gains, path, hashlib.sha256(raw).hexdigest())


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


def calibration_faults(path: Path) -> list[str]:
    """Return what keeps a calibration file from being used, a sentence each."""
    try:
        read_calibration(path)
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []


def calibration_of(path: str | None) -> Calibration:
    """Return the calibration in a file; none if no file is given.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    return NO_CALIBRATION if path is None else read_calibration(Path(path).expanduser())
