"""Small releases laid out as the engines' are, whose code fails if it is ever run."""

import textwrap
import zipfile
from pathlib import Path

BOMB = 'raise RuntimeError("a catalogue is read without running the engine")\n'

VLLM = {
    "vllm/__init__.py": BOMB,
    "vllm/_version.py": "__version__ = version = '9.9.1'\n",
    "vllm/engine/__init__.py": "",
    "vllm/config/__init__.py": "from vllm.config.cache import CacheConfig\n",
    "vllm/config/cache.py": """
        import torch
        from typing import Literal
        from pydantic import Field
        from vllm.config.utils import config
        from vllm.enums import Mode

        SIZE = 16 * 1024
        CacheDType = Literal["auto", "fp8"]

        @config
        class CacheConfig:
            gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
            '''Share of
            the memory.'''
            cache_dtype: CacheDType | str = "auto"
            '''Data type.'''
            bytes: int = SIZE
            '''Bytes.'''
            layers: list[str] = Field(default_factory=list)
            '''Layers.'''
            only_later: int = Field(init=False)

        @config
        class CompilationConfig:
            mode: Mode = Mode.NONE
            '''How to compile.'''
            sizes: list[int] | None = None
    """,
    "vllm/enums.py": """
        import enum

        class Mode(enum.IntEnum):
            NONE = 0
            FULL = 3

        class Kernel(enum.Enum):
            FLASH = "some.module.Flash"
            TRITON = "some.module.Triton"
    """,
    "vllm/engine/arg_utils.py": BOMB
    + """
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from vllm.config import CacheConfig
from vllm.config.cache import CacheDType, CompilationConfig
from vllm.config.utils import get_field
from vllm.enums import Kernel

if TYPE_CHECKING:
    from vllm.cfg import Late

_OLD_DEPRECATION_MESSAGE = "--old is deprecated"

@dataclass
class EngineArgs:
    model: str = "x"
    gpu_memory_utilization: float = CacheConfig.gpu_memory_utilization
    kv_cache_dtype: CacheDType | str = CacheConfig.cache_dtype
    cache_bytes: int = CacheConfig.bytes
    layers: list[str] = get_field(CacheConfig, "layers")
    kernel: Kernel | None = None
    compilation_config: CompilationConfig = get_field(CacheConfig, "nothing")
    worker: type[object] | None = None
    worker_name: "str | type[object] | None" = None
    old: bool | None = None
    _rank: int = 0

    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--old", help="An old one.")
""",
    "vllm/sampling_params.py": """
        import msgspec

        class SamplingParams(msgspec.Struct):
            n: int = 1
            '''Answers.'''
            _internal: int = 0
            output_kind: int = 0
    """,
}

SGLANG = {
    "sglang/__init__.py": BOMB,
    "sglang/version.py": '__version__ = "9.9.2"\n',
    "sglang/srt/server_args.py": """
        from sglang.srt.choices import BACKENDS

        class ServerArgs:
            @staticmethod
            def add_cli_args(parser):
                found = set(BACKENDS)
                parser.add_argument("--sampling-backend", choices=found, help="Kernels.")
                parser.add_argument("--gone", help="Deprecated. Use another.")
    """,
    "sglang/srt/choices.py": 'FORMATS = ["auto", "dummy"]\nBACKENDS = frozenset({"a", "b"})\n',
    "sglang/srt/arg_groups/fields/__init__.py": "",
    "sglang/srt/arg_groups/fields/model.py": """
        from typing import List, Optional
        import msgspec
        from sglang.srt.arg_groups.arg_utils import A, Arg, Derived
        from sglang.srt.choices import FORMATS

        class Helper:
            not_a_knob: int = 1

        class Model(msgspec.Struct):
            _NS_PATH = "model"
            derived = Derived(doc="no knob")
            model_path: A[str, Arg(help="The model.", aliases=["--model"])]
            load_format: A[str, Arg(help="The "
                "format." f"{unknown()}", choices=FORMATS)] = "auto"
            tp_size: A[int, Arg(help="GPUs.", cli_name="--tensor-parallel-size")] = 1
            stops: A[Optional[List[str]], Arg(help="Stops.", choices=["x", "y"])] = None
            plain: A[Optional[float], "Plain help."] = None
            sampling_backend: A[Optional[str], Arg(no_cli=True)] = None
            gone: A[bool, Arg(no_cli=True)] = False
            filled: A[Optional[int], Arg(help="Filled.", fallback=7)] = None
            _seen: A[bool, Arg(no_cli=True)] = False
    """,
    "sglang/srt/sampling/sampling_params.py": """
        from typing import Dict, Optional, Set, Union
        import msgspec

        class SamplingParams(msgspec.Struct):
            top_k: int = 1 << 30
            stop_token_ids: Optional[Set[int]] = None
            logit_bias: Optional[Dict[str, float]] = None
            is_normalized: bool = False
    """,
}

SGLANG_BEFORE = {
    **{path: text for path, text in SGLANG.items() if "arg_groups" not in path},
    "sglang/srt/server_args.py": """
        import dataclasses
        from typing import Optional

        @dataclasses.dataclass
        class ServerArgs:
            model_path: str
            tp_size: int = 1
            gone_since: Optional[int] = None
    """,
}

TENSORRT = {
    "tensorrt_llm/__init__.py": BOMB,
    "tensorrt_llm/version.py": '__version__ = "9.9.3"\n',
    "tensorrt_llm/llmapi/llm_args.py": """
        from typing import Literal, Optional, Union
        from pydantic import BaseModel, Field, PositiveInt

        class StrictBaseModel(BaseModel):
            pass

        class KvCacheConfig(StrictBaseModel):
            enable_block_reuse: bool = Field(default=True, description="Reuse blocks.")
            dtype: str = Field(default="auto", description="Data type.")

        class BaseLlmArgs(StrictBaseModel):
            model: str = Field(description="The model.")
            max_batch_size: Optional[PositiveInt] = Field(default=None, description="Sequences.")
            kv_cache_config: KvCacheConfig = Field(default_factory=KvCacheConfig,
                                                   description="KV cache.")

        class TrtLlmArgs(BaseLlmArgs):
            fast_build: bool = Field(default=False, description="Build fast.")

        class TorchLlmArgs(BaseLlmArgs):
            attn_backend: Literal["TRTLLM", "VANILLA"] = Field(default="TRTLLM")
    """,
    "tensorrt_llm/sampling_params.py": """
        from dataclasses import dataclass, field
        from typing import Optional

        @dataclass(slots=True, kw_only=True)
        class SamplingParams:
            end_id: Optional[int] = None
            n: int = 1
            _stop_word_ids: Optional[int] = field(default=None, init=False)
    """,
}


def unpack(files: dict[str, str], folder: Path) -> Path:
    """Write a release as a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def wheel(files: dict[str, str], path: Path, package: str, version: str) -> Path:
    """Write a release as a wheel."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, textwrap.dedent(text))
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        archive.writestr(f"{package}-{version}.dist-info/METADATA", metadata)
    return path
