"""More faults injected into real runs: damaged models, disks, cards."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.workload.models.tiny import tiny_llama_folder
from nvml_sim import sim
from support.attempts import start
from support.studies import SERVED, living, result_times, snakemake, wait_for, write_study

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "content", "phase", "said"),
    [
        ("model.safetensors", b"\xff" * 4096, "load", "model"),
        ("config.json", b'{"model_type": ', "preflight", "config.json"),
    ],
)
def test_a_model_that_is_damaged_fails_its_run_until_it_is_put_right(
    tmp_path: Path, name: str, content: bytes, phase: str, said: str
) -> None:
    model = Path(shutil.copytree(tiny_llama_folder(), tmp_path / "model"))
    if phase == "load":
        (model / name).write_bytes(content)
    attempt = start(tmp_path, model=str(model))
    if phase == "preflight":  # the run is only starting
        (model / name).write_bytes(content)
    assert attempt.process.wait(120) == 1
    outcome = attempt.outcome()
    assert (outcome["status"], outcome["exit_code"], outcome["phase"]) == ("failed", 1, phase)
    assert said in outcome["error"]["message"]
    assert "Traceback" not in outcome["log_tail"]
    assert not [*attempt.folder.glob("*.parquet"), *attempt.folder.glob("result.json")]
    attempt.nothing_left()
    shutil.copy(tiny_llama_folder() / name, model)
    again = start(tmp_path, model=str(model))
    assert again.process.wait(180) == 0
    assert {path.name for path in again.folder.iterdir()} == {
        *("result.json", "run.parquet", "samples.parquet", "requests.parquet"),
        *("outcome.json", "attempts.jsonl", "run.log"),
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 300 MB of its own; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"cannot mount: {result.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.system
def test_a_full_disk_is_refused_before_the_run_and_then_it_runs(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (260 * 2**20))
    full = start(small_disk)
    assert full.process.wait(120) == 1
    error = full.outcome()["error"]
    assert error["class"] == "PreflightError"
    assert "MB are free for results" in error["message"]
    filler.unlink()
    again = start(small_disk)
    assert again.process.wait(120) == 0
    assert again.outcome()["attempt"] == 2


@pytest.mark.system
def test_a_disk_that_fills_while_the_window_is_open(small_disk: Path) -> None:
    attempt = start(small_disk, window={"min_seconds": 4})
    attempt.wait_for_phase("measure")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 2**20)
        except OSError:
            pass
    code = attempt.process.wait(120)
    assert not living(str(attempt.folder))
    assert code != 0
    assert not (attempt.folder / "result.json").exists()
    filler.unlink()
    again = start(small_disk)
    assert again.process.wait(120) == 0
    assert again.outcome()["status"] == "completed"


@pytest.mark.system
def test_results_on_a_file_system_that_is_read_only(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    study_folder = small_disk.parent
    (study_folder / "results").symlink_to(small_disk)
    study = write_study(study_folder, **SERVED)
    result = snakemake(study_folder, "--configfile", str(study))
    assert result.returncode == 1
    assert "Read-only file system" in result.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert snakemake(study_folder, "--configfile", str(study)).returncode == 0
    assert len(result_times(study_folder)) == 1


def card_variables(folder: Path, **keys: Any) -> dict[str, str]:
    sim.library_or_skip()
    card = sim.Device(power_w=((0.0, 250.0), (100000.0, 250.0)), keys=keys)
    return sim.environment(sim.Trace((card,)).write(folder), t0_ns=time.monotonic_ns(), base={})


@pytest.mark.system
def test_a_card_in_use_by_another_program(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"]) as stranger:
        contents = {"processes": [{"pid": stranger.pid, "used_memory_bytes": 2**30}]}
        study = write_study(tmp_path)
        done = snakemake(
            tmp_path, "--configfile", str(study), variables=card_variables(tmp_path, **contents)
        )
        stranger.kill()
    assert done.returncode == 1
    (path,) = tmp_path.glob("results/small/runs/*/*/outcome.json")
    outcome = json.loads(path.read_text())
    assert outcome["status"] == "failed"
    assert f"sleep (pid {stranger.pid})" in outcome["error"]["message"]
    free = snakemake(tmp_path, "--configfile", str(study), variables=card_variables(tmp_path))
    assert free.returncode == 0, free.stderr
    (path,) = tmp_path.glob("results/small/runs/*/*/result.json")
    result = json.loads(path.read_text())
    (memory,) = result["provenance"]["gpu_memory_release"].values()
    assert memory["released"] is True
    assert result["environment"]["gpus"][0]["throttle_history"]
    wait_for(lambda: not living(str(tmp_path)), 20)


@pytest.mark.system
def test_a_card_that_vanishes_costs_no_made_up_energy(tmp_path: Path) -> None:
    study = write_study(tmp_path, window={"min_seconds": 4})
    variables = card_variables(tmp_path, fail_after_s=14)
    done = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert not living(str(tmp_path))
    for path in tmp_path.glob("results/small/runs/*/*/result.json"):
        result = json.loads(path.read_text())
        gross = [reading["gross_j"] for reading in result["energy"]["readings"]]
        assert 0 not in gross
    outcomes = list(tmp_path.glob("results/small/runs/*/*/outcome.json"))
    assert len(outcomes) == 1, done.stderr
    assert json.loads(outcomes[0].read_text())["status"] in {"completed", "failed"}
