"""What ``llem`` itself does on the card: runs, faults, and its judgement of the sensor."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import yaml

from gpu_stages.card import ENTRY, Setting
from gpu_stages.keeping import Place

LLEM = (sys.executable, "-c", "from llenergymeasure.cli import main; main()")
_STRANGER = (
    "import torch, time; x = torch.ones(2**28, device='cuda'); torch.cuda.synchronize(); "
    "print('there', flush=True); time.sleep(60)"
)
_KEPT = ("result.json", "outcome.json", "samples.parquet")


def run_study(place: Place, name: str, study: Mapping[str, Any], *, limit_s: float) -> int | str:
    """Run a study with ``llem run`` and keep what it says; return its exit."""
    file_name = f"{name}.yaml"
    text = yaml.safe_dump({"name": name, **study}, sort_keys=False)
    for folder in (place.work, place.kept):
        (folder / file_name).write_text(text)
    began = time.monotonic()
    log = place.kept / f"{name}.log"  # as it comes: a stage that is ended keeps what was said
    ended: int | str
    with log.open("w") as file:
        try:
            ended = subprocess.run(
                [*LLEM, "run", file_name],
                cwd=place.work,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit_s * Setting.now().patience,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            ended = "over its limit"
    said = log.read_text(errors="replace")
    print(said[-4000:], flush=True)
    took_s = round(time.monotonic() - began, 1)
    studies = place.found.setdefault("studies", {})
    studies[name] = {"exit": ended, "took_s": took_s}
    if ended != 0:
        studies[name]["said"] = said[-1500:]
    place.save(line=", ".join(f"{key}: exit {each['exit']}" for key, each in [*studies.items()]))
    return ended


def keep_runs(place: Place) -> None:
    """Keep the records and recordings of all runs, also of a stage that was ended."""
    for folder in sorted((place.work / "results").glob("*/runs/*/*")):
        _keep_run(folder, place, folder.parents[2].name)


def _keep_run(folder: Any, place: Place, study: str) -> None:
    """Keep what a run left; of one without a recording in Parquet, the stream."""
    kept = place.kept / study / f"{folder.parent.name}-{folder.name}"
    kept.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        with contextlib.suppress(OSError):
            shutil.copy(folder / name, kept / name)
    if not (kept / "result.json").exists():
        with contextlib.suppress(OSError):
            shutil.copy(folder / "samples.arrows", kept / "samples.arrows")
        with contextlib.suppress(OSError):
            log = (folder / "run.log").read_text(errors="replace")
            (kept / "run.log").write_text(log[-8000:])


def _architecture(**more: Any) -> dict[str, Any]:
    simulated = Setting.now().simulated
    model = {"model": "tiny-llama"} if simulated else {"model": "meta-llama/Llama-3.1-8B"}
    weights = {} if simulated else {"weights": "random"}
    precision = {"precision": "fp32" if simulated else "bf16"}
    once = {"execution": {"n_cycles": 1}}
    return {**model, **weights, **precision, "decoder": {"preset": "deterministic"}, **once, **more}


def _idle(setting: Setting) -> dict[str, Any]:
    """Watch the card at rest before and after; 5 s are the least that llem takes."""
    return {} if setting.scale < 1 else {"baseline": {"duration_seconds": 5}}


def _prompts(count: int, length: int = 512, out: int = 128) -> dict[str, int]:
    if Setting.now().simulated:
        return {"n": min(count, 8), "input_len": 16, "output_len": 8}
    return {"n": count, "input_len": length, "output_len": out}


def first(place: Place) -> None:
    """Run once, at a batch of 8 with idle brackets: does it work at all?"""
    setting = Setting.now()
    more: dict[str, Any] = {
        "protocol": "quick",
        "dataset": _prompts(8),
        "pytorch": {"batch_size": 8},
        **_idle(setting),
        "window": {"min_seconds": setting.seconds(10, 1)},
    }
    run_study(place, "first", _architecture(**more), limit_s=115)


def study(place: Place) -> None:
    """Run three batch sizes and a long prompt."""
    setting = Setting.now()
    points = [
        {"dataset": _prompts(*prompts), "pytorch.batch_size": batch}
        for batch, prompts in ((1, (3,)), (8, (24,)), (64, (192,)), (8, (8, 4096, 64)))
    ]
    if setting.simulated:
        points = points[:2]
    more: dict[str, Any] = {
        "protocol": "quick",
        **_idle(setting),
        "window": {"min_seconds": setting.seconds(10, 1), "min_batches": 2},
        "sweep": {"load": points},
    }
    run_study(place, "study", _architecture(**more), limit_s=350)


def standard(place: Place) -> None:
    """Run once with the default protocol, for its settle and warm-up on a real chip."""
    short = {"window": {"min_seconds": 1}, "warmup": {"thermal_floor_seconds": 1}}
    more: dict[str, Any] = {
        **(short | {"baseline": {"duration_seconds": 5}} if Setting.now().scale < 1 else {}),
        "protocol": "standard",
        "dataset": _prompts(8),
        "pytorch": {"batch_size": 8},
    }
    run_study(place, "standard", _architecture(**more), limit_s=390)


def vllm(place: Place) -> None:
    """Run vLLM at 8 and 64 sequences, where it is installed."""
    points = [
        {"dataset": _prompts(count), "vllm.engine.max_num_seqs": at_once}
        for count, at_once in ((64, 8), (256, 64))
    ]
    more = {"window": {"min_seconds": 8}, "sweep": {"load": points}}
    _run_vllm(place, "vllm", more)


def serving(place: Place) -> None:
    """Run vLLM's server under two rates of requests, where it is installed."""
    setting = Setting.now()
    long = 16 if setting.simulated else 512
    traffic = {
        "arrivals": "poisson",
        "input_tokens": {"tokens": long},
        "output_tokens": {"tokens": long // 4},
    }
    more: dict[str, Any] = {
        "serving": traffic,
        "window": {"min_seconds": setting.seconds(20, 4)},
        "sweep": {"serving.rate_per_s": [2, 16]},
    }
    _run_vllm(place, "serving", more)


def _run_vllm(place: Place, name: str, more: Mapping[str, Any]) -> None:
    if importlib.util.find_spec("vllm") is None:
        place.save(not_run="vLLM is not installed", line="vLLM is not installed")
        return
    if importlib.util.find_spec("flashinfer") is None:
        # vLLM 0.26 asks flashinfer whether it can sample, and ends where it is missing.
        os.environ["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    engine: dict[str, Any] = {"max_model_len": 1024, "gpu_memory_utilization": 0.6}
    if not Setting.now().simulated:
        engine["compilation_config"] = {
            "mode": 0,
            "cudagraph_mode": "FULL_DECODE_ONLY",
            "cudagraph_capture_sizes": [1, 8, 64],
        }
    study = {"backend": "vllm", "protocol": "quick", "vllm": {"engine": engine}, **more}
    run_study(place, name, _architecture(**study), limit_s=390 if name == "serving" else 280)


def faults(place: Place) -> None:
    """Run beside a stranger, which must be refused, and two at once, which must take turns."""
    setting = Setting.now()
    tiny: dict[str, Any] = {
        "model": "tiny-llama",
        "precision": "fp32" if setting.simulated else "bf16",
        "protocol": "quick",
        "n": 4,
        "max_input_tokens": 16,
        "max_output_tokens": 16,
        "window": {"min_seconds": setting.seconds(2, 1)},
        "execution": {"n_cycles": 1},
    }
    if not setting.simulated:
        with _stranger():
            run_study(place, "refused", tiny, limit_s=60)
    both = [
        threading.Thread(
            target=run_study,
            args=(place, name, {**tiny, "random_seed": seed}),
            kwargs={"limit_s": 100},
        )
        for seed, name in enumerate(("one", "two"), start=1)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()


@contextlib.contextmanager
def _stranger() -> Any:
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
    simulated = Setting.now().simulated
    load = ["--", sys.executable, str(ENTRY), "--play", "probe", "--out", "-"] if simulated else []
    kept = ["--samples", str(place.kept / "probe.parquet")]
    done = subprocess.run(
        [*LLEM, "sensors", "--characterise", "--json", *kept, *load],
        stdout=subprocess.PIPE,
        text=True,
        timeout=160 * Setting.now().patience,
        check=False,
    )
    (place.kept / "answer.json").write_text(done.stdout)
    place.save(exit=done.returncode)
    cards = json.loads(done.stdout)["characterised"]
    place.save(characterised=cards, line=f"exit {done.returncode}, kept {cards[0]['kept']}")
