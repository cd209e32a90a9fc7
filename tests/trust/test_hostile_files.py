"""What a study makes its reader do is bounded, and shows nothing of other files."""

import os
import random
import resource
import time
from contextlib import suppress
from pathlib import Path

import pytest

from llenergymeasure.config import strict_yaml
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.arrivals_trace import read_trace
from llenergymeasure.workload.prompts import read_dataset
from llenergymeasure.workload.studies import load_study
from support.studies import write_study

SECRET = "root:$6$c4n4ry:19000:0:99999:7:::"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{n}: 1\n" for n in range(200_000)),
        "".join(f"k{n}: 1\n" for n in range(strict_yaml.MAX_KEYS + 1)),
        "model: tiny-llama\nn: 0x" + "f" * 200_000,
        "model: tiny-llama\nn: " + "9" * 200_000,
        "model: tiny-llama\nn: 1." + "9" * 200_000,
        "model: tiny-llama\nn: 0b" + "1" * 5_000,
        "model: tiny-llama\nsweep: {" + ", ".join(f"x{n}: [1]" for n in range(50_000)) + "}",
        "a: &a [x]\n" + "".join(f"k{n}: *a\n" for n in range(100_000)),
        "[" * 100_000,
        "x: " + "y" * strict_yaml.MAX_BYTES,
    ],
    ids=range(10),
)
def test_a_hostile_study_is_refused_soon(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigurationError) as refused:
        load_study(path)
    assert time.monotonic() - began < 20
    assert len(str(refused.value)) < 4_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_files_of_odd_text_end_in_a_word(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = write_study(tmp_path, sweep={"n": [1, 2]}).read_text()
    path = tmp_path / "odd.yaml"
    for _ in range(70):
        text = list(whole)
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(text))
            piece = chance.choice(["\0", "\x1b", "&a", "*a", "<<: ", "{", "[", "1e999", "9" * 500])
            text[place : place + chance.randint(0, 4)] = piece
        path.write_text("".join(text))
        with suppress(ConfigurationError):
            load_study(path)


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


@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.csv", "pipe"])
def test_a_pipe_is_no_data_set_and_nobody_waits_for_it(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigurationError, match="a pipe or a device"):
        read_dataset(str(tmp_path / name))
    with pytest.raises(ConfigurationError, match="a pipe or a device"):
        read_trace(tmp_path / name)


def test_a_device_is_no_data_set() -> None:
    with pytest.raises(ConfigurationError, match="a pipe or a device"):
        read_dataset("/dev/zero")
