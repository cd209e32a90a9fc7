"""From a configuration to a model in memory, in the wanted data type, on the wanted device."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from llenergymeasure.backends.common import DTYPES, failing_as
from llenergymeasure.backends.cpu_threads import choose_threads
from llenergymeasure.backends.pytorch.generation import passthrough_arguments
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig, LoraConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model
from llenergymeasure.workload.thinking import ThinkingMarks
from llenergymeasure.workload.tokens import thinking_marks


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate.

    Attributes:
        model: a transformers model, or a PEFT model around one.
        source: where it came from.
        device: where its inputs go.
        eos_token_ids: the end-of-sequence ids its checkpoint names.
        thinking: the tokens that begin and end its thought; None if it has none.
        parameters: their number, adapters included.
        threads: CPU threads torch computes with.
    """

    model: Any
    source: ModelSource
    device: torch.device
    eos_token_ids: tuple[int, ...]
    thinking: ThinkingMarks | None
    parameters: int
    threads: int


def load_model(config: ExperimentConfig) -> LoadedModel:
    """Load the model of an experiment.

    Raises:
        BackendError: the engine refused a setting or the model, or the checkpoint does not hold
            all of the model's weights.
    """
    _silence()
    settings = config.pytorch or PyTorchConfig()
    source = resolve_model(config)
    device = _device(settings)
    processes = (settings.num_processes or 1) * (settings.tensor_parallel_size or 1)
    expected = source.architecture.parameters() if source.architecture else None

    def set_threads(parameters: int | None) -> int:
        threads = choose_threads(
            parameters,
            requested=settings.num_threads,
            on_gpu=device.type == "cuda",
            processes=processes,
        )
        torch.set_num_threads(threads)
        return threads

    set_threads(expected)
    torch.manual_seed(config.random_seed)
    too_large = (
        f"model {config.model} does not fit into GPU memory at {config.precision}; use a smaller "
        "model or precision, load_in_4bit, or device_map: auto over several GPUs"
    )
    with failing_as(f"model {config.model} cannot be loaded", out_of_memory=too_large):
        model = _load(config, settings, source, device)
        eos_ids = _eos_token_ids(model)
        model = _with_adapter(model, config.lora) if config.lora else model
        # What a checkpoint's generation_config.json says must not change sampling unseen.
        model.generation_config = GenerationConfig()
        if hasattr(model, "base_model"):
            model.base_model.generation_config = GenerationConfig()
        model.eval()
        _compile(model, settings)
    parameters = int(model.num_parameters())
    threads = set_threads(parameters)
    return LoadedModel(model, source, device, eos_ids, thinking_marks(source), parameters, threads)


