"""Joules a token of others' benchmarks under ``llem meter --result``, and ours of the same load.

    python benchmarks/beside_benchmarks.py llama-bench PROGRAM [--pairs 5]
    python benchmarks/beside_benchmarks.py vllm PYTHON_OF_VLLM [--pairs 5]

Both engines have the trained model of ``tools/trained_model.py``. In turns the benchmark is metered
and a run is made of the same load: prompts of 32 tokens, answers of 32; llama.cpp answers one after
the other, vLLM four at a time. The ratio is the pairs' geometric mean with its 95 % interval (t).
vLLM's benchmark times its answers too: of both, the medians of the time to the first token (TTFT)
and of the mean time of the tokens after it (TPOT) are compared.
llama-bench is compared with llama.cpp's server of ``.ci/install_llama_cpp.sh``, which is another
build of it and asked over HTTP. The energy is the machine's measured one, or an estimate without.
"""

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import begin, parser, run_once

from llenergymeasure.analysis.statistics import t_quantile
from support.real_benchmarks import (
    TOKENS,
    USERS,
    llama_bench_command,
    metered,
    vllm_bench_command,
    vllm_server,
)
from support.trained import llama_cpp, trained_model

LLEM = [sys.executable, "-c", "from llenergymeasure.cli import main; main()"]
Measured = tuple[dict[str, float], list[str]]
"""What is compared, by its name with the unit; and the codes."""


def main() -> None:
    """Print each pair and the ratio of all."""
    arguments = parser(__doc__)
    arguments.add_argument("tool", choices=["llama-bench", "vllm"])
    arguments.add_argument("program", type=Path, help="llama-bench itself, or the Python with vLLM")
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=20, help="about as long is each window")
    options = begin(arguments)
    # On a core both answer about two requests a second.
    program, requests = options.program.absolute(), round(2 * options.seconds)
    model = trained_model()
    settings: dict[str, Any] = {
        "model": str(model),
        "backend": "openai",
        "dataset": "synthetic",
        "max_input_tokens": TOKENS,
        "max_output_tokens": TOKENS,
        "protocol": "quick",
        "decoder": {"preset": "deterministic"},
        "window": {"min_seconds": options.seconds},
    }
    if options.tool == "llama-bench":
        bench = llama_bench_command(program, model, requests)
        _pairs(options.pairs, bench, None, {**settings, "openai": llama_cpp()})
        return
    with vllm_server(program, model) as url:
        settings["openai"] = {"base_url": f"{url}/v1", "model": str(model)}
        settings["serving"] = {"arrivals": "closed", "concurrency": USERS}
        _pairs(options.pairs, vllm_bench_command(program, model, url, requests), url, settings)


def _pairs(count: int, bench: Sequence[str], url: str | None, settings: dict[str, Any]) -> None:
    logs: dict[str, list[float]] = {}
    for number in range(count):
        # In turns first, so that what drifts meets both.
        measured: dict[str, Measured] = {}
        for side in ("theirs", "ours") if number % 2 else ("ours", "theirs"):
            measured[side] = (
                _measure_theirs(bench, url) if side == "theirs" else _measure_ours(settings)
            )
        (their_values, their_codes), (our_values, our_codes) = measured["theirs"], measured["ours"]
        codes = ", ".join(sorted({*their_codes, *our_codes})) or "no code"
        for name, value in their_values.items():
            logs.setdefault(name, []).append(math.log(value / our_values[name]))
            print(f"{name}: theirs {value:.4g}, ours {our_values[name]:.4g}")
        print(codes, flush=True)
    for name, ratios in logs.items() if count > 1 else ():
        mean = statistics.mean(ratios)
        half = t_quantile(count - 1) * statistics.stdev(ratios) / math.sqrt(count)
        low, middle, high = (math.exp(mean + offset) for offset in (-half, 0.0, half))
        print(f"{name}, theirs over ours: {middle:.3f} ({low:.3f} to {high:.3f}), {count} pairs")


def _measure_theirs(bench: Sequence[str], url: str | None) -> Measured:
    with tempfile.TemporaryDirectory() as name:
        energy = json.loads(metered(LLEM, bench, Path(name), url).read_text())
        (benchmark,) = energy["benchmarks"]
        values = {"J/token": benchmark["energy"]["per_output_token_j"]}
        if url is not None:
            times = json.loads((Path(name) / "result.json").read_text())
            values |= {
                f"{measure.upper()}, ms": times[f"median_{measure}_ms"]
                for measure in ("ttft", "tpot")
            }
    return values, benchmark["validity"]


def _measure_ours(settings: dict[str, Any]) -> Measured:
    result = run_once(settings).result
    values = {"J/token": result["energy"]["per_output_token_j"]}
    if result["serving"] is not None:
        for measure, field in ("TTFT", "time_to_first_token"), ("TPOT", "time_per_output_token"):
            values[f"{measure}, ms"] = 1e3 * result["serving"][field]["p50_s"]
    return values, result["validity"]


if __name__ == "__main__":
    main()
