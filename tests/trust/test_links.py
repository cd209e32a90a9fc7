"""Below a results folder no link is followed to write or to delete, whoever made it."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cli.commands import Call
from llenergymeasure import files
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import LlemError, ResultsError
from llenergymeasure.plan import make_plan
from llenergymeasure.recording.samples import SamplesWriter
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.run.attempt import lock_folder
from llenergymeasure.run.circuit_breaker import Circuit
from llenergymeasure.run.engine import engine_process
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.quality_scores import command_score
from llenergymeasure.run.pin import enforce_pin
from llenergymeasure.workflow import recovery
from llenergymeasure.workflow.recovery import clear_leftovers
from llenergymeasure.workload.load_study import load_study
from report.studies import without_drawing
from results.synthetic import make_result, write_result
from support.recording import header
from support.studies import write_study

KEPT = "what I wrote\n"


@pytest.fixture(autouse=True)
def _not_drawn() -> Iterator[None]:
    with without_drawing():
        yield


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A colleague's results."""
    folder = StudyFolder(tmp_path / "results" / "small")
    plan = make_plan(load_study(write_study(tmp_path, experiments=[{"n": 1}, {"n": 2}])))
    for run in plan.runs:
        write_result(folder.path, make_result(asdict(run)))
    files.write_bytes(folder.plan, plan.to_json_bytes())
    return folder.path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of one's own, with what a hostile link would have overwritten or deleted."""
    folder = tmp_path / "mine"
    (folder / "1" / "work").mkdir(parents=True)
    for name in ("notes.txt", ".old.part", "1/samples.arrows", "1/.half.part", "1/work/note"):
        (folder / name).write_text(KEPT)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_link_in_the_place_of_the_lock_is_not_written_through(
    theirs: Path, mine: Path, call: Call
) -> None:
    (theirs / ".lock").unlink(missing_ok=True)
    (theirs / ".lock").symlink_to(mine / "notes.txt")
    before = contents(mine)
    for command in (("report",), ("clean", "--yes")):
        result = call(command[0], str(theirs), *command[1:])
        assert result.code == 1
        assert ".lock" in result.err
        assert "link" in result.err
    assert contents(mine) == before


def test_clean_deletes_nothing_behind_a_link(theirs: Path, mine: Path, call: Call) -> None:
    (theirs / "runs" / "0123456789ab").symlink_to(mine)
    before = contents(mine)
    result = call("clean", str(theirs), "--yes")
    assert result.code == 0, result.err
    assert contents(mine) == before


def test_clean_removes_a_link_itself_where_it_stands_for_a_leftover(
    theirs: Path, mine: Path, call: Call
) -> None:
    run = next(theirs.glob("runs/*/*"))
    (run / "work").symlink_to(mine)
    before = contents(mine)
    assert call("clean", str(theirs), "--yes").code == 0
    assert not (run / "work").is_symlink()
    assert contents(mine) == before


def test_report_writes_no_figure_through_a_link(theirs: Path, mine: Path, call: Call) -> None:
    (theirs / "figures").symlink_to(mine)
    before = contents(mine)
    result = call("report", str(theirs))
    assert result.code == 1
    assert "figures is a link" in result.err
    assert contents(mine) == before


HARD = (".lock", "circuit.jsonl", "snakemake.log", "a/1/attempts.jsonl", "a/1/run.log")


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_a_second_name_of_a_file_elsewhere_is_not_written_to(
    tmp_path: Path, mine: Path, name: str, flags: int
) -> None:
    """Archives bring hard links, and where a kernel does not forbid it any user makes them."""
    (tmp_path / "plan.json").write_text("{}")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(mine / "notes.txt")
    with pytest.raises(LlemError, match="hard link"):
        files.open_file(path, flags)
    assert (mine / "notes.txt").read_text() == KEPT
    files.write_text(path, "a new file takes the name")
    assert (mine / "notes.txt").read_text() == KEPT


