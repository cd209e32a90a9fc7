"""What is added to each of vLLM's workers, wherever its process is (``worker_extension_cls``).

The names begin with ``llem_`` because vLLM refuses an extension that hides a worker's own.
"""

from typing import Any


class WorkerExtension:
    """Asks a worker for its device and memory, and waits for it."""

    device: Any
    vllm_config: Any

    def llem_uuid(self) -> str | None:
        """Return the UUID of the worker's GPU; None on a CPU."""
        if self.device.type != "cuda":
            return None
        import torch

        return f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def llem_synchronize(self) -> None:
        """Wait until the worker's GPU has done all it was given."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.device)

    def llem_peak_memory_bytes(self) -> int | None:
        """Return the peak memory of the worker's GPU since the last call; None on a CPU."""
        if self.device.type != "cuda":
            return None
        import torch

        peak = int(torch.cuda.max_memory_allocated(self.device))
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak

    def llem_describe(self) -> dict[str, Any]:
        """Return what only the worker knows: its threads, and the attention it computes by."""
        import torch

        layers = self.vllm_config.compilation_config.static_forward_context.values()
        attention = [layer for layer in layers if hasattr(layer, "get_attn_backend")]
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "attention": sorted({layer.get_attn_backend().get_name() for layer in attention}),
        }
