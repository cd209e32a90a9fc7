"""The base of every part of a study file: strict types, no unknown keys, no changes later."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from llenergymeasure.redact import secret_argument

FAULT = "fault"
"""Type of a validation error whose message can be shown unchanged."""

_YAML_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}

Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, Field(min_length=1, max_length=4096)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Processes = Annotated[int, Field(ge=1, le=4096)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Section(BaseModel):
    """A mapping in the study file.

    Types are strict (``"16"`` and ``true`` are no numbers) and a null means "not set", the same
    as leaving the key out. A setting added after a release must default to null: ids count every
    value that is set, and a new default would orphan results that were paid for.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=False,
        hide_input_in_errors=True,
    )

    @cached_property
    def plain(self) -> dict[str, Any]:
        """What is set, as plain values; made once, so not to be changed."""
        return self.model_dump(exclude_none=True)

    @cached_property
    def secret(self) -> str | None:
        """The name of a setting that holds a secret; None if none does."""
        return secret_argument(self.plain)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy without the values that were computed before ``update``."""
        copied = super().model_copy(update=update, deep=deep)
        for name in set(copied.__dict__) - set(type(self).model_fields):
            del copied.__dict__[name]
        return copied

    @classmethod
    def takes_boolean(cls, name: str) -> bool:
        """Return whether a setting is true or false, and no text."""
        field = cls.model_fields.get(name)
        types = set() if field is None else {field.annotation, *get_args(field.annotation)}
        return bool in types and str not in types

    def _contradictions(self) -> Iterator[str]:
        """Yield the contradictions in it; the first one is the error."""
        yield from ()

    def _check(self) -> None:
        for message in self._contradictions():
            raise ValueError(message)

    @model_validator(mode="after")
    def _run_checks(self) -> Self:
        self._check()
        return self

    @classmethod
    def _prepare(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the written values in the form in which they are checked."""
        return data

    @model_validator(mode="before")
    @classmethod
    def _set_values(cls, data: Any) -> Any:
        if not isinstance(data, dict | Mapping):
            return data
        prepared = cls._prepare(data).items()
        unknown = set() if cls.model_config["extra"] == "allow" else set(data) - {*cls.model_fields}
        return {
            key: cls._read(str(key), value)
            for key, value in prepared
            if value is not None or key in unknown
        }

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        """Return a value; the words of YAML 1.1 for booleans are read if a boolean is expected."""
        if isinstance(value, str) and value.lower() in _YAML_BOOLEANS and cls.takes_boolean(name):
            return _YAML_BOOLEANS[value.lower()]
        return value


class RunSection(Section):
    """A section that is the study's, and that each of its runs is given."""

    def _check(self) -> None:
        if self.secret is not None:  # first, as a reader of the other faults may leave it there
            raise rejection([secret_fault(self.secret)])
        super()._check()

    def for_run(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at a place below what is checked.

    Attributes:
        path: the key to blame.
        message: what is wrong and what would do.
        found: the value there, or ``...`` where there is none to show.
        standalone: whether only that value is wrong, and not several together.
    """

    path: tuple[str | int, ...]
    message: str
    found: Any
    standalone: bool = True


def secret_fault(name: str) -> Fault:
    """Return what is wrong with a setting that holds a secret, by its dotted name.

    It is wrong by itself, whatever else is: also what is left out stands in the plan.
    """
    message = "holds a secret, which would be written into the results; give it by the environment"
    return Fault(tuple(name.split(".")), message, ...)


def rejection(faults: Iterable[Fault]) -> ValidationError:
    """Return what a validator raises for faults that it has found itself."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError(
                FAULT, "{reason}", {"reason": fault.message, "standalone": fault.standalone}
            ),
            loc=fault.path,
            input=fault.found,
        )
        for fault in faults
    ]
    return ValidationError.from_exception_data("study", details)
