"""A run that finished while Snakemake was killed is kept; a half-written one is not."""

import base64
import json
from pathlib import Path

import pytest

from llenergymeasure.files import sha256
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow.manifest import run_state
from llenergymeasure.workflow.recovery import keep_finished


def _run(study: Path, cycle: int) -> Path:
    folder = study / "runs" / "0123456789ab" / str(cycle)
    folder.mkdir(parents=True)
    (folder / "run.parquet").write_bytes(b"row")
    digest = sha256(folder / "run.parquet")
    named = {"schema_version": 1, "experiment": "0123456789ab", "cycle": cycle}
    record = {**named, "files": {"run.parquet": digest}}
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def _keep(study: Path) -> None:
    named = {"experiment": "0123456789ab", "cycle": 1}
    run = RunFolder(study / "runs" / "0123456789ab" / "1")
    keep_finished([{**named, **run_state(run)}], StudyFolder(study))


def _mark(output: Path, name_limit: int = 255) -> Path:
    text = base64.urlsafe_b64encode(str(output).encode()).decode()
    parts = [text[i : i + name_limit - 1] for i in range(0, len(text), name_limit - 1)]
    marker = Path(".snakemake/incomplete", *[f"@{part}" for part in parts[:-1]], parts[-1])
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text('{"external_jobid": null}')
    return marker


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_whole_run_loses_its_mark() -> None:
    study = Path("results/demo")
    marker = _mark(_run(study, 1) / "result.json")
    _keep(study)
    assert not marker.exists()


def test_a_long_path_is_cut_as_snakemake_cuts_it() -> None:
    study = Path("results") / ("x" * 150) / ("y" * 100)
    marker = _mark(_run(study, 1) / "result.json")
    assert marker.parent.name.startswith("@")
    _keep(study)
    assert not marker.exists()


@pytest.mark.parametrize("damage", ["changed", "gone", "no record", "no hashes", "not JSON"])
def test_a_run_that_is_not_whole_keeps_its_mark(damage: str) -> None:
    study = Path("results/demo")
    folder = _run(study, 1)
    if damage == "changed":
        (folder / "run.parquet").write_bytes(b"rot")
    elif damage == "gone":
        (folder / "run.parquet").unlink()
    elif damage == "no record":
        (folder / "result.json").unlink()
    elif damage == "no hashes":
        (folder / "result.json").write_text('{"files": {}}')
    else:
        (folder / "result.json").write_text("[1,")
    marker = _mark(folder / "result.json")
    _keep(study)
    assert marker.exists()


def test_marks_of_others_are_left_alone() -> None:
    study = Path("results/demo")
    strangers = [
        _mark(Path("results/other/runs/0123456789ab/1/result.json")),
        _mark(Path("elsewhere.txt")),
    ]
    odd = Path(".snakemake/incomplete/not-base64!")
    odd.write_text("")
    _keep(study)
    assert all(marker.exists() for marker in [*strangers, odd])
