"""``llem run`` and ``llem resume``: real runs, seen in a pipe and at a terminal."""

import json
import os
import re
import sys
import time
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from cli.commands import Call
from llenergymeasure.api.running import run_study
from llenergymeasure.cli.find_study import results_folder
from llenergymeasure.cli.run import _batch_sizes
from llenergymeasure.config.expansion import FindShape, expand
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import Document
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import SUMMARY_NAME, StudyFolder
from llenergymeasure.workflow import snakemake_process
from llenergymeasure.workflow.resume import StudyCall, store_call
from llenergymeasure.workload.load_study import load_study
from support.studies import SERVED, SMALL, llem, write_study
from support.terminal import at_a_terminal

Driven: TypeAlias = list[tuple[Any, ...]]


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    """What studies are driven with, in place of driving them."""
    calls: Driven = []

    def complete_study(*arguments: Any) -> tuple[int, str]:
        calls.append(arguments)
        return (0, "")

    monkeypatch.setattr("llenergymeasure.cli.run.complete_study", complete_study)
    return calls


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another working folder."""
    (folder := tmp_path / "elsewhere").mkdir()
    return folder


@pytest.fixture
def undriven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's studies are not driven."""
    monkeypatch.setattr("llenergymeasure.api.running.complete_study", lambda *_: (0, ""))
    monkeypatch.setattr("llenergymeasure.api.running.load_results", lambda _folder: None)


@pytest.mark.slow
def test_a_terminal_shows_how_far_it_is(tmp_path: Path) -> None:
    # The line is written once a second: a phase must last for several to be seen on any machine.
    study = write_study(tmp_path, **SERVED, window={"min_seconds": 3}, sweep={"n": [1, 2]})
    code, output = at_a_terminal(tmp_path, "run", str(study))
    assert code == 0, output
    assert re.search(r"0/2 done; .* left; n=1, cycle 1: \w[\w ]* \d+ s", output)
    assert re.search(r"1/2 done; about \d+ s left; n=2, cycle 1", output)
    assert re.search(r"2/2 done; about \d+ s left; writing the report", output)
    assert re.search(r"\r\x1b\[K\[2/2\] n=2, cycle 1: .*J per output token", output)
    shown = [line for line in re.split(r"\r\n|\r\x1b\[K", output) if "/2 done" in line]
    assert max(map(len, shown)) < 100
    code, output = at_a_terminal(tmp_path, "run", "-q", str(study))
    assert code == 0
    assert "\x1b" not in output
    assert output.startswith("small: 2 of 2 runs completed")


ODD = {
    "HOME": "/nonexistent",
    "TMPDIR": "/nonexistent/tmp",
    "LC_ALL": "C",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONUTF8": "0",
    "PYTHONIOENCODING": "ascii",
    "PYTHONWARNINGS": "error",
    "TZ": "Nowhere/Here",
    "http_proxy": "http://127.0.0.1:9",
    "OMP_NUM_THREADS": "4,2",
    "SNAKEMAKE_PROFILE": "no-such-profile",
}
"""Surroundings that runs have been tried in, all at once."""


@pytest.mark.slow
def test_a_pipe_gets_plain_lines_and_resume_goes_on(tmp_path: Path) -> None:
    """In a folder, from a file and in surroundings that are odd in many ways."""
    tmp_path = tmp_path / "we ird {x} it's #1"
    tmp_path.mkdir()
    study = write_study(tmp_path, **SERVED, sweep={"n": [1, 2]}).rename(tmp_path / "-s.yaml")
    order = ("--cycles", "2", "--order", "sequential", "--no-gaps")
    result = llem(tmp_path, "run", "./-s.yaml", *order, variables=ODD)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", result.stdout + result.stderr)
    assert result.stderr.splitlines()[0] == "small: 4 runs, 4 to do, into results/small"
    # What else the machine does may be said beside them.
    end_lines = [line[:5] for line in result.stderr.splitlines() if "per output token" in line]
    assert end_lines == [f"[{n}/4]" for n in range(1, 5)]
    # A phase that is over before it is looked at has no line.
    assert re.search(r"^\[\d/4\] n=\d, cycle \d: \w[\w ]*; .* left$", result.stderr, re.MULTILINE)
    assert result.stdout.startswith("small: 4 of 4 runs completed")
    plan = json.loads((tmp_path / "results/small/plan.json").read_text())
    assert [run["cycle"] for run in plan["runs"]] == [1, 2, 1, 2]
    assert plan["execution"]["experiment_gap_seconds"] == 0

    lost = next((tmp_path / "results/small/runs").glob("*/2/result.json"))
    lost.unlink()
    result = llem(tmp_path, "resume")
    assert result.returncode == 0, result.stderr
    assert "small: 4 runs, 1 to do" in result.stderr  # the cycles of the last time
    for named in ("./-s.yaml", "results/small"):
        result = llem(tmp_path, "resume", named)
        assert result.returncode == 0, result.stderr
        assert "4 runs, 0 to do" in result.stderr
    verbose = llem(tmp_path, "run", "-v", str(study), "--cycles", "2", "--order", "sequential")
    assert "Nothing to be done" in verbose.stderr
    assert "Building DAG of jobs" in verbose.stderr

    study.unlink()
    result = llem(tmp_path, "resume")
    assert result.returncode == 2
    assert "-s.yaml: the study that was run here is gone" in result.stderr


