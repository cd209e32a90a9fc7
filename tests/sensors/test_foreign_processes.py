"""Telling the run's processes from others, with a made-up process table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.sensors import foreign_processes
from llenergymeasure.sensors.foreign_processes import RunProcesses
from sensors.proc import ENGINE, OTHER, RUN, WORKER, Proc
from support.recording import uuid

CARD = Gpu(0, uuid(1), "card")
HOST_NAMESPACE = "pid:[4026531836]"
UNSEEN = 4_190_001
"""Above the kernel's largest process id, so that no real process has it."""


class Machine(Proc):
    """A /proc folder and what NVML would say of one card."""

    def __init__(self, proc: Path, namespace: str) -> None:
        super().__init__(proc)
        self.on_card: list[int] = []
        self.drawing: list[int] = []
        (proc / "self" / "ns").mkdir(parents=True)
        (proc / "self" / "ns" / "pid").symlink_to(namespace)


@pytest.fixture
def make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Build a machine with the run's tree on it."""

    def make(namespace: str = HOST_NAMESPACE) -> Machine:
        machine = Machine(tmp_path / "proc", namespace)
        for name, value in (
            ("compute_processes", lambda _: machine.on_card),
            ("graphics_processes", lambda _: machine.drawing),
            ("_nvml_name", lambda pid: f"nvml says {pid}"),
        ):
            monkeypatch.setattr(foreign_processes, name, value)
        return machine

    return make


def _pids(run: RunProcesses) -> list[int]:
    return [process.pid for process in run.foreign_processes(CARD)]


def test_the_runs_tree_is_no_stranger_and_others_are(make_machine) -> None:
    machine = make_machine()
    machine.on_card = [ENGINE, WORKER, OTHER]

    (stranger,) = RunProcesses(RUN, machine.folder).foreign_processes(CARD)

    assert (stranger.pid, stranger.name) == (OTHER, "trainer")


@pytest.mark.parametrize(
    ("started", "strangers"), [(5, []), (99, [WORKER])], ids=["lost its parent", "used again"]
)
def test_a_worker_that_lost_its_parent_stays_of_the_run(
    make_machine, started: int, strangers: list[int]
) -> None:
    """Another process that has its number since is a stranger."""
    machine = make_machine()
    run = RunProcesses(RUN, machine.folder)
    machine.on_card = [WORKER]
    assert _pids(run) == []

    machine.end(ENGINE)
    machine.process(WORKER, 1, started=started)

    assert _pids(run) == strangers


def test_a_process_just_gone_is_no_stranger_but_one_that_stays_unseen_is(make_machine) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.folder)
    assert _pids(run) == []

    machine.on_card = [UNSEEN]
    assert _pids(run) == []
    assert _pids(run) == [UNSEEN]


@pytest.mark.parametrize("nobody", [0, 2**32 - 1])
def test_the_number_of_no_process_keeps_no_stranger_unseen(make_machine, nobody: int) -> None:
    machine = make_machine()
    run = RunProcesses(RUN, machine.folder)
    assert _pids(run) == []
    machine.on_card = [nobody, OTHER]
    assert OTHER in _pids(run)


def test_in_a_container_only_who_was_there_before_is_known_to_be_a_stranger(make_machine) -> None:
    machine = make_machine(namespace="pid:[4026532999]")
    run = RunProcesses(RUN, machine.folder)
    machine.on_card = [UNSEEN]
    assert _pids(run) == [UNSEEN]

    machine.on_card = [UNSEEN, UNSEEN + 1]
    assert _pids(run) == [UNSEEN]
    assert _pids(run) == [UNSEEN]


def test_in_a_container_whose_numbers_turn_out_to_hold_others_are_found(make_machine) -> None:
    machine = make_machine(namespace="pid:[4026532999]")
    run = RunProcesses(RUN, machine.folder)
    assert _pids(run) == []

    machine.on_card = [ENGINE, UNSEEN]
    assert _pids(run) == []
    assert _pids(run) == [UNSEEN]


def test_the_server_that_shares_a_card_among_processes_is_passed_over(make_machine) -> None:
    machine = make_machine()
    machine.process(OTHER, 1, "nvidia-cuda-mps-server"[:15])  # as much as the kernel keeps
    machine.on_card = [OTHER]

    assert _pids(RunProcesses(RUN, machine.folder)) == []


def test_what_draws_is_named_unless_it_is_of_the_run(make_machine) -> None:
    machine = make_machine()
    machine.drawing = [ENGINE, OTHER, UNSEEN]

    strangers = RunProcesses(RUN, machine.folder).foreign_graphics_processes(CARD)

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
    machine.process(RUN, OTHER)
    machine.process(launcher, RUN)
    words = ["python", "-m", "llenergymeasure.run", "--out", "x"]
    (machine.folder / str(RUN) / "cmdline").write_text("\0".join(words))
    words[2] = "llenergymeasure.containers.launcher"
    (machine.folder / str(launcher) / "cmdline").write_text("\0".join(words))
    machine.process(shim, 1)
    machine.process(ENGINE, launcher if becomes_the_container else shim)
    engine_pid_file = machine.folder.parent / "engine.pid"
    engine_pid_file.write_text(str(ENGINE))
    watched_pid = RUN if becomes_the_container else launcher
    run = RunProcesses.around_engine(engine_pid_file, watched_pid, machine.folder)
    assert run.roots() == {RUN, ENGINE}
