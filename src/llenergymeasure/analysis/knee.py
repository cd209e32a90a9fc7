"""The load at which a server no longer keeps up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.analysis.selection import Row
from llenergymeasure.validity_codes import DISQUALIFYING

TOO_MANY_FAILED = "failed_requests"


@dataclass(frozen=True)
class Knee:
    """The loads between which a server stops keeping up.

    Attributes:
        sustained_per_s: the highest rate that it kept up with (and, with an slo, kept the slo at);
            None if it did at none.
        failed_per_s: the lowest rate above it that it did not; None if it did at all.
        unknown: lower rates of which some runs say nothing, with how many of how many.
    """

    sustained_per_s: float | None
    failed_per_s: float | None
    unknown: tuple[tuple[float, int, int], ...] = ()


def find_knee(runs: Sequence[Row]) -> Knee | None:
    """Return where a server stops keeping up, from runs at several rates.

    A rate is sustained if no run at it was over-saturated, missed its slo or had too many requests
    fail, and so was every lower one: a higher rate that succeeded once by chance is no capacity.
    Runs that are disqualified for other reasons say nothing about the server, as those without a
    result, which may be those that crashed at its limit.

    Args:
        runs: rows of ``runs.parquet``.

    Returns:
        None where no run has a rate of its own, as with users in a closed loop.
    """
    is_sustained: dict[float, bool] = {}
    total, unknown = Counter[float](), Counter[float]()
    for run in runs:
        rate = run.get("serving.rate_per_s")
        if rate is None:
            continue
        total[rate] += 1
        codes = DISQUALIFYING.intersection(run["validity"] or ())
        is_lost = run["status"] != "completed" or run["over_saturated"] is None
        if is_lost or codes - {TOO_MANY_FAILED}:
            unknown[rate] += 1
            continue
        was_sustained = not run["over_saturated"] and run["slo_attained"] is not False
        is_sustained[rate] = is_sustained.get(rate, True) and was_sustained and not codes
    if not is_sustained:
        return None
    failed = min((rate for rate, sustained in is_sustained.items() if not sustained), default=None)
    lower = [rate for rate in sorted(total) if failed is None or rate < failed]
    return Knee(
        max((rate for rate in lower if rate in is_sustained), default=None),
        failed,
        tuple((rate, unknown[rate], total[rate]) for rate in lower if unknown[rate]),
    )
