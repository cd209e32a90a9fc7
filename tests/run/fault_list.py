"""The faults that are injected into one real study, and what must be recorded of each."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from support.saboteur import RunView, Step, at, send, send_to

ENGINE, RECORDER, FINISH = "engine_process", "recording.recorder", "build_result"
RESTS = {"baseline": {"enabled": True, "duration_seconds": 5}}
LONG = {"window": {"min_seconds": 2}}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        id: the name of its test.
        text: what is done, for the table.
        inject: does it.
        status: of the outcome.
        code: the run's exit code; null where it could not end by itself.
        says: words in the outcome's error; or a code among the result's validity.
        phase: which the outcome names; null where none.
        settings: of its experiment.
        measured: whether the next call finishes what was measured, and measures nothing.
    """

    id: str
    text: str
    inject: Step | None = None
    _: KW_ONLY
    status: str
    code: int | None
    says: str = ""
    phase: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    measured: bool = False

    @property
    def kept(self) -> bool:
        """Whether the run has a result, so that the next call has nothing to do there."""
        return self.status == "completed"


def in_settle(inject: Callable[[RunView], None]) -> Step:
    """Inject while the run rests, and end the rest."""

    def step(run: RunView) -> bool:
        if run.phase != "settle":
            return False
        inject(run)
        (run.folder / "work" / "skip").touch()
        return True

    step.in_settle = True  # type: ignore[attr-defined]
    return step


def finishing(run: RunView) -> bool:
    """Hold what computes the result, and interrupt the run."""
    finish = run.child(FINISH)
    if finish is None:
        return False
    os.kill(finish, signal.SIGSTOP)
    os.kill(run.supervisor(), signal.SIGINT)
    time.sleep(0.5)
    os.kill(finish, signal.SIGCONT)
    return True


def finish_killed(run: RunView) -> bool:
    finish = run.child(FINISH)
    if finish is not None:
        os.kill(finish, signal.SIGKILL)
    return finish is not None


def measured(inject: Callable[[RunView], None]) -> Step:
    """Inject as soon as the engine has written what it measured, while it still ends."""

    def step(run: RunView) -> bool:
        if run.phase != "idle_after":
            return False
        while not (run.folder / "work" / "engine.json").exists():
            time.sleep(0.001)
        inject(run)
        return True

    return step


def stop_and_interrupt(run: RunView) -> None:
    send_to(ENGINE, signal.SIGSTOP)(run)
    send(signal.SIGTERM)(run)


def kill_everything(run: RunView) -> None:
    for pid in (run.supervisor(), run.child(ENGINE), run.child(RECORDER)):
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def hang(run: RunView) -> bool:
    """Stop the engine, and make its limit of many minutes one that is over."""
    if run.phase != "measure":
        return False
    send_to(ENGINE, signal.SIGSTOP)(run)
    (run.folder / "work" / "time_limit.json").write_text("1.0")
    return True


