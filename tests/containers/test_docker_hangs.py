"""A daemon that hangs or dies at any step is one clear message, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.containers import container_checks, docker
from llenergymeasure.containers.container_checks import check_docker
from llenergymeasure.containers.container_setup import ENGINE, ContainerSetup
from llenergymeasure.containers.launcher import _Launch
from llenergymeasure.containers.tasks import Task
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.workflow.clean import machine_leftovers
from support.programs import program
from support.studies import environment, living, wait_for

DOCKER = """
echo "$@" >> "$FAKE/calls"
[ "$1" = "$HANGS" ] && sleep 300
[ "$1" = "$DIES" ] && kill -9 $$
case "$1" in
  info) echo '{"ServerVersion": "27.0"}' ;;
  ps) [ ! -e "$FAKE/left" ] || echo left ;;
  inspect) echo "left another-boot:1:2 $(cat "$FAKE/left")" ;;
  image) [ ! -e "$FAKE/absent" ] && echo '[{"Id": "sha256:00"}]' ;;
  run)
    if [ -e "$FAKE/supervisor" ]; then
      for last; do :; done
      setsid "$PYTHON" "$FAKE/supervisor" --watch "$last" & sleep 300
    fi
    echo "docker: Error response from daemon: no room, token=abcdefgh12345678." >&2
    echo "See 'docker run --help'." >&2
    exit 125 ;;
esac
"""

SUPERVISOR = """
import signal, sys, time
from pathlib import Path
from llenergymeasure.results.write_outcome import AttemptOutcome
from llenergymeasure.results.layout import RunFolder
def end(status, code):
    outcome.end(folder, status, code)
    sys.exit(code)
folder = RunFolder(Path({folder!r}))
outcome = AttemptOutcome(1)
signal.signal(signal.SIGTERM, lambda *_: end("interrupted", 143))
outcome.begin(folder)
time.sleep({seconds})
end("completed", 0)
"""

LAUNCH = """
import sys
from llenergymeasure.containers import docker, launcher
docker.ASK_LIMIT_S, launcher.START_LIMIT_S, launcher.RETURN_LIMIT_S = 1, 2, 1
sys.exit(launcher.main())
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    program(tmp_path / "docker", DOCKER)
    return tmp_path


def _variables(fake: Path, **more: str) -> dict[str, str]:
    ours = {"LLEM_DOCKER": str(fake / "docker"), "FAKE": str(fake), "PYTHON": sys.executable}
    secret = {"HF_TOKEN": "hf_abcdefghijklmnopqrstu", "XDG_RUNTIME_DIR": str(fake)}
    return {"HANGS": "-", "DIES": "-", **ours, **secret, **more}


def _start(fake: Path, **variables: str) -> "subprocess.Popen[str]":
    plan = fake / "results" / "plan.json"
    plan.parent.mkdir()
    run = {"experiment": "abc", "cycle": 1, "backend": "pytorch"}
    run["config"] = {"model": "tiny-llama"}
    plan.write_text(json.dumps({"runs": [run]}))
    words = ["--runner", "docker", "--image", "i:1", "--run", "abc/1"]
    words += ["--spec", str(plan), "--out", str(_folder(fake))]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *words],
        cwd=fake,
        env=environment(**_variables(fake, **variables)),
        stderr=subprocess.PIPE,
        text=True,
    )


def _folder(fake: Path) -> Path:
    return fake / "results/runs/abc/1"


def _outcome(fake: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((_folder(fake) / "outcome.json").read_text())
    return found


def _nothing_is_left(fake: Path, said: str) -> None:
    assert "Traceback" not in said
    assert not list(fake.glob("*llem-token-*"))
    assert not living(str(fake))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("info", "info did not answer within 1 s"),
        ("run", "did not start the container within 2 s"),
    ],
)
def test_it_hangs_before_the_run(fake: Path, step: str, told: str) -> None:
    process = _start(fake, HANGS=step)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    outcome = _outcome(fake)
    assert outcome["status"] == "failed"
    assert outcome["error"]["class"] == "ContainerError"  # type: ignore[index]
    assert told in outcome["error"]["message"]  # type: ignore[index]
    _nothing_is_left(fake, said)
    if step == "run":
        assert f"rm --force llem-abc-1-{process.pid}" in (fake / "calls").read_text()


@pytest.mark.parametrize("step", ["info", "ps", "image", "run", "rm"])
def test_it_dies_before_the_run(fake: Path, step: str) -> None:
    process = _start(fake, DIES=step)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    error = _outcome(fake)["error"]
    assert error["class"] == "ContainerError"  # type: ignore[index]
    told = {"info": "does not answer", "run": "exit code -9"}.get(step, "no room, token=[removed]")
    assert told in error["message"]  # type: ignore[index]
    _nothing_is_left(fake, said)


