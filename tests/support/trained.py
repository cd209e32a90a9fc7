"""A trained chat model, and llama.cpp's server for its GGUF file."""

from pathlib import Path
from typing import Any

from support.studies import ROOT, required_path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_OF_8_BITS = "SmolLM2-135M-Instruct.Q8_0.gguf"


def trained_model() -> Path:
    """Return the model's folder; skip the test without one."""
    remedy = "trained model: tools/trained_model.py makes it"
    return required_path("LLEM_TEST_TRAINED_MODEL", "trained-model", remedy)


def llama_cpp() -> dict[str, Any]:
    """Return the section ``openai`` of llama.cpp's server; skip the test without it.

    Its number of threads and its weights are to be swept or set: ``openai.values``.
    """
    remedy = "llama.cpp: .ci/install_llama_cpp.sh build/llama-cpp makes it"
    python = required_path("LLEM_TEST_LLAMA_CPP_PYTHON", "llama-cpp/bin/python", remedy)
    script = str(ROOT / "tests" / "support" / "llama_server.py")
    return {
        "command": [
            *(str(python), script, "--model", "{model}/{gguf}"),
            *("--port", "{port}", "--threads", "{threads}"),
        ],
        "environment": {"LLAMA_API_KEY": "{api_key}"},
        "values": {"threads": 1, "gguf": GGUF},
    }
