"""``llem prefs``: a user's own settings, shown with their origin, and set."""

import json
from dataclasses import asdict
from pathlib import Path

from llenergymeasure.cli.talk import note
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.nearest import nearest_names
from llenergymeasure.config.preferences import (
    Preference,
    preferences_in_force,
    set_preference,
    user_configuration,
)
from llenergymeasure.errors import ConfigurationError, Problem


def prefs_command(
    key: str | None,
    value: str | None,
    *,
    unset: bool,
    show_origin: bool,
    study: Path | None,
    as_json: bool,
) -> None:
    """Show the settings, or set or take away one.

    Raises:
        ConfigurationError: there is no such setting, or the value does not fit it.
    """
    if unset and (key is None or value is not None):
        raise ConfigurationError("--unset takes one KEY and no VALUE")
    if key is not None and (value is not None or unset):
        set_preference(key, None if value is None else _parsed(key, value))
        note(f"{key} {'taken out of' if unset else 'set in'} {user_configuration()}")
        return
    found = preferences_in_force(study)
    if key is not None:
        found = _only(key, found)
    if as_json:
        print(json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False))
        return
    width = max(len(each.key) for each in found)
    values = max(len(str(each.value)) for each in found)
    for each in found:
        origin = f"  {each.origin}" if show_origin else ""
        print(f"{each.key:{width}}  {each.value!s:{values}}{origin}".rstrip())


def _parsed(key: str, value: str) -> object:
    try:
        return strict_yaml.parse(value.encode())[0]
    except ConfigurationError as error:
        raise ConfigurationError(Problem(error.problems[0].message, key=key)) from None


def _only(key: str, found: list[Preference]) -> list[Preference]:
    chosen = [each for each in found if each.key == key or each.key.startswith(f"{key}.")]
    if chosen:
        return chosen
    names = [each.key for each in found]
    near = nearest_names(key, names)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise ConfigurationError(Problem(f"is no setting of a user's own; {hint}", key=key))
