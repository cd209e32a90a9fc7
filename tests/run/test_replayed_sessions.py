"""A window that reaches only the first turns of a trace's sessions says so, and counts those."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.models.flops import prefill_flops
from llenergymeasure.workload.models.resolve import resolve_model
from support.attempts import start

pytestmark = pytest.mark.slow


def test_operations_are_of_the_turns_answered_and_a_window_too_short_is_noted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agents.jsonl"
    lengths = {"session_id": "a", "output_length": 4}
    rows = [{"timestamp": 0, "input_length": 20}]
    rows += [{"delay": delay, "input_length": 16} for delay in (*[400] * 30, 60_000)]
    path.write_text("".join(json.dumps({**lengths, **row}) + "\n" for row in rows))
    attempt = start(
        tmp_path,
        serving={"arrivals": "trace", "trace": str(path)},
        window={"min_seconds": 2},
        n=32,
    )
    assert attempt.process.wait(200) == 0, attempt.outcome()
    result = attempt.result()
    (note,) = [
        each
        for each in result["provenance"]["workload"]["notes"]
        if each.startswith("no session of the trace ended in the window")
    ]
    assert "the trace's 330;" in note
    window = result["window"]
    start_ns, end_ns = window["start_monotonic_ns"], window["end_monotonic_ns"]
    rows = pq.read_table(attempt.folder / "requests.parquet").to_pylist()
    prompts = [row["input_tokens"] for row in rows if start_ns <= row["end_monotonic_ns"] <= end_ns]
    assert f"its prompts had {np.mean(prompts):.0f} tokens" in note
    architecture = resolve_model(ExperimentConfig(model="tiny-llama")).architecture
    assert architecture is not None
    counted = np.mean([prefill_flops(architecture, prompt) for prompt in prompts])
    assert result["flops"]["prefill_per_request"] == pytest.approx(counted)
