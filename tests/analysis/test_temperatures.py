"""A run that began warmer or cooler than the study's others on its card is marked."""

import pyarrow as pa
import pytest

from llenergymeasure.analysis.merge import flag_start_temperatures, merge_runs
from results.synthetic import make_plan, make_result, write_plan, write_result


def row(celsius, *, card="GPU-1", host="a", kind="measured", validity=()):
    return {
        "host": host,
        "gpu_uuid": card,
        "kind": kind,
        "start_temperature_celsius": celsius,
        "validity": list(validity),
    }


def codes(*rows):
    table = pa.Table.from_pylist(list(rows)).cast(
        pa.schema(
            [
                ("host", pa.string()),
                ("gpu_uuid", pa.string()),
                ("kind", pa.string()),
                ("start_temperature_celsius", pa.float64()),
                ("validity", pa.list_(pa.string())),
            ]
        )
    )
    return flag_start_temperatures(table)["validity"].to_pylist()


@pytest.mark.parametrize(
    ("odd", "marked"), [(38.0, True), (46.0, True), (39.0, False), (45.0, False)]
)
def test_three_degrees_are_the_band(odd, marked):
    found = codes(row(42.0), row(odd), row(42.0), row(41.0), row(42.0))
    assert found == [[], ["temperature_drift"] if marked else [], [], [], []]


def test_cards_are_compared_with_themselves_alone():
    warm, cool = [row(60.0)] * 3, [row(35.0, card="GPU-2")] * 3
    assert codes(*warm, *cool, *[row(35.0, host="b")] * 3) == [[]] * 9


def test_codes_that_stand_there_stay():
    found = codes(row(40.0), row(40.0), row(50.0, validity=["throttled", "temperature_drift"]))
    assert found[2] == ["temperature_drift", "throttled"]


def test_what_was_not_measured_is_not_marked():
    assert codes(row(40.0), row(40.0), row(50.0, kind="estimated"), row(None)) == [[]] * 4


def test_the_table_marks_the_run_and_its_record_stays(tmp_path):
    plan = make_plan([{"model": "tiny-llama"}], [], cycles=3)
    write_plan(tmp_path, plan)
    for run, celsius in zip(plan["runs"], (30.0, 41.0, 42.0), strict=True):
        gpu = {"uuid": "GPU-1", "start_temperature_celsius": celsius}
        write_result(tmp_path, make_result(run, environment={"gpus": [gpu], "host": "a"}))
    runs = merge_runs(plan, tmp_path)
    assert runs["validity"].to_pylist() == [["temperature_drift"], [], []]
