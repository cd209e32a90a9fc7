"""A user's own settings: where results go, where engines run, whom to notify.

They are in one file in the user's configuration folder, and change nothing of what is measured:
the same study has the same experiments for everyone. For each of them the environment wins over
the study, the study over the file, and the file over what is built in.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from llenergymeasure.config import strict_yaml
from llenergymeasure.config.execution import RunnerChoice, RunnersConfig, runner_choice
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.config.section import Section, Text
from llenergymeasure.config.study import DEFAULT_RESULTS
from llenergymeasure.config.study_document import read_document
from llenergymeasure.config.validation_messages import validate
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BACKENDS, BackendName

FOLDER_VARIABLE = "LLEM_OUTPUT_DIR"
NOTIFY_VARIABLE = "LLEM_NOTIFY"

BUILT_IN = "built in"


class Preferences(Section):
    """What the file of a user's own settings holds."""

    output_dir: Text | None = Field(
        default=None, description=f"Folder that results go under; default {DEFAULT_RESULTS}."
    )
    runners: RunnersConfig = Field(
        default=RunnersConfig(),
        description="Where each backend runs; default: what is found here.",
    )
    notify: NotifyConfig | None = Field(
        default=None, description="Whom to notify that a study has ended; default nobody."
    )


@dataclass(frozen=True)
class Preference:
    """One setting, as it is in force.

    Attributes:
        key: its dotted name.
        value: the value, as it would be written; None where there is none.
        origin: where it is set: a variable, a file, or built in.
    """

    key: str
    value: Any
    origin: str


def user_configuration() -> Path:
    """Return the file of a user's own settings, whether or not it exists.

    Source: XDG Base Directory Specification 0.8.
    """
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".config"
    return folder / "llenergymeasure" / "config.yaml"


def user_preferences() -> Preferences:
    """Return the settings in the user's file; none if there is no file.

    Raises:
        ConfigurationError: the file cannot be used; it names every problem found.
    """
    path = user_configuration()
    values, places = strict_yaml.read(path) if os.path.lexists(path) else (None, {})
    return Preferences() if values is None else validate(Preferences, values, places)


def preferred_folder(study_folder: Path | None) -> Path:
    """Return the folder that results go under.

    Args:
        study_folder: what the study says, if anything.

    Raises:
        ConfigurationError: the user's file cannot be used.
    """
    variable = os.environ.get(FOLDER_VARIABLE)
    if variable:
        return Path(variable).expanduser()
    if study_folder is not None:
        return study_folder.expanduser()
    preferred = user_preferences().output_dir
    return DEFAULT_RESULTS if preferred is None else Path(preferred).expanduser()


def preferred_notify(study_notify: NotifyConfig | None) -> NotifyConfig | None:
    """Return whom to notify of a study's end; None for nobody.

    Args:
        study_notify: what the study says, if anything.

    Raises:
        ConfigurationError: the user's file or the variable cannot be used.
    """
    if os.environ.get(NOTIFY_VARIABLE):
        return _notify_in_environment()
    return study_notify or user_preferences().notify


def runner_variable(backend: BackendName) -> str:
    """Return the name of the variable that chooses a backend's runner."""
    return f"LLEM_RUNNER_{backend.upper()}"


def runner_in_environment(backend: BackendName) -> RunnerChoice | None:
    """Return the runner that the environment chooses for a backend; None if none.

    Raises:
        ConfigurationError: the variable holds no runner.
    """
    value = os.environ.get(runner_variable(backend))
    if not value:
        return None
    try:
        return runner_choice(value)
    except ValueError as error:
        problem = Problem(str(error), key=runner_variable(backend), found=value)
        raise ConfigurationError(problem) from None


def preferences_in_force(study_file: Path | None = None) -> list[Preference]:
    """Return every setting with its value and where that is from.

    Args:
        study_file: a study whose settings count too; None for none.

    Raises:
        ConfigurationError: the study, the user's file or a variable cannot be used.
    """
    user = user_preferences()
    study = Preferences()
    if study_file is not None:
        document = read_document(study_file)
        values = {k: v for k, v in document.values.items() if k in Preferences.model_fields}
        study = validate(Preferences, values, document.places)
    in_environment = _environment_values()
    in_study, in_file = _written_values(study), _written_values(user)
    variables = {f"runners.{name}": runner_variable(name) for name in BACKENDS}
    preferences = []
    for key, variable, built_in in (
        ("output_dir", FOLDER_VARIABLE, str(DEFAULT_RESULTS)),
        *((key, variable, "automatic") for key, variable in variables.items()),
        ("notify", NOTIFY_VARIABLE, "nobody"),
    ):
        ranked = (
            (in_environment.get(key), f"environment: {variable}"),
            (in_study.get(key), f"study: {study_file}"),
            (in_file.get(key), f"file: {user_configuration()}"),
            (built_in, BUILT_IN),
        )
        value, origin = next(candidate for candidate in ranked if candidate[0] is not None)
        preferences.append(Preference(key, value, origin))
    return preferences


def _environment_values() -> dict[str, str | None]:
    """Return the environment's settings by dotted name; a path there need not be UTF-8."""
    runners = {name: runner_in_environment(name) for name in BACKENDS}
    values = {f"runners.{name}": str(runner) for name, runner in runners.items() if runner}
    if os.environ.get(NOTIFY_VARIABLE):
        notify = _notify_in_environment()
        values["notify"] = "nobody" if notify is None else notify.recipients()
    return {**values, "output_dir": os.environ.get(FOLDER_VARIABLE) or None}


def _written_values(preferences: Preferences) -> dict[str, str]:
    """Return what is set, by its dotted name."""
    values = {} if preferences.output_dir is None else {"output_dir": preferences.output_dir}
    runners = preferences.runners.choices()
    values |= {f"runners.{name}": str(runner) for name, runner in runners.items()}
    return (
        values
        if preferences.notify is None
        else {**values, "notify": preferences.notify.recipients()}
    )


def _notify_in_environment() -> NotifyConfig | None:
    text = os.environ.get(NOTIFY_VARIABLE, "")
    if text.strip().lower() in ("none", "nobody", "off"):
        return None
    try:
        values = strict_yaml.parse(text.encode())[0]
    except ConfigurationError as error:
        message = error.problems[0].message
        raise ConfigurationError(Problem(message, key=NOTIFY_VARIABLE)) from None
    if not isinstance(values, dict):
        message = "must be a mapping such as {webhook_env: NAME}, or none"
        raise ConfigurationError(Problem(message, key=NOTIFY_VARIABLE))
    return validate(NotifyConfig, values, {}, (NOTIFY_VARIABLE,))
