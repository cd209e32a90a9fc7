"""The environment with vLLM, which is another one than that of the tests."""

import subprocess
from pathlib import Path

from support.studies import llem, required_path


def vllm_python() -> Path:
    """Return the interpreter that has vLLM and this package; skip the test without one."""
    remedy = "vLLM: .ci/install_vllm.sh build/vllm makes it"
    return required_path("LLEM_TEST_VLLM_PYTHON", "vllm/bin/python", remedy)


def vllm_variables() -> dict[str, str]:
    """Return the variables of a process there: nobody's network, a small cache."""
    return {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def llem_with_vllm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``llem`` with vLLM's interpreter in ``folder`` and return what it said."""
    return llem(
        folder, *arguments, variables=vllm_variables(), timeout_s=1500, python=str(vllm_python())
    )
