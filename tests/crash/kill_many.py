"""SIGKILLs at random moments over studies of short runs, and what must hold after each.

    python tests/crash/kill_many.py --kills 100 [--seed 1]

One study is run undisturbed. Then the same study is begun again and again in folders of its own,
while one process after another is killed at random moments: Snakemake, a run's supervisor, its
recorder, engine or what computes the result, or all of them at once, as when a login session or a
machine ends. A study that was killed is called again until it is complete. After every kill and
every call:

- no process of a workflow that ended is left,
- every result that was finished before is still there, with the same SHA-256,
- every result that is accepted is whole, and has the tokens of the undisturbed run's;

and at the end of every study plan, run ids, statuses and token counts equal the undisturbed
run's, a further call has nothing to do, and aggregating twice gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.files import sha256
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import RunFolder, StudyFolder
from support.studies import snakemake, start_snakemake, write_study

STUDY = "small"
EXPERIMENTS = 5
LONGEST_WAIT = 0.4
"""Between two kills, as a share of the undisturbed study's time: about two of its five runs."""

LONGEST_WAIT_S = 25.0
"""On a machine that is busy with other work too, so that the whole stays bounded."""

GONE_LIMIT_S = 60.0
CALL_LIMIT_S = 600.0
VICTIMS = ("snakemake", "supervisor", "engine", "recorder", "finish", "any", "all")
_MODULES = {
    "supervisor": "scripts/measure_",
    "engine": "engine.engine_process",
    "recorder": "recording.recorder",
    "finish": "build_result",
}


class BrokenError(AssertionError):
    """Something that must hold did not."""


@dataclass
class Killing:
    """The kills of one call of this program.

    Attributes:
        kills: how many are asked for.
        longest_wait_s: between two of them.
        random: decides victims and moments.
        say: where progress goes.
        done: the kills so far, by what was killed.
    """

    kills: int
    longest_wait_s: float
    random: random.Random
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        return self.kills - self.done.total()


def kill_many(
    folder: Path,
    kills: int,
    seed: int,
    say: Callable[[str], None],
    experiments: int = EXPERIMENTS,
) -> Counter[str]:
    """Do as this module says; return the kills by what was killed.

    Raises:
        BrokenError: something that must hold did not.
    """
    reference = Round(folder / "undisturbed", experiments)
    began_s = time.monotonic()
    reference.must_end_well()
    took_s = time.monotonic() - began_s
    say(f"undisturbed: {took_s:.0f} s")
    longest_wait_s = min(LONGEST_WAIT * took_s, LONGEST_WAIT_S)
    killing = Killing(kills, longest_wait_s, random.Random(seed), say)
    number = 0
    while killing.left:
        number += 1
        disturbed = Round(folder / f"round-{number}", experiments, expected=reference)
        calls = 0
        while disturbed.call(killing) != 0:
            calls += 1
        disturbed.must_equal()
        say(
            f"study {number}: complete after {calls + 1} calls of Snakemake; "
            f"{killing.done.total()} of {kills} kills"
        )
    return killing.done


