"""A results folder that somebody else has prepared: whatever stands in it, nobody waits for it."""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure import files, parquet
from llenergymeasure.analysis import merge_cache
from llenergymeasure.analysis.tables import read_plan, read_table
from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.config.strict_yaml import MAX_BYTES
from llenergymeasure.errors import BackendError, ConfigurationError, LlemError, ResultsError
from llenergymeasure.files import READ_LIMIT_BYTES, TEXT_LIMIT_BYTES, load_json, load_text, sha256
from llenergymeasure.memory_limit import within_memory
from llenergymeasure.plan import Plan
from llenergymeasure.recording.samples import METADATA_KEY, Header, read_samples
from llenergymeasure.results.columns import RUN_SCHEMA
from llenergymeasure.results.complete import Stamp, is_complete
from llenergymeasure.results.layout import RUNS_NAME, RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.results.record_files import read_run_row
from llenergymeasure.run.engine.phase_marks import current_phase, read_marks
from llenergymeasure.workflow.manifest import run_state
from llenergymeasure.workflow.resume import read_call
from llenergymeasure.workflow.snakemake_log import read_job_messages
from llenergymeasure.workload.datasets.files import read_file
from llenergymeasure.workload.models.resolve import model_json
from support.memory import memory_peak


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(READ_LIMIT_BYTES + 1)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


ODD = pytest.mark.parametrize("make", [pipe, device, huge, deep])


@ODD
def test_in_the_place_of_a_run_s_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    run = RunFolder(tmp_path / "runs" / "0123456789ab" / "1")
    run.path.mkdir(parents=True)
    make(run.result)
    assert not is_complete(run)
    assert run_state(run)["status"] == "lost"
    run.result.unlink()
    run.work.mkdir()
    make(run.marks)
    assert current_phase(run.marks) is None
    if make is not huge:
        assert read_marks(run.marks) == []
    make(run.outcome)
    with suppress(OSError):  # said in one line
        assert read_outcome(run.outcome).status == "lost"


