"""``meter()`` and work that a GPU was given and has not done when the block ends."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import llenergymeasure
from llenergymeasure import Metered
from llenergymeasure.api import metering
from llenergymeasure.recording.samples import make_samples
from nvml_sim import sim
from support.recording import card_environment, environment, header, uuid

WORK_S = 0.1


class _Torch:
    """Stands for PyTorch with CUDA: the modules that it is made of, and what was asked of them."""

    def __init__(self, contexts: list[bool]) -> None:
        self.contexts = contexts
        self.is_initialized = self.is_capturing = False
        self.error: Exception | None = None
        self.on_done: Callable[[], None] = lambda: None
        self.synchronised: list[int] = []
        self.current_device = 0
        self.busy_until_s = 0.0
        self.torch, self.cuda, self.c = (
            ModuleType(name) for name in ("torch", "torch.cuda", "torch._C")
        )
        self.torch.cuda, self.torch._C = self.cuda, self.c  # type: ignore[attr-defined]
        functions = {
            "is_initialized": lambda: self.is_initialized,
            "is_current_stream_capturing": lambda: self.is_capturing,
            "device_count": lambda: len(contexts),
            "current_device": lambda: self.current_device,
            "synchronize": self.synchronize,
        }
        vars(self.cuda).update(functions)
        vars(self.c)["_cuda_hasPrimaryContext"] = lambda device: self.contexts[device]

    def launch(self, for_s: float = WORK_S) -> None:
        """Give the GPU work, and return at once."""
        self.is_initialized = True
        self.busy_until_s = time.monotonic() + for_s

    def launch_what_fails(self) -> None:
        """Give it work of whose error one learns by waiting for it."""
        self.launch()
        self.error = RuntimeError("CUDA error: device-side assert triggered")

    def synchronize(self, device: int | None = None) -> None:
        """Wait, as PyTorch does: a GPU that has no context gets one."""
        device = self.current_device if device is None else device
        self.synchronised.append(device)
        self.is_initialized = self.contexts[device] = True
        if self.busy_until_s:
            time.sleep(max(self.busy_until_s - time.monotonic(), 0.0))
            self.busy_until_s = 0.0
            self.on_done()
        if self.error is not None:
            raise self.error


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> _Torch:
    """PyTorch on four GPUs, of which it has used the first and the third."""
    stand_in = _Torch([True, False, True, False])
    for module in (stand_in.torch, stand_in.cuda, stand_in.c):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return stand_in


Block = Callable[[], AbstractContextManager[Metered]]


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Block:
    """A metered block without a recorder, whose start takes longer than what is looked at here."""
    recorder = SimpleNamespace(wait_ready=lambda _: {"sensors": []}, stop=lambda _: 0)
    monkeypatch.setattr(metering.RecorderProcess, "start", lambda *_, **__: recorder)
    nothing = make_samples([], header(), complete=True)
    monkeypatch.setattr(metering, "read_samples", lambda _: nothing)
    return partial(llenergymeasure.meter, "none", align=False)


def test_the_block_ends_when_the_gpus_are_done(torch: _Torch, block: Block) -> None:
    with block() as energy:
        torch.launch()
    assert energy.window_s >= WORK_S
    assert torch.synchronised == [0, 2]
    assert torch.contexts == [True, False, True, False]


def test_the_block_begins_when_they_are_done_with_what_came_before(
    torch: _Torch, block: Block
) -> None:
    torch.launch()
    until_s = torch.busy_until_s
    with block() as energy:
        begun_s = time.monotonic()
    assert begun_s >= until_s
    assert torch.synchronised == [0, 2, 0, 2]
    start_ns, _ = energy.account.window
    assert start_ns >= 1e9 * until_s


def test_a_phase_begins_and_ends_when_they_are_done(torch: _Torch, block: Block) -> None:
    with block() as energy:
        torch.launch()
        first_until_s = torch.busy_until_s
        with energy.phase("second"):
            begun_s = time.monotonic()
            torch.launch()
    assert begun_s >= first_until_s
    (_, start_ns, end_ns), *_ = energy._phase_spans
    assert end_ns - start_ns >= 1e9 * WORK_S


@pytest.mark.parametrize("is_capturing", [False, True], ids=["not used", "a graph is captured"])
def test_gpus_that_nobody_has_used_or_that_record_a_graph_are_left_alone(
    torch: _Torch, block: Block, is_capturing: bool
) -> None:
    torch.is_initialized = torch.is_capturing = is_capturing
    with block() as energy, energy.phase("work"):
        pass
    assert torch.synchronised == []


def test_where_contexts_are_not_known_the_current_gpu_is_waited_for(
    torch: _Torch, block: Block
) -> None:
    del vars(torch.c)["_cuda_hasPrimaryContext"]
    torch.is_initialized, torch.current_device = True, 2
    with block():
        pass
    assert set(torch.synchronised) == {2}


def test_a_module_that_is_still_being_imported_is_passed_over(torch: _Torch, block: Block) -> None:
    vars(torch.cuda).clear()
    with block() as energy:
        pass
    assert energy.window_s > 0


def test_an_error_of_the_gpu_s_work_is_the_block_s_and_its_energy_is_known(
    torch: _Torch, block: Block
) -> None:
    with (
        pytest.raises(RuntimeError, match="device-side assert"),
        block() as energy,
        energy.phase("work"),
    ):
        torch.launch_what_fails()
    assert energy.window_s >= WORK_S


def _fails(torch: _Torch, error: type[BaseException]) -> None:
    torch.launch_what_fails()
    raise error


def test_an_error_of_the_block_s_own_comes_first(torch: _Torch, block: Block) -> None:
    with (
        pytest.raises(ZeroDivisionError) as caught,
        block() as energy,
        energy.phase("work"),
    ):
        _fails(torch, ZeroDivisionError)
    assert caught.value.__context__ is None
    assert energy.window_s >= WORK_S


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_who_interrupts_the_block_does_not_wait(
    torch: _Torch, block: Block, end: type[BaseException]
) -> None:
    """A GPU that hangs would keep the process for ever: no signal ends CUDA's waiting."""
    with (
        pytest.raises(end),
        block() as energy,
        energy.phase("work"),
    ):
        _fails(torch, end)
    assert torch.synchronised == []


