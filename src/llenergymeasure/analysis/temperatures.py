"""Whether runs began equally warm: a warmer chip draws more for the same work.

It takes all runs of a study: the first one of a morning is the odd one out, and only the
others show it. So it is looked at when they are merged, and the runs' own records stay as they are.
"""

import statistics
from collections import defaultdict

import pyarrow as pa

from llenergymeasure.results.table import RUN_SCHEMA

BAND_CELSIUS = 3.0
"""How far from the others' a run may start. NVML reports whole degrees; leakage power grows by some
per cent over this much."""

CODE = "temperature_drift"


def flag_start_temperatures(runs: pa.Table) -> pa.Table:
    """Return the runs with ``temperature_drift`` on those that began warmer or cooler than most.

    Each is compared with the median of all runs of the study on the same cards. Runs whose energy
    was not measured, or that have no temperature, are left as they are.

    Args:
        runs: one row a run, with the fixed columns.
    """
    names = ("host", "gpu_uuid", "kind", "start_temperature_celsius", "validity")
    rows = runs.select(names).to_pylist()
    by_cards: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["start_temperature_celsius"] is not None:
            by_cards[str(row["host"]), str(row["gpu_uuid"])].append(
                row["start_temperature_celsius"]
            )
    usual = {cards: statistics.median(values) for cards, values in by_cards.items()}
    flagged = [
        _with_code(row["validity"]) if _is_off(row, usual) else row["validity"] for row in rows
    ]
    field = RUN_SCHEMA.field("validity")
    place = runs.schema.get_field_index("validity")
    return runs.set_column(place, field, pa.array(flagged, field.type))


def _is_off(row: dict[str, object], usual: dict[tuple[str, str], float]) -> bool:
    started = row["start_temperature_celsius"]
    if not isinstance(started, float) or row["kind"] != "measured":
        return False
    return abs(started - usual[str(row["host"]), str(row["gpu_uuid"])]) > BAND_CELSIUS


def _with_code(codes: list[str] | None) -> list[str]:
    return sorted({*(codes or ()), CODE})
