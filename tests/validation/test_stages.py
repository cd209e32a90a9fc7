"""The staged command on the simulated card: whole, cut short, and killed."""

import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gpu_validation
import numpy as np
import pytest
import yaml
from gpu_stages import checks, figures, keeping, page, polling, running, sensor, studies
from gpu_stages.keeping import Place, read_json

from llenergymeasure.workload.load_study import study_from_mapping
from nvml_sim import sim
from support.recording import card_environment, environment
from support.studies import ROOT, living, wait_for

COMMAND = [sys.executable, str(ROOT / "benchmarks" / "gpu_validation.py")]
STAGES = ROOT / "benchmarks" / "gpu_stages"
RAW = running.Stage("raw", 1, 60, polling.raw)
SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"
SOURCES = [ROOT / "benchmarks" / "gpu_validation.py", *STAGES.glob("*.py")]


def command(out: Path, *more: str) -> list[str]:
    library = str(sim.library_or_skip().parent)
    return [*COMMAND, "--out", str(out), "--simulated", library, "--scale", "0.1", *more]


def validate(out: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    temporary = out.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        command(out, *more),
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "TMPDIR": str(temporary), **variables},
    )


def test_what_is_run_is_kept_and_gives_a_page(tmp_path: Path) -> None:
    done = validate(tmp_path / "out", "--only", "inventory,raw")
    assert done.returncode == 0, done.stderr
    results = read_json(tmp_path / "out" / "results.json")
    assert [*results["stages"]] == ["inventory", "raw"]
    assert all(row["exit"] == 0 for row in results["stages"].values()), done.stdout
    raw = sensor.raw(tmp_path / "out" / "raw")
    assert raw["ticks"].period_s == pytest.approx(0.1, rel=0.01)
    assert raw["usage_is_average"] > 0.9
    assert "not ok" not in done.stdout, done.stdout
    text = page.write(tmp_path / "out").read_text()
    assert "proves nothing of any real card" in text
    assert "Simulated H100" in text
    # No setting of the card was touched, and what was begun has been cleared away.
    assert not (tmp_path / "out" / "simulated" / "settings").exists()
    assert not [*(tmp_path / "temporary").iterdir()]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stages_in_a_row(tmp_path: Path) -> None:
    # Those that only measure longer, or other engines, are left to whoever has a card.
    longer = ("study", "standard", "engine", "vllm", "faults")
    done = validate(tmp_path / "out", "--minutes", "14", "--skip", ",".join(longer))
    stages = read_json(tmp_path / "out" / "results.json")["stages"]
    assert [*stages] == [each.name for each in running.STAGES if each.name not in longer]
    assert {name: row["exit"] for name, row in stages.items()} == dict.fromkeys(stages, 0)
    for row in stages.values():
        assert all(each["exit"] in (0, 1) for each in row.get("studies", {}).values()), done.stdout
    behaviour = stages["probe"]["characterised"][0]["behaviour"]
    assert behaviour["counter"] == "independent"
    steady = next(
        row for row in figures.windows(tmp_path / "out" / "pulses") if row["window"] == "steady"
    )
    assert steady["meter_w"] == pytest.approx(547.5, rel=0.02)
    assert not (tmp_path / "out" / "simulated" / "settings").exists()
    (run,) = figures.runs(tmp_path / "out" / "first")
    assert run["power_w"] == pytest.approx(75.0, rel=0.05)
    # Pulses as long as the sensor's period may meet its readings at one phase all the time.
    wrong = [line for line in done.stdout.splitlines() if line.strip().startswith("not ok")]
    assert [line for line in wrong if "pulses 50/50 ms" not in line] == [], done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_what_was_done_is_there(tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    killed = command(out, "--only", "inventory,raw,first,pulses")
    variables = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, env=variables) as process:
        # The first dies before anything stands; a busy machine may take long for the others' first.
        deadline = time.monotonic() + 120
        while seed and not (out / "results.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(random.Random(seed).uniform(0.1, 41 if seed else 4))
        process.kill()
    stages = read_json(out / "results.json").get("stages", {})
    assert "inventory" in stages or seed == 0
    for name, row in stages.items():
        assert row["exit"] == 0
        assert any((out / name).iterdir())
    if "raw" in stages:
        assert sensor.raw(out / "raw")["polls"] > 0
    if "first" in stages:
        assert len(figures.runs(out / "first")) == 1
    if stages:
        assert "## Stages" in page.text(out)
    wait_for(lambda: not living(str(tmp_path)), 10)


def stages_of(out: Path) -> dict[str, Any]:
    stages: dict[str, Any] = read_json(out / "results.json")["stages"]
    return stages


def without_a_card(folder: Path) -> AbstractContextManager[None]:
    return environment(card_environment(folder, [], VALIDATION_LOAD="load"))


def test_a_stage_that_fails_or_has_no_time_costs_that_stage_alone(tmp_path: Path) -> None:
    fail = replace(RAW, name="inventory", run=running.STAGES[0].run)
    long = replace(RAW, name="study", usual_s=10_000)
    with without_a_card(tmp_path):
        running.validate(tmp_path / "out", [fail, long, RAW], minutes=1)
    stages = stages_of(tmp_path / "out")
    assert stages["inventory"]["exit"] == stages["raw"]["exit"] == 1
    assert "log_end" in stages["inventory"]
    assert "takes about 10000 s" in stages["study"]["skipped"]


def test_a_stage_over_its_limit_is_ended_and_what_it_has_is_kept(tmp_path: Path) -> None:
    card = card_environment(tmp_path, [sim.Device()], VALIDATION_LOAD=str(tmp_path / "load"))
    with environment(card):
        running.validate(tmp_path / "out", [replace(RAW, limit_s=6.0)], minutes=1)
    row = stages_of(tmp_path / "out")["raw"]
    assert row["exit"] == running.OVER
    # It was asked to end before it was made to: what it had polled is there.
    assert sensor.raw(tmp_path / "out" / "raw")["polls"] == row["polls"] > 0
    assert (tmp_path / "out" / "raw" / "marks.txt").is_file()


def test_what_an_earlier_call_has_found_stays_and_is_put_aside(tmp_path: Path) -> None:
    found = {"exit": 0, "polls": 7}
    keeping.write_json(tmp_path / "results.json", {"stages": {"raw": found}})
    for number in (1, 2):
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "raw.npz").write_text(f"call {number}")
        with without_a_card(tmp_path):
            if number == 1:
                running.validate(tmp_path, [replace(RAW, usual_s=9999)], minutes=1)
                assert stages_of(tmp_path) == {"raw": found}  # there was no time for it
            running.validate(tmp_path, [RAW], minutes=1)
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    assert stages_of(tmp_path)["raw-earlier-1"] == found
    assert stages_of(tmp_path)["raw"]["exit"] == stages_of(tmp_path)["raw-earlier-2"]["exit"] == 1
    kept = {path.parent.name: path.read_text() for path in tmp_path.glob("*/raw.npz")}
    assert kept == {"raw-earlier-1": "call 1", "raw-earlier-2": "call 2"}


