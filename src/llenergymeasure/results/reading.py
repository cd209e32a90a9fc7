"""Reading ``result.json``, of this version's form and of every earlier one."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import load_json
from llenergymeasure.results.record import Result
from llenergymeasure.results.whole import check_version


def read_result(path: Path) -> Result:
    """Return the record at ``path``.

    A field that came after the record was written reads as null. Fields that this version does not
    know, of a later one with the same form, are passed over.

    Raises:
        ResultsError: there is no such file, or it holds no record that this version reads.
    """
    try:
        stored = load_json(path)
    except OSError as error:
        raise ResultsError(f"{path}: no record can be read: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: is no JSON: {error}") from None
    check_version(stored, path)
    return result_of(stored, path)


def result_of(stored: dict[str, Any], path: Path) -> Result:
    """Return a parsed record, its unknown fields left out one after the other.

    Raises:
        ResultsError: it lacks something, or holds another type.
    """
    for _ in range(_MOST_UNKNOWN):
        try:
            return Result.model_validate(stored)
        except ValidationError as error:
            unknown = [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]
            if not unknown:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise ResultsError(f"{path}: is no record: {where}: {first['msg']}") from None
            for location in unknown:
                _drop(stored, location)
    raise ResultsError(f"{path}: is no record: too many fields are unknown")


_MOST_UNKNOWN = 100


def _drop(stored: Any, location: tuple[int | str, ...]) -> None:
    for part in location[:-1]:
        stored = stored[part]
    del stored[location[-1]]
