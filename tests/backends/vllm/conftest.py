"""One start of Python with vLLM for all that is asked of its engine."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.studies import environment
from support.vllm import vllm_python, vllm_variables


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What scenarios.py saw of the real engine, by scenario."""
    python = vllm_python()
    path = tmp_path_factory.mktemp("vllm") / "report.json"
    process = subprocess.run(
        [python, Path(__file__).with_name("scenarios.py"), path],
        # Beam search compiles its ranking of tokens, for which a test has no time.
        env=environment(**vllm_variables(), TORCHDYNAMO_DISABLE="1"),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert process.returncode == 0, f"{process.stdout[-4000:]}\n{process.stderr[-8000:]}"
    content: dict[str, Any] = json.loads(path.read_text())
    return content