class Round:
    """One study in a folder of its own."""

    def __init__(self, folder: Path, experiments: int, expected: Round | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.results = StudyFolder(folder / "results" / STUDY)
        self._expected = expected
        self._finished: dict[Path, str] = {}
        write_study(
            folder,
            sweep={"random_seed": list(range(1, experiments + 1))},
            execution={"n_cycles": 1, "cycle_order": "shuffled"},
            # As many batches in every window, however fast the machine is at that moment.
            window={"min_seconds": 0.001, "min_batches": 20},
        )

    def must_end_well(self) -> None:
        result = snakemake(self.folder, "--configfile", "study.yaml", timeout_s=CALL_LIMIT_S)
        must(result.returncode == 0, result.stderr)

    def call(self, killing: Killing) -> int:
        """Call Snakemake once and kill at random moments until it ends; return its exit code."""
        log_path = self.folder / "snakemake.log"
        with log_path.open("wb") as log:
            process = start_snakemake(self.folder, "--configfile", "study.yaml", log=log)
        deadline = time.monotonic() + CALL_LIMIT_S
        while process.poll() is None:
            must(time.monotonic() < deadline, f"a call did not end: {log_path.read_text()}")
            wait_s = killing.random.uniform(0, killing.longest_wait_s) if killing.left else 1.0
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                if killing.left:
                    self._kill_one(process, killing)
        self._must_leave_nothing_running()
        self._must_keep_what_finished()
        return process.returncode

    def _kill_one(self, process: subprocess.Popen[bytes], killing: Killing) -> None:
        self._note_finished()
        victim = killing.random.choice(VICTIMS)
        pids = _pids_of(victim, process.pid, self.folder)
        if not pids:
            victim, pids = "snakemake", [process.pid]
        if victim == "any":
            pids = [killing.random.choice(pids)]
        send(pids, signal.SIGKILL)
        killing.done[victim] += 1
        if killing.done.total() % 10 == 0:
            killing.say(f"{killing.done.total()} of {killing.kills} kills")

    def _note_finished(self) -> None:
        """Note what is whole now: it must stay as it is."""
        for record in self.results.path.glob("runs/*/*/result.json"):
            run = RunFolder(record.parent)
            if is_complete(run):
                self._finished.update({path: sha256(path) for path in run.products})

    def _must_keep_what_finished(self) -> None:
        for path, before in self._finished.items():
            must(path.is_file(), f"{path} was finished and is gone")
            must(sha256(path) == before, f"{path} was finished and has changed")
        self._note_finished()
        if self._expected is None:
            return
        wanted = self._expected.tokens()
        for run, tokens in self.tokens().items():
            must(wanted[run] == tokens, f"{run}: {tokens} instead of {wanted[run]}")

    def _must_leave_nothing_running(self) -> None:
        deadline = time.monotonic() + GONE_LIMIT_S
        while left := _living(self.folder):
            commands = {pid: _command(pid) for pid in left}
            must(time.monotonic() < deadline, f"still running after {GONE_LIMIT_S} s: {commands}")
            time.sleep(0.05)

    def tokens(self) -> dict[str, dict[str, Any]]:
        """Return every whole run's token counts, by ``experiment/cycle``."""
        tokens = {}
        for record in self.results.path.glob("runs/*/*/result.json"):
            must(is_complete(RunFolder(record.parent)), f"{record} is no whole result")
            content = json.loads(record.read_text())
            tokens[f"{content['experiment']}/{content['cycle']}"] = content["tokens"]
        return tokens

    def statuses(self) -> list[tuple[str, int, int, str]]:
        import pyarrow.parquet as pq

        columns = ["experiment", "cycle", "order", "status"]
        table = pq.read_table(self.results.path / "runs.parquet", columns=columns)
        return [tuple(row.values()) for row in table.to_pylist()]

    def must_equal(self) -> None:
        """Hold the complete study against the undisturbed one."""
        assert self._expected is not None
        must(
            self.results.plan.read_bytes() == self._expected.results.plan.read_bytes(),
            "plan.json differs",
        )
        must(self.statuses() == self._expected.statuses(), f"statuses: {self.statuses()}")
        must(self.tokens() == self._expected.tokens(), "token counts differ")
        again = snakemake(self.folder, "--configfile", "study.yaml", timeout_s=CALL_LIMIT_S)
        must("Nothing to be done" in again.stderr, again.stderr)
        tables = [self.results.path / name for name in ("runs.parquet", "summary.parquet")]
        tables.append(self.results.path / "summary.csv")
        first = [sha256(path) for path in tables]
        write_tables(self.results.path, partial=False)
        must([sha256(path) for path in tables] == first, "aggregating twice gave other bytes")


def _pids_of(victim: str, main_pid: int, folder: Path) -> list[int]:
    if victim == "snakemake":
        return [main_pid]
    living = _living(folder)
    if victim in ("any", "all"):
        return living
    return [pid for pid in living if _MODULES[victim] in _command(pid)]


def _living(folder: Path) -> list[int]:
    """Return the processes that work in a study's folder, zombies aside."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            where = (entry / "cwd").readlink()
        except OSError:
            continue
        if state != "Z" and where == folder:
            pids.append(int(entry.name))
    return pids


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def must(holds: bool, message: str) -> None:
    if not holds:
        raise BrokenError(message)


def send(pids: list[int], number: signal.Signals) -> int:
    """Signal these processes; return how many were there."""
    hit = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            hit += 1
        except ProcessLookupError:
            continue
    return hit


def main(name: str, make: Callable[[Path, int, int, Callable[[str], None]], str]) -> int:
    """Read how many faults are asked for, say what happens, and how it ended.

    Args:
        name: what is counted.
        make: takes a folder, how many, what chance starts from, and where progress goes; returns
            what was done.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument(f"--{name}", dest="count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="llem-faults-") as folder:
        say(make(Path(folder).resolve(), options.count, options.seed, say))
    return 0


def counted(done: Counter[str]) -> str:
    counts = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
    return f"{done.total()} ({counts})"


def _kill(folder: Path, kills: int, seed: int, say: Callable[[str], None]) -> str:
    done = kill_many(folder, kills, seed, say)
    return f"{counted(done)} kills: nothing lost, nothing wrong, nothing left running"


if __name__ == "__main__":
    sys.exit(main("kills", _kill))
