"""What all parts of a record have in common."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of the record's parts: unknown keys are errors, so that a misspelling is seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
