"""One model in this process."""

import gc
import json
from collections.abc import Sequence
from typing import Any

import torch

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.backends.common import failing_as, require_open
from llenergymeasure.backends.pytorch.generation import generate_batch, generation_config
from llenergymeasure.backends.pytorch.loading import LoadedModel, load_model
from llenergymeasure.backends.pytorch.parallel import ParallelEngine
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.requests import Request


def start_engine(config: ExperimentConfig) -> Engine:
    """Load the model of an experiment: into this process, or into one a device.

    Raises:
        BackendError: the engine refused a setting or the model.
    """
    settings = config.pytorch or PyTorchConfig()
    shards, replicas = settings.tensor_parallel_size or 1, settings.num_processes or 1
    if shards == replicas == 1:
        return PyTorchEngine(config)
    return ParallelEngine(config, max(shards, replicas), sliced=shards > 1)


class PyTorchEngine(Engine):
    """A loaded transformers model."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Load it into this process.

        Raises:
            BackendError: the engine refused a setting or the model.
        """
        self._config = config
        loaded = load_model(config)
        self._loaded: LoadedModel | None = loaded
        self._gpus = _gpus(loaded)
        self.batch_size: int | None = (config.pytorch and config.pytorch.batch_size) or 1
        self.devices = tuple(
            f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in self._gpus
        )

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer one batch and return after the devices are synchronised.

        Raises:
            BackendError: the engine failed, ran out of memory, or computed what is no number.
            ValueError: more requests than a batch holds.
        """
        if not requests:
            return []
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests in a batch of {self.batch_size}")
        loaded = require_open(self._loaded)
        self._check_positions(loaded, requests)
        longest = max(request.max_output_tokens for request in requests)
        too_large = (
            f"out of GPU memory with {len(requests)} requests in a batch; lower "
            "pytorch.batch_size, max_input_tokens or max_output_tokens"
        )
        with failing_as("generation failed", out_of_memory=too_large):
            options = generation_config(self._config, longest, loaded.eos_token_ids)
            return generate_batch(
                loaded.model, requests, options, loaded.device, self.synchronize, loaded.thinking
            )

    def log_likelihoods(self, token_ids: Sequence[int]) -> list[float]:
        """Return the natural logarithm of each token's likelihood after those before it.

        Raises:
            BackendError: the engine failed, ran out of memory, or the text is too long for it.
        """
        loaded = require_open(self._loaded)
        ids = torch.tensor([list(token_ids)], dtype=torch.long, device=loaded.device)
        with failing_as("scoring a text failed"), torch.inference_mode():
            logits = loaded.model(ids, use_cache=False).logits[0, :-1]
            logprobs = torch.log_softmax(logits.float(), dim=-1).gather(1, ids[0, 1:, None])
        likelihoods: list[float] = logprobs[:, 0].tolist()
        return likelihoods

    def synchronize(self) -> None:
        """Wait until the devices have done all they were given."""
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, transformers' own defaults included."""
        loaded = require_open(self._loaded)
        model = loaded.model
        synthetic = self._config.synthetic()
        length = synthetic.output_len if synthetic else self._config.max_output_tokens
        options = generation_config(self._config, length, loaded.eos_token_ids)
        model_config = json.loads(model.config.to_json_string(use_diff=False))
        model_config.pop("_name_or_path", None)
        settings = self._config.pytorch or PyTorchConfig()
        device_map = getattr(model, "hf_device_map", None) or {"": str(loaded.device)}
        return {
            "model_config": model_config,
            "generation_config": json.loads(options.to_json_string(use_diff=False)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "attn_implementation": getattr(model.config, "_attn_implementation", None),
            "parameters": loaded.parameters,
            "batch_size": self.batch_size,
            "device_map": {key: str(device) for key, device in device_map.items()},
            "num_threads": loaded.threads,
            "num_processes": 1,
            "tensor_parallel_size": settings.tensor_parallel_size or 1,
            "weights": "random" if loaded.source.random else "pretrained",
        }

    def peak_memory_bytes(self) -> int | None:
        """Return the peak memory of all its GPUs since the last call; None on a CPU."""
        if not self._gpus:
            return None
        peak = sum(torch.cuda.max_memory_allocated(gpu) for gpu in self._gpus)
        for gpu in self._gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        return peak

    def close(self) -> None:
        """Give back memory; the engine cannot be used after."""
        self._loaded = None
        gc.collect()
        if self._gpus:
            torch.cuda.empty_cache()

    def _check_positions(self, loaded: LoadedModel, requests: Sequence[Request]) -> None:
        """Refuse what overruns a table of learned positions: a crash on a GPU, without a reason."""
        model_config = loaded.model.config
        if model_config.model_type != "gpt2":
            return
        input_tokens = max(len(request.prompt_token_ids) for request in requests)
        output_tokens = max(request.max_output_tokens for request in requests)
        if input_tokens + output_tokens > model_config.n_positions:
            raise BackendError(
                f"{input_tokens} input and {output_tokens} output tokens overrun the "
                f"{model_config.n_positions} positions of this model; lower max_input_tokens or "
                "max_output_tokens"
            )


def _gpus(loaded: LoadedModel) -> list[int]:
    devices = {parameter.device for parameter in loaded.model.parameters()} | {loaded.device}
    return sorted(device.index or 0 for device in devices if device.type == "cuda")
