"""Calibration files: how cards' sensors compare with an external meter."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from llenergymeasure.config.section import Section
from llenergymeasure.config.sensor_gain import Gain, uncalibrated_gain
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import TEXT_LIMIT_BYTES, read_bytes


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
