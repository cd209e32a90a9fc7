"""Who else computes on this machine's other GPUs: a neighbour shares power, air and processors."""

from collections.abc import Collection
from typing import Any

from llenergymeasure.machine.gpus.inventory import compute_processes, discover


def at_work_beside(own: Collection[str]) -> list[dict[str, Any]]:
    """Return each GPU but the run's own that has a compute process now, and how many it has.

    Only those that the scheduler or container lets this process see; none where NVML is not there.

    Args:
        own: UUIDs of the run's cards.
    """
    import pynvml

    found = []
    for gpu in discover().gpus:
        if gpu.uuid in own or gpu.unavailable is not None:
            continue
        try:
            processes = len(compute_processes(gpu))
        except pynvml.NVMLError:
            continue
        if processes:
            found.append({"uuid": gpu.uuid, "processes": processes})
    return found
