"""The environment with vLLM, which is another one than that of the tests."""

import os
from pathlib import Path

import pytest

from support.studies import ROOT

VARIABLE = "LLEM_TEST_VLLM_PYTHON"
DEFAULT = ROOT / "build" / "vllm" / "bin" / "python"


def vllm_python() -> Path:
    """Return the interpreter that has vLLM and this package; skip the test without one."""
    path = Path(os.environ.get(VARIABLE) or DEFAULT)
    if not path.is_file():
        pytest.skip(
            f"no vLLM: .ci/install_vllm.sh build/vllm makes it, or {VARIABLE} names an "
            "interpreter that has it"
        )
    return path.absolute()


def vllm_variables() -> dict[str, str]:
    """Return the variables of a process there: nobody's network, a small cache."""
    return {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