@pytest.mark.parametrize("folder", ["-results", "o {x} y", "a/{ b,[0-9]{2}}", "${HOME}"])
def test_a_folder_that_no_workflow_can_name_is_refused(call: Call, folder: str) -> None:
    result = call("run", str(write_study(Path(), **SERVED, output_dir=folder)))
    assert result.code == 2
    assert "output_dir: " in result.err
    assert f"(found {folder})" in result.err
    assert [path.name for path in Path().iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("folder", ["results-", "o {} %s", "{ {", "/mnt/-x", "a\\b*[x]?"])
def test_a_folder_with_an_odd_name_is_planned(call: Call, folder: str) -> None:
    study = write_study(Path(), **SERVED, output_dir=folder)
    assert call("run", str(study), "--dry-run").code == 0


def test_a_dry_run_runs_and_writes_nothing(tmp_path: Path, call: Call) -> None:
    study = write_study(tmp_path)
    result = call("run", str(study), "--dry-run", "--cycles", "4")
    assert result.code == 0
    assert "1 experiment x 4 cycles" in result.out
    one = call("run", "--model", "tiny-llama", "--dry-run")
    assert one.code == 0
    assert "Study run-tiny-llama: 1 run" in one.out
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.usefixtures("driven")
def test_runs_that_do_not_fit_a_cluster_s_jobs_are_named_before_they_begin(
    tmp_path: Path, call: Call
) -> None:
    profile = tmp_path / "cluster"
    profile.mkdir()
    (profile / "config.yaml").write_text("executor: slurm\ndefault-resources: {runtime: 1}\n")
    study = str(write_study(tmp_path, window={"min_seconds": 70}))
    result = call("run", study, "--profile", str(profile))
    assert "Does not fit:" in result.err
    assert (
        f"{profile}/config.yaml: default-resources.runtime: the runs of 1 experiment" in result.err
    )
    dry = call("run", study, "--profile", str(profile), "--dry-run")
    assert "Does not fit:" in dry.out


@pytest.mark.parametrize("one", [False, True])
def test_whom_to_notify_reaches_no_file_of_the_results(
    one: bool, tmp_path: Path, call: Call, driven: Driven
) -> None:
    what = ("--model", "tiny-llama") if one else (str(write_study(tmp_path)),)
    address = "notify.webhook=https://hooks.example.org/CANARY"
    result = call("run", *what, "--set", address)
    assert result.code == 0, result.err
    written = [path for path in tmp_path.glob("results/**/*") if path.is_file()]
    assert {".call.json", "manifest.json"} <= {path.name for path in written}
    assert not [path for path in written if "CANARY" in path.read_text()]
    (how,) = [each for each in driven[-1] if isinstance(each, snakemake_process.Call)]
    assert "CANARY" not in str(how.variables())


@pytest.mark.usefixtures("undriven")
def test_whom_to_notify_is_not_in_the_study_that_a_program_s_call_leaves(tmp_path: Path) -> None:
    notify = {"webhook": "https://hooks.example.org/CANARY"}
    run_study({**SMALL, "notify": notify}, directory=tmp_path)
    run_study({**SMALL, "name": "other"}, directory=tmp_path, notify=notify)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in written if path.name == "study.yaml"]) == 2
    assert not [path for path in written if "CANARY" in path.read_text()]


