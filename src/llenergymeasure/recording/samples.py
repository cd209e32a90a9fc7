"""The sensors' time series: one long table, streamed while recording, Parquet afterwards.

Every row is one thing one sensor said at one moment. All times are CLOCK_MONOTONIC in
nanoseconds on the host that recorded. What was not seen has no row, or a row `unavailable`
with its reason: never a zero.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import open_file, open_to_read, replacing
from llenergymeasure.memory_limit import within_memory
from llenergymeasure.sensors.base import Quantity, SensorInfo

SCHEMA_VERSION = 1
METADATA_KEY = b"llem"

RECORDER = "recorder"
"""The sensor name of the recorder's rows about itself; their device is ``host``."""
HOST_DEVICE = "host"
STOPPED = "stopped"
"""The note on the last heartbeat of a recorder that ended well."""

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("t_before_ns", pa.int64()),
        pa.field("device", _TEXT, nullable=False),
        pa.field("sensor", _TEXT, nullable=False),
        pa.field("quantity", _TEXT, nullable=False),
        pa.field("value", pa.float64()),
        pa.field("note", pa.string()),
    ]
)


@dataclass(frozen=True)
class Header:
    """What stands before the rows: where and when they were taken, and by which sensors.

    Attributes:
        boot_id: the kernel's id of this boot; time stamps of another boot do not compare.
        time_namespace: as the kernel names it; None where it cannot be read.
        host: the machine's name.
        started_monotonic_ns: CLOCK_MONOTONIC at the start.
        started_at: the same moment as UTC in ISO 8601.
        sensors: every sensor and device that was asked for, the unavailable ones too.
    """

    boot_id: str | None
    time_namespace: str | None
    host: str
    started_monotonic_ns: int
    started_at: str
    sensors: tuple[SensorInfo, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the JSON text kept in the schema's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Header":
        """Parse the JSON text kept in the schema's metadata.

        Raises:
            ResultsError: it was written by a version this one cannot read, or is damaged.
        """
        try:
            content = json.loads(text)
            version = content.get("schema_version")
            if version == SCHEMA_VERSION:
                values = {
                    item.name: content[item.name] for item in fields(cls) if item.name in content
                }
                values["sensors"] = tuple(map(SensorInfo.from_json, values.get("sensors", ())))
                return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResultsError(f"the header of the samples is damaged: {error}") from None
        raise ResultsError(
            f"samples of schema_version {version!r}; this version reads {SCHEMA_VERSION}"
        )


@dataclass(frozen=True)
class SampleRow:
    """One row of the table; see the module for the columns' meaning."""

    t_ns: int
    device: str
    sensor: str
    quantity: Quantity
    value: float | None = None
    t_before_ns: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Series:
    """One quantity of one device by one sensor, in time order.

    Attributes:
        t_ns: int64, shape (n,).
        value: float64, shape (n,); a missing value is NaN.
        t_before_ns: int64, shape (n,); for a change of value the time of the last read that
            still saw the old one, else equal to ``t_ns``.
    """

    t_ns: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    t_before_ns: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t_ns)


@dataclass(frozen=True)
class Samples:
    """A recording as read back.

    Attributes:
        table: the rows, of ``SCHEMA``, in time order.
        header: what stands before them.
        complete: whether the recorder ended well; False after a crash or while it still runs.
    """

    table: pa.Table
    header: Header
    complete: bool

    def rows(self, **names: str) -> pa.Table:
        """Return the rows with such a device, sensor or quantity."""
        masks = [_mask(self.table, column, name) for column, name in names.items()]
        return self.table.filter(pa.array(np.logical_and.reduce(masks)))

    def series(self, device: str, sensor: str, quantity: Quantity) -> Series:
        """Return one series, empty if there is none."""
        rows = self.rows(device=device, sensor=sensor, quantity=quantity)
        t_ns = rows["t_ns"].to_numpy()
        t_before = rows["t_before_ns"].combine_chunks()
        return Series(
            t_ns=t_ns,
            value=rows["value"].to_numpy(zero_copy_only=False),
            t_before_ns=np.where(t_before.is_null(), t_ns, t_before.fill_null(0)),
        )


def recorder_cost(samples: Samples) -> dict[str, Any]:
    """Return what a recording says of the recorder's own cost.

    Returns:
        ``cpu_share``: CPU time over time, of one core; None if it was not recorded for long enough.
        ``read_s``: mean time of a read, by sensor. ``rows``: rows written.
    """
    cpu = samples.series(HOST_DEVICE, RECORDER, "recorder_cpu_s")
    share = None
    if len(cpu) > 1:
        share = float(cpu.value[-1] - cpu.value[0]) / (float(cpu.t_ns[-1] - cpu.t_ns[0]) / 1e9)
    reads: dict[str, list[float]] = {}
    for info in samples.header.sensors:
        means_s = samples.series(info.device, info.sensor, "read_s").value
        reads.setdefault(info.sensor, []).extend(means_s.tolist())
    means = {sensor: float(np.mean(values)) for sensor, values in reads.items() if values}
    return {"cpu_share": share, "read_s": means, "rows": len(samples.table)}


