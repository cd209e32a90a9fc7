"""The base of every part of a study file: strict types, no unknown keys, no changes later."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


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

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data
