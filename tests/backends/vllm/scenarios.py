"""Drives the backend with the real vLLM and writes down what came of it, as JSON.

Run by the interpreter that has vLLM: it takes some ten seconds to import, so all is asked in one
process. The tests judge.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request

BASE: dict[str, Any] = {
    "model": "tiny-llama",
    "backend": "vllm",
    "n": 6,
    "max_input_tokens": 24,
    "max_output_tokens": 10,
    "decoder": {"preset": "deterministic"},
}
ENGINE: dict[str, Any] = {"enforce_eager": True, "max_model_len": 1024}
END = 1
"""tiny-llama's end of sequence."""


def experiment(engine: dict[str, Any] | None = None, **values: Any) -> ExperimentConfig:
    vllm = {"engine": {**ENGINE, **(engine or {})}, **values.pop("vllm", {})}
    return ExperimentConfig.model_validate({**BASE, **values, "vllm": vllm})


def run(config: ExperimentConfig, requests: Sequence[Request], times: int = 1) -> dict[str, Any]:
    """Load, answer ``times`` times, close."""
    engine = registry.get("vllm").load(config)
    engine.statistics()
    calls = []
    for _ in range(times):
        answers = [dataclasses.asdict(completion) for completion in engine.generate(requests)]
        calls.append({"completions": answers, "statistics": engine.statistics()})
    report = {
        "calls": calls,
        "resolved": engine.resolved_config(),
        "devices": list(engine.devices),
        "peak_memory_bytes": engine.peak_memory_bytes(),
        "batch_size": engine.batch_size,
    }
    engine.close()
    return report


def shared_prefixes() -> list[Request]:
    """Four prompts that begin with the same 256 tokens, two blocks of vLLM's cache on a CPU."""
    head = tuple(range(100, 356))
    return [Request(index, (*head, 400 + index), 2) for index in range(4)]


def refused(**engine: Any) -> str:
    try:
        run(experiment(engine), ())
    except LlemError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    """Write the report to the file named."""
    plain = experiment()
    workload = build_workload(plain)
    few = workload.requests[:2]
    random = Path(tempfile.mkdtemp()) / "architecture"
    random.mkdir()
    (random / "config.json").write_bytes((tiny_llama_folder() / "config.json").read_bytes())
    one_at_a_time = {"max_num_seqs": 1}
    report = {
        "problems": [str(problem) for problem in registry.get("vllm").problems(plain)],
        "versions": registry.get("vllm").versions(),
        "plain": run(plain, workload.requests, times=2),
        "prefixes": run(experiment(one_at_a_time), shared_prefixes(), times=2),
        "no_prefixes": run(
            experiment(one_at_a_time | {"enable_prefix_caching": False}), shared_prefixes()
        ),
        "random": run(
            experiment(model=str(random), weights="random", precision="fp32", random_seed=7), few
        ),
        "may_end": run(
            experiment(
                decoder={"preset": "deterministic", "min_new_tokens": 3},
                vllm={"sampling": {"logit_bias": {str(END): 100.0}}},
            ),
            few,
        ),
        "several": run(
            experiment(
                decoder={"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01},
                vllm={"sampling": {"n": 2, "presence_penalty": 0.5, "detokenize": True}},
            ),
            few,
        ),
        "beams": run(experiment(vllm={"beam_search": {"beam_width": 2}}), few),
        "silent": run(experiment({"disable_log_stats": True}), few),
        "too_short": refused(max_model_len=8192),
    }
    Path(sys.argv[1]).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
