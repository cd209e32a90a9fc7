"""Faults at every named step of single runs, and what must hold after each.

    python tests/crash/kill_steps.py --moments 200 [--seed 1]

The runs of one study are made without a workflow, under traffic to a server that exists only for
the test, so that a run takes seconds; their power limit is held on a simulated card. At a random
moment of a named step one of the run's processes, or all of them, get a signal, or the engine
crashes, aborts, hangs or ends with 1 once it has written what it measured. Half of the runs are
started as in a container, by the launcher, with a stand-in for Docker's command that runs what it
is given on this machine. A run that is not whole is called again, with the next fault, and the
third time without any.

After every call:

- no process of the run is left, no token is on the disk, and what the end of a workflow puts back
  has put the power limit back,
- a window that was measured whole is finished by the next call and not measured again, unless
  the run says that the machine was too busy for it to count, or that its recorder, which was
  killed too, had not yet written its last half second,
- a result that is whole stays as it is;

and at the end the study is complete and ``llem verify`` finds no difference.
"""

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crash.kill_many import BrokenError, counted, main, must, send
from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.files import sha256, write_bytes, write_text
from llenergymeasure.plan import make_plan
from llenergymeasure.results.complete import is_complete, is_measured
from llenergymeasure.results.layout import RUN_VARIABLE, RunFolder, StudyFolder
from llenergymeasure.workload.load_study import study_from_mapping
from nvml_sim import sim
from support import serving_server
from support.saboteur import RunView
from support.studies import ROOT, SMALL, environment, llem

UUID = "GPU-51b0cafe-0000-4000-8000-000000000000"
AS_FOUND_W, HELD_W = 400, 250
CALL_LIMIT_S = 300.0
GONE_LIMIT_S = 60.0
LONGEST_DELAY_S = 0.3
"""After a step has begun: most steps of these runs are over by then, and the next have begun."""

WITH_ENGINE = ("preflight", "load", "warmup", "ramp_up", "measure", "drain", "release")
STEPS = ("start", "reserve", *WITH_ENGINE, "finish", "end")
FAULTS = (
    *("supervisor TERM", "supervisor INT", "supervisor KILL", "launcher TERM", "launcher KILL"),
    *("engine SEGV", "engine ABRT", "engine KILL", "engine hangs", "recorder KILL"),
    *("finish KILL", "all TERM", "all KILL"),
)
TEARDOWN = ("teardown exit 1", "teardown SEGV", "teardown ABRT", "teardown hangs")
_MODULES = {
    "launcher": "containers.launcher",
    "supervisor": "measure_openai.py",
    "engine": "engine_process",
    "recorder": "recording.recorder",
    "finish": "build_result",
}

TORN_DOWN = """
import os, signal, threading, time
from pathlib import Path
words = Path("/proc/self/cmdline").read_text().split("\\0")
how = os.environ.get("TEST_TEARDOWN")
if how and any("engine_process" in word for word in words):
    done = Path(words[words.index("--out") + 1], "work", "engine.json")
    def end():
        while not done.is_file():
            time.sleep(0.001)
        if how == "exit 1":
            os._exit(1)
        os.kill(os.getpid(), getattr(signal, "SIGSTOP" if how == "hangs" else f"SIG{how}"))
    threading.Thread(target=end, daemon=True).start()
"""
"""As ``sitecustomize``: lets an engine's process end badly once its record is written."""

DOCKER = """#!{python}
import os, sys
words = sys.argv[1:]
if words[0] == "info":
    print('{{"ServerVersion": "27.0"}}')
elif words[0] == "image":
    print('[{{"Id": "sha256:00"}}]')
elif words[0] == "run":
    entry = next(each for each in words if each.startswith("--entrypoint=")).partition("=")[2]
    place = words.index("--entrypoint=" + entry) + 2
    inside = [each.replace("/opt/llem", {root!r}) for each in words[place:]]
    os.execv({python!r}, [{python!r}, *inside])
"""


_AGAIN = re.compile(r"in no mean \((.+)\): measured again")
_TOO_BUSY = {"sample_gap", "stalled"}
_RECORDER_KILLED = ("recorder KILL", "all KILL")


@dataclass
class Moment:
    """One fault: at which step, what, and how long after the step's beginning."""

    step: str
    fault: str
    delay_s: float
    hit: bool = False

    @classmethod
    def drawn(cls, draw: random.Random, *, in_container: bool) -> "Moment":
        if draw.random() < 0.2:
            return cls("start", draw.choice(TEARDOWN), 0.0)
        fault = draw.choice([fault for fault in FAULTS if in_container or "launcher" not in fault])
        who = fault.partition(" ")[0]
        steps = {"finish": ("finish",), "engine": WITH_ENGINE, "recorder": WITH_ENGINE}
        return cls(draw.choice(steps.get(who, STEPS)), fault, draw.uniform(0, LONGEST_DELAY_S))

    def __str__(self) -> str:
        return f"{self.fault} in {self.step}+{self.delay_s:.2f} s"