def test_a_folder_in_the_place_of_marks_and_a_file_in_that_of_their_folder(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    assert read_marks(tmp_path) == read_marks(tmp_path / "work" / "marks.jsonl") == []


@ODD
def test_in_the_place_of_a_study_s_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = StudyFolder(tmp_path)
    make(folder.plan)
    with pytest.raises(ResultsError):
        Plan.read(folder.plan)
    with pytest.raises((ResultsError, OSError)):
        read_plan(folder.plan)
    make(tmp_path / RUNS_NAME)
    with pytest.raises(ResultsError):
        read_table(tmp_path, RUNS_NAME)
    make(tmp_path / ".call.json")
    with suppress(LlemError):
        assert read_call(folder) is None


@pytest.mark.parametrize("make", [pipe, device])
def test_nothing_without_an_end_is_hashed_or_read_as_a_recording(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "samples.arrows"
    make(path)
    with pytest.raises(OSError, match="no file that can be read"):
        sha256(path)
    with pytest.raises(ResultsError, match="no file that can be read"):
        read_samples(path)


def test_no_text_is_read_that_is_too_large_for_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(TEXT_LIMIT_BYTES + 1)
    with memory_peak() as peak:
        with pytest.raises(BackendError, match="larger than"):
            model_json(path)
        with pytest.raises(ConfigurationError, match="larger than"):
            read_calibration(path)
        with pytest.raises(ResultsError):
            Plan.read(path)
        for read in (load_text, load_json):
            with pytest.raises(OSError, match="larger than"):
                read(path)
        assert read_job_messages(path) == []
        path.write_bytes(b" " * (MAX_BYTES + 1))
        with pytest.raises(ConfigurationError, match="too large"):
            read_calibration(path)
    assert peak.grown_bytes < 100_000_000


def say_one_value(path: Path, count: int) -> None:
    """Let a file that holds so many values say of itself that it has one."""
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    encoded = varint(count)
    footer = content[begin:-8].replace(encoded, varint(1, len(encoded)))
    assert footer != content[begin:-8]
    path.write_bytes(content[:begin] + footer + content[-8:])


def varint(number: int, size: int = 0) -> bytes:
    """Return a number as Parquet's footer writes it (Thrift, compact), in so many bytes or more."""
    remaining = 2 * number
    parts: list[int] = []
    while remaining > 0x7F or len(parts) + 1 < size:
        parts.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    return bytes([*parts, remaining])


def stream(table: pa.Table, path: Path) -> None:
    """Write a recording with these columns."""
    metadata = {METADATA_KEY: Header(None, None, "here", 0, "2026-01-01T00:00:00Z").to_json()}
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    schema = table.schema.with_metadata(metadata)
    with path.open("wb") as file, pa.ipc.new_stream(file, schema, options=options) as writer:
        writer.write_table(table.replace_schema_metadata(metadata))


COUNT = 10_000
TEXTS = pa.DictionaryArray.from_arrays(pa.array([0] * COUNT, pa.int32()), ["x" * 100_000])
BOMBS = {
    "texts": pa.table({"notes": TEXTS}),
    "texts in lists": pa.table({"notes": pa.ListArray.from_arrays(range(0, COUNT + 1, 2), TEXTS)}),
    "an untrue footer": pa.table({"notes": pa.ListArray.from_arrays([0, COUNT], TEXTS)}),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A low limit, and an allocator that holds nothing ready."""
    monkeypatch.setattr(files, "READ_LIMIT_BYTES", 50_000_000)
    usual = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    yield
    pa.set_memory_pool(usual)


@pytest.mark.parametrize("as_dictionary", [True, False])
@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.usefixtures("small")
def test_a_small_table_that_says_much_is_not_read_beyond_a_limit(
    tmp_path: Path, kind: str, *, as_dictionary: bool
) -> None:
    path = tmp_path / RUNS_NAME
    pq.write_table(
        BOMBS[kind],
        path,
        compression="zstd",
        store_schema=as_dictionary,
        write_statistics=False,
    )
    if "untrue" in kind:
        say_one_value(path, COUNT)
    assert path.stat().st_size < 100_000
    with memory_peak() as peak, pytest.raises(ResultsError, match=r"would take|no column"):
        read_table(tmp_path, RUNS_NAME)
    assert peak.grown_bytes < 500_000_000  # some of it the allocator had from tests before
    with pytest.raises(ResultsError, match=r"holds \d+ rows|would take more than|no column"):
        read_run_row(path)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_the_limit_of_memory_ends_with_the_last_of_several_that_read(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    (tmp_path / "a").touch()
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with within_memory(tmp_path / "a"):
            first_in.set()
            assert second_in.wait(30)
        first_out.set()

    def second() -> None:
        assert first_in.wait(30)
        with within_memory(tmp_path / "a"):
            second_in.set()
            assert first_out.wait(30)
            assert resource.getrlimit(resource.RLIMIT_AS)[0] != limits[0]

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(first), pool.submit(second)]:
            future.result()
    assert resource.getrlimit(resource.RLIMIT_AS) == limits


@pytest.mark.usefixtures("small")
def test_nor_is_a_recording_a_cache_or_a_data_set(tmp_path: Path) -> None:
    texts = TEXTS.cast(pa.string())
    stream(pa.table({"notes": texts}), tmp_path / "samples.arrows")
    rows = {field.name: pa.nulls(COUNT, field.type) for field in RUN_SCHEMA} | {"backend": texts}
    stamps = [Stamp("a", True)] * COUNT
    merge_cache.write_cache(tmp_path, pa.table(rows, schema=RUN_SCHEMA), stamps, [])
    line, chats = tmp_path / "line.jsonl", tmp_path / "chats.parquet"
    with line.open("wb") as file:
        file.truncate(1 << 30)
    chat = pa.StructArray.from_arrays([pa.nulls(COUNT, pa.string()), texts], ["role", "content"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, COUNT], chat)})
    pq.write_table(table, chats, compression="zstd")
    del rows, chat, table
    with memory_peak() as peak:
        with pytest.raises(ResultsError, match="would take more than"):
            read_samples(tmp_path / "samples.arrows")
        assert len(merge_cache.read_cache(tmp_path, [])[0]) == 0
        for data in (line, chats):
            with pytest.raises(ConfigurationError, match="would take more than"):
                read_file(data)
    assert peak.grown_bytes < 500_000_000


def test_a_large_table_of_texts_in_lists_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several row groups, with texts of few kinds and of more than a dictionary holds."""
    few = [["a", "b"], [], None, ["a"]] * 2_500
    many = [[f"note {number} " + "x" * 300] for number in range(10_000)]
    table = pa.table({"experiment": ["id"] * 10_000, "validity": few, "notes": many})
    path = tmp_path / "large.parquet"
    pq.write_table(table, path, row_group_size=4_000)
    monkeypatch.setattr(files, "READ_LIMIT_BYTES", 200_000_000)
    assert parquet.read_parquet(path).equals(table)
