"""The time series: written as it comes, read back whole or up to where it broke off."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from llenergymeasure.errors import ResultsError
from llenergymeasure.recording.samples import (
    METADATA_KEY,
    SCHEMA,
    STOPPED,
    Header,
    SampleRow,
    SamplesWriter,
    make_samples,
    read_samples,
    write_samples,
)
from llenergymeasure.sensors.base import SensorInfo
from support.recording import header

INFO = SensorInfo(
    device="GPU-1",
    name="card",
    sensor="nvml",
    kind="measured",
    scope="gpu",
    quantities=("energy_counter_j", "power_instant_w"),
    counter_resolution_j=0.001,
    power_limit_w={"enforced": 700.0},
)
TICK = SampleRow(2000, "GPU-1", "nvml", "energy_counter_j", 1.5, 1000)
POWER = SampleRow(1500, "GPU-1", "nvml", "power_instant_w", 300.0)
GONE = SampleRow(3000, "GPU-2", "nvml", "unavailable", None, note="energy_counter_j: GPU is lost")
END = SampleRow(4000, "host", "recorder", "heartbeat", note=STOPPED)


def _write(path: Path, *batches: list[SampleRow]) -> Header:
    head = header(INFO)
    writer = SamplesWriter(path, head)
    for batch in batches:
        for row in batch:
            writer.append(row)
        writer.flush()
    writer.close()
    return head


def test_what_was_written_is_read_back_in_time_order(tmp_path: Path) -> None:
    path = tmp_path / "samples.arrows"
    head = _write(path, [TICK, POWER], [GONE], [END])

    samples = read_samples(path)

    assert samples.header == head
    assert samples.complete
    rows = samples.table.to_pylist()
    assert [row["t_ns"] for row in rows] == [1500, 2000, 3000, 4000]
    assert rows[1] == {
        "t_ns": 2000,
        "t_before_ns": 1000,
        "device": "GPU-1",
        "sensor": "nvml",
        "quantity": "energy_counter_j",
        "value": 1.5,
        "note": None,
    }
    assert rows[2]["value"] is None
    assert rows[2]["note"] == "energy_counter_j: GPU is lost"


def test_a_stream_cut_anywhere_gives_every_whole_batch_before_the_cut(tmp_path: Path) -> None:
    path, cut = tmp_path / "samples.arrows", tmp_path / "cut.arrows"
    sizes = []
    writer = SamplesWriter(path, header(INFO))
    sizes.append(path.stat().st_size)
    for row in (POWER, TICK, GONE):
        writer.append(row)
        writer.flush()
        sizes.append(path.stat().st_size)
    content = path.read_bytes()
    writer.close()

    for length in range(sizes[0], sizes[-1] + 1, 31):
        cut.write_bytes(content[:length])
        complete = sum(size <= length for size in sizes[1:])
        samples = read_samples(cut)
        assert len(samples.table) == complete
        assert not samples.complete


def test_parquet_keeps_rows_header_and_completeness(tmp_path: Path) -> None:
    stream, parquet = tmp_path / "samples.arrows", tmp_path / "samples.parquet"
    _write(stream, [TICK, POWER, GONE])
    samples = read_samples(stream)

    write_samples(samples, parquet)
    again = read_samples(parquet)

    assert again.table.equals(samples.table)
    assert again.table.schema == SCHEMA
    assert again.header == samples.header
    assert again.complete is False


def test_a_series_holds_one_quantity_of_one_device() -> None:
    other = SampleRow(2500, "GPU-2", "nvml", "energy_counter_j", 9.0, 2400)
    late = SampleRow(2600, "GPU-1", "nvml", "energy_counter_j", None)
    samples = make_samples([late, TICK, POWER, other], header(INFO))

    series = samples.series("GPU-1", "nvml", "energy_counter_j")

    assert series.t_ns.tolist() == [2000, 2600]
    assert series.t_before_ns.tolist() == [1000, 2600]
    assert series.value[0] == 1.5
    assert np.isnan(series.value[1])
    assert len(samples.series("GPU-3", "nvml", "energy_counter_j")) == 0


def test_a_header_of_a_later_version_is_refused_and_new_keys_are_passed_over() -> None:
    content = json.loads(header(INFO).to_json())
    content["sensors"][0]["later"] = 1
    content["later"] = 2
    assert Header.from_json(json.dumps(content)) == header(INFO)

    content["schema_version"] = 2
    with pytest.raises(ResultsError, match="schema_version 2"):
        Header.from_json(json.dumps(content))


@pytest.mark.parametrize("change", [("started_at", "stasted_at"), ('"nvml"', "nvml"), ("{", "[")])
def test_a_changed_byte_of_the_header_is_said(change: tuple[str, str]) -> None:
    text = header(INFO).to_json().replace(*change, 1)
    with pytest.raises(ResultsError, match="header of the samples is damaged"):
        Header.from_json(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", ""), (b"not a recording", ""), (None, ": no such file")],
)
def test_what_is_not_a_recording_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "samples.arrows"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ResultsError, match=rf"samples\.arrows{said}"):
        read_samples(path)


@pytest.mark.parametrize(
    "other", [{"t_ns": "today"}, {"t_ns": [1]}, {"device": 1}, {"device": {"name": "card"}}]
)
@pytest.mark.parametrize("with_header", [False, True])
def test_another_programs_stream_is_named(
    tmp_path: Path, with_header: bool, other: dict[str, object]
) -> None:
    """Columns of our names, but of other types, and perhaps a header of ours."""
    path = tmp_path / "samples.arrows"
    ours = {"t_ns": 1, "device": "card", "sensor": "nvml", "quantity": "power_w"}
    columns = {name: [(ours | other).get(name)] for name in SCHEMA.names}
    table = pa.table(columns)
    if with_header:
        table = table.replace_schema_metadata({METADATA_KEY: header(INFO).to_json()})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)

    with pytest.raises(ResultsError, match=r"samples\.arrows: not a recording"):
        read_samples(path)