class Precision(str, Enum):  # noqa: UP042  (as users have them)
    BF16 = "bf16"


@pytest.mark.usefixtures("undriven")
def test_values_of_numpy_and_of_enumerations_are_plain(tmp_path: Path) -> None:
    decoder = {"temperature": np.float32(0.5), "top_p": np.float64(0.5), "do_sample": np.True_}
    study = {"name": "s", "model": np.str_("tiny-llama"), "n": np.int64(4), "decoder": decoder}
    study |= {"sweep": {"max_output_tokens": np.array([8, 16])}, "precision": Precision.BF16}
    run_study(study, directory=tmp_path)
    first, second = load_study(tmp_path / "s" / "study.yaml").experiments
    assert (first.model.n, first.model.precision) == (4, "bf16")
    assert (first.model.decoder.temperature, first.model.decoder.top_p) == (0.5, 0.5)
    assert (first.model.max_output_tokens, second.model.max_output_tokens) == (8, 16)


@pytest.mark.parametrize("written", [True, False])
def test_the_reason_is_the_last_line_and_the_summary_of_this_call_before_it(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Also where the clock was set back since the earlier call."""
    study = write_study(tmp_path)
    tables = StudyFolder(tmp_path / "results" / "small").path / SUMMARY_NAME
    tables.parent.mkdir(parents=True)
    tables.touch()

    def complete_study(*_: Any) -> tuple[int, str]:
        time.sleep(0.05)
        if written:
            tables.unlink()
            tables.touch()
            os.utime(tables, (1, 1))
        return 1, "Error in rule measure:\nllem: sbatch: error: no\n"

    def summary(*_: Any) -> int:
        print("the summary", file=sys.stderr)
        return 1

    monkeypatch.setattr("llenergymeasure.cli.run.complete_study", complete_study)
    monkeypatch.setattr("llenergymeasure.cli.run._print_results", summary)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    error_output = call("run", str(study)).err
    middle = "the summary\n" * written
    assert error_output.endswith(f"Error in rule measure:\n{middle}llem: sbatch: error: no\n")


def test_resume_takes_the_study_that_llem_started_last(tmp_path: Path, call: Call) -> None:
    """Also one that was killed before it had a plan, and whatever Snakemake wrote since."""
    for number, name in enumerate(("first", "last")):
        study = write_study(tmp_path, name=name).rename(tmp_path / f"{name}.yaml")
        folder = StudyFolder(tmp_path / "results" / name)
        folder.path.mkdir(parents=True)
        store_call(folder, StudyCall(study))
        os.utime(folder.path / ".call.json", (number, number))
    (tmp_path / "results/first/plan.json").write_text("{}")
    (tmp_path / "last.yaml").unlink()
    assert "last.yaml: the study that was run here is gone" in call("resume").err


def test_resume_goes_on_in_the_folder_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, driven: Driven, elsewhere: Path
) -> None:
    """From another working folder, and where the variable that chose it is gone."""
    study = write_study(tmp_path)
    for variable in ("", str(tmp_path / "big")):
        monkeypatch.setenv("LLEM_OUTPUT_DIR", variable)
        monkeypatch.chdir(tmp_path)
        assert call("run", str(study)).code == 0
        folder = Path(variable or "results").absolute() / "small"
        assert (folder / "manifest.json").is_file()
        monkeypatch.setenv("LLEM_OUTPUT_DIR", "")
        monkeypatch.chdir(elsewhere)
        result = call("resume", str(folder))
        assert result.code == 0, result.err
        assert f"into {folder}" in result.err
        _, _, resumed, _, how, _ = driven[-1]
        assert resumed.path == folder
        assert how.variables()["LLEM_OUTPUT_DIR"] == str(folder.parent)
        assert not Path("results").exists()


def test_resume_begins_no_second_study(tmp_path: Path, call: Call, driven: Driven) -> None:
    """A folder that is a link is the study; one that was renamed is said to be."""
    assert call("run", str(write_study(tmp_path))).code == 0
    folder, moved = tmp_path / "results" / "small", tmp_path / "scratch" / "big"
    moved.parent.mkdir()
    folder.rename(moved)
    result = call("resume", str(moved))
    assert (result.code, len(driven)) == (2, 1)
    assert f"{moved}: holds the study small, whose folder must have that name" in result.err
    elsewhere = tmp_path / "links" / "small"
    elsewhere.parent.mkdir()
    for link in (elsewhere, folder):
        link.symlink_to(moved)
        assert call("resume", str(link)).code == 0
        assert driven[-1][2].path.samefile(moved)
    assert call("resume", str(moved)).code == 0
    assert driven[-1][2].path.samefile(moved)
    assert [path.name for path in moved.parent.iterdir()] == ["big"]


def test_one_model_takes_every_setting_of_the_command_line(call: Call, driven: Driven) -> None:
    Path("site.yaml").write_text("decoder: {min_p: 0.1}\nnotify: {command: [cat]}\n")
    settings = (
        "decoder.temperature=0.5",
        "decoder={top_k: 5}",
        "execution={cycle_order: sequential}",
        "sweep.decoder.top_p=[0.5, 1]",
        "base=site.yaml",
        'pytorch.revision="12e4"',
    )
    options = [word for setting in settings for word in ("--set", setting)]
    result = call("run", "--model", "tiny-llama", *options)
    assert result.code == 0, result.err
    study, file, *_ = driven[-1]
    again = load_study(file)
    assert again.experiments == study.experiments
    first = study.experiments[0].config
    assert [first["decoder"][key] for key in ("temperature", "top_k", "min_p")] == [0.5, 5, 0.1]
    assert (first["n"], first["pytorch"]["revision"]) == (10, "12e4")
    assert (len(again.experiments), again.n_cycles) == (2, 1)
    assert again.execution.cycle_order == "sequential"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--n", "4", "--set", "n=8"), "n: is given by an option and by --set"),
        (("--set", "model.x=1"), "model.x: unknown key"),
        (("--dataset", "a.txt", "--set", "dataset.input_len=3"), "dataset is set to a plain value"),
    ],
)
def test_settings_of_one_model_that_do_not_go_together(
    words: tuple[str, ...], why: str, call: Call
) -> None:
    result = call("run", "--model", "tiny-llama", *words)
    assert (result.code, why in result.err) == (2, True), result.err


@pytest.mark.parametrize(
    "gaps", ["execution.cycle_gap_seconds=10", "execution={cycle_gap_seconds: 10}"]
)
def test_a_gap_that_is_set_is_kept_without_the_others(
    gaps: str, call: Call, driven: Driven
) -> None:
    assert call("run", "--model", "tiny-llama", "--no-gaps", "--set", gaps).code == 0
    execution = driven[-1][0].execution
    assert (execution.cycle_gap_seconds, execution.experiment_gap_seconds) == (10, 0)


def test_a_batch_size_is_for_every_engine_of_the_study(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("model: tiny-llama\nbackend: vllm\nrunners: {vllm: docker}\n")
    result = call("run", str(file), "--batch-size", "4", "--dry-run")
    assert result.code == 0, result.err
    assert _batch_sizes(4, file, {"backend": ["pytorch", "sglang"]}) == {
        "pytorch.batch_size": 4,
        "sglang.engine.max_running_requests": 4,
    }
    result = call("run", str(file), "--batch-size", "4", "--set", "vllm.engine.max_num_seqs=8")
    assert "vllm.engine.max_num_seqs: is given by an option and by --set" in result.err


@pytest.mark.parametrize("own", ["vllm.engine.max_num_seqs=8", "vllm={engine: {max_num_seqs: 8}}"])
def test_a_batch_size_is_not_for_an_engine_whose_every_point_is_left_out(
    own: str, tmp_path: Path, call: Call
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "model: tiny-llama\nbackend: [pytorch, vllm]\nvllm: {engine: {tensor_parallel_size: 3}}\n"
    )
    result = call("run", str(file), "--batch-size", "4", "--set", own, "--dry-run")
    assert result.code == 0, result.err
    assert "1 experiment" in result.out


def test_a_study_with_a_batch_size_is_expanded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    expanded: list[str] = []

    def once(document: Document, find_shape: FindShape) -> Study:
        expanded.append(str(document.file))
        return expand(document, find_shape)

    monkeypatch.setattr("llenergymeasure.workload.load_study.expand", once)
    file = write_study(tmp_path)
    assert call("run", str(file), "--batch-size", "4", "--dry-run").code == 0
    assert expanded == [str(file)]


def local_models(folder: Path) -> None:
    for name, width in (("m/a", 128), ("m-a", 192)):
        place = folder / name
        place.mkdir(parents=True)
        shape = {"hidden_size": 64, "intermediate_size": width, "vocab_size": 256}
        shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
        (place / "config.json").write_text(json.dumps({"model_type": "llama", **shape}))


@pytest.mark.usefixtures("driven")
def test_two_models_whose_names_make_one_folder_are_kept_apart(tmp_path: Path, call: Call) -> None:
    local_models(tmp_path)
    random = ("--weights", "random")
    assert call("run", "--model", "m/a", *random).code == 0
    assert call("run", "--model", "./m/a", "--n", "3", *random).code == 0  # the same model
    result = call("run", "--model", "m-a", *random)
    assert result.code == 2
    assert "results/run-m-a holds the results of ./m/a; --set name=NAME keeps" in result.err
    assert "model: ./m/a\n" in (tmp_path / "results/run-m-a/study.yaml").read_text()
    assert call("run", "--model", "m-a", "--set", "name=other", *random).code == 0
    assert (tmp_path / "results/other/study.yaml").is_file()


@pytest.mark.parametrize("named", ["", "study.yaml"])
def test_a_study_that_llem_wrote_means_the_same_from_another_folder(
    named: str,
    tmp_path: Path,
    call: Call,
    driven: Driven,
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: Path,
) -> None:
    local_models(tmp_path)
    assert call("run", "--model", "m-a", "--weights", "random").code == 0
    folder = tmp_path / "results" / "run-m-a"
    assert str(tmp_path) not in (folder / "study.yaml").read_text()
    (folder / "plan.json").write_bytes(make_plan(driven[0][0]).to_json_bytes())
    monkeypatch.chdir(elsewhere)
    result = call("resume", str(folder / named))
    assert result.code == 0, result.err
    assert make_plan(driven[1][0]).runs == make_plan(driven[0][0]).runs
    assert (driven[1][0].origin, Path.cwd()) == (folder / "study.yaml", elsewhere)
    assert not list(elsewhere.iterdir())
    assert results_folder(folder / "study.yaml").path == folder
    assert call("status", str(folder / named)).code == 0
    moved = folder.rename(elsewhere / "run-m-a")
    result = call("resume", str(moved / "study.yaml"))
    assert result.code == 2
    assert "is not found from here" in result.err
    monkeypatch.chdir(tmp_path)
    assert call("resume", str(moved / "study.yaml")).code == 0
    assert driven[2][2].path == moved


def test_a_moved_project_goes_on_with_the_same_words(
    tmp_path: Path, call: Call, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_models(tmp_path / "one")
    words = ("run", "--model", "./m/a", "--weights", "random")
    monkeypatch.chdir(tmp_path / "one")
    assert call(*words).code == 0
    file = Path("results/run-m-a/study.yaml")
    file.with_name("plan.json").write_bytes(make_plan(driven[0][0]).to_json_bytes())
    monkeypatch.chdir((tmp_path / "one").rename(tmp_path / "two"))
    for again in (words, ("resume", str(file))):
        result = call(*again)
        assert result.code == 0, result.err
        assert make_plan(driven[-1][0]).runs == make_plan(driven[0][0]).runs
        assert driven[-1][0].experiments[0].config["model"] == "./m/a"


@pytest.mark.usefixtures("driven")
def test_a_file_set_over_a_study_is_found_from_another_folder(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    write_study(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hello"}\n')
    assert call("run", "study.yaml", "--dataset", "p.jsonl").code == 0
    monkeypatch.chdir(elsewhere)
    result = call("resume", str(tmp_path / "results/small"))
    assert result.code == 0, result.err


@pytest.mark.usefixtures("undriven")
def test_a_program_s_study_is_resumed_from_another_folder(
    tmp_path: Path, call: Call, driven: Driven, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    local_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_study({**SMALL, "weights": "random", "sweep": {"model": ["m-a", "m/a"]}}, directory="r")
    (file,) = tmp_path.glob("r/*/study.yaml")
    assert str(tmp_path) not in file.read_text()
    study = load_study(file)
    (file.parent / "plan.json").write_bytes(make_plan(study).to_json_bytes())
    monkeypatch.chdir(elsewhere)
    result = call("resume", str(file.parent))
    assert result.code == 0, result.err
    assert [experiment.config for experiment in driven[0][0].experiments] == [
        experiment.config for experiment in study.experiments
    ]
