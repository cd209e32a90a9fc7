"""Runs side by side: each on processors of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.machine.cpu_share import cpu_shares, runs_at_once, take_cpu_share
from llenergymeasure.machine.host import parse_numbers


def test_shares_are_equal_and_overlap_nowhere():
    usable = os.sched_getaffinity(0)
    assert cpu_shares(1) == [usable]
    assert cpu_shares(len(usable) + 1) == []
    for count in range(2, len(usable) + 1):
        shares = cpu_shares(count)
        if shares:
            assert len(shares) == count
            assert len(frozenset().union(*shares)) == sum(map(len, shares))
            assert frozenset().union(*shares) <= usable


TAKE = """
import os, sys
from pathlib import Path
from llenergymeasure.machine.cpu_share import take_cpu_share
share = take_cpu_share(2, Path(sys.argv[1]))
print(sorted(os.sched_getaffinity(0)) if share else None, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(len(cpu_shares(2)) < 2, reason="fewer than two cores")
def test_a_process_has_its_share_until_it_ends_however_it_ends(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.stdout.readline().strip() for process in started]
    assert sorted(outputs) == sorted(str(sorted(share)) for share in cpu_shares(2))
    before = os.sched_getaffinity(0)
    assert take_cpu_share(2, tmp_path) is None
    assert os.sched_getaffinity(0) == before
    started[0].kill()
    started[0].wait()
    try:
        assert str(sorted(take_cpu_share(2, tmp_path))) == outputs[0]
    finally:
        os.sched_setaffinity(0, before)
        for process in started:
            process.communicate()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, None], ids=["pipe", "folder", "link"])
@pytest.mark.skipif(len(cpu_shares(2)) < 2, reason="fewer than two cores")
def test_what_is_no_lock_is_passed_over(tmp_path, make, capsys):
    path = tmp_path / f"cpus-{os.geteuid()}-1-of-2.lock"
    if make is None:
        path.symlink_to(tmp_path / "elsewhere")
    else:
        make(path)
    before, second = os.sched_getaffinity(0), cpu_shares(2)[1]
    try:
        assert take_cpu_share(2, tmp_path) == second
    finally:
        os.sched_setaffinity(0, before)
    assert path.name in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("text", "count"), [("", 1), ("4", 4), ("0", 1), ("many", 1), ("²", 1)])
def test_how_many_run_at_once(text, count):
    assert runs_at_once({"LLEM_RUNS_AT_ONCE": text}) == count


@pytest.mark.parametrize(
    ("text", "numbers"), [("0-2,5", {0, 1, 2, 5}), ("²", set()), ("0-²", set())]
)
def test_a_list_of_numbers(text, numbers):
    assert parse_numbers(text) == numbers


def test_a_run_alone_has_all_processors(tmp_path):
    before = os.sched_getaffinity(0)
    assert take_cpu_share(1, tmp_path) is None
    assert os.sched_getaffinity(0) == before
    assert list(tmp_path.iterdir()) == []
