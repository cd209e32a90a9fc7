"""Joules a token of others' benchmarks under ``llem meter --result``, and ours of the same load.

    python benchmarks/beside_benchmarks.py llama-bench PROGRAM [--pairs 5]
    python benchmarks/beside_benchmarks.py vllm PYTHON_OF_VLLM [--pairs 5]

Both engines have the trained model of ``tools/trained_model.py``. In turns the benchmark is metered
and a run is made of the same load: prompts of 32 tokens, answers of 32; llama.cpp answers one after
the other, vLLM four at a time. The ratio is the pairs' geometric mean with its 95 % interval (t).
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

from harness import begin, make_spec, parser, run_spec

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
Found = tuple[float, list[str]]
"""J an output token, and the codes."""


def main() -> None:
    """Print each pair and the ratio of all."""
    asked = parser(__doc__)
    asked.add_argument("tool", choices=["llama-bench", "vllm"])
    asked.add_argument("program", type=Path, help="llama-bench itself, or the Python with vLLM")
    asked.add_argument("--pairs", type=int, default=5)
    asked.add_argument("--seconds", type=float, default=20, help="about as long is each window")
    options = begin(asked)
    # On a core both answer about two requests a second.
    program, requests = options.program.absolute(), round(2 * options.seconds)
    model = trained_model()
    ours: dict[str, Any] = {
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
        _pairs(options.pairs, bench, None, {**ours, "openai": llama_cpp()})
        return
    with vllm_server(program, model) as url:
        ours["openai"] = {"base_url": f"{url}/v1", "model": str(model)}
        ours["serving"] = {"arrivals": "closed", "concurrency": USERS}
        _pairs(options.pairs, vllm_bench_command(program, model, url, requests), url, ours)


def _pairs(count: int, bench: Sequence[str], url: str | None, settings: dict[str, Any]) -> None:
    logs = []
    for number in range(count):
        # In turns first, so that what drifts meets both.
        found: dict[str, Found] = {}
        for who in ("theirs", "ours") if number % 2 else ("ours", "theirs"):
            found[who] = _theirs(bench, url) if who == "theirs" else _ours(settings)
        (their_j, their_codes), (our_j, our_codes) = found["theirs"], found["ours"]
        logs.append(math.log(their_j / our_j))
        codes = ", ".join(sorted({*their_codes, *our_codes})) or "no code"
        print(f"theirs {their_j:.4g} J/token, ours {our_j:.4g}: {codes}", flush=True)
    if count > 1:
        mean = statistics.mean(logs)
        half = t_quantile(count - 1) * statistics.stdev(logs) / math.sqrt(count)
        low, middle, high = (math.exp(mean + each) for each in (-half, 0.0, half))
        print(f"theirs over ours: {middle:.3f} ({low:.3f} to {high:.3f}), {count} pairs")


def _theirs(bench: Sequence[str], url: str | None) -> Found:
    with tempfile.TemporaryDirectory() as name:
        (found,) = json.loads(metered(LLEM, bench, Path(name), url).read_text())["benchmarks"]
    return found["energy"]["per_output_token_j"], found["validity"]


def _ours(settings: dict[str, Any]) -> Found:
    with tempfile.TemporaryDirectory() as name:
        result = run_spec(make_spec(settings), Path(name))
    return result["energy"]["per_output_token_j"], result["validity"]


if __name__ == "__main__":
    main()