def test_commands_write_nothing_through_hard_links(theirs: Path, mine: Path, call: Call) -> None:
    (theirs / "logs" / "slurm").mkdir(parents=True)
    (theirs / "logs" / "slurm" / "17.log").write_text(KEPT)
    for name in (".lock", "logs/summary.log", "report.html", "summary.csv"):
        (theirs / name).unlink(missing_ok=True)
        (theirs / name).hardlink_to(mine / "notes.txt")
    before = contents(mine)
    result = call("report", str(theirs))
    assert result.code == 1
    assert "hard link" in result.err
    (theirs / ".lock").unlink()
    assert call("report", str(theirs)).code == 0
    clear_leftovers([], StudyFolder(theirs))
    assert not (theirs / "logs" / "summary.log").exists()
    assert (theirs / "logs" / "slurm" / "17.log").read_text() == KEPT
    assert contents(mine) == before


def test_an_export_for_others_holds_nothing_that_a_link_brings_in(
    theirs: Path, mine: Path, call: Call
) -> None:
    """What is published would be the reader's own files."""
    assert call("report", str(theirs)).code == 0
    run = next(theirs.glob("runs/*/*"))
    (theirs / "figures" / "a.svg").symlink_to(mine / "notes.txt")
    (theirs / "runs" / "0123456789ab").symlink_to(mine)
    (mine / "1" / "result.json").write_text(KEPT)
    (run / "outcome.json").unlink(missing_ok=True)
    (run / "outcome.json").symlink_to(mine / "notes.txt")
    out = theirs.parents[1] / "crate.zip"
    result = call("export", str(theirs), "--format", "ro-crate", "--out", str(out))
    assert result.code == 1
    assert "is a link to what is outside" in result.err
    assert not out.exists()


def test_a_folder_that_one_names_oneself_may_be_a_link(
    theirs: Path, tmp_path: Path, call: Call
) -> None:
    (tmp_path / "short").symlink_to(theirs)
    result = call("report", "short")
    assert result.code == 0, result.err
    assert (theirs / "report.html").is_file()


@pytest.mark.parametrize("link_place", ["runs", "runs/a", "runs/a/1", "logs", "pins"])
def test_nothing_is_made_written_or_removed_behind_a_link(
    tmp_path: Path, mine: Path, link_place: str
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "plan.json").write_text("{}")
    link = study / link_place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(mine)
    before = contents(mine)
    for attempt in (
        lambda: files.write_text(link / "notes.txt", "theirs"),
        lambda: files.make_folder(link / "new"),
        lambda: files.remove(link / "notes.txt"),
        lambda: files.remove(link / "1"),
        lambda: files.remove_unfinished(link),
        lambda: os.close(files.open_file(link / "notes.txt", os.O_WRONLY | os.O_TRUNC)),
    ):
        with pytest.raises(LlemError, match="is a link"):
            attempt()
    assert contents(mine) == before


