"""The state of a large study is told without a look at every file, and is the same."""

import json
import shutil
from pathlib import Path

import pytest

from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow import manifest
from llenergymeasure.workload.studies import study_from_mapping
from support.studies import SMALL

STUDY = {**SMALL, "sweep": {"n": [1, 2, 3]}, "execution": {"n_cycles": 2}}


@pytest.fixture
def study(tmp_path: Path) -> tuple[Plan, StudyFolder]:
    """A plan of six runs: one complete, one failed, the rest not begun."""
    plan, folder = make_plan(study_from_mapping(STUDY)), StudyFolder(tmp_path)
    first, second = (folder.run(run.experiment, run.cycle) for run in plan.runs[:2])
    for run in (first, second):
        run.path.mkdir(parents=True)
    first.result.write_text("{}")
    second.outcome.write_text(json.dumps({"status": "failed", "attempt": 1}))
    return plan, folder


def test_it_says_what_a_look_at_every_file_says(study: tuple[Plan, StudyFolder]) -> None:
    plan, folder = study
    assert manifest.quick_states(plan, folder) == manifest.states(plan, folder)
    manifest.write_manifest(plan, folder)
    third = folder.run(plan.runs[2].experiment, plan.runs[2].cycle)
    third.path.mkdir(parents=True)
    third.result.write_text("{}")
    found = manifest.quick_states(plan, folder)
    assert found == manifest.states(plan, folder)
    assert manifest.count(found) == {"completed": 2, "failed": 1, "missing": 3}


def test_what_was_complete_or_never_begun_is_not_looked_at(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = study
    manifest.write_manifest(plan, folder)
    looked = []
    look = manifest.run_state
    monkeypatch.setattr(manifest, "run_state", lambda run: looked.append(run) or look(run))
    manifest.quick_states(plan, folder)
    failed = folder.run(plan.runs[1].experiment, plan.runs[1].cycle)
    assert looked == [failed]


def test_a_run_whose_folder_was_removed_is_missing(study: tuple[Plan, StudyFolder]) -> None:
    plan, folder = study
    manifest.write_manifest(plan, folder)
    shutil.rmtree(folder.run(plan.runs[0].experiment, plan.runs[0].cycle).path)
    assert manifest.quick_states(plan, folder) == manifest.states(plan, folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": [{}]}'])
def test_a_damaged_manifest_is_passed_over(study: tuple[Plan, StudyFolder], content: str) -> None:
    plan, folder = study
    folder.manifest.write_text(content)
    assert manifest.quick_states(plan, folder) == manifest.states(plan, folder)
