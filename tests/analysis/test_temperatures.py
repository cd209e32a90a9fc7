"""A run that began warmer or cooler than the study's others on its card is marked."""

import pyarrow as pa
import pytest

from llenergymeasure.analysis.merge import flag_start_temperatures, merge_runs
from llenergymeasure.results.columns import RUN_SCHEMA
from results.synthetic import make_plan, write_runs

COLUMNS = ("host", "gpu_uuid", "kind", "start_temperature_celsius", "validity")
DRIFT = "temperature_drift"


def row(celsius, *, card="GPU-1", host="a", kind="measured", validity=()):
    return dict(zip(COLUMNS, (host, card, kind, celsius, list(validity)), strict=True))


@pytest.mark.parametrize(
    ("rows", "marked"),
    [
        ([row(42.0), row(38.0), row(42.0), row(41.0), row(42.0)], {1: [DRIFT]}),
        ([row(42.0), row(46.0), row(42.0), row(41.0), row(42.0)], {1: [DRIFT]}),
        ([row(42.0), row(39.0), row(42.0), row(41.0), row(42.0)], {}),
        ([row(42.0), row(45.0), row(42.0), row(41.0), row(42.0)], {}),
        ([*[row(60.0)] * 3, *[row(35.0, card="GPU-2")] * 3, *[row(35.0, host="b")] * 3], {}),
        ([row(40.0), row(40.0), row(50.0, validity=["throttled"])], {2: [DRIFT, "throttled"]}),
        ([row(40.0), row(40.0), row(50.0, validity=[DRIFT])], {2: [DRIFT]}),
        ([row(40.0), row(40.0), row(50.0, kind="estimated"), row(None)], {}),
    ],
    ids=[
        *("4 below", "4 above", "3 below", "3 above", "each card by itself"),
        *("other codes stay", "marked already", "not measured"),
    ],
)
def test_more_than_three_degrees_from_the_median_are_marked(rows, marked):
    schema = pa.schema([RUN_SCHEMA.field(name) for name in COLUMNS])
    found = flag_start_temperatures(pa.Table.from_pylist(rows, schema=schema))
    assert {n: codes for n, codes in enumerate(found["validity"].to_pylist()) if codes} == marked


def test_the_table_marks_the_run(tmp_path):
    plan = make_plan([{"model": "tiny-llama"}], [], cycles=3)

    def made(run):
        gpu = {"uuid": "GPU-1", "start_temperature_celsius": (30.0, 41.0, 42.0)[run["cycle"] - 1]}
        return {"environment": {"gpus": [gpu], "host": "a"}}

    write_runs(tmp_path, plan, made)
    assert merge_runs(plan, tmp_path)["validity"].to_pylist() == [[DRIFT], [], []]
