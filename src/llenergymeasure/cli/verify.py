"""``llem verify``: whether every figure of a study follows from what was recorded."""

import json
import sys
from pathlib import Path

from llenergymeasure.cli.results import study_folder


def verify_command(path: Path, *, as_json: bool) -> bool:
    """Recompute a study's figures, print what does not match, and return whether all does.

    Raises:
        ConfigurationError: there is no plan yet.
        ResultsError: the plan cannot be read, or another version wrote a record.
    """
    from llenergymeasure.analysis.verify.study import verify_study

    found = verify_study(study_folder(path).path)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1, default=str))
        return not found.differences
    for each in found.differences:
        print(each)
    runs = f"{found.runs} run{'' if found.runs == 1 else 's'}"
    missing = f"; {found.missing} planned without a result" if found.missing else ""
    if found.unhashed:
        print(
            f"{found.study}: no hash was kept of {found.unhashed} of {runs} (made by an earlier "
            "version, or killed at the very end): a change in a record where nothing can be "
            "recomputed would not show",
            file=sys.stderr,
        )
    if found.differences:
        print(
            f"{found.study}: {len(found.differences)} differences in {runs}{missing}",
            file=sys.stderr,
        )
        return False
    print(f"{found.study}: {runs} and all tables follow from what was recorded{missing}")
    return True
