"""The streaming client beside vLLM's own serving benchmark: one server, the same requests.

    PYTHONPATH=src HF_HUB_OFFLINE=1 PYTHON_OF_VLLM benchmarks/serving_side_by_side.py [--model M]

Runs in the environment that has vLLM. Both clients send the same token ids at the same times,
one after the other, in turns; figures are medians of the repeats. CPU is this process's own
while its client works, from the first request's making to the last answer's reading.
"""

import argparse
import asyncio
import contextlib
import gc
import io
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from llenergymeasure.backends import registry
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.redact import KEY_VARIABLE
from llenergymeasure.run.engine.traffic import Traffic
from llenergymeasure.workload.arrivals import arrival_offsets
from llenergymeasure.workload.prompts import traffic_prompts

WITHIN = 0.03


@dataclass(frozen=True)
class Figures:
    """What one client says of one pass."""

    ttft_ms: float
    tpot_ms: float
    tokens_per_s: float
    cpu_s: float
    failed: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-llama", help="any other: with random weights")
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--input", type=int, default=64)
    parser.add_argument("--output", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = ExperimentConfig.model_validate(
        {
            "model": options.model,
            "weights": "pretrained" if options.model == "tiny-llama" else "random",
            "backend": "vllm",
            "max_input_tokens": options.input,
            "max_output_tokens": options.output,
            "serving": {"rate_per_s": options.rate},
            "vllm": {"engine": {"enforce_eager": True, "enable_prefix_caching": False}},
        }
    )
    backend = registry.get("vllm")
    command = backend.server(config, free_port())
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    engine = ServedEngine(command, config, (), traffic_prompts(config))
    os.environ["OPENAI_API_KEY"] = os.environ[KEY_VARIABLE]  # as vLLM's benchmark takes it
    assert config.serving is not None
    offsets = arrival_offsets(config.serving, options.seconds, config.random_seed).tolist()
    try:
        engine.generate(engine.warmup_requests()[:16])
        passes: dict[str, list[Figures]] = {"ours": [], "vllm bench": []}
        for turn in range(options.repeats):
            both = [("ours", ours), ("vllm bench", theirs)]
            for name, client in both if turn % 2 else reversed(both):
                passes[name].append(client(engine, offsets))
    finally:
        engine.close()
    return tell(passes, len(offsets))


def ours(engine: ServedEngine, offsets: list[float]) -> Figures:
    """Send with the project's client."""

    async def go() -> tuple[Traffic, float]:
        traffic = Traffic(engine.client, engine.prompts, engine.encode, 300.0)
        before_s = time.process_time()
        traffic.prepare(offsets)
        traffic.start_open(time.monotonic_ns() + 50_000_000)
        await asyncio.sleep(offsets[-1] + 0.1)
        await traffic.drained(300.0)
        return traffic, time.process_time() - before_s

    with _no_garbage_collection():
        traffic, cpu_s = engine.run(go())
    done = [sent.exchange for sent in traffic.sent if sent.exchange.failure is None]
    ttft_ms = [(each.token_ns[0] - each.sent_ns) / 1e6 for each in done]
    tpot_ms = [
        (each.token_ns[-1] - each.token_ns[0]) / 1e6 / ((each.output_tokens or 0) - 1)
        for each in done
    ]
    began_ns = min(sent.exchange.planned_ns for sent in traffic.sent) - round(offsets[0] * 1e9)
    span_s = (max(each.end_ns for each in done) - began_ns) / 1e9
    tokens = sum(each.output_tokens or 0 for each in done)
    failed = len(traffic.sent) - len(done)
    return Figures(float(np.mean(ttft_ms)), float(np.mean(tpot_ms)), tokens / span_s, cpu_s, failed)


def theirs(engine: ServedEngine, offsets: list[float]) -> Figures:
    """Send with vLLM's serving benchmark."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    requests = [engine.prompts.turn(number).request for number in range(len(offsets))]
    samples = [
        SampleRequest(
            prompt=list(request.prompt_token_ids),
            prompt_len=len(request.prompt_token_ids),
            expected_output_len=request.max_output_tokens,
            timestamp=offset,
        )
        for request, offset in zip(requests, offsets, strict=True)
    ]
    root = engine.command.base_url
    before_s = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), _no_garbage_collection():
        result: dict[str, Any] = asyncio.run(
            benchmark(
                task_type=TaskType.GENERATION,
                endpoint_type="vllm",
                api_url=f"{root}/completions",
                base_url=root.removesuffix("/v1"),
                model_id=engine.command.model,
                model_name=engine.command.model,
                tokenizer=None,
                input_requests=samples,
                logprobs=None,
                request_rate=float("inf"),
                burstiness=1.0,
                disable_tqdm=True,
                num_warmups=0,
                profile=False,
                selected_percentile_metrics=[],
                selected_percentiles=[99.0],
                ignore_eos=True,
                goodput_config_dict={},
                max_concurrency=None,
                lora_modules=None,
                extra_headers=None,
                extra_body=dict(engine.command.body),
                ready_check_timeout_sec=0,
                self_timed=True,
            )
        )
    cpu_s = time.process_time() - before_s
    outputs = [request.max_output_tokens for request in requests]
    tpot_ms = [
        sum(gaps) * 1e3 / (count - 1)
        for gaps, count in zip(result["itls"], outputs, strict=True)
        if gaps
    ]
    return Figures(
        float(np.mean(result["ttfts"])) * 1e3,
        float(np.mean(tpot_ms)),
        sum(outputs) / result["duration"],
        cpu_s,
        len(offsets) - int(result["completed"]),
    )


def tell(passes: dict[str, list[Figures]], requests: int) -> int:
    """Print both clients' medians; return 0 if they agree and ours costs no more."""
    print(f"{requests} requests a pass\n")
    print("| client | TTFT mean | TPOT mean | output tokens/s | CPU | failed |")
    print("|---|---|---|---|---|---|")
    medians = {}
    for name, figures in passes.items():
        row = {
            field: statistics.median(getattr(each, field) for each in figures)
            for field in ("ttft_ms", "tpot_ms", "tokens_per_s", "cpu_s")
        }
        medians[name] = row
        failed = sum(each.failed for each in figures)
        print(
            f"| {name} | {row['ttft_ms']:.2f} ms | {row['tpot_ms']:.2f} ms | "
            f"{row['tokens_per_s']:.1f} | {row['cpu_s']:.2f} s | {failed} |"
        )
    mine, other = medians["ours"], medians["vllm bench"]
    apart = {
        field: mine[field] / other[field] - 1 for field in ("ttft_ms", "tpot_ms", "tokens_per_s")
    }
    print(
        "\nours over theirs: "
        + ", ".join(f"{k} {v:+.1%}" for k, v in apart.items())
        + f", cpu {mine['cpu_s'] / other['cpu_s']:.2f} times"
    )
    agree = all(abs(value) <= WITHIN for value in apart.values())
    return 0 if agree and mine["cpu_s"] <= other["cpu_s"] else 1


@contextlib.contextmanager
def _no_garbage_collection() -> Any:
    """Have neither client stopped by the collector, which the other's leavings would feed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
