"""tiny-llama: a model of about 4 million random weights, made here in a second.

It is the same, byte by byte, on every machine: the weights come from the raw bits of a generator
whose stream NumPy promises to keep, and the tokenizer, byte pairs of common words, lies next to
this module. Random weights cost the same energy per token as trained ones, so it measures like a
real model; what it writes means nothing.
"""

import json
import struct
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llenergymeasure.workload.cache import cache_folder, make_once
from llenergymeasure.workload.models.architecture import Architecture
from llenergymeasure.workload.models.known import KNOWN, TINY_LLAMA

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
"""Raised when the content changes, so that a cache of an earlier release is not taken for it."""

_SEED = 20_240_601
_STANDARD_DEVIATION = 0.02
"""That of Llama's own initialisation (``initializer_range``)."""


def tiny_llama_folder() -> Path:
    """Return the folder of tiny-llama in this project's cache, made if it is not there.

    Raises:
        BackendError: the cache cannot be written.
    """
    return make_once(cache_folder() / "models" / f"{TINY_LLAMA}-{VERSION}", make_tiny_llama)


def make_tiny_llama(folder: Path) -> None:
    """Write model, configuration and tokenizer into ``folder``, ready for any engine."""
    architecture = KNOWN[TINY_LLAMA]
    config = architecture.config
    _write_safetensors(folder / "model.safetensors", _tensors(architecture))
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {name: config[name] for name in ("bos_token_id", "eos_token_id")},
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(files(__package__).joinpath(f"tiny_{name}").read_bytes())


def _write_safetensors(path: Path, tensors: dict[str, tuple[tuple[int, ...], bytes]]) -> None:
    """Write bfloat16 tensors; by hand, as the library's order of tensors differs by release.

    Source: the format's description in the safetensors documentation: the length of a JSON
    header as a little-endian 64-bit integer, the header, the tensors' bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, data) in tensors.items():
        start, end = end, end + len(data)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            stream.write(data)


def _tensors(architecture: Architecture) -> dict[str, tuple[tuple[int, ...], bytes]]:
    import numpy as np

    bits = np.random.PCG64(_SEED)
    return {
        name: (shape, _ones(shape) if name.endswith("norm.weight") else _uniform(bits, shape))
        for name, shape in _shapes(architecture)
    }


def _shapes(architecture: Architecture) -> list[tuple[str, tuple[int, ...]]]:
    hidden = architecture.hidden_size
    queries = architecture.heads * architecture.head_dim
    keys = architecture.kv_heads * architecture.head_dim
    inner = architecture.intermediate_size
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("model.embed_tokens.weight", (architecture.vocab_size, hidden))
    ]
    for layer in range(architecture.layers):
        block = f"model.layers.{layer}"
        shapes += [
            (f"{block}.input_layernorm.weight", (hidden,)),
            (f"{block}.self_attn.q_proj.weight", (queries, hidden)),
            (f"{block}.self_attn.k_proj.weight", (keys, hidden)),
            (f"{block}.self_attn.v_proj.weight", (keys, hidden)),
            (f"{block}.self_attn.o_proj.weight", (hidden, queries)),
            (f"{block}.post_attention_layernorm.weight", (hidden,)),
            (f"{block}.mlp.gate_proj.weight", (inner, hidden)),
            (f"{block}.mlp.up_proj.weight", (inner, hidden)),
            (f"{block}.mlp.down_proj.weight", (hidden, inner)),
        ]
    return [
        *shapes,
        ("model.norm.weight", (hidden,)),
        ("lm_head.weight", (architecture.vocab_size, hidden)),
    ]


def _uniform(bits: "np.random.PCG64", shape: tuple[int, ...]) -> bytes:
    """Return zero-mean values of the wanted standard deviation, as bfloat16 bytes.

    Only the raw stream is taken: NumPy keeps it the same in every release, its distributions not
    (NEP 19).
    """
    import numpy as np

    raw = bits.random_raw(int(np.prod(shape)))
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    half_width = _STANDARD_DEVIATION * np.sqrt(3.0)
    return _bfloat16(((2.0 * unit - 1.0) * half_width).astype(np.float32))


def _ones(shape: tuple[int, ...]) -> bytes:
    import numpy as np

    return _bfloat16(np.ones(shape, dtype=np.float32))


def _bfloat16(values: "NDArray[np.float32]") -> bytes:
    """Return the upper halves of the values: bfloat16, rounded towards zero."""
    return (values.view("<u4") >> 16).astype("<u2").tobytes()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a model's settings the way its libraries do."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