def _silence() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # It warns at every matrix product, which costs time inside the window.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _device(settings: PyTorchConfig) -> torch.device:
    device_map = settings.device_map
    if device_map is not None and _is_device(device_map):
        return torch.device(device_map)
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def _load(
    config: ExperimentConfig, settings: PyTorchConfig, source: ModelSource, device: torch.device
) -> Any:
    arguments: dict[str, Any] = {
        "dtype": getattr(torch, DTYPES[config.precision]),
        "trust_remote_code": bool(settings.trust_remote_code),
    }
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    extras, _ = passthrough_arguments(config)
    if source.random:
        return _with_random_weights(source, settings, device, arguments | extras)
    model, report = AutoModelForCausalLM.from_pretrained(
        source.location,
        revision=source.revision,
        output_loading_info=True,
        **arguments,
        **_placement(settings, device),
        **_quantization(config, settings),
        **extras,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackendError(
            f"model {source.name}: its checkpoint lacks {len(missing)} of the model's weights, "
            f"{missing[0]} among them; it is damaged or of another architecture"
        )
    return model


def _with_random_weights(
    source: ModelSource, settings: PyTorchConfig, device: torch.device, arguments: dict[str, Any]
) -> Any:
    model_config = AutoConfig.from_pretrained(
        source.location,
        revision=source.revision,
        trust_remote_code=arguments["trust_remote_code"],
    )
    is_dispatched = settings.device_map is not None and not _is_device(settings.device_map)
    with torch.device("cpu" if is_dispatched else device):
        model = AutoModelForCausalLM.from_config(model_config, **arguments)
    if not is_dispatched:
        return model.to(device)
    from accelerate import dispatch_model, infer_auto_device_map

    unsplit_modules = getattr(model, "_no_split_modules", None)
    device_map = infer_auto_device_map(
        model,
        max_memory=_max_memory(settings),
        no_split_module_classes=list(unsplit_modules) if unsplit_modules else None,
    )
    return dispatch_model(model, device_map=device_map)


def _is_device(name: str) -> bool:
    return name.partition(":")[0] in ("cpu", "cuda")


def _placement(settings: PyTorchConfig, device: torch.device) -> dict[str, Any]:
    if (settings.tensor_parallel_size or 1) > 1:
        from transformers.distributed import DistributedConfig

        plan = DistributedConfig(tp_plan="auto", tp_size=settings.tensor_parallel_size)
        return {"distributed_config": plan}
    if settings.device_map is None and device.type == "cpu":
        return {}
    device_map: Any = settings.device_map
    if device_map is None or _is_device(device_map):
        device_map = {"": str(device)}
    arguments = {"device_map": device_map}
    max_memory = _max_memory(settings)
    return arguments if max_memory is None else arguments | {"max_memory": max_memory}


def _max_memory(settings: PyTorchConfig) -> dict[str | int, str | int] | None:
    if settings.max_memory is None:
        return None
    return {
        int(key) if key.isdecimal() else key: value for key, value in settings.max_memory.items()
    }


def _quantization(config: ExperimentConfig, settings: PyTorchConfig) -> dict[str, Any]:
    if not (settings.load_in_4bit or settings.load_in_8bit):
        return {}
    from transformers import BitsAndBytesConfig

    options: dict[str, Any] = {
        "load_in_4bit": bool(settings.load_in_4bit),
        "load_in_8bit": bool(settings.load_in_8bit),
    }
    if settings.load_in_4bit:
        # bitsandbytes computes in fp32 unless configured, whatever the precision asked for.
        compute_dtype = settings.bnb_4bit_compute_dtype or DTYPES[config.precision]
        options["bnb_4bit_compute_dtype"] = getattr(torch, compute_dtype)
        if settings.bnb_4bit_quant_type is not None:
            options["bnb_4bit_quant_type"] = settings.bnb_4bit_quant_type
        if settings.bnb_4bit_use_double_quant is not None:
            options["bnb_4bit_use_double_quant"] = settings.bnb_4bit_use_double_quant
    return {"quantization_config": BitsAndBytesConfig(**options)}


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    eos = model.generation_config.eos_token_id if model.generation_config else None
    eos = model.config.get_text_config().eos_token_id if eos is None else eos
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, list) else (eos,)


def _with_adapter(model: Any, lora: LoraConfig) -> Any:
    from peft import PeftModel

    folder = lora.adapter_path and str(Path(lora.adapter_path).expanduser())
    location = folder or lora.adapter_id
    with (
        failing_as(f"LoRA adapter {location} cannot be put on the model"),
        warnings.catch_warnings(),
    ):
        # PEFT asks transformers 5 by names that it deprecates; nothing a study can change.
        warnings.simplefilter("ignore", FutureWarning)
        adapted_model = PeftModel.from_pretrained(model, location)
    return adapted_model.merge_and_unload() if lora.merge_weights else adapted_model


def _compile(model: Any, settings: PyTorchConfig) -> None:
    if not settings.torch_compile:
        return
    options: dict[str, Any] = {}
    if settings.torch_compile_mode is not None:
        options["mode"] = settings.torch_compile_mode
    if settings.torch_compile_backend is not None:
        options["backend"] = settings.torch_compile_backend
    model.forward = torch.compile(model.forward, **options)
