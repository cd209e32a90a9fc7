"""What was found of a card's channels, kept for later recordings: once a card and driver.

A recording whose power hardly changes tells nothing of its sensor. What a probe made for it
(``llem sensors --characterise``), or an earlier run with a load in it, has found is kept in this
user's cache, a file a card, and holds as long as the driver stays the same.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from llenergymeasure.files import write_text
from llenergymeasure.meter.characterise import Character, PowerCharacter
from llenergymeasure.meter.samples import SensorInfo
from llenergymeasure.workload.cache import cache_folder

FORMAT_VERSION = 1

FoundBy = Literal["probe", "recording"]

_APART = 0.1
"""Relative difference from which two findings of a period contradict each other."""


@dataclass(frozen=True)
class Known:
    """What is known of one card's channels.

    Attributes:
        device: the card's UUID.
        name: the card in words.
        sensor: which sensor's channels.
        driver: version of the driver it holds for.
        character: how the channels behave.
        found_by: ``probe``, a load made to find it, or ``recording``, a run's own load.
        found_at: when, UTC in ISO 8601.
        low_w, high_w: between which powers the card stays, as far as was seen.
    """

    device: str
    name: str
    sensor: str
    driver: str | None
    character: Character
    found_by: FoundBy
    found_at: str
    low_w: float
    high_w: float

    @classmethod
    def now(
        cls,
        info: SensorInfo,
        character: Character,
        found_by: FoundBy,
        powers_w: tuple[float, float],
    ) -> "Known":
        """Return what has just been found of a card."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        low_w, high_w = powers_w
        return cls(
            info.device, info.name, info.sensor, info.driver, character, found_by, at, low_w, high_w
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Known":
        """Build it from plain values.

        Raises:
            KeyError, TypeError, ValueError: they are not what ``as_dict`` gives.
        """
        parts = dict(content)
        parts.pop("format_version", None)
        character = dict(parts.pop("character"))
        power = tuple(PowerCharacter(**part) for part in character.pop("power"))
        return cls(character=Character(**character, power=power), **parts)

    @property
    def told(self) -> str:
        """Return where the knowledge is from, in words."""
        how = "a probe" if self.found_by == "probe" else "an earlier recording"
        return f"{how}, {self.found_at}"


def store_folder() -> Path:
    """Return where this user's knowledge of cards is."""
    return cache_folder() / "sensors"


KnownCards = Mapping[tuple[str, str], Known]
"""What is known by sensor and device."""


def load_known(infos: Iterable[SensorInfo]) -> dict[tuple[str, str], Known]:
    """Return what is kept of these cards under their present drivers, by sensor and device."""
    found = {}
    for info in infos:
        known = _load(info) if info.unavailable is None else None
        if known is not None:
            found[info.sensor, info.device] = known
    return found


def keep(known: Known) -> bool:
    """Keep what was found, unless as much is kept already; return whether it was.

    What a probe found is replaced by another probe alone. A place that cannot be written to costs
    only that the next recording has to find it again.
    """
    if not says_something(known.character):
        return False
    before = _read(_path(known.sensor, known.device))
    if (
        before is not None
        and before.driver == known.driver
        and known.found_by == "recording"
        and (before.found_by == "probe" or not _tells_more(known.character, before.character))
    ):
        return False
    document = {"format_version": FORMAT_VERSION, **known.as_dict()}
    try:
        write_text(_path(known.sensor, known.device), json.dumps(document, indent=1) + "\n")
    except OSError:
        return False
    return True


def says_something(character: Character) -> bool:
    """Return whether more was found than paces, which any recording shows."""
    return character.counter_independent is not None or any(
        part.window_s is not None and part.source != "published" for part in character.power
    )


def reconciled(known: Known, found: Character) -> tuple[Character, tuple[str, ...]]:
    """Return a card's character from what is known and what a recording itself shows.

    Paces are the recording's own where it shows them; windows and the counter's nature are those
    of a probe before those of the recording, and those of the recording before those of an earlier
    one. Where two recordings differ on the counter it is taken as the sum of readings, the less
    favourable.

    Returns:
        The character, and what a reader should know of contradictions.
    """
    before, probed = known.character, known.found_by == "probe"
    notes: list[str] = []
    parts = {part.quantity: part for part in before.power}
    power = [
        _one_power(parts.pop(part.quantity, None), part, probed=probed, notes=notes)
        for part in found.power
    ]
    independent = _one_nature(before, found, probed=probed)
    if None not in (before.counter_independent, found.counter_independent) and (
        before.counter_independent != found.counter_independent
    ):
        notes.append(f"the recording contradicts {known.told} on what the counter counts")
    sums = before if before.counter_independent is False else found
    return (
        Character(
            found.counter_period_s or before.counter_period_s,
            independent,
            sums.counter_scale,
            sums.counter_delay_s,
            tuple(power),
        ),
        tuple(notes),
    )


def _one_power(
    before: PowerCharacter | None, found: PowerCharacter, *, probed: bool, notes: list[str]
) -> PowerCharacter:
    if before is None:
        return found
    period_s = found.update_period_s or before.update_period_s
    if _differ(before.update_period_s, found.update_period_s):
        notes.append(
            f"{found.quantity} is renewed each {found.update_period_s:.3g} s in this recording, "
            f"each {before.update_period_s:.3g} s when it was characterised"
        )
        return found
    if before.window_s is None or (found.window_s is not None and not probed):
        return replace(found, update_period_s=period_s)
    return PowerCharacter(found.quantity, period_s, before.window_s, "kept")


def _one_nature(before: Character, found: Character, *, probed: bool) -> bool | None:
    if before.counter_independent is None or found.counter_independent is None:
        both = (before.counter_independent, found.counter_independent)
        return next((each for each in both if each is not None), None)
    if probed:
        return before.counter_independent
    return before.counter_independent and found.counter_independent


def _differ(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) > _APART * one


def _tells_more(character: Character, before: Character) -> bool:
    return len(_facts(character)) > len(_facts(before))


def _facts(character: Character) -> list[Any]:
    facts = [character.counter_period_s, character.counter_independent]
    for part in character.power:
        facts += [part.update_period_s, part.window_s]
    return [fact for fact in facts if fact is not None]


def _load(info: SensorInfo) -> Known | None:
    known = _read(_path(info.sensor, info.device))
    return known if known is not None and known.driver == info.driver else None


def _path(sensor: str, device: str) -> Path:
    return store_folder() / f"{sensor}-{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.json"


def _read(path: Path) -> Known | None:
    """Return what a file holds; null if there is none, or it is of no use."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(path.read_text())
        if content.get("format_version") == FORMAT_VERSION:
            return Known.from_dict(content)
    return None