@dataclass
class Study:
    """The study, and what was done to it."""

    folder: Path
    variables: Mapping[str, str]
    draw: random.Random
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    finished_later: int = 0

    @property
    def results(self) -> StudyFolder:
        return StudyFolder(self.folder / "results" / "small")

    def make(self, name: str, moments: int) -> None:
        """Make one run with up to two faults, and no more than ``moments``."""
        run = RunFolder(self.results.path / "runs" / name)
        in_container = self.draw.random() < 0.5
        hits = 0
        faults = [""]
        for attempt in range(4):
            moment = None
            if attempt < 2 and hits < moments:
                moment = Moment.drawn(self.draw, in_container=in_container)
            hashes = {path: sha256(path) for path in run.products} if is_complete(run) else {}
            if hashes:
                break
            measured = _measured(run)
            output = self._call(name, run, moment, in_container=in_container)
            if moment is not None and moment.hit:
                hits += 1
                self.done[moment.fault] += 1
                self.say(f"{name} {moment}: {_state(run)}")
            again = _AGAIN.search(output)
            if again is not None:
                excused = _TOO_BUSY | (
                    {"recorder_lost"} if faults[-1] in _RECORDER_KILLED else set()
                )
                must(set(again[1].split(", ")) <= excused, again[0])
                measured = None
            faults.append("" if moment is None or not moment.hit else moment.fault)
            self._must_hold(run, measured, moment)
        must(is_complete(run), f"{name} is not whole: {_state(run)}")

    def _call(self, name: str, run: RunFolder, moment: Moment | None, *, in_container: bool) -> str:
        """Call the run and return what it said."""
        words = ["--spec", str(self.results.plan), "--run", name, "--out", str(run.path)]
        words += ["--watch", str(os.getpid())]
        script = [str(ROOT / "scripts" / "measure_openai.py")]
        if in_container:
            script = ["-P", "-m", "llenergymeasure.containers.launcher", "--runner", "docker"]
            script += ["--image", "i"]
        variables = dict(self.variables)
        if moment is not None and moment.fault in TEARDOWN:
            variables["TEST_TEARDOWN"] = moment.fault.partition(" ")[2]
        log = self.folder / "said.log"
        before = log.stat().st_size if log.exists() else 0
        with (
            log.open("ab") as stream,
            subprocess.Popen(
                [sys.executable, *script, *words],
                cwd=self.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stderr=stream,
            ) as process,
        ):
            if moment is not None:
                self._inject(process, run, moment)
            try:
                process.wait(CALL_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise BrokenError(f"{name} did not end: {moment}, {_state(run)}") from None
        return log.read_bytes()[before:].decode(errors="replace")

    def _inject(self, process: "subprocess.Popen[bytes]", run: RunFolder, moment: Moment) -> None:
        while not _has_come(moment.step, run):
            if process.poll() is not None:
                return
            time.sleep(0.003)
        time.sleep(moment.delay_s)
        who, _, what = moment.fault.partition(" ")
        if who == "teardown":
            moment.hit = True
            if what == "hangs":
                _until(lambda: _measured(run) is not None or process.poll() is not None)
                time.sleep(1.0)
                send(_living(run, "supervisor"), signal.SIGTERM)
            return
        pids = _living(run, None if who == "all" else who)
        number = signal.SIGSTOP if what == "hangs" else signal.Signals[f"SIG{what}"]
        moment.hit = send(pids, number) > 0
        if moment.hit and what == "hangs":
            time.sleep(0.5)
            send(_living(run, "supervisor"), signal.SIGTERM)

    def _must_hold(
        self, run: RunFolder, measured: dict[str, Any] | None, moment: Moment | None
    ) -> None:
        _until(lambda: not _living(run, None), GONE_LIMIT_S, f"{moment}: left {_living(run, None)}")
        self._put_back()
        tokens = list(self.folder.glob("**/*llem-token-*"))
        if tokens:
            # Left by a launcher that was killed: whatever looks next removes it.
            must(moment is not None and "KILL" in moment.fault, f"{moment}: {tokens}")
            module = "llenergymeasure.containers.container_setup"
            self._python(f"from {module} import remove_abandoned_tokens; remove_abandoned_tokens()")
            must(not list(self.folder.glob("**/*llem-token-*")), f"{moment}: a token is left")
        if measured is not None and is_complete(run):
            self.finished_later += 1
            window = json.loads(run.result.read_text())["window"]
            must(window["start_monotonic_ns"] == measured["start_ns"], f"{moment}: measured again")
        if measured is not None and not is_complete(run):
            must(_measured(run) == measured, f"{moment}: the window that was measured is gone")
        if run.result.exists():
            must(is_complete(run), f"{moment}: a record that is not whole")

    def _put_back(self) -> None:
        self._python(
            "from llenergymeasure.machine.gpus.limits import restore_abandoned_limits\n"
            "restore_abandoned_limits()"
        )
        output = self._python(
            "import pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0)\n"
            "print(n.nvmlDeviceGetPowerManagementLimit(h) // 1000)"
        )
        must(int(output) == AS_FOUND_W, f"the power limit is at {output} W")
        leftovers = list((self.folder / "runtime").glob("limits-*"))
        must(not leftovers, f"records of limits are left: {leftovers}")

    def _python(self, code: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=dict(self.variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        must(result.returncode == 0, result.stderr)
        return result.stdout


def kill_at_steps(folder: Path, moments: int, seed: int, say: Callable[[str], None]) -> Study:
    """Do as this module says; return the study with its count of faults.

    Raises:
        BrokenError: something that must hold did not.
    """
    library, reason = sim.library_or_reason()
    must(library is not None, reason)
    (folder / "site").mkdir(parents=True)
    (folder / "site" / "sitecustomize.py").write_text(TORN_DOWN)
    docker = folder / "docker"
    docker.write_text(DOCKER.format(python=sys.executable, root=str(ROOT)))
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    limits = {"default": AS_FOUND_W, "min": 100, "max": 500}
    trace = sim.Trace([sim.Device(uuid=UUID, keys={"power_limit_w": limits})]).write(folder)
    server = ("--first-ms", "1", "--next-ms", "1", "--slots", "8")
    with serving_server.running(folder, *server) as running:
        variables = environment(
            **sim.environment(trace, state=folder / "state"),
            LLEM_RUNTIME_DIR=str(folder / "runtime"),
            LLEM_DOCKER=str(docker),
            XDG_RUNTIME_DIR=str(folder),
            HF_TOKEN="hf_abcdefghijklmnopqrstu",
        )
        places = [str(folder / "site"), str(ROOT / "src"), variables.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        study = Study(folder, variables, random.Random(seed), say)
        names = _plan(study, running.base_url, moments)
        made: list[str] = []
        broken: list[str] = []
        while (remaining := moments - study.done.total()) > 0:
            made.append(next(names))
            try:
                study.make(made[-1], remaining)
            except BrokenError as error:  # the others say more of what is wrong
                say(f"{made.pop()} BROKEN: {error}")
                broken.append(str(error))
        _must_verify(study, made)
    must(not broken, "\n".join(broken))
    return study


def _plan(study: Study, base_url: str, moments: int) -> Iterator[str]:
    settings = {
        **SMALL,
        "backend": "openai",
        "openai": {"base_url": base_url},
        "gpu": {"power_limit_w": HELD_W},
        "sweep": {"random_seed": list(range(1, 2 * moments + 9))},
    }
    plan = make_plan(study_from_mapping(settings))
    write_bytes(study.results.plan, plan.to_json_bytes())
    yield from (f"{run.experiment}/{run.cycle}" for run in plan.runs)


def _must_verify(study: Study, made: list[str]) -> None:
    """Hold the runs that were made, as a study of its own, against its tables."""
    plan = json.loads(study.results.plan.read_text())
    plan["runs"] = [run for run in plan["runs"] if f"{run['experiment']}/{run['cycle']}" in made]
    write_text(study.results.plan, json.dumps(plan))
    write_tables(study.results.path, partial=False)
    result = llem(study.folder, "verify", str(study.results.path))
    must(result.returncode == 0, result.stdout + result.stderr)


def _has_come(step: str, run: RunFolder) -> bool:
    if step == "start":
        return True
    outcome = RunView(run.path).outcome() or {}
    if outcome.get("status") != "running":
        return False
    if step == "end":
        return run.result.exists()
    return step in (outcome.get("phase"), RunView(run.path).phase)


def _living(run: RunFolder, who: str | None) -> list[int]:
    """Return the processes of a run, all or those of a kind, by their environment and command."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environ = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        ours = str(run.path) in words or f"{RUN_VARIABLE}={run.path}".encode() in environ
        kind = who is None or (_MODULES[who] in words and "docker run" not in words)
        if ours and kind and state != "Z":
            pids.append(int(entry.name))
    return pids


def _measured(run: RunFolder) -> dict[str, Any] | None:
    if not is_measured(run):
        return None
    window: dict[str, Any] = json.loads(run.engine.read_text())["window"]
    return window


def _state(run: RunFolder) -> str:
    outcome = RunView(run.path).outcome() or {}
    error = (outcome.get("error") or {}).get("message", "")
    state = "whole" if is_complete(run) else "measured" if is_measured(run) else "nothing"
    return f"{outcome.get('status')} {outcome.get('phase') or ''} ({state}) {error[:80]}"


def _until(holds: Callable[[], bool], limit_s: float = CALL_LIMIT_S, message: str = "") -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        must(time.monotonic() < deadline, message or "waited in vain")
        time.sleep(0.02)


def _inject_all(folder: Path, moments: int, seed: int, say: Callable[[str], None]) -> str:
    study = kill_at_steps(folder, moments, seed, say)
    return f"{counted(study.done)} faults; {study.finished_later} windows finished later"


if __name__ == "__main__":
    sys.exit(main("moments", _inject_all))