WITHOUT = """
import sys
import llenergymeasure
with llenergymeasure.meter("none", align=False) as energy, energy.phase("work"):
    pass
assert not [name for name in sys.modules if name.partition(".")[0] == "torch"]
"""
REAL = """
import os, torch
import llenergymeasure
with llenergymeasure.meter("none", align=False) as energy, energy.phase("work"):
    torch.ones(3).sum()
    child = os.fork()
    if child == 0:
        with energy.phase("a child's"):
            pass
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert not torch.cuda.is_initialized()
assert energy.window_s > 0
"""


@pytest.mark.parametrize("program", [WITHOUT, REAL], ids=["without PyTorch", "with its CPU build"])
def test_pytorch_is_neither_imported_nor_initialised_for_it(program: str) -> None:
    if program == REAL:
        pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.system
def test_energy_of_work_that_nobody_waited_for_is_the_block_s(
    tmp_path: Path, torch: _Torch
) -> None:
    """300 W for 2 s that the block only launches, and its margins are at 100 W."""
    load = tmp_path / "load.csv"
    load.write_text(f"{time.monotonic_ns()},0\n")
    device = sim.Device(
        uuid=uuid(1),
        sensor=sim.Sensor(window_ms=25, average_window_ms=1000),
        keys={"load_file": str(load), "idle_w": 100, "max_w": 300},
    )

    def draw(share: float) -> None:
        with load.open("a") as file:
            file.write(f"{time.monotonic_ns()},{share}\n")

    torch.on_done = lambda: draw(0.0)
    with environment(card_environment(tmp_path, [device])), llenergymeasure.meter() as energy:
        torch.launch(2.0)
        draw(1.0)
    assert energy.window_s >= 2.0
    assert energy.power_mean_w == pytest.approx(300, rel=0.005)
