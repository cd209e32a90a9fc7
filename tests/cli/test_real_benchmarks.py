"""``llem meter --result`` beside vLLM's benchmark and llama-bench themselves, on the CPU.

The simulated card draws the same all the time. So a token costs that power over the speed that the
tool itself reports: an account of the energy that knows nothing of ours.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nvml_sim import sim
from support.real_benchmarks import (
    TOKENS,
    llama_bench,
    llama_bench_command,
    metered,
    vllm_bench_command,
    vllm_server,
)
from support.recording import card_environment, environment, uuid
from support.studies import MAIN
from support.trained import trained_model
from support.vllm import vllm_python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

POWER_W = 250.0
REQUESTS = 12
LLEM = [sys.executable, "-c", MAIN]


def energy_of(folder: Path, command: list[str], url: str | None) -> tuple[dict[str, Any], Any]:
    """Return the energy of the benchmark's window, and what the tool wrote."""
    card = sim.Device(power_w=[(0.0, POWER_W)], uuid=uuid(1))
    with environment(card_environment(folder, [card])):
        readings_file = metered(LLEM, command, folder, url)
    (benchmarks,) = json.loads(readings_file.read_text())["benchmarks"]
    assert benchmarks["output_tokens"] == REQUESTS * TOKENS
    assert benchmarks["requests"] == REQUESTS
    return benchmarks["energy"], json.loads((folder / "result.json").read_text())


def test_llama_bench_costs_the_power_over_its_own_speed(tmp_path: Path) -> None:
    command = llama_bench_command(llama_bench(), trained_model(), REQUESTS)

    energy, (written,) = energy_of(tmp_path, command, None)

    per_token_j = POWER_W * written["avg_ns"] / 1e9 / TOKENS
    assert abs(energy["per_output_token_j"] - per_token_j) <= energy["per_output_token_u95_j"]
    # The power is the same wherever in the command's time the window was.
    assert energy["per_output_token_j"] == pytest.approx(per_token_j, rel=0.02)


def test_vllm_bench_costs_the_power_over_its_own_speed(tmp_path: Path) -> None:
    python, model = vllm_python(), trained_model()

    with vllm_server(python, model) as url:
        command = vllm_bench_command(python, model, url, REQUESTS)
        energy, written = energy_of(tmp_path, command, url)

    per_token_j = POWER_W / written["output_throughput"]
    assert abs(energy["per_output_token_j"] - per_token_j) <= energy["per_output_token_u95_j"]
    assert energy["per_output_token_j"] == pytest.approx(per_token_j, rel=0.02)
