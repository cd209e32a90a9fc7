"""What ``llem plan`` says of memory, before anything is run."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Call
from llenergymeasure.run.preflight.forecast import Forecast
from nvml_sim import sim
from support.forks import run_forked
from support.recording import uuid
from support.studies import write_study

GIB = 2**30
LLAMA_8B = {"model": "llama-3.1-8b", "weights": "random", "precision": "bf16"}

TELL = """
import json, sys
from llenergymeasure.run.preflight.forecast import Forecast
print("\\n".join(Forecast().memory_lines(json.loads(sys.argv[1]))))
"""
IMPORTED = ("llenergymeasure.run.preflight.forecast", "numpy.random", "pynvml")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def told(config: dict[str, Any], total_bytes: int, cards: int = 1) -> str:
    sim.library_or_skip()
    with tempfile.TemporaryDirectory() as folder:
        keys = {"memory": {"total_bytes": total_bytes}}
        there = [sim.Device(name="Card", uuid=uuid(place), keys=keys) for place in range(cards)]
        variables = sim.environment(sim.Trace(there).write(Path(folder)))
        variables.pop("CUDA_VISIBLE_DEVICES", None)
        configs_json = json.dumps([{"backend": "pytorch", **config}])
        result = run_forked(TELL, variables, configs_json, modules=IMPORTED)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    ("gib", "verdict"),
    [(80, "fits"), (16, "tight, activations may no longer fit"), (8, "too large")],
)
def test_the_verdict_follows_the_card(gib: int, verdict: str) -> None:
    line = told(LLAMA_8B, gib * GIB)
    assert "1 experiment: at least 16.144 GB (16.061 GB of weights" in line
    assert f"the memory of GPU Card is {gib * GIB / 1e9:.3f} GB: {verdict}" in line


def test_a_model_cut_into_slices_has_the_memory_of_all_its_gpus() -> None:
    line = told({**LLAMA_8B, "pytorch": {"tensor_parallel_size": 2}}, 12 * GIB, cards=2)
    assert "the memory of 2 GPUs is 25.770 GB: fits" in line
    copied = told({**LLAMA_8B, "pytorch": {"num_processes": 2}}, 12 * GIB, cards=2)
    assert "the memory of GPU Card is 12.885 GB: too large" in copied


@pytest.mark.parametrize(
    ("model", "verdict"),
    [("llama-3.1-8b", "too large"), ("mixtral-8x7b", "fits")],  # whose experts are shared out
)
def test_each_copy_of_an_engine_has_its_part_of_the_gpus(model: str, verdict: str) -> None:
    engine = {"data_parallel_size": 2}
    config = {**LLAMA_8B, "model": model, "backend": "vllm", "vllm": {"engine": engine}}
    gib = 12 if verdict == "too large" else 60
    assert verdict in told(config, gib * GIB, cards=2)


def test_what_is_not_known_is_said() -> None:
    configs = [
        {"model": "someone/absent", "backend": "pytorch"},
        {**LLAMA_8B, "backend": "tensorrt"},
        {"model": "Qwen/Qwen3-8B", "backend": "pytorch", "precision": "bf16"},
    ]
    known, absent, needs_gpu = Forecast().memory_lines(configs)
    assert "not known here: the preflight fetches its dimensions" in absent
    assert "at least 16." in known
    assert "it needs a GPU" in needs_gpu


def test_of_many_needs_the_largest_are_shown_and_none_is_lost() -> None:
    configs = [
        {"model": "tiny-llama", "backend": "pytorch", "n": n, "max_output_tokens": 100 * m}
        for n in (1, 2)
        for m in range(1, 31)
    ]
    lines = list(Forecast().memory_lines(configs))
    assert len(lines) == 21
    assert re.match(r"  2 experiments: at least \d+\.\d MB \(", lines[0])
    assert "of up to 3512 tokens" in lines[0]
    assert lines[-1] == "  … and 20 experiments that need no more than the last of these"


def test_prompts_that_are_made_have_their_own_lengths() -> None:
    dataset = {"input_len": 100, "output_len": 20}
    (line,) = Forecast().memory_lines([{**LLAMA_8B, "backend": "pytorch", "dataset": dataset}])
    assert "of up to 120 tokens" in line


def test_the_plan_says_it(tmp_path: Path, call: Call) -> None:
    result = call("plan", str(write_study(tmp_path, sweep={"n": [1, 2]})))
    assert result.code == 0, result.err
    assert "Memory needed:\n  2 experiments: at least " in result.out
    assert "this machine's memory is" in result.out