def limit_memory(run: RunView) -> None:
    engine = run.child(ENGINE)
    assert engine is not None
    pages = int(Path(f"/proc/{engine}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 32 * 2**20
    resource.prlimit(engine, resource.RLIMIT_AS, (limit, limit))


def limit_files(run: RunView) -> None:
    engine = run.child(ENGINE)
    assert engine is not None
    resource.prlimit(engine, resource.RLIMIT_FSIZE, (64, 64))


def truncate(weights: Path) -> Callable[[RunView], None]:
    return lambda _: os.truncate(weights, weights.stat().st_size // 2)


def make_nan(weights: Path) -> Callable[[RunView], None]:
    """Overwrite all numbers of a checkpoint in bfloat16 with NaN (0x7fc0)."""

    def inject(_: RunView) -> None:
        content = weights.read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        weights.write_bytes(content[:header] + b"\xc0\x7f" * ((len(content) - header) // 2))

    return inject


whole = partial(Fault, status="completed", code=0)
failed = partial(Fault, status="failed", code=1)
lost = partial(Fault, status="lost", code=None, says="ended without a word")


def interrupt(
    phase: str,
    settings: dict[str, Any] | None = None,
    number: signal.Signals = signal.SIGINT,
    name: str = "",
    text: str = "",
) -> Fault:
    inject = at(phase, send(number))
    inject.in_settle = phase == "settle"  # type: ignore[attr-defined]
    return Fault(
        name or f"sigint-{phase}",
        text or f"SIGINT in phase `{phase}`",
        inject,
        status="interrupted",
        code=128 + number,
        says=number.name,
        phase=phase,
        settings=settings or {},
    )


def engine_ends(name: str, text: str, number: signal.Signals, says: str = "") -> Fault:
    return failed(
        name,
        text,
        at("measure", send_to(ENGINE, number)),
        code=128 + number,
        says=says or f"killed by {number.name}",
        phase="measure",
        settings=LONG,
    )


def faults(torn: Path, numberless: Path) -> list[Fault]:
    """Return the faults in the order of their runs.

    Args:
        torn: a copy of a model, whose weights will be cut in half.
        numberless: another, whose weights will be no numbers.
    """
    return [
        interrupt("settle"),
        interrupt("load"),
        interrupt("measure", LONG),
        interrupt("idle_after", RESTS),
        whole("sigint-finish", "SIGINT while the result is computed", finishing),
        whole(
            "teardown-segfault",
            "the engine crashes in its teardown (SIGSEGV)",
            measured(send_to(ENGINE, signal.SIGSEGV)),
            settings=RESTS,
        ),
        whole(
            "teardown-abort",
            "the engine aborts in its teardown (SIGABRT)",
            measured(send_to(ENGINE, signal.SIGABRT)),
            settings=RESTS,
        ),
        whole(
            "teardown-hang",
            "the engine hangs in its teardown, and the run gets SIGTERM",
            measured(stop_and_interrupt),
            settings=RESTS,
        ),
        lost(
            "measured-killed",
            "everything is killed after the window, before the result is computed",
            measured(kill_everything),
            settings=RESTS,
            measured=True,
        ),
        interrupt("measure", LONG, signal.SIGTERM, "sigterm", "SIGTERM inside the window"),
        engine_ends("segfault", "the engine crashes (SIGSEGV)", signal.SIGSEGV),
        engine_ends("abort", "the engine aborts (SIGABRT)", signal.SIGABRT),
        engine_ends(
            "oom-kill",
            "the system kills the engine, as when memory is out (SIGKILL)",
            signal.SIGKILL,
            "the usual cause is the system running out of memory",
        ),
        failed(
            "no-memory",
            "memory runs out while the model is loaded (an address-space limit)",
            in_settle(limit_memory),
            phase="load",
        ),
        failed(
            "hang",
            "the engine hangs until the run's wall-clock limit",
            hang,
            says="over its limit",
            phase="measure",
            settings=LONG,
        ),
        whole(
            "recorder-killed",
            "the recorder is killed inside the window",
            at("measure", send_to(RECORDER, signal.SIGKILL)),
            says="recorder_lost",
            settings=LONG,
        ),
        lost(
            "supervisor-killed",
            "the supervisor is killed inside the window",
            at("measure", send(signal.SIGKILL)),
            settings=LONG,
        ),
        failed(
            "finish-killed",
            "what computes the result is killed",
            finish_killed,
            code=137,
            says="the next call finishes it",
            phase="finish",
            measured=True,
        ),
        failed(
            "no-room",
            "the engine may write no more (a file-size limit)",
            at("measure", limit_files),
            settings=LONG,
        ),
        failed(
            "model-missing",
            "the model is not in the cache, and the hub is offline",
            says="someone/tiny",
            phase="preflight",
            settings={"model": "someone/tiny"},
        ),
        failed(
            "checkpoint-torn",
            "the checkpoint is cut in half before it is read",
            in_settle(truncate(torn / "model.safetensors")),
            says="model",
            phase="load",
            settings={"model": str(torn)},
        ),
        failed(
            "weights-nan",
            "all weights are NaN",
            in_settle(make_nan(numberless / "model.safetensors")),
            says="NaN",
            phase="measure",
            settings={"model": str(numberless)},
        ),
    ]
