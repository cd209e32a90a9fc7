"""Telling the run's processes from others, with a made-up process table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure.machine.gpus import inventory
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.sensors import foreign_processes
from llenergymeasure.sensors.foreign_processes import RunProcesses
from support.recording import uuid

CARD = Gpu(0, uuid(1), "card")
HOST_NAMESPACE = "pid:[4026531836]"
RUN, ENGINE, WORKER, OTHER = 4_000_100, 4_000_200, 4_000_300, 4_000_900
UNSEEN = 4_190_001
"""Above the kernel's largest process id, so that no real process has it."""


class Machine:
    """A /proc folder and what NVML would say of one card."""

    def __init__(self, proc: Path, namespace: str) -> None:
        self.proc = proc
        self.on_card: list[int] = []
        self.drawing: list[int] = []
        (proc / "self" / "ns").mkdir(parents=True)
        (proc / "self" / "ns" / "pid").symlink_to(namespace)

    def start(self, pid: int, parent: int, name: str = "python", started: int = 5) -> None:
        folder = self.proc / str(pid)
        folder.mkdir(exist_ok=True)
        fields = ["S", str(parent), *["0"] * 17, str(started), "0"]
        (folder / "stat").write_text(f"{pid} ({name} (x)) {' '.join(fields)}")
        (folder / "comm").write_text(f"{name}\n")

    def end(self, pid: int) -> None:
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()
        (self.proc / str(pid)).rmdir()


@pytest.fixture
def make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Build a machine with the run's tree on it."""

    def make(namespace: str = HOST_NAMESPACE) -> Machine:
        machine = Machine(tmp_path / "proc", namespace)
        machine.start(1, 0, "init")
        machine.start(RUN, 1)
        machine.start(ENGINE, RUN)
        machine.start(WORKER, ENGINE)
        machine.start(OTHER, 1, "trainer")
        monkeypatch.setattr(
            foreign_processes,
            "compute_processes",
            lambda _: machine.on_card,
        )
        monkeypatch.setattr(
            foreign_processes,
            "graphics_processes",
            lambda _: machine.drawing,
        )
        monkeypatch.setattr(foreign_processes, "_nvml_name", lambda pid: f"nvml says {pid}")
        return machine

    assert foreign_processes.compute_processes is inventory.compute_processes
    return make


def _pids(run: RunProcesses) -> list[int]:
    return [process.pid for process in run.foreign_processes(CARD)]


def test_the_runs_tree_is_no_stranger_and_others_are(make_machine) -> None:
    machine = make_machine()
    machine.on_card = [ENGINE, WORKER, OTHER]

    (stranger,) = RunProcesses(RUN, machine.proc).foreign_processes(CARD)

    assert (stranger.pid, stranger.name) == (OTHER, "trainer")


def test_a_worker_that_lost_its_parent_stays_of_the_run(make_machine) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.proc)
    machine.on_card = [WORKER]
    assert _pids(run) == []

    machine.end(ENGINE)
    machine.start(WORKER, 1)

    assert _pids(run) == []


def test_a_number_used_again_by_another_process_is_a_stranger(make_machine) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.proc)
    machine.on_card = [WORKER]
    assert _pids(run) == []

    machine.end(WORKER)
    machine.start(WORKER, 1, started=99)

    assert _pids(run) == [WORKER]


def test_a_process_just_gone_is_no_stranger_but_one_that_stays_unseen_is(make_machine) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.proc)
    assert _pids(run) == []

    machine.on_card = [UNSEEN]
    assert _pids(run) == []
    assert _pids(run) == [UNSEEN]


@pytest.mark.parametrize("nobody", [0, 2**32 - 1])
def test_the_number_of_no_process_keeps_no_stranger_unseen(make_machine, nobody: int) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.proc)
    assert _pids(run) == []
    machine.on_card = [nobody, OTHER]
    assert OTHER in _pids(run)


def test_in_a_container_only_who_was_there_before_is_known_to_be_a_stranger(make_machine) -> None:
    machine = make_machine(namespace="pid:[4026532999]")
    run = RunProcesses(RUN, machine.proc)
    machine.on_card = [UNSEEN]
    assert _pids(run) == [UNSEEN]

    machine.on_card = [UNSEEN, UNSEEN + 1]
    assert _pids(run) == [UNSEEN]
    assert _pids(run) == [UNSEEN]


def test_in_a_container_whose_numbers_turn_out_to_hold_others_are_found(make_machine) -> None:
    machine = make_machine(namespace="pid:[4026532999]")
    run = RunProcesses(RUN, machine.proc)
    assert _pids(run) == []

    machine.on_card = [ENGINE, UNSEEN]
    assert _pids(run) == []
    assert _pids(run) == [UNSEEN]


def test_the_server_that_shares_a_card_among_processes_is_passed_over(make_machine) -> None:
    machine = make_machine()
    machine.start(OTHER, 1, "nvidia-cuda-mps-server"[:15])  # as much as the kernel keeps
    machine.on_card = [OTHER]

    assert _pids(RunProcesses(RUN, machine.proc)) == []


def test_what_draws_is_named_unless_it_is_of_the_run(make_machine) -> None:
    machine = make_machine()
    machine.drawing = [ENGINE, OTHER, UNSEEN]

    strangers = RunProcesses(RUN, machine.proc).foreign_graphics_processes(CARD)

    assert [(stranger.pid, stranger.name) for stranger in strangers] == [
        (OTHER, "trainer"),
        (UNSEEN, f"nvml says {UNSEEN}"),
    ]


@pytest.mark.parametrize("becomes_the_container", [True, False], ids=["Apptainer", "Docker"])
def test_what_has_started_the_workflow_is_no_root_of_the_run_s_tree(
    make_machine: Callable[[], Machine], becomes_the_container: bool
) -> None:
    """The launcher becomes Apptainer's container and has it watch the supervisor, or is watched."""
    machine, launcher, shim = make_machine(), 4_000_150, 4_000_160
    machine.start(RUN, OTHER)
    machine.start(launcher, RUN)
    words = ["python", "-m", "llenergymeasure.run", "--out", "x"]
    (machine.proc / str(RUN) / "cmdline").write_text("\0".join(words))
    words[2] = "llenergymeasure.containers.launcher"
    (machine.proc / str(launcher) / "cmdline").write_text("\0".join(words))
    machine.start(shim, 1)
    machine.start(ENGINE, launcher if becomes_the_container else shim)
    engine_pid_file = machine.proc.parent / "engine.pid"
    engine_pid_file.write_text(str(ENGINE))
    watched_pid = RUN if becomes_the_container else launcher
    run = RunProcesses.around_engine(engine_pid_file, watched_pid, machine.proc)
    assert run.roots() == {RUN, ENGINE}
