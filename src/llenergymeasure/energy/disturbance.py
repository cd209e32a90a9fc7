"""What disturbed a window from outside: strangers on the CPUs, a stop, a suspended machine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from llenergymeasure.energy.validity import Doubt, WindowNs
from llenergymeasure.recording.samples import HOST_DEVICE, RECORDER, Samples
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.host_cpu import OTHERS_MAX, STOPS_S
from llenergymeasure.units import NS_PER_S

SUSPENDED_S = 0.1

SERVER_UNKNOWN = "the server is not the run's own: what it uses is in no one's account"


@dataclass(frozen=True)
class CpuUse:
    """Who used the CPUs over a window; None for what was not observed.

    Attributes:
        cpus: how many the run may use.
        own_cpus: how many it used, as a mean.
        others_cpus: how many others used of them.
        others_share: that over ``cpus``.
        others_share_of_machine: the same of all CPUs of the machine.
        steal_share: part of the CPUs' time that the hypervisor gave to other machines.
        throttled_share: part of its quota's periods in which the control group was held back.
        pressure_share: part of the time in which something waited for a CPU.
        unavailable: why others' use is not known.
    """

    cpus: float | None = None
    own_cpus: float | None = None
    others_cpus: float | None = None
    others_share: float | None = None
    others_share_of_machine: float | None = None
    steal_share: float | None = None
    throttled_share: float | None = None
    pressure_share: float | None = None
    unavailable: str | None = None


def cpu_use(samples: Samples, window: WindowNs, *, own_server: bool = True) -> CpuUse:
    """Return who used the CPUs over a window."""

    def rise(quantity: Quantity) -> float | None:
        return _rise(samples, quantity, window)[0]

    total_s, span_s = _rise(samples, "cpu_total_s", window)
    busy_s, own_s = rise("cpu_busy_s"), rise("cpu_own_s")
    if not total_s or busy_s is None or own_s is None:
        return CpuUse(unavailable="the recording does not say what the CPUs did")
    machine_busy_s = rise("machine_busy_s") or busy_s
    machine_s = rise("machine_total_s") or total_s
    usage = CpuUse(
        cpus=total_s / span_s,
        own_cpus=own_s / span_s,
        steal_share=_ratio(rise("cpu_steal_s"), total_s),
        throttled_share=_ratio(rise("quota_throttled"), rise("quota_periods")),
        pressure_share=_ratio(rise("cpu_pressure_s"), span_s),
    )
    if not own_server:
        return replace(usage, unavailable=SERVER_UNKNOWN)
    # Ticks are counted by sampling, processes to the nanosecond: a small difference is noise.
    others_s = max(busy_s - own_s, 0.0)
    return replace(
        usage,
        others_cpus=others_s / span_s,
        others_share=others_s / total_s,
        others_share_of_machine=max(machine_busy_s - own_s, 0.0) / machine_s,
    )


def cpu_doubts(usage: CpuUse, *, cpu_metered: bool) -> Iterator[Doubt]:
    """Yield whether strangers took too much of the CPUs.

    Args:
        usage: over the window.
        cpu_metered: whether the energy is measured and that of the CPUs: then strangers' work is
            in it, and the run has ``other_process`` too.
    """
    shares = [
        (usage.others_share, "other processes used {:.1f} % of the CPUs that the run may use"),
        (usage.steal_share, "other virtual machines took {:.1f} % of the CPUs' time"),
        (usage.throttled_share, "the control group's quota held the run back {:.1f} % of its time"),
    ]
    reasons = [text.format(100 * share) for share, text in shares if share and share > OTHERS_MAX]
    machine_share = usage.others_share_of_machine or 0.0
    if cpu_metered and machine_share > OTHERS_MAX:
        reason = f"other processes used {100 * machine_share:.1f} % of the machine's CPUs"
        reasons = reasons or [reason]
        yield Doubt("other_process", f"{reason}, and their energy is in the reading")
    if reasons:
        yield Doubt("cpu_contended", "; ".join(reasons))


def stall_doubts(samples: Samples, window: WindowNs) -> Iterator[Doubt]:
    """Yield whether the machine was suspended, or a process of the run was stopped."""
    ahead = samples.series(HOST_DEVICE, RECORDER, "heartbeat")
    valid = ~np.isnan(ahead.value)
    t_ns, value = ahead.t_ns[valid], ahead.value[valid]
    if len(t_ns):
        first = max(int(np.searchsorted(t_ns, window[0], side="right")) - 1, 0)
        last = min(int(np.searchsorted(t_ns, window[1])), len(t_ns) - 1)
        slept_s = float(value[last] - value[first])
        if slept_s > SUSPENDED_S:
            yield Doubt(
                "stalled", f"the machine was suspended for {slept_s:.1f} s within the window"
            )
    stops = samples.series(HOST_DEVICE, RECORDER, "stopped_pid")
    inside = stops.value[(stops.t_ns >= window[0]) & (stops.t_ns <= window[1])]
    for pid, count in zip(*np.unique(inside, return_counts=True), strict=True):
        yield Doubt(
            "stalled",
            f"process {int(pid)} of the run was stopped for about {count * STOPS_S:.1f} s of it",
        )


def _rise(samples: Samples, quantity: Quantity, window: WindowNs) -> tuple[float | None, float]:
    """Return by how much a count rose over a window, and over how many seconds of it is known."""
    series = samples.series(HOST_DEVICE, RECORDER, quantity)
    if len(series) < 2:
        return None, 0.0
    start_ns = max(window[0], int(series.t_ns[0]))
    end_ns = min(window[1], int(series.t_ns[-1]))
    if end_ns <= start_ns:
        return None, 0.0
    low, high = np.interp([start_ns, end_ns], series.t_ns, series.value)
    return float(high - low), (end_ns - start_ns) / NS_PER_S


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
