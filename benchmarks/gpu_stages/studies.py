"""What ``llem`` itself does on the card: runs, faults, and its judgement of the sensor.

What a stage has ``llem run`` do is in the file ``<stage>.yaml`` next to this one.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gpu_stages.card import ENTRY, Setting
from gpu_stages.keeping import Place, go_on

LLEM = (sys.executable, "-c", "from llenergymeasure.cli import main; main()")
_STRANGER = (
    "import torch, time; x = torch.ones(2**28, device='cuda'); torch.cuda.synchronize(); "
    "print('there', flush=True); time.sleep(60)"
)
_KEPT = ("result.json", "outcome.json", "samples.parquet")
_LOG_BYTES = 8000


def study_of(stage: str) -> dict[str, Any]:
    """Return a stage's study; on a simulated card with a tiny model, and short."""
    study: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{stage}.yaml").read_text())
    setting = Setting.now()
    if not setting.simulated:
        return study
    study |= {"model": "tiny-llama", "precision": "fp32"}
    study.pop("weights", None)
    loads = study.get("sweep", {}).get("load", [])
    del loads[2:]
    for section in (study, *loads):
        if "dataset" in section:
            section["dataset"] = {"n": 8, "input_len": 16, "output_len": 8}
    if "window" in study:
        study["window"]["min_seconds"] = setting.seconds(study["window"]["min_seconds"], 1)
    if setting.scale < 1:
        study.pop("baseline", None)
    if setting.scale < 1 and study["protocol"] == "standard":
        study |= {"baseline": {"duration_seconds": 5}, "window": {"min_seconds": 1}}
        study["warmup"] = {"thermal_floor_seconds": 1}
    return study


def own_study(place: Place) -> None:
    """Run the study of the stage, where its engine is installed."""
    stage = place.output.name
    study = study_of(stage)
    if study.get("backend") == "vllm":
        if importlib.util.find_spec("vllm") is None:
            place.save(not_run="vLLM is not installed", line="vLLM is not installed")
            return
        if importlib.util.find_spec("flashinfer") is None:
            # vLLM 0.26 asks flashinfer whether it can sample, and ends where it is missing.
            os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    run_study(place, stage, study)


def run_study(
    place: Place, name: str, study: dict[str, Any], *, limit_s: float | None = None
) -> None:
    """Run a study with ``llem run`` and keep what it says and how it ended."""
    go_on()
    text = yaml.safe_dump({"name": name, **study}, sort_keys=False)
    for folder in (place.work, place.output):
        (folder / f"{name}.yaml").write_text(text)
    start_s = time.monotonic()
    log = place.output / f"{name}.log"  # as it comes: a stage that is ended keeps what was said
    exit_code: int | str = "over its limit"
    with log.open("w") as file, contextlib.suppress(subprocess.TimeoutExpired):
        exit_code = subprocess.run(
            [*LLEM, "run", f"{name}.yaml"],
            cwd=place.work,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=None if limit_s is None else limit_s * Setting.now().patience,
            check=False,
        ).returncode
    log_text = log.read_text(errors="replace")
    print(log_text[-4000:], flush=True)
    row: dict[str, Any] = {"exit": exit_code, "took_s": round(time.monotonic() - start_s, 1)}
    if exit_code != 0:
        row["said"] = log_text[-1500:]
    studies = place.figures.setdefault("studies", {})
    studies[name] = row
    place.save(
        line=", ".join(f"{key}: exit {study_row['exit']}" for key, study_row in [*studies.items()])
    )


def keep_runs(place: Place) -> None:
    """Keep the records and recordings of all runs, also of a stage that was ended."""
    for folder in sorted((place.work / "results").glob("*/runs/*/*")):
        target = place.output / folder.parents[2].name / f"{folder.parent.name}-{folder.name}"
        target.mkdir(parents=True, exist_ok=True)
        for name in _KEPT:
            with contextlib.suppress(OSError):
                shutil.copy(folder / name, target / name)
        if (target / "result.json").exists():
            continue
        with contextlib.suppress(OSError):
            shutil.copy(folder / "samples.arrows", target / "samples.arrows")
        with contextlib.suppress(OSError):
            (target / "run.log").write_bytes((folder / "run.log").read_bytes()[-_LOG_BYTES:])


def faults(place: Place) -> None:
    """Run next to a stranger, which must be refused, and two at once, which must take turns."""
    study = study_of("faults")
    if not Setting.now().simulated:
        with _stranger():
            run_study(place, "refused", study, limit_s=60)
    both = [
        threading.Thread(
            target=run_study,
            args=(place, name, {**study, "random_seed": seed}),
            kwargs={"limit_s": 100},
        )
        for seed, name in enumerate(("one", "two"), start=1)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()


@contextlib.contextmanager
def _stranger() -> Iterator[None]:
    command = [sys.executable, "-c", _STRANGER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def probe(place: Place) -> None:
    """Have ``llem sensors --characterise`` judge the sensor."""
    command = [*LLEM, "sensors", "--characterise", "--json"]
    command += ["--samples", str(place.output / "probe.parquet")]
    if Setting.now().simulated:
        command += ["--", sys.executable, str(ENTRY), "--play", "steps"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    (place.output / "answer.json").write_text(result.stdout)
    place.save(exit=result.returncode)
    cards = json.loads(result.stdout)["characterised"]
    place.save(characterised=cards, line=f"exit {result.returncode}, kept {cards[0]['kept']}")
