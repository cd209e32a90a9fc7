"""What the recorder itself has cost, by its own account."""

from dataclasses import dataclass

import numpy as np

from llenergymeasure.recording.samples import HOST_DEVICE, RECORDER, Samples


@dataclass(frozen=True)
class RecorderCost:
    """The recorder's own cost.

    Attributes:
        cpu_share: CPU time over time, of one core; None if it was not recorded for long enough.
        read_s: mean time of a read, by sensor.
        rows: rows written.
    """

    cpu_share: float | None
    read_s: dict[str, float]
    rows: int


def recorder_cost(samples: Samples) -> RecorderCost:
    """Return what a recording says of its own cost."""
    cpu = samples.series(HOST_DEVICE, RECORDER, "recorder_cpu_s")
    share = None
    if len(cpu) > 1:
        share = float(cpu.value[-1] - cpu.value[0]) / (float(cpu.t_ns[-1] - cpu.t_ns[0]) / 1e9)
    reads: dict[str, list[float]] = {}
    for info in samples.header.sensors:
        found = samples.series(info.device, info.sensor, "read_s").value
        reads.setdefault(info.sensor, []).extend(found.tolist())
    means = {sensor: float(np.mean(values)) for sensor, values in reads.items() if values}
    return RecorderCost(share, means, len(samples.table))
