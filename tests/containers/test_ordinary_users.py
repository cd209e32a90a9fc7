"""Without root: Apptainer and Podman.

The ordinary user is this one in a user namespace: it may read what this one may (an interpreter in
a home directory, say), and has none of root's rights.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from support.studies import ROOT, environment, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]

AS_A_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.fixture(scope="module")
def ordinary() -> Sequence[str]:
    """The command that runs another one as an ordinary user."""
    result = subprocess.run([*AS_A_USER, "id", "-u"], capture_output=True, text=True, check=False)
    if result.stdout.strip() != "1000":
        pytest.skip(f"no user namespaces here: {result.stderr.strip()}")
    return AS_A_USER


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of a Podman that shares nothing with one that may be in use here."""
    if shutil.which("podman") is None or shutil.which("runc") is None:
        pytest.skip("no podman with runc: .ci/install_podman.sh installs them")
    folder = tmp_path / "podman"
    (folder / "run").mkdir(parents=True, mode=0o700)
    (folder / "containers.conf").write_text(
        # Podman's own limits are above what root may set in many virtual machines.
        '[containers]\ndefault_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\n'
        f'runroot = "{folder}/run/storage"\n'
        '[storage.options.overlay]\nignore_chown_errors = "true"\n'
    )
    yield {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "LLEM_DOCKER": "podman",
    }
    # Without root, Podman keeps its namespace alive by a process that only waits.
    for pause in (folder / "run").rglob("pause.pid"):
        os.kill(int(pause.read_text()), signal.SIGTERM)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("image", ["folder", "file"])
def test_apptainer(
    ordinary: Sequence[str], image: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    if image == "file" and (shutil.which("squashfuse") is None or not Path("/dev/fuse").exists()):
        pytest.skip("no squashfuse with /dev/fuse: .ci/install_apptainer.sh installs the first")
    place: Path = request.getfixturevalue("base_root" if image == "folder" else "sif")
    result = _study(ordinary, tmp_path, f"apptainer:{place}", {"HOME": str(tmp_path)})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 of 1 run completed" in result.stderr


@pytest.mark.long
@pytest.mark.timeout(600)
def test_rootless_podman(
    ordinary: Sequence[str], base_root: Path, tmp_path: Path, podman: dict[str, str]
) -> None:
    # One namespace for all: Podman leaves a waiting process in each that it has seen.
    script = tmp_path / "script.sh"
    script.write_text(
        "set -e\n"
        'tar -C "$1" --exclude=./var -c . | podman import - llem-test:1 >/dev/null\n'
        "shift\n"
        '"$@"\n'
        'test -z "$(podman ps --all --quiet)"\n'
    )
    prefix = (*ordinary, "bash", "-o", "pipefail", str(script), str(base_root))
    # In a folder that is not in the image, with results elsewhere.
    folder = tmp_path / "my studies"
    folder.mkdir()
    elsewhere = {"output_dir": str(tmp_path / "results")}
    result = _study(prefix, folder, "docker:llem-test:1", podman, **elsewhere)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 of 1 run completed" in result.stderr
    made = list((tmp_path / "results").rglob("*"))
    assert made
    for path in made:
        assert path.stat().st_uid == os.getuid()


def _study(
    prefix: Sequence[str], folder: Path, runner: str, variables: Mapping[str, str], **settings: str
) -> subprocess.CompletedProcess[str]:
    study = write_study(folder, runners={"pytorch": runner}, **settings)
    offered = ["--use-apptainer"] if runner.startswith("apptainer") else []
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return subprocess.run(
        [*prefix, *snakemake, "--cores", "1", *offered, "--configfile", str(study)],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