def test_every_stage_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "validation" / "README.md").read_text()
    names = [stage.name for stage in running.STAGES]
    assert re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE) == names


def test_of_stages_that_were_skipped_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"stages": {"faults": {"skipped": "no time"}}}')
    assert checks.judge(tmp_path) == []


def test_a_stage_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu_validation.main(["--out", "x", "--only", "no"])
    assert ended.value.code == 2
    assert "no such stage: no" in capsys.readouterr().err


def test_no_setting_of_a_card_is_named_anywhere() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(
            r"nvmlDevice(Set|Reset|Clear|Modify)|nvidia-smi.{0,9}-(pm|pl|lgc|mig)", text
        )
        assert not re.search(r"[\"']gpu[.\"']", text), path


@pytest.mark.parametrize("simulated", ["", "load"])
def test_no_study_asks_for_a_setting(simulated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALIDATION_LOAD", simulated)
    monkeypatch.setenv("VALIDATION_SCALE", "0.1")
    asked = {path.stem: studies.study_of(path.stem) for path in STAGES.glob("*.yaml")}
    assert {*asked} == {"first", "study", "standard", "vllm", "serving", "faults"}
    assert "gpu" not in yaml.safe_dump(asked).replace("gpu_memory_utilization", "")
    models = {"tiny-llama"} if simulated else {"tiny-llama", "meta-llama/Llama-3.1-8B"}
    assert {each["model"] for each in asked.values()} == models
    read = [study_from_mapping({"name": stage, **study}) for stage, study in asked.items()]
    assert sum(len(study.experiments) for study in read) == (9 if simulated else 11)


@pytest.mark.parametrize(
    ("installed", "sampler"),
    [({"vllm", "flashinfer"}, "1"), ({"vllm"}, "0"), (set(), None)],
    ids=["flashinfer is there", "flashinfer is missing", "no vLLM"],
)
def test_vllm_does_without_flashinfer_only_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str], sampler: str | None
) -> None:
    ran = []
    monkeypatch.setattr(studies, "run_study", lambda *_, **__: ran.append(os.environ[SAMPLER]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in installed or None)
    monkeypatch.setenv(SAMPLER, "1")
    place = Place(tmp_path / "work", tmp_path / "vllm")
    studies.own_study(place)
    assert ran == [sampler] * bool(sampler)
    assert place.load().get("not_run") == (None if sampler else "vLLM is not installed")


def stage(folder: Path) -> list[str]:
    work = str(folder / "work")
    return [*COMMAND, "--stage", "raw", "--out", str(folder), "--work", work, "--parent"]


def test_a_stage_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    card = card_environment(tmp_path, [sim.Device()], VALIDATION_LOAD=str(tmp_path / "load"))
    script = (
        "import os, subprocess, time; "
        f"subprocess.Popen({stage(tmp_path)!r} + [str(os.getpid())], start_new_session=True); "
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], env=card) as parent:
        wait_for((tmp_path / "raw" / "marks.txt").exists, 20)
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not living(str(tmp_path)), 10)


def test_a_stage_whose_starter_is_gone_already_ends_at_once(tmp_path: Path) -> None:
    card = card_environment(tmp_path, [sim.Device()], VALIDATION_LOAD=str(tmp_path / "load"))
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    command = [*stage(tmp_path), gone.stdout.strip()]
    done = subprocess.run(command, env=card, start_new_session=True, timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL


def test_the_driver_s_buffer_is_read_back(tmp_path: Path) -> None:
    """The simulated card has no such buffer; this is a made one: 20 ms apart, 300 W."""
    at_us = 1_000_000_000 + np.arange(0, 8_000_000, 20_000)
    counter = [
        (t, t + 10**6, int(300 * (t // 10**8) / 10 * 1000)) for t in range(0, 8 * 10**9, 10**7)
    ]
    np.savez_compressed(
        tmp_path / "buffer.npz",
        samples=np.column_stack([at_us, np.full(len(at_us), 300_000)]),
        counter=np.array(counter),
        wall_minus_monotonic_ns=np.array(1000 * 10**9),
    )
    (tmp_path / "marks.txt").write_text(f"{2 * 10**9} steady\n{6 * 10**9} rest\n")
    found = sensor.buffer(tmp_path)
    assert found["gap_ms"][1] == pytest.approx(20)
    assert found["stretches"][0]["average_w"] == pytest.approx(300)
    assert found["stretches"][0]["counter_w"] == pytest.approx(300, rel=0.01)