def test_what_was_changed_into_a_link_meanwhile_is_written_where_it_was(tmp_path: Path) -> None:
    """Its owner can swap a folder while it is written to."""
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "mine").mkdir()
    path = tmp_path / "figures" / "a.svg"
    with files.replacing(path) as temporary:
        (tmp_path / "figures").rename(tmp_path / "away")
        (tmp_path / "figures").symlink_to(tmp_path / "mine")
        temporary.write_text("drawing")
    assert (tmp_path / "away" / "a.svg").read_text() == "drawing"
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["pipe", "folder"])
def test_only_a_file_is_opened_to_be_written_and_nobody_waits(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "attempts.jsonl"
    make(path)
    with pytest.raises((LlemError, OSError), match=r"attempts\.jsonl"):
        files.open_file(path, os.O_RDWR)


def test_a_run_s_folder_is_below_results_also_once_their_owner_took_the_plan_away(
    theirs: Path, mine: Path
) -> None:
    """Between the question and the answer of ``llem clean``."""
    run = next(theirs.glob("runs/*/*"))
    (theirs / "plan.json").unlink()
    run.parent.rename(theirs / "away")
    run.parent.symlink_to(mine)
    before = contents(mine)
    with pytest.raises(LlemError, match="is a link"):
        files.remove(run / "work")
    with pytest.raises(LlemError, match="is a link"):
        files.remove(run / "work" / "note")
    assert contents(mine) == before


def test_a_pin_is_claimed_through_no_link(theirs: Path, mine: Path) -> None:
    spec = SimpleNamespace(pin="node", pin_scope="study", experiment="a", cycle=1)
    folder = StudyFolder(theirs)
    claim = folder.pin(None)
    claim.parent.mkdir()
    temporary = claim.with_name(f".{claim.name}.here.{os.getpid()}.part")
    temporary.symlink_to(mine / "notes.txt")
    before = contents(mine)
    enforce_pin(cast("RunSpec", spec), folder, {"host": "here"})
    assert json.loads(claim.read_text())["node"] == "here"
    assert contents(mine) == before
    claim.unlink()
    os.mkfifo(claim)
    with pytest.raises(OSError, match="no file that can be read"):
        enforce_pin(cast("RunSpec", spec), folder, {"host": "here"})


def test_a_run_makes_nothing_behind_links_in_its_folder(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    run = RunFolder(tmp_path / "runs" / "a" / "1")
    run.path.parent.mkdir(parents=True)
    run.path.symlink_to(mine / "1")
    before = contents(mine)
    with pytest.raises(LlemError, match="is a link"):
        lock_folder(run, lambda _: True)
    run.path.unlink()
    run.path.mkdir()
    run.attempts.symlink_to(mine / "notes.txt")
    with pytest.raises((LlemError, OSError), match=r"attempts\.jsonl"):
        lock_folder(run, lambda _: True)
    (tmp_path / "circuit.jsonl").symlink_to(mine / "notes.txt")
    Circuit(tmp_path / "circuit.jsonl").add_failure("a", {})
    assert contents(mine) == before


def test_a_run_writes_through_no_link_that_came_later(tmp_path: Path, mine: Path) -> None:
    """The folder's owner can put it there once the run has cleared its own."""
    (tmp_path / "plan.json").write_text("{}")
    run = RunFolder(tmp_path / "runs" / "0123456789ab" / "1")
    run.work.mkdir(parents=True)
    for path in (run.stream, run.engine_pid, run.marks, run.work / "experiment.json"):
        path.symlink_to(mine / "notes.txt")
    before = contents(mine)
    run.spec.write_text(json.dumps({"config": {}}))
    with pytest.raises(LlemError, match="is a link"):
        SamplesWriter(run.stream, header())
    with pytest.raises(LlemError, match="is a link"):
        Marks(run.marks)
    with pytest.raises(ValueError, match="Field required"):  # of an empty plan
        engine_process.main(["--out", str(run.path)])
    assert run.engine_pid.read_text() == str(os.getpid())
    command_score(run, {"command": ["true"], "timeout_seconds": 9})
    assert contents(mine) == before


def test_what_is_set_aside_stays_where_it_was_when_its_folder_becomes_a_link(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.json").write_text("{}")
    run = RunFolder(tmp_path / "runs" / "0123456789ab" / "1")
    run.path.mkdir(parents=True)
    run.result.write_text("theirs")
    before = contents(mine)
    make = os.mkdir

    def make_and_swap(name: str, *args: int, **kwargs: int) -> None:
        make(name, *args, **kwargs)
        if Path(name).name == "damaged-1":
            (run.path / name).rename(tmp_path / "away")
            (run.path / name).symlink_to(mine)

    monkeypatch.setattr(os, "mkdir", make_and_swap)
    with pytest.raises(LlemError, match="is a link"):
        recovery._set_aside(run)
    assert contents(mine) == before


def test_a_workflow_begins_in_no_folder_that_leads_elsewhere(theirs: Path, mine: Path) -> None:
    """Snakemake itself writes and deletes, and follows links."""
    plan = json.loads((theirs / "plan.json").read_text())
    states = [{**run, "status": "completed"} for run in plan["runs"]]
    (theirs / "logs").mkdir()
    (theirs / "logs" / "summary.log").symlink_to(mine / "notes.txt")
    os.mkfifo(theirs / "logs" / "report.log")  # a shell that writes to it would wait for a reader
    before = contents(mine)
    clear_leftovers(states, StudyFolder(theirs))
    assert list((theirs / "logs").iterdir()) == []
    run = theirs / "runs" / plan["runs"][0]["experiment"]
    run.rename(theirs / "runs" / "away")
    run.symlink_to(mine)
    with pytest.raises(LlemError, match="is a link"):
        clear_leftovers(states, StudyFolder(theirs))
    assert contents(mine) == before


def test_a_link_that_leads_nowhere_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to("nowhere")
    with pytest.raises(ResultsError, match="results is a link that leads nowhere"):
        files.write_text(tmp_path / "results" / "small" / "plan.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
