"""Runs side by side: each on cards and processors of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.machine.gpus.locks import GpuBusyError, lock_gpus
from llenergymeasure.machine.gpus.sharing import (
    CpuShare,
    cpu_shares,
    lock_free_gpus,
    runs_at_once,
)

CARDS = ("GPU-a", "GPU-b", "GPU-c")


def never(_seconds: float) -> bool:
    return False


def free(folder: Path, count: int):
    return lock_free_gpus(CARDS, count, "run", wait_s=0, interrupted=never, folder=folder)


def test_each_run_gets_the_first_cards_that_no_other_has(tmp_path):
    first, second = free(tmp_path, 1), free(tmp_path, 2)
    assert (first.uuids, second.uuids) == (("GPU-a",), ("GPU-b", "GPU-c"))
    with pytest.raises(GpuBusyError, match="1 of the 3 GPUs"):
        free(tmp_path, 1)
    first.release()
    assert free(tmp_path, 1).uuids == ("GPU-a",)


def test_a_run_that_waits_for_several_holds_none(tmp_path):
    with lock_gpus(["GPU-b", "GPU-c"], "other", wait_s=0, folder=tmp_path):
        with pytest.raises(GpuBusyError):
            free(tmp_path, 2)
        assert free(tmp_path, 1).uuids == ("GPU-a",)


def test_waiting_can_be_interrupted(tmp_path):
    with lock_gpus(CARDS, "other", wait_s=0, folder=tmp_path):
        found = lock_free_gpus(
            CARDS, 1, "run", wait_s=60, interrupted=lambda _: True, folder=tmp_path
        )
    assert found is None


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
from llenergymeasure.machine.gpus.sharing import CpuShare
share = CpuShare.take(2, Path(sys.argv[1]))
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
    told = [process.stdout.readline().strip() for process in started]
    assert sorted(told) == sorted(str(sorted(share)) for share in cpu_shares(2))
    before = os.sched_getaffinity(0)
    assert CpuShare.take(2, tmp_path) is None
    assert os.sched_getaffinity(0) == before
    started[0].kill()
    started[0].wait()
    try:
        share = CpuShare.take(2, tmp_path)
        assert str(sorted(share.cpus)) == told[0]
        share.release()
    finally:
        os.sched_setaffinity(0, before)
        for process in started:
            process.communicate()


@pytest.mark.parametrize(("told", "count"), [("", 1), ("4", 4), ("0", 1), ("many", 1)])
def test_how_many_run_at_once(told, count):
    assert runs_at_once({"LLEM_RUNS_AT_ONCE": told}) == count