def keep_arrow_from_importing_pandas() -> None:
    """Let Arrow find no pandas in this process, for which it looks at the first list it is given.

    It would import it, in a third of a second, to see whether the list is one of its columns.
    Others here may import it still.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        pa.array([])
        sys.meta_path.remove(_NoPandas)


class _NoPandas(MetaPathFinder):
    """Says of pandas that it is not installed."""

    @classmethod
    def find_spec(cls, name: str, *_: Any) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


class SamplesWriter:
    """Streams rows to an Arrow IPC file, a batch per ``flush``.

    What was flushed survives the end of the process, however it comes. The header is written
    at once.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Open the file, in a folder that exists."""
        self._rows: list[SampleRow] = []
        self._names: dict[str, dict[str, int]] = {
            name: {} for name in ("device", "sensor", "quantity")
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._file = os.fdopen(open_file(path, flags), "wb")
        # Deltas, so that the text of a name is written once and earlier batches stay valid.
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        schema = SCHEMA.with_metadata({METADATA_KEY: header.to_json()})
        self._stream = pa.ipc.new_stream(self._file, schema, options=options)
        # The header goes out with the first batch, so there is an empty one.
        self._stream.write_batch(_batch([], self._names))
        self._file.flush()

    def append(self, row: SampleRow) -> None:
        """Keep a row for the next batch."""
        self._rows.append(row)

    def flush(self) -> None:
        """Hand all rows kept so far to the kernel as one batch."""
        if not self._rows:
            return
        self._stream.write_batch(_batch(self._rows, self._names))
        self._file.flush()
        self._rows = []

    def close(self) -> None:
        """Flush, and end the stream so that a reader sees it as complete."""
        self.flush()
        self._stream.close()
        self._file.close()


def read_samples(path: Path) -> Samples:
    """Read a recording, ``.arrows`` or ``.parquet``.

    A stream that breaks off, because its recorder was killed or still runs, gives every whole
    batch before the break.

    Raises:
        ResultsError: the file is missing, or not a recording.
    """
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_stream(path)
    except FileNotFoundError:
        raise ResultsError(f"{path}: no such file; nothing was recorded there") from None
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise ResultsError(f"{path}: not a recording of samples: {error}") from error


def write_samples(samples: Samples, path: Path) -> None:
    """Write a recording as Parquet, whole or not at all."""
    import pyarrow.parquet as pq

    table = samples.table.replace_schema_metadata(
        {METADATA_KEY: samples.header.to_json(), b"llem_complete": json.dumps(samples.complete)}
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def make_samples(rows: Iterable[SampleRow], header: Header, *, complete: bool = True) -> Samples:
    """Build a recording in memory, as if it had been written and read back."""
    names: dict[str, dict[str, int]] = {name: {} for name in ("device", "sensor", "quantity")}
    table = pa.Table.from_batches([_batch(list(rows), names)], schema=SCHEMA)
    return Samples(_sorted_by_time(table), header, complete)


def _read_stream(path: Path) -> Samples:
    with open_to_read(path) as file, within_memory(path):
        stream = pa.ipc.open_stream(file)
        header = Header.from_json((stream.schema.metadata or {})[METADATA_KEY])
        table = pa.Table.from_batches(_whole_batches(stream), schema=stream.schema)
        table.validate(full=True)  # Arrow believes what it reads
        return Samples(_sorted_by_time(table), header, _recorder_stopped_normally(table))


def _whole_batches(stream: pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            yield stream.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return


def _read_parquet(path: Path) -> Samples:
    from llenergymeasure.parquet import read_parquet

    if not path.exists():
        raise FileNotFoundError(path)
    table = read_parquet(path)
    metadata = table.schema.metadata or {}
    header = Header.from_json(metadata[METADATA_KEY])
    complete = bool(json.loads(metadata.get(b"llem_complete", b"true")))
    return Samples(_sorted_by_time(table), header, complete)


def _recorder_stopped_normally(table: pa.Table) -> bool:
    tail = table.slice(max(0, len(table) - 100)).to_pylist()
    return any(row["quantity"] == "heartbeat" and row["note"] == STOPPED for row in tail)


def _sorted_by_time(table: pa.Table) -> pa.Table:
    table = table.replace_schema_metadata(None).cast(SCHEMA).unify_dictionaries()
    table = table.combine_chunks()
    order = np.argsort(table["t_ns"].to_numpy(), kind="stable")
    return table.take(pa.array(order))


def _mask(table: pa.Table, column: str, name: str) -> npt.NDArray[np.bool_]:
    array = table[column].combine_chunks()
    names = array.dictionary.to_pylist()
    if name not in names:
        return np.zeros(len(table), dtype=np.bool_)
    chosen: npt.NDArray[np.bool_] = np.equal(array.indices.to_numpy(), names.index(name))
    return chosen


def _batch(rows: list[SampleRow], names: dict[str, dict[str, int]]) -> pa.RecordBatch:
    """Build a batch; ``names`` maps each text column's values to codes and grows."""
    columns = {
        "t_ns": pa.array([row.t_ns for row in rows], pa.int64()),
        "t_before_ns": pa.array([row.t_before_ns for row in rows], pa.int64()),
        "value": pa.array([row.value for row in rows], pa.float64()),
        "note": pa.array([row.note for row in rows], pa.string()),
    }
    for column, codes in names.items():
        indices = [codes.setdefault(getattr(row, column), len(codes)) for row in rows]
        columns[column] = pa.DictionaryArray.from_arrays(
            pa.array(indices, pa.int32()), pa.array(list(codes), pa.string())
        )
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)
