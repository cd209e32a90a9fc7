"""What benchmark tools write, in their published forms, about work that this process did."""

import json
import time
from datetime import UTC, datetime
from typing import Any

REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS = 40, 1280, 2560


def wall_s(at_ns: int) -> float:
    """A moment of CLOCK_MONOTONIC in seconds since 1970."""
    return time.time() + (at_ns - time.monotonic_ns()) / 1e9


def vllm(start_ns: int, end_ns: int, *, detailed: bool = True) -> str:
    """``vllm bench serve --save-result [--save-detailed]`` (0.33)."""
    duration_s = (end_ns - start_ns) / 1e9
    document: dict[str, Any] = {
        "date": datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai",
        "backend": "openai",
        "label": None,
        "model_id": "tiny",
        "tokenizer_id": "tiny",
        "num_prompts": REQUESTS,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": 4,
        "duration": duration_s,
        "completed": REQUESTS,
        "failed": 0,
        "total_input_tokens": INPUT_TOKENS,
        "total_output_tokens": OUTPUT_TOKENS,
        "request_throughput": REQUESTS / duration_s,
        "output_throughput": OUTPUT_TOKENS / duration_s,
        "latencies": [duration_s / 2, duration_s / 2],
        "queue_times": [0.0, 0.0],
        "mean_ttft_ms": 12.0,
    }
    if detailed:
        document["start_times"] = [start_ns / 1e9, start_ns / 1e9 + duration_s / 2]
        document["errors"] = ["", ""]
    return json.dumps(document)


def sglang(start_ns: int, end_ns: int) -> str:
    """One line of ``sglang.bench_serving --output-file`` (0.5)."""
    return (
        json.dumps(
            {
                "tag": None,
                "backend": "sglang",
                "dataset_name": "random",
                "request_rate": "inf",
                "max_concurrency": 4,
                "server_info": None,
                "duration": (end_ns - start_ns) / 1e9,
                "completed": REQUESTS,
                "total_input_tokens": INPUT_TOKENS,
                "total_output_tokens": OUTPUT_TOKENS,
                "total_output_tokens_retokenized": OUTPUT_TOKENS - 3,
                "mean_ttft_ms": 12.0,
            }
        )
        + "\n"
    )


def aiperf(start_ns: int, end_ns: int) -> str:
    """``profile_export_aiperf.json`` (schema 1.4); times are local and have no zone."""

    def local(at_ns: int) -> str:
        return datetime.fromtimestamp(wall_s(at_ns)).isoformat()  # noqa: DTZ006 - as it does

    return json.dumps(
        {
            "schema_version": "1.4",
            "aiperf_version": "0.13.0",
            "benchmark_id": "c0ffee",
            "request_count": {"unit": "requests", "avg": float(REQUESTS)},
            "request_latency": {"unit": "ms", "avg": 80.0, "p50": 79.0, "count": REQUESTS},
            "benchmark_duration": {"unit": "sec", "avg": (end_ns - start_ns) / 1e9},
            "total_isl": {"unit": "tokens", "avg": float(INPUT_TOKENS)},
            "total_osl": {"unit": "tokens", "avg": float(OUTPUT_TOKENS)},
            "was_cancelled": False,
            "is_complete": True,
            "start_time": local(start_ns - 30_000_000),
            "end_time": local(end_ns + 20_000_000),
        },
        indent=2,
    )


def guidellm(start_ns: int, end_ns: int, *, incomplete: int = 8, cut_off: float = 0.1) -> str:
    """``benchmarks.json`` (0.8); ``cut_off`` is the share of tokens of incomplete requests."""

    def counts(total: int) -> dict[str, Any]:
        part = int(total * cut_off)
        # Its sum is the mean times the count.
        return {
            "successful": {"count": REQUESTS, "total_sum": (total - part) * (1 - 1e-15)},
            "incomplete": {"count": incomplete, "total_sum": float(part)},
            "errored": {"count": 0, "total_sum": 0.0},
            "total": {"count": REQUESTS + incomplete, "total_sum": float(total)},
        }

    totals = {"successful": REQUESTS, "errored": 0, "incomplete": incomplete}
    totals["total"] = sum(totals.values())
    benchmark = {
        "type_": "generative_benchmark",
        "config": {"strategy": {"type_": "concurrent", "streams": 8}},
        "metrics": {
            "request_totals": totals,
            "prompt_token_count": counts(INPUT_TOKENS),
            "output_token_count": counts(OUTPUT_TOKENS),
        },
        "start_time": wall_s(start_ns),
        "end_time": wall_s(end_ns),
        "duration": (end_ns - start_ns) / 1e9,
        "warmup_duration": 0.0,
        "cooldown_duration": 0.0,
    }
    metadata = {"version": 1, "guidellm_version": "0.8.1"}
    return json.dumps({"metadata": metadata, "config": {}, "benchmarks": [benchmark]})


def llama_bench(start_ns: int, end_ns: int, *, warm_up_s: float = 0.2) -> str:
    """``llama-bench -o json``: of each test the second that it began in, warm-up and all."""
    at_s = wall_s(start_ns) - warm_up_s
    share_ns = (end_ns - start_ns) // REQUESTS
    test = {
        "build_commit": "8cf427ff",
        "backends": "CPU",
        "model_type": "llama 135M Q4_1",
        "n_batch": 2048,
        "n_threads": 2,
        "n_prompt": INPUT_TOKENS // REQUESTS,
        "n_gen": OUTPUT_TOKENS // REQUESTS,
        "n_depth": 0,
        "test_time": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": share_ns,
        "samples_ns": [share_ns] * REQUESTS,
    }
    return json.dumps([test], indent=2)
