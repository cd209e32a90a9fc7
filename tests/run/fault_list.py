"""The faults that are injected into one real study, and what must be recorded of each."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
        status: of the outcome.
        code: the run's exit code; null where it could not end by itself.
        says: words in the outcome's error; or a code among the result's validity.
        inject: does it.
        phase: which the outcome names; null where none.
        settings: of its experiment.
        measured: whether the next call finishes what was measured, and measures nothing.
        kept: whether the run has a result, so that the next call has nothing to do there.
    """

    id: str
    text: str
    status: str
    code: int | None
    says: str = ""
    inject: Step | None = None
    phase: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    measured: bool = False

    @property
    def kept(self) -> bool:
        return self.status == "completed"


def interrupt(phase: str, settings: dict[str, Any] | None = None) -> Fault:
    inject = at(phase, send(signal.SIGINT))
    inject.in_settle = phase == "settle"  # type: ignore[attr-defined]
    return Fault(
        f"sigint-{phase}",
        f"SIGINT in phase `{phase}`",
        "interrupted",
        130,
        "SIGINT",
        inject,
        phase,
        settings or {},
    )


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
    if finish is None:
        return False
    os.kill(finish, signal.SIGKILL)
    return True


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
        Fault(
            "sigint-finish",
            "SIGINT while the result is computed",
            "completed",
            0,
            inject=finishing,
        ),
        Fault(
            "teardown-segfault",
            "the engine crashes in its teardown (SIGSEGV)",
            "completed",
            0,
            inject=measured(send_to(ENGINE, signal.SIGSEGV)),
            settings=RESTS,
        ),
        Fault(
            "teardown-abort",
            "the engine aborts in its teardown (SIGABRT)",
            "completed",
            0,
            inject=measured(send_to(ENGINE, signal.SIGABRT)),
            settings=RESTS,
        ),
        Fault(
            "teardown-hang",
            "the engine hangs in its teardown, and the run gets SIGTERM",
            "completed",
            0,
            inject=measured(stop_and_interrupt),
            settings=RESTS,
        ),
        Fault(
            "measured-killed",
            "everything is killed after the window, before the result is computed",
            "lost",
            None,
            "ended without a word",
            measured(kill_everything),
            settings=RESTS,
            measured=True,
        ),
        Fault(
            "sigterm",
            "SIGTERM inside the window",
            "interrupted",
            143,
            "SIGTERM",
            at("measure", send(signal.SIGTERM)),
            "measure",
            LONG,
        ),
        Fault(
            "segfault",
            "the engine crashes (SIGSEGV)",
            "failed",
            139,
            "killed by SIGSEGV",
            at("measure", send_to(ENGINE, signal.SIGSEGV)),
            "measure",
            LONG,
        ),
        Fault(
            "abort",
            "the engine aborts (SIGABRT)",
            "failed",
            134,
            "killed by SIGABRT",
            at("measure", send_to(ENGINE, signal.SIGABRT)),
            "measure",
            LONG,
        ),
        Fault(
            "oom-kill",
            "the system kills the engine, as when memory is out (SIGKILL)",
            "failed",
            137,
            "the usual cause is the system running out of memory",
            at("measure", send_to(ENGINE, signal.SIGKILL)),
            "measure",
            LONG,
        ),
        Fault(
            "no-memory",
            "memory runs out while the model is loaded (an address-space limit)",
            "failed",
            1,
            inject=in_settle(limit_memory),
            phase="load",
        ),
        Fault(
            "hang",
            "the engine hangs until the run's wall-clock limit",
            "failed",
            1,
            "over its limit",
            hang,
            "measure",
            LONG,
        ),
        Fault(
            "recorder-killed",
            "the recorder is killed inside the window",
            "completed",
            0,
            "recorder_lost",
            at("measure", send_to(RECORDER, signal.SIGKILL)),
            settings=LONG,
        ),
        Fault(
            "supervisor-killed",
            "the supervisor is killed inside the window",
            "lost",
            None,
            "ended without a word",
            at("measure", send(signal.SIGKILL)),
            settings=LONG,
        ),
        Fault(
            "finish-killed",
            "what computes the result is killed",
            "failed",
            137,
            "the next call finishes it",
            finish_killed,
            "finish",
            measured=True,
        ),
        Fault(
            "no-room",
            "the engine may write no more (a file-size limit)",
            "failed",
            1,
            inject=at("measure", limit_files),
            settings=LONG,
        ),
        Fault(
            "model-missing",
            "the model is not in the cache, and the hub is offline",
            "failed",
            1,
            "someone/tiny",
            phase="preflight",
            settings={"model": "someone/tiny"},
        ),
        Fault(
            "checkpoint-torn",
            "the checkpoint is cut in half before it is read",
            "failed",
            1,
            "model",
            in_settle(truncate(torn / "model.safetensors")),
            "load",
            {"model": str(torn)},
        ),
        Fault(
            "weights-nan",
            "all weights are NaN",
            "failed",
            1,
            "NaN",
            in_settle(make_nan(numberless / "model.safetensors")),
            "measure",
            {"model": str(numberless)},
        ),
    ]
