"""What a person sees: wrapped text, tables that fit, the last study, refusals in one line."""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Call
from llenergymeasure import screen
from llenergymeasure.analysis.pooling import study_runs, summarise_by
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.cli.live import Live
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.report.plain_text import groups_text
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.workload.load_study import study_from_mapping
from report.studies import without_drawing
from results.synthetic import write_runs
from support.programs import program
from support.studies import MAIN, SMALL, llem, write_study


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A terminal of so many columns."""
    width = int(request.param)
    monkeypatch.setattr(screen, "terminal_width", lambda _stream=None: width)
    return width


def made(root: Path, name: str, at: float, **settings: Any) -> Path:
    """Leave a study that was run at a time."""
    folder = root / name
    plan = json.loads(
        make_plan(study_from_mapping({**SMALL, "name": name, **settings})).to_json_bytes()
    )
    write_runs(folder, plan, lambda _: {"energy_j": 100.0})
    write_tables(folder, partial=False)
    os.utime(folder / "plan.json", (at, at))
    return folder


def test_words_are_wrapped_with_a_hanging_indent() -> None:
    text = "  ✓ a finding: that is much too long for the terminal\nshort"
    assert screen.wrap_lines(text, 30) == (
        "  ✓ a finding: that is much\n      too long for the\n      terminal\nshort"
    )
    long = "x" * 90
    assert screen.wrap_lines(f"see {long} there", 60).splitlines() == [
        "see",
        f"  {long}",
        "  there",
    ]


RUN = "batch_size=16, precision=bf16, cycle 1: warming up 14 s"
STOPPING = "1/4 done; stopping after the current run"
LONG = "64/128 done; up to about 100 min left; 12 failed; 3 interrupted"
AWAY = "2 jobs wait: the node that is asked for is in use, or out of service"


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        (f"1/4 done; about 40 s left; {RUN}", 120, f"1/4 done; about 40 s left; {RUN}"),
        (
            "1/4 done; about 40 s left; batch_size=1, cycle 1: warming up 14 s",
            60,
            "1/4 done; about 40 s left; batch_size=1: warming up 14 s",
        ),
        (
            f"1/4 done; about 40 s left; {RUN}",
            60,
            "1/4 done; about 40 s left; batch...on=bf16: warming up 14 s",
        ),
        (f"{STOPPING}; {RUN}", 60, f"{STOPPING}; warming up 14 s"),
        (
            f"{STOPPING}; {RUN}",
            80,
            f"{STOPPING}; batch_s...ision=bf16: warming up 14 s",
        ),
        (f"{LONG}; {RUN}", 60, "64/128 done; up to about 100 min left; warming up 14 s"),
        (f"0/2 done; {AWAY}", 60, "0/2 done; 2 jobs wait: the node that is asked for is in ..."),
        (f"0/2 done; {AWAY}", 80, f"0/2 done; {AWAY}"),
        (
            "1/4 done; Enter skips it; 30 s to go: resting before batch_size=16, cycle 1",
            60,
            "1/4 done; Enter skips it; 30 s to go: resting before bat...",
        ),
    ],
)
def test_a_narrow_terminal_keeps_what_is_done_the_time_left_and_what_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    columns: int,
    shown: str,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    Live(StudyFolder(tmp_path))._show(line)
    assert capsys.readouterr().err == shown
    assert len(shown) < columns


LABELS = """\
experiment|settings|n|J/token|95 % interval|W
23669e75554b|bf16 · batch_size=8 · 日本語の長い名前|3|0.2|0.1 to 0.3|28"""
LABELS_HOW = {"left": (0, 1), "droppable": (0, 5)}
WORDS = """\
experiment|quantity|verdict|how
batch_size=16·fp32|energy_per_output_token_j|inconclusive|paired over cycles"""
PAIR = """\
experiment|quantity|B/A|95 % interval|p|verdict|how
batch_size=8 against 1|energy_per_output_token_j|0.2197|0.04 to 1.17|0.063|inconclusive|-"""
PAIR_HOW = {"left": (0, 1, 3, 5, 6), "droppable": (4, 6, 3), "names": (1,)}
SETTINGS = """\
experiment|settings|n|kind|J/token|95 % interval|J/request|W|token/s
23669e75554b|fp32 · batch_size=4|1|estimated|25.5|-|204|28.0|1.10"""
SETTINGS_HOW = {"left": (0, 1, 3), "droppable": (0, 6, 7, 3), "min_chars": 20}
FIGURES = "settings|n|J/token|95 % interval|token/s\nbatch_size=16|1|25.5|1.2 to 3.4|1.10"
INTERVAL = "settings|J|95 %\nbatch_size=16|0.2001|0.1992 to 0.2010"


@pytest.mark.parametrize(
    ("wide", "table", "how", "parts"),
    [
        (60, LABELS, LABELS_HOW, ["(left out, as the terminal is too narrow: experiment)"]),
        (80, LABELS, LABELS_HOW, ["23669e75554b"]),
        (120, LABELS, LABELS_HOW, ["23669e75554b", "bf16 · batch_size=8 · 日本語の長い名前"]),
        (60, WORDS, {"left": (0, 1, 2, 3)}, []),
        (20, FIGURES, {"left": (0,)}, []),
        (34, FIGURES, {"left": (0,)}, []),
        (34, INTERVAL, {"left": (0,)}, ["settings ", "\nbatch_si ", "\nze=16"]),
        (
            80,
            PAIR,
            PAIR_HOW,
            ["energy_per_output_token_j", "verdict", "inconclusive", "0.04 to 1.17"],
        ),
        (80, SETTINGS, SETTINGS_HOW, ["fp32 · batch_size=4"]),
    ],
    ids=[
        *("without an id", "with it", "whole", "broken", "every column broken", "a little wider"),
        *("eight signs of settings", "a whole name cuts no other column", "settings on a line"),
    ],
    indirect=["wide"],
)
def test_a_table_fits_and_loses_no_letter(
    wide: int, table: str, how: dict[str, Any], parts: list[str]
) -> None:
    rows = [row.split("|") for row in table.splitlines()]
    text = screen.align_columns(rows, **how)
    assert max(map(len, text.splitlines())) <= wide
    joined = text.replace("\n", " ")  # a note may be broken at a blank
    assert [part for part in parts if part not in text and part not in joined] == []
    kept = [cell for row in rows for n, cell in enumerate(row) if n not in how.get("droppable", ())]
    assert not Counter("".join(kept).replace(" ", "")) - Counter(text)


@pytest.mark.parametrize("wide", [80], indirect=True)
def test_a_name_is_not_broken_into_letters(wide: int, tmp_path: Path) -> None:
    folder = made(tmp_path, "x", 1.0, sweep={"pytorch.batch_size": [1, 8]})
    groups = ["pytorch.batch_size"]
    table = summarise_by(study_runs([folder]), groups, "energy_per_output_token_j", [])
    lines = groups_text(table, groups, "energy_per_output_token_j").splitlines()
    assert any(line.startswith("pytorch.batch_si") for line in lines)
    assert max(map(len, lines)) <= wide


@pytest.mark.parametrize("wide", [60], indirect=True)
@pytest.mark.parametrize("command", ["status", "results", "plan"])
def test_every_line_fits(command: str, wide: int, tmp_path: Path, call: Call) -> None:
    sweep = {"precision": ["fp32", "bf16"], "pytorch.batch_size": [1, 8]}
    named = made(tmp_path / "results", "small", 1e9, sweep=sweep)
    path = write_study(tmp_path, sweep=sweep) if command == "plan" else named
    result = call(command, str(path))
    assert result.code == 0, result.err
    assert max(map(len, result.out.splitlines())) <= wide


def test_the_last_study_is_taken_and_the_others_are_named(tmp_path: Path, call: Call) -> None:
    for place, name in enumerate(("old", "new", "middle")):
        made(tmp_path / "results", name, (1e9, 3e9, 2e9)[place])
    for command in ("status", "results"):
        result = call(command)
        assert result.code == 0, result.err
        assert "1 run" in result.out
        assert "results/new, the last study that was run; others: results/middle, results/old" in (
            result.err
        )
    result = call("status", "results")
    assert result.out.startswith("new: ")
    result = call("status", "nope")
    assert result.code == 2
    assert "nope: no such study file or results folder; studies here: results/new" in result.err


def test_the_report_of_an_unfinished_study_says_so(call: Call) -> None:
    folder = StudyFolder(made(Path("results"), "small", 1e9, sweep={"precision": ["fp32", "bf16"]}))
    with without_drawing():
        assert call("report", str(folder.path)).err == ""
    first = Plan.read(folder.plan).runs[0]
    folder.run(first.experiment, 1).result.unlink()
    with without_drawing():
        result = call("report", str(folder.path))
    assert result.code == 0, result.err
    assert result.out == "results/small/report.html\n"
    assert result.err == "1 of 2 runs completed; the report names the others\n"


def test_a_command_to_type_holds_for_a_name_with_a_space(tmp_path: Path, call: Call) -> None:
    write_study(tmp_path).rename("my study.yaml")
    result = call("status", "my study.yaml")
    assert result.code == 2
    assert "`llem run 'my study.yaml'` makes them" in result.err
    Path("my old.yaml").write_text("task: {model: m}\nmeasurement: {}\n")
    result = call("plan", "my old.yaml")
    assert "`llem convert 'my old.yaml' > new.yaml`" in result.err
    result = call("init", "--defaults", "my own.yaml")
    assert result.out.endswith("Next: llem plan 'my own.yaml', then llem run 'my own.yaml'\n")
    assert "`llem run 'my own.yaml'`" in Path("my own.yaml").read_text()


def test_a_plain_word_finds_its_metric_and_merged_points_are_shown(
    tmp_path: Path, call: Call
) -> None:
    greedy = {"decoder": {"preset": "deterministic"}, "sweep": {"decoder.temperature": [0.5, 1.0]}}
    folder = made(tmp_path, "small", 1e9, **greedy)
    result = call("results", str(folder), "--metric", "energy", "--json")
    assert json.loads(result.out)["metric"] == "energy_per_output_token_j"
    two = made(tmp_path, "two", 1e9, sweep={"pytorch.batch_size": [1, 8]})
    result = call("results", str(two), "--metric", "power")
    head, *rows = result.out.splitlines()[2:]
    assert head.split()[:3] == ["experiment", "settings", "experiments"]
    assert {row.split()[1] for row in rows} == {"batch_size=1", "batch_size=8"}
    result = call("results", str(folder))
    assert "Measured once with another: 1 point" in result.out


def test_settings_from_the_command_line_win(tmp_path: Path, call: Call) -> None:
    study = str(write_study(tmp_path, sweep={"pytorch": [{"batch_size": 1}, {"batch_size": 8}]}))
    result = call("run", study, "--dry-run", "--set", "pytorch.batch_size=4")
    assert result.code == 0, result.err
    assert "1 experiment x 1 cycle" in result.out
    result = call("run", study, "--dry-run", "--set", "pytorch.batch_siz=4")
    assert result.code == 2
    assert "did you mean" in result.err
    result = call("run", study, "--set", "n")
    assert "must be KEY=VALUE" in result.err


def test_a_start_that_is_refused_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    study = str(write_study(tmp_path))
    result = call("run", study, "--profile", "slrum", "--dry-run")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "no such profile: there are default, generic, slurm" in result.err
    monkeypatch.setattr("llenergymeasure.cli.run.why_not_writable", lambda _: "Read-only")
    result = call("run", study)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "Snakemake keeps its state" in result.err
    assert not StudyFolder(tmp_path / "results" / "small").path.exists()


def test_an_encoding_that_lacks_signs_is_no_traceback(tmp_path: Path) -> None:
    result = llem(tmp_path, "run", "--help", variables={"PYTHONIOENCODING": "iso-8859-1"})
    assert result.returncode == 0, result.stderr
    assert "pytorch, vllm, ?" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_traceback(tmp_path: Path, closed: str) -> None:
    program = shlex.join([sys.executable, "-c", MAIN, "prefs"])
    result = subprocess.run(
        f"{program} {closed}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert ("output_dir" in result.stdout) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.slow
def test_docker_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    message = "Cannot connect to the Docker daemon"
    docker = program(tmp_path / "bin" / "docker", f"echo '{message}' >&2; exit 1")
    study = write_study(tmp_path, backend="vllm", runners={"vllm": "docker"})
    variables = {"PATH": f"{docker.parent}:{os.environ['PATH']}"}
    results = tmp_path / "results" / "small"
    results.mkdir(parents=True)
    for name in (RUNS_NAME, SUMMARY_NAME):
        (results / name).write_text("of an earlier call")
    result = llem(tmp_path, "run", str(study), variables=variables)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "WorkflowError" not in result.stderr
    (line,) = result.stderr.splitlines()[1:]
    assert line.startswith("llem: runners.vllm: docker's daemon does not answer")
