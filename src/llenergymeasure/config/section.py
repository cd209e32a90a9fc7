"""The base of every part of a study file: strict types, no unknown keys, no changes later."""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

_WORDS = {"yes": True, "on": True, "no": False, "off": False}


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

    @classmethod
    def takes_boolean(cls, name: str) -> bool:
        """Return whether a setting is true or false, and no text."""
        field = cls.model_fields.get(name)
        types = set() if field is None else {field.annotation, *get_args(field.annotation)}
        return bool in types and str not in types

    @model_validator(mode="before")
    @classmethod
    def _set_values(cls, data: Any) -> Any:
        if not isinstance(data, dict | Mapping):
            return data
        return {key: cls._read(str(key), value) for key, value in data.items() if value is not None}

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        """Return a value, the words that YAML 1.1 has for booleans read where one is asked for."""
        if isinstance(value, str) and value.lower() in _WORDS and cls.takes_boolean(name):
            return _WORDS[value.lower()]
        return value
