"""``llem verify``: every figure of a study, recomputed from its samples."""

import sys

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, StudyArgument, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK
from llenergymeasure.report.formatting import count_text


def verify(study: StudyArgument = None, as_json: JsonOption = False) -> int:
    """Recompute every figure of a study from its raw samples, and list those that do not match."""
    from llenergymeasure.analysis.verify import verify_study

    result = verify_study(study_folder(study).path)
    code = EXIT_FAILED if result.differences else EXIT_OK
    if as_json:
        print_json(result.as_dict())
        return code
    for difference in result.differences:
        print(difference)
    runs = count_text(result.runs, "run")
    missing = f"; {result.missing} planned without a result" if result.missing else ""
    if result.unhashed:
        print(
            f"{result.study}: no hash was kept of {result.unhashed} of {runs} (made by an earlier "
            "version, or killed at the very end): a change in a record where nothing can be "
            "recomputed would not show",
            file=sys.stderr,
        )
    if result.differences:
        differences = count_text(len(result.differences), "difference")
        print(f"{result.study}: {differences} in {runs}{missing}", file=sys.stderr)
    else:
        print(f"{result.study}: {runs} and all tables follow from what was recorded{missing}")
    return code
