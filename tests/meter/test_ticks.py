"""Ticks shared between processes: never torn, never waited for in vain."""

import mmap
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llenergymeasure.meter.ticks import TickBoard, TickClock

GPU = "GPU-00000001-0000-4000-8000-000000000000"
PERIOD_NS = 100_000_000


def test_a_tick_crosses_over(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    board = TickBoard(path, [GPU, "module:other"])
    with TickClock(path) as clock:
        assert clock.devices == [GPU, "module:other"]
        assert clock.last() is None
        assert clock.period_s() == 0.0

        board.tick(GPU, 123, None)
        board.tick(GPU, 456, PERIOD_NS)

        tick = clock.last()
        assert tick is not None
        assert (tick.number, tick.t_ns, tick.period_ns) == (2, 456, PERIOD_NS)
        assert clock.period_s() == pytest.approx(0.1)
        assert clock.last("module:other") is None


def test_waiting_ends_with_the_next_tick(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    board = TickBoard(path, [GPU])
    board.tick(GPU, time.monotonic_ns(), PERIOD_NS)
    due_ns = time.monotonic_ns() + PERIOD_NS
    timer = threading.Timer(0.1, lambda: board.tick(GPU, due_ns, PERIOD_NS))

    with TickClock(path) as clock:
        timer.start()
        assert clock.wait_next(20.0) == due_ns
    timer.join()


def test_waiting_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    TickBoard(path, [GPU]).tick(GPU, 1, PERIOD_NS)

    with TickClock(path) as clock:
        assert clock.wait_next(0.05) is None


def test_without_a_counter_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    TickBoard(path, [])

    with TickClock(path) as clock:
        started = time.monotonic()
        assert clock.wait_next(600.0) is None
        assert time.monotonic() - started < 60.0
        assert clock.period_s() == 0.0


def test_the_heartbeat_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    board = TickBoard(path, [])
    with TickClock(path) as clock:
        assert clock.heartbeat_ns() is None
        board.beat(42)
        assert clock.heartbeat_ns() == 42


def test_a_record_half_written_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    board = TickBoard(path, [GPU])
    board.tick(GPU, 7, PERIOD_NS)
    board.close()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[-6] ^= 0xFF

    with TickClock(path) as clock:
        assert clock.last() is None


def test_readers_never_see_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    board = TickBoard(path, [GPU])
    code = """
import sys, time
from pathlib import Path
from llenergymeasure.meter.ticks import TickClock
clock, seen = TickClock(Path(sys.argv[1])), 0
print("reading", flush=True)
end = time.monotonic() + 1.0
while time.monotonic() < end:
    tick = clock.last()
    if tick is not None:
        assert tick.t_ns == tick.number * 1000 and tick.period_ns == tick.number, tick
        seen = max(seen, tick.number)
print(seen)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        number = 0
        while reader.poll() is None:
            for _ in range(200):
                number += 1
                board.tick(GPU, number * 1000, number)
        seen = int(reader.stdout.read())
    assert reader.returncode == 0
    assert seen > 0


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticks"
    path.write_bytes(b"something else entirely")

    with pytest.raises(ValueError, match="not a tick file"):
        TickClock(path)


def test_the_reading_side_and_the_client_need_the_standard_library_only() -> None:
    code = """
import sys
import llenergymeasure.meter.ticks, llenergymeasure.meter.client
names = {name.partition(".")[0] for name in sys.modules}
foreign = {n for n in names if n not in sys.stdlib_module_names} - {"llenergymeasure", "__main__"}
assert not foreign & {"numpy", "pyarrow", "pydantic", "pynvml"}, foreign
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