def _supervise(fake: Path, seconds: float) -> None:
    folder = str(_folder(fake))
    (fake / "supervisor").write_text(SUPERVISOR.format(folder=folder, seconds=seconds))


def test_it_hangs_once_the_run_is_done(fake: Path) -> None:
    _supervise(fake, 3)
    process = _start(fake)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert _outcome(fake)["status"] == "completed"
    _nothing_is_left(fake, said)


def test_a_signal_reaches_the_run_without_the_daemon(fake: Path) -> None:
    _supervise(fake, 300)
    process = _start(fake, HANGS="rm")
    wait_for((_folder(fake) / "outcome.json").is_file)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert _outcome(fake)["status"] == "interrupted"
    assert "the next start, or llem clean, removes it" in said
    _nothing_is_left(fake, said)


def test_a_signal_before_the_run_began(fake: Path) -> None:
    process = _start(fake, HANGS="run")
    calls = fake / "calls"
    wait_for(lambda: calls.is_file() and "run " in calls.read_text())
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert _outcome(fake)["status"] == "interrupted"
    _nothing_is_left(fake, said)


@pytest.mark.parametrize("step", ["info", "ps", "inspect", "image", "pull", "run", "rm"])
def test_the_preflight_names_what_hangs(
    fake: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _variables(fake, HANGS=step).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(docker, "ASK_LIMIT_S", 0.5)
    monkeypatch.setattr(docker, "PULL_LIMIT_S", 0.5)
    monkeypatch.setattr(container_checks, "LOOK_LIMIT_S", 0.5)
    condition = {"pull": "absent", "inspect": "left", "rm": "left"}.get(step, "none")
    (fake / condition).write_text("false")
    container_setup = ContainerSetup.for_runs([], fake / "results")
    try:
        (problem,) = check_docker("pytorch", "i:1", container_setup)
    finally:
        container_setup.token.close()
    assert "did not answer within 0.5 s" in str(problem)
    if step == "run":
        assert f"rm --force llem-look-pytorch-{os.getpid()}" in (fake / "calls").read_text()
    assert not living(str(fake))


def test_clean_finds_containers_and_tokens_and_passes_over_a_daemon_that_hangs(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _variables(fake).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(docker, "ASK_LIMIT_S", 0.5)
    (fake / "left").write_text("false")
    token = fake / "llem-token-left"
    token.touch(mode=0o600)
    found = [each for each in machine_leftovers() if each.name in ("left", str(token))]
    assert {each.kind for each in found} == {"file", "container"}
    for each in found:
        each.remove()
    assert not token.exists()
    assert "rm --force left" in (fake / "calls").read_text()
    monkeypatch.setenv("HANGS", "inspect")
    assert "container" not in {each.kind for each in machine_leftovers()}


@pytest.mark.parametrize(("running", "left"), [("true", []), ("false", ["left"])])
def test_what_another_machine_runs_on_a_shared_daemon_is_left_alone(
    fake: Path, monkeypatch: pytest.MonkeyPatch, running: str, left: list[str]
) -> None:
    for name, value in _variables(fake).items():
        monkeypatch.setenv(name, value)
    (fake / "left").write_text(running)
    assert docker.abandoned_containers(docker.Engine(str(fake / "docker"))) == left


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have process ids of its own")
def test_who_has_process_ids_of_its_own_ends_no_container_of_the_host() -> None:
    """Its launcher has no number there, as from within a container that holds Docker's socket."""
    code = (
        "import sys; from llenergymeasure.containers.docker import _is_abandoned\n"
        "print([_is_abandoned(sys.argv[1], running) for running in ('true', 'false')])"
    )
    words = [sys.executable, "-c", code, docker._owner_label()]
    for apart, expected in (([], "[False, False]"), (["--pid", "--fork"], "[False, True]")):
        command = ["unshare", *apart, *(["--mount-proc"] if apart else []), *words]
        result = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert result.stdout.strip() == expected, result.stderr


def test_looking_for_a_process_that_is_not_its_own_leaves_no_file_open(tmp_path: Path) -> None:
    launch = _Launch.__new__(_Launch)
    launch._process_fd = None
    folder = RunFolder(tmp_path)
    folder.work.mkdir()
    folder.engine_pid.write_text(str(os.getppid()))
    launch._task = Task("a/1", {}, folder, tmp_path, ENGINE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert all(launch._find_process() for _ in range(5))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
