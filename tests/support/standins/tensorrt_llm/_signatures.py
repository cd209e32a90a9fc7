"""``LLM`` on either backend, as the published sources declare it."""
# ruff: noqa: ARG002 - the signatures are the point

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from llenergymeasure.config.engine_parameters import parameters
from tensorrt_llm.llmapi import BuildConfig, CalibConfig, QuantConfig
from tensorrt_llm.llmapi.llm_args import BaseSparseAttentionConfig, DecodingBaseConfig
from tensorrt_llm.sampling import SamplingParams

BUILD_S = 0.3
ENGINE = "rank0.engine"
_OBJECTS = {
    "build_config": BuildConfig,
    "calib_config": CalibConfig,
    "quant_config": QuantConfig,
    "sparse_attention_config": BaseSparseAttentionConfig,
    "speculative_config": DecodingBaseConfig,
}

COMPILED_ALONE = frozenset(
    {
        "batching_type",
        "build_config",
        "calib_config",
        "embedding_parallel_mode",
        "enable_prompt_adapter",
        "enable_tqdm",
        "extended_runtime_perf_knob_config",
        "fast_build",
        "max_prompt_adapter_token",
        "normalize_log_probs",
        "quant_config",
        "workspace",
    }
)
"""Arguments of ``TrtLlmArgs`` that ``TorchLlmArgs`` refuses."""

PYTORCH_ALONE = frozenset(
    {
        "allreduce_strategy",
        "attention_dp_config",
        "attn_backend",
        "batch_wait_max_tokens_ratio",
        "batch_wait_timeout_iters",
        "batch_wait_timeout_ms",
        "checkpoint_format",
        "checkpoint_loader",
        "cuda_graph_config",
        "disable_flashinfer_sampling",
        "disable_overlap_scheduler",
        "enable_autotuner",
        "enable_iter_perf_stats",
        "enable_iter_req_stats",
        "enable_layerwise_nvtx_marker",
        "enable_min_latency",
        "enable_sleep",
        "force_dynamic_quantization",
        "garbage_collection_gen0_threshold",
        "kv_connector_config",
        "max_stats_len",
        "mm_encoder_only",
        "moe_config",
        "nvfp4_gemm_config",
        "perf_metrics_max_requests",
        "print_iter_log",
        "ray_placement_config",
        "ray_worker_extension_cls",
        "sampler_force_async_worker",
        "sampler_type",
        "stream_interval",
        "torch_compile_config",
    }
)
"""Arguments of ``TorchLlmArgs`` that ``TrtLlmArgs`` refuses."""


class _Arguments:
    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def model_dump(self) -> dict[str, Any]:
        return dict(self._values)


class _LLM:
    refused: frozenset[str]

    def __init__(
        self,
        model: str,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        fields = parameters("tensorrt.engine")
        for name, value in kwargs.items():
            if name not in fields or name in self.refused:
                raise ValueError(f"{type(self).__name__}: Extra inputs are not permitted: {name}")
            if name in _OBJECTS and not isinstance(value, _OBJECTS[name]):
                raise TypeError(f"{name} must be a {_OBJECTS[name].__name__}")
        if not Path(model).is_dir():
            raise ValueError(f"{model} does not exist")
        defaults = {
            name: each.get("default") for name, each in fields.items() if name not in self.refused
        }
        self.args = _Arguments(
            {
                **defaults,
                "model": model,
                "tokenizer": tokenizer,
                "tokenizer_mode": tokenizer_mode,
                "skip_tokenizer_init": skip_tokenizer_init,
                "trust_remote_code": trust_remote_code,
                "tensor_parallel_size": tensor_parallel_size,
                "dtype": dtype,
                "revision": revision,
                "tokenizer_revision": tokenizer_revision,
                **kwargs,
            }
        )
        self.asked: list[dict[str, Any]] = []
        self._steps: list[str] = []

    def generate(
        self,
        inputs: Sequence[dict[str, Any]],
        sampling_params: Sequence[SamplingParams] | SamplingParams | None = None,
        use_tqdm: bool = True,
        lora_request: Any = None,
        prompt_adapter_request: Any = None,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | Sequence[str] | None = None,
    ) -> list[SimpleNamespace]:
        assert isinstance(sampling_params, list)
        self.asked.append({"cache_salt": cache_salt, "sampling_params": sampling_params})
        for asked in sampling_params:
            if asked.end_id is None:
                raise ValueError("tokenizer is required to reset end_id if it is None")
        time.sleep(0.02)
        for used in (1, 3):
            cache = {"usedNumBlocks": used, "maxNumBlocks": 4}
            self._steps.append(json.dumps({"numActiveRequests": 2, "kvCacheStats": cache}))
        return [
            SimpleNamespace(
                prompt_token_ids=list(each["prompt_token_ids"]),
                outputs=[
                    SimpleNamespace(token_ids=[1] * asked.max_tokens, finish_reason="length")
                    for _ in range(asked.n)
                ],
            )
            for each, asked in zip(inputs, sampling_params, strict=True)
        ]

    def get_stats(self, timeout: float | None = 2) -> list[str]:
        steps, self._steps = self._steps, []
        return steps

    def shutdown(self) -> None:
        self.args = None  # type: ignore[assignment]


class TorchLLM(_LLM):
    refused = COMPILED_ALONE


class CompilingLLM(_LLM):
    """Keeps what it compiles as its build cache does, where the environment asks for one."""

    refused = PYTORCH_ALONE

    def __init__(self, model: str, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        if os.environ.get("TLLM_LLMAPI_BUILD_CACHE") != "1" or (Path(model) / ENGINE).is_file():
            return
        built = getattr(kwargs.get("build_config"), "given", None)
        key = hashlib.md5(repr([model, built]).encode()).hexdigest()
        place = Path(os.environ["TLLM_LLMAPI_BUILD_CACHE_ROOT"]) / f"engine-{key}"
        if not (place / "metadata.json").is_file():
            time.sleep(BUILD_S)
            (place / "content").mkdir(parents=True)
            (place / "content" / ENGINE).write_text("compiled")
            (place / "metadata.json").write_text("{}")
