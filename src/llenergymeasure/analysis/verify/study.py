"""Everything of one study checked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure.analysis.verify.difference import Difference
from llenergymeasure.analysis.verify.runs import check_run
from llenergymeasure.analysis.verify.tables import check_tables
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.whole import recorded_hash


@dataclass
class Verification:
    """What was checked, and what does not match."""

    study: str
    runs: int = 0
    missing: int = 0
    unhashed: int = 0
    differences: list[Difference] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "study": self.study,
            "runs": self.runs,
            "missing": self.missing,
            "unhashed": self.unhashed,
            "differences": [each.as_dict() for each in self.differences],
        }


def verify_study(study_dir: Path) -> Verification:
    """Recompute every figure of a study from its raw samples and requests.

    Raises:
        ResultsError: there is no plan that can be read, or a record of another version.
    """
    folder = StudyFolder(study_dir)
    plan = Plan.read(folder.plan)
    found = Verification(plan.study)
    found.differences += _runs(plan, folder, found)
    found.differences += check_tables(study_dir, partial=found.missing > 0)
    return found


def _runs(plan: Plan, folder: StudyFolder, found: Verification) -> Iterator[Difference]:
    for run in plan.runs:
        place = folder.run(run.experiment, run.cycle)
        if not place.result.is_file():
            found.missing += 1
            continue
        found.runs += 1
        found.unhashed += recorded_hash(place) is None
        yield from check_run(place, run.swept)
