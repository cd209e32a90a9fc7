"""A trained chat model, and llama.cpp's server for its GGUF file."""

import os
from pathlib import Path
from typing import Any

import pytest

from support.studies import ROOT

MODEL = "LLEM_TEST_TRAINED_MODEL"
LLAMA_CPP = "LLEM_TEST_LLAMA_CPP_PYTHON"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_OF_8_BITS = "SmolLM2-135M-Instruct.Q8_0.gguf"


def trained_model() -> Path:
    """Return the model's folder; skip the test without one."""
    path = Path(os.environ.get(MODEL) or ROOT / "build" / "trained-model")
    if not path.is_dir():
        pytest.skip(f"no trained model: tools/trained_model.py makes it, or {MODEL} names it")
    return path.absolute()


def llama_cpp() -> dict[str, Any]:
    """Return the section ``openai`` of llama.cpp's server; skip the test without it.

    Its number of threads and its weights are to be swept or set: ``openai.values``.
    """
    python = Path(os.environ.get(LLAMA_CPP) or ROOT / "build" / "llama-cpp" / "bin" / "python")
    if not python.is_file():
        pytest.skip(f"no llama.cpp: .ci/install_llama_cpp.sh build/llama-cpp, or {LLAMA_CPP}")
    script = str(ROOT / "tests" / "support" / "llama_server.py")
    return {
        "command": [
            *(str(python.absolute()), script, "--model", "{model}/{gguf}"),
            *("--port", "{port}", "--threads", "{threads}"),
        ],
        "environment": {"LLAMA_API_KEY": "{api_key}"},
        "values": {"threads": 1, "gguf": GGUF},
    }
