"""What a study makes its reader do is bounded, and shows nothing of other files."""

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure import files
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.arrivals_trace import read_trace
from llenergymeasure.workload.datasets import record
from llenergymeasure.workload.load_study import load_study
from llenergymeasure.workload.prompts import read_dataset
from llenergymeasure.workload.tokens import _template_file
from support.memory import memory_peak
from support.studies import write_study

MOST_S = 60.0
"""Of the processor's time, a hundred times what any needs: what has no bound needs hours."""

MOST_BYTES = 500_000_000

PLACE = "PLACE"

SECRET = "root:$6$c4n4ry:19000:0:99999:7:::"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{n}: 1\n" for n in range(strict_yaml.MAX_KEYS + 1)),
        "model: tiny-llama\nn: 0x" + "f" * 200_000,
        "model: tiny-llama\nn: " + "9" * 200_000,
        "model: tiny-llama\nn: 1." + "9" * 200_000,
        "model: tiny-llama\nn: 0b" + "1" * 5_000,
        "model: tiny-llama\nsweep: {" + ", ".join(f"x{n}: [1]" for n in range(10_000)) + "}",
        "a: &a [x]\n" + "".join(f"k{n}: *a\n" for n in range(20_000)),
        "[" * 100_000,
        "x: " + "y" * strict_yaml.MAX_BYTES,
        "model: tiny-llama\nsweep: {n: {pow2: {min: 1, max: 1.0e+300}}}",
        "model: tiny-llama\nsweep: {n: {log: {min: 1, max: 1000000, num: 1000000000}}}",
        "model: tiny-llama\nsweep: {"
        + ", ".join(f"passthrough_kwargs.k{n}: [0, 1]" for n in range(60))
        + "}",
        f"model: tiny-llama\nsweep: {{n: {list(range(1, 301))}}}\nexecution: {{n_cycles: 10000}}",
        "model: tiny-llama\nn: 1000000000000000000",
    ],
    ids=range(14),
)
def test_a_hostile_study_is_refused_soon(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    began_s = time.process_time()
    with memory_peak() as peak, pytest.raises(ConfigurationError) as refused:
        make_plan(load_study(path))
    assert time.process_time() - began_s < MOST_S
    assert len(str(refused.value)) < 4_000
    assert peak.grown_bytes < MOST_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_files_of_odd_text_end_in_a_word(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    study_text = write_study(tmp_path, sweep={"n": [1, 2]}).read_text()
    path = tmp_path / "odd.yaml"
    for _ in range(70):
        text = list(study_text)
        for _ in range(chance.randint(1, 8)):
            index = chance.randrange(len(text))
            piece = chance.choice(["\0", "\x1b", "&a", "*a", "<<: ", "{", "[", "1e999", "9" * 500])
            text[index : index + chance.randint(0, 4)] = piece
        path.write_text("".join(text))
        began_s = time.process_time()
        with memory_peak() as peak, suppress(ConfigurationError):
            load_study(path)
        assert time.process_time() - began_s < MOST_S, "".join(text)
        assert peak.grown_bytes < MOST_BYTES, "".join(text)


def test_a_device_has_no_end() -> None:
    with pytest.raises(ConfigurationError, match="too large"):
        load_study(Path("/dev/zero"))


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET}\n{SECRET} x: y: z\n", f"[{SECRET}", f"- {SECRET}"]
)
def test_a_base_that_is_no_study_shows_nothing_of_itself(tmp_path: Path, text: str) -> None:
    for name in ("shadow", "shadow.yaml") if text != SECRET else ("shadow",):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match=name) as refused:
            load_study(write_study(tmp_path, base=name))
        assert "c4n4ry" not in str(refused.value)


@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.csv", "pipe", "/dev/zero"])
def test_a_pipe_or_a_device_is_no_data_set_and_nobody_waits_for_it(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if not path.exists():
        os.mkfifo(path)
    for read in (lambda: read_dataset(str(path)), lambda: read_trace(path)):
        with pytest.raises(ConfigurationError, match="a pipe or a device"):
            read()


@pytest.mark.parametrize("name", ["holes.csv", "holes.jsonl"])
def test_a_trace_of_one_line_without_an_end_takes_no_more_memory_than_may_be_taken(
    tmp_path: Path, name: str
) -> None:
    """A file with holes takes nothing of the disk, and is as long as its maker likes."""
    path = tmp_path / name
    path.write_text("timestamp,input_tokens,output_tokens\n" if name.endswith(".csv") else "")
    os.truncate(path, 1 << 33)
    with memory_peak() as peak, pytest.raises(ConfigurationError, match="a line of over 64 Mi"):
        read_trace(path)
    assert peak.grown_bytes < 1 << 29
    path.write_text('timestamp,input_tokens,output_tokens\n"')
    os.truncate(path, 1 << 33)
    with memory_peak() as peak, pytest.raises(ConfigurationError):
        read_trace(path)
    assert peak.grown_bytes < 1 << 29


def test_a_sound_trace_of_many_short_rows_is_read_whatever_memory_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of 7 bytes is a hundred or two once it is read."""
    monkeypatch.setattr(files, "READ_LIMIT_BYTES", 1 << 17)
    path = tmp_path / "trace.csv"
    rows = "".join(f"{n / 1000:.3f},1,1\n" for n in range(25_000))
    path.write_text(f"timestamp,input_tokens,output_tokens\n{rows}")
    assert len(read_trace(path)) == 25_000


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "chats.jsonl", "n": 1, "chat": {"template": PLACE}},
        {"energy": {"calibration": PLACE}},
        {"serving": {"arrivals": "trace", "trace": PLACE}},
    ],
    ids=["template", "calibration", "trace"],
)
@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
def test_what_a_study_names_is_not_waited_for_nor_read_without_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("chats.jsonl").write_text('{"messages": [{"role": "user", "content": "hello"}]}\n')
    study = write_study(tmp_path, **settings)
    study.write_text(study.read_text().replace(PLACE, str(tmp_path / place)))
    with pytest.raises(ConfigurationError, match=r"is no file that can be read|a pipe or a device"):
        make_plan(load_study(study))


@pytest.mark.parametrize("read", [read_calibration, lambda path: _template_file(str(path))])
def test_nothing_without_an_end_is_a_template_or_a_calibration(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(path)


def test_a_small_parquet_of_many_prompts_is_not_read_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dictionary says the same megabyte 3,000 times over."""
    path = tmp_path / "small.parquet"
    prompt = pa.DictionaryArray.from_arrays(pa.array([0] * 3_000), ["x" * 1_000_000])
    pq.write_table(pa.table({"prompt": prompt}), path)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(record, "MAX_CHARACTERS", 100_000_000)
    with memory_peak() as peak, pytest.raises(ConfigurationError, match="more text than"):
        read_dataset(str(path))
    assert peak.grown_bytes < MOST_BYTES
