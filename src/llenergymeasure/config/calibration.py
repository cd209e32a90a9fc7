"""Calibration files: how cards' sensors compare with an external meter."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from llenergymeasure.config.section import Section
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import TEXT_LIMIT_BYTES, read_bytes

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


@dataclass(frozen=True)
class Calibration:
    """Gains found against an external meter, by a card's UUID or its name.

    Attributes:
        gains: each card's.
        path: the file they are from; None if there is none.
        sha256: of its bytes.
    """

    gains: Mapping[str, Gain]
    path: Path | None = None
    sha256: str | None = None

    def gain_for(self, device: str, name: str) -> Gain:
        """Return a card's gain: by its UUID, else by its model, else the uncalibrated one."""
        return self._calibrated(device, name) or uncalibrated_gain(device, name)

    def for_record(self, devices: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
        """Return the file and its gains for these devices and names; None without a file."""
        if self.path is None:
            return None
        calibrated = ((device, self._calibrated(device, name)) for device, name in devices)
        gains = {device: asdict(gain) for device, gain in calibrated if gain is not None}
        return {"file": str(self.path), "sha256": self.sha256, "gains": gains}

    def _calibrated(self, device: str, name: str) -> Gain | None:
        return self.gains.get(device) or self.gains.get(name)


NO_CALIBRATION = Calibration({})


class _Card(Section):
    """A card in a calibration file."""

    gain: float = Field(ge=0.5, le=2.0, description="Indicated energy over true energy.")
    u_gain_rel: float = Field(ge=0, le=1, description="Its relative half width at 95 %.")
    source: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        description="Which meter, when, by whom."
    )
    offset_w: float = Field(
        default=0.0, ge=-100, le=100, description="Power indicated where none is drawn."
    )
    u_offset_w: float = Field(default=0.0, ge=0, le=100, description="Its half width at 95 %.")


def check_entry(device: str, entry: Mapping[str, Any]) -> None:
    """Check the entry for a card before it is written to a calibration file.

    Raises:
        ConfigurationError: a file with this entry could not be read.
    """
    from llenergymeasure.config.validation_messages import validate

    validate(_Card, dict(entry), {}, ("gpus", device))


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file, YAML or JSON: a mapping ``gpus`` of UUID or name to its gain.

    Raises:
        ConfigurationError: the file cannot be used; the message names every fault.
    """
    from llenergymeasure.config import strict_yaml
    from llenergymeasure.config.validation_messages import validate

    try:
        raw = read_bytes(path, TEXT_LIMIT_BYTES)
    except OSError as error:
        message = f"this calibration file cannot be read: {error.strerror}"
        raise ConfigurationError(Problem(message, file=path)) from error
    content, places = strict_yaml.parse(raw, path)
    entries = content.get("gpus") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ConfigurationError(
            Problem("needs a mapping of GPU UUIDs or names", key="gpus", file=path)
        )
    gains, problems = {}, list[Problem]()
    for name, entry in entries.items():
        try:
            card = validate(_Card, entry, places, ("gpus", name))
        except ConfigurationError as error:
            problems += error.problems
            continue
        gains[name] = Gain(card.gain, card.u_gain_rel, card.source, card.offset_w, card.u_offset_w)
    if problems:
        raise ConfigurationError(problems)
    return Calibration(gains, path, hashlib.sha256(raw).hexdigest())


def load_calibration(path: str | None) -> Calibration:
    """Return the calibration in a file; none if no file is given.

    Raises:
        ConfigurationError: the file cannot be used.
    """
    return NO_CALIBRATION if path is None else read_calibration(Path(path).expanduser())
