"""Our offline vLLM path against vLLM's own throughput benchmark: tokens a second, in pairs.

Both drive one loaded engine with the same prompts, lengths and sampling. vLLM's is the timed part
of ``vllm bench throughput`` (``vllm.benchmarks.throughput``); ours is ``generate`` of the backend,
from prompts to counted and timed answers, with the emptying of the prefix cache that makes every
pass start alike. Passes alternate, the order within a pair is drawn at random, so that what else
the machine does falls on both. The aim is a ratio of at least 0.98. The ratio of processor time
stands beside it: on a busy machine it is the steadier of the two. Run it with an interpreter that
has vLLM (``.ci/install_vllm.sh``):

    build/vllm/bin/python benchmarks/vllm_throughput.py --pairs 20
"""

import argparse
import contextlib
import io
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llenergymeasure.analysis.statistics import t_quantile
from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request

AIM = 0.98


def main() -> int:
    """Print the ratio with its interval; return 1 if its upper end is below the aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-llama")
    parser.add_argument("--weights", default="pretrained", choices=["pretrained", "random"])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--input", type=int, default=64)
    parser.add_argument("--output", type=int, default=64)
    options = parser.parse_args()
    config = ExperimentConfig.model_validate(
        {
            "model": options.model,
            "weights": options.weights,
            "backend": "vllm",
            "dataset": {"n": options.n, "input_len": options.input, "output_len": options.output},
            # As vLLM's benchmark samples.
            "decoder": {"temperature": 1.0, "top_p": 1.0, "top_k": 0},
            "vllm": {"engine": {"enforce_eager": True, "max_model_len": 2048}},
        }
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    requests = build_workload(config).requests
    engine: Any = registry.get("vllm").load(config)
    passes = _passes(engine, requests, options.pairs)
    engine.close()
    return _report(passes)


@dataclass(frozen=True)
class Pass:
    """One pass over the workload.

    Attributes:
        tokens_per_s: output tokens over wall time.
        tokens_per_cpu_s: output tokens over this process's processor time.
    """

    tokens_per_s: float
    tokens_per_cpu_s: float


def _passes(engine: Any, requests: Sequence[Request], count: int) -> dict[str, list[Pass]]:
    ways = {"ours": _ours, "theirs": _theirs}
    for way in ways.values():
        way(engine, requests)
    done: dict[str, list[Pass]] = {name: [] for name in ways}
    for _ in range(count):
        for name in random.sample(list(ways), 2):
            began_s = time.process_time()
            tokens, took_s = ways[name](engine, requests)
            cpu_s = time.process_time() - began_s
            done[name].append(Pass(tokens / took_s, tokens / cpu_s))
    return done


def _ours(engine: Any, requests: Sequence[Request]) -> tuple[int, float]:
    """Return output tokens and seconds of a pass as a run's window makes it."""
    began_s = time.perf_counter()
    done = engine.generate(requests)
    took_s = time.perf_counter() - began_s
    return sum(each.output_tokens for each in done), took_s


def _theirs(engine: Any, requests: Sequence[Request]) -> tuple[int, float]:
    """Return output tokens and seconds of a pass of vLLM's benchmark, as it times itself."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.throughput import _run_vllm_requests

    llm = engine._open()
    llm.reset_prefix_cache()
    asked = [
        SampleRequest(
            prompt={"prompt_token_ids": list(request.prompt_token_ids)},
            prompt_len=len(request.prompt_token_ids),
            expected_output_len=request.max_output_tokens,
        )
        for request in requests
    ]
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        took_s, outputs = _run_vllm_requests(
            llm,
            asked,
            n=1,
            disable_detokenize=True,
            do_profile=False,
            prequeue_requests=False,
            enable_lora=False,
        )
    return sum(len(each.outputs[0].token_ids) for each in outputs), float(took_s)


def _report(passes: dict[str, list[Pass]]) -> int:
    for name, made in passes.items():
        rate = statistics.median(each.tokens_per_s for each in made)
        print(f"{name:<22}{rate:10,.0f} output tokens/s (median of {len(made)})")
    pairs = list(zip(passes["ours"], passes["theirs"], strict=True))
    high = _ratio("tokens/s", [one.tokens_per_s / other.tokens_per_s for one, other in pairs])
    _ratio(
        "tokens/processor s",
        [one.tokens_per_cpu_s / other.tokens_per_cpu_s for one, other in pairs],
    )
    return int(high < AIM)


def _ratio(name: str, ratios: Sequence[float]) -> float:
    """Print the geometric mean of the pairs' ratios with its t interval; return its upper end."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half)
    print(
        f"ratio of {name:<20}{math.exp(mean):.4f} (95 % interval {low:.4f} to {high:.4f}); "
        f"aim {AIM}"
    )
    return high


if __name__ == "__main__":
    sys.exit(main())
