"""The settings of a study that a program may give by name. Made by `make schema`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class Settings(TypedDict, total=False):
    """Settings by the names that a study file has for them; a section is a mapping."""

    model: str
    backend: Literal["pytorch", "vllm", "sglang", "tensorrt", "openai"] | Sequence[Any]
    weights: Literal["pretrained", "random"]
    n: int
    dataset: str | Mapping[str, Any]
    dataset_order: Literal["interleaved", "grouped", "shuffled", "given", "length"]
    precision: Literal["fp32", "fp16", "bf16"]
    random_seed: int
    max_input_tokens: int
    max_output_tokens: int
    answer_length: Literal["fixed", "natural"] | None
    chat: Mapping[str, Any] | None
    protocol: Literal["auto", "quick", "standard", "publication"]
    decoder: Mapping[str, Any]
    warmup: Mapping[str, Any]
    baseline: Mapping[str, Any]
    window: Mapping[str, Any]
    energy: Mapping[str, Any]
    lora: Mapping[str, Any] | None
    serving: Mapping[str, Any] | None
    slo: Mapping[str, Any] | None
    gpu: Mapping[str, Any] | None
    pytorch: Mapping[str, Any] | None
    vllm: Mapping[str, Any] | None
    sglang: Mapping[str, Any] | None
    tensorrt: Mapping[str, Any] | None
    openai: Mapping[str, Any] | None
    passthrough_kwargs: Mapping[str, Any] | None
    output_dir: str | None
    name: str
    sweep: Mapping[str, Any]
    experiments: Sequence[Any]
    runners: Mapping[str, Any]
    execution: Mapping[str, Any]
    notify: Mapping[str, Any] | None
    carbon: Mapping[str, Any] | None
    quality: Mapping[str, Any] | None
