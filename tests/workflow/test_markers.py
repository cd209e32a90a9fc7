"""A run that finished while Snakemake was killed is kept; a half-written one is not."""

import base64
import json
from pathlib import Path

import pytest

from llenergymeasure.files import sha256
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow.manifest import run_state
from llenergymeasure.workflow.recovery import keep_finished

RUN = {"experiment": "0123456789ab", "cycle": 1}
DEMO = Path("results/demo")


def _run(study: Path) -> RunFolder:
    run = StudyFolder(study).run(**RUN)
    run.path.mkdir(parents=True)
    run.row.write_bytes(b"row")
    record = {"schema_version": 1, **RUN, "files": {run.row.name: sha256(run.row)}}
    run.result.write_text(json.dumps(record))
    return run


def _keep(study: Path) -> None:
    folder = StudyFolder(study)
    keep_finished([{**RUN, **run_state(folder.run(**RUN))}], folder)


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


@pytest.mark.parametrize(
    "study", [DEMO, Path("results", "x" * 150, "y" * 100)], ids=["short", "cut by Snakemake"]
)
def test_a_whole_run_loses_its_mark(study: Path) -> None:
    marker = _mark(_run(study).result)
    assert marker.parent.name.startswith("@") == (study != DEMO)
    _keep(study)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.parquet", "rot"),
        ("run.parquet", None),
        ("result.json", None),
        ("result.json", '{"files": {}}'),
        ("result.json", "[1,"),
    ],
)
def test_a_run_that_is_not_whole_keeps_its_mark(name: str, content: str | None) -> None:
    run = _run(DEMO)
    (run.path / name).unlink() if content is None else (run.path / name).write_text(content)
    marker = _mark(run.result)
    _keep(DEMO)
    assert marker.exists()


def test_marks_of_others_are_left_alone() -> None:
    strangers = [
        _mark(Path("results/other/runs/0123456789ab/1/result.json")),
        _mark(Path("elsewhere.txt")),
    ]
    odd = Path(".snakemake/incomplete/not-base64!")
    odd.write_text("")
    _keep(DEMO)
    assert all(marker.exists() for marker in [*strangers, odd])
