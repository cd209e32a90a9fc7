"""The archive for a machine without a network, with pip stood in for."""

import tarfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from support.programs import loaded
from support.studies import ROOT

OWN = "llenergymeasure_workflow-0.1.0-py3-none-any.whl"


@pytest.fixture
def bundle() -> ModuleType:
    return loaded("tools/offline_bundle.py")


@pytest.fixture
def asked(bundle: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    calls: list[tuple[str, ...]] = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        folder = next(
            Path(after)
            for option, after in pairwise(arguments)
            if option in ("--wheel-dir", "--dest")
        )
        names = {str(ROOT): OWN, "connection_pool": "connection_pool-0.0.3-py3-none-any.whl"}
        (folder / names.get(arguments[-1], "snakemake-9.27.1-py3-none-any.whl")).write_text("")

    monkeypatch.setattr(bundle, "_pip", pip)
    return calls


@pytest.mark.parametrize("more", [[], ["--python", "3.12"]])
def test_it_holds_this_project_and_never_the_index_s_of_that_name(
    bundle: ModuleType, asked: list[tuple[str, ...]], tmp_path: Path, more: list[str]
) -> None:
    assert bundle.main(["--out", str(tmp_path), *more]) == 0
    (path,) = tmp_path.iterdir()
    with tarfile.open(path) as archive:
        names = archive.getnames()
        install = archive.extractfile("INSTALL.txt").read().decode().splitlines()
    assert f"wheels/{OWN}" in names
    assert "wheels/snakemake-9.27.1-py3-none-any.whl" in names
    assert install[0] == f"tar xf {path.name}"
    # Debian's and Ubuntu's own pip installs into an environment alone.
    assert install[1] == "python3 -m venv llem-env"
    wanted = f"--no-index --find-links wheels './wheels/{OWN}[host,zeus]'"
    assert install[2:] == [f"llem-env/bin/pip install {wanted}"]
    assert asked[-1][-1].endswith(f"/wheels/{OWN}[host,zeus]")
    if more:
        assert "wheels/connection_pool-0.0.3-py3-none-any.whl" in names
        assert {"--python-version", "3.12", "manylinux_2_17_x86_64"} <= {*asked[-1]}


def test_what_is_made_for_this_machine_alone_is_refused(
    bundle: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pip(*arguments: str) -> None:
        name = OWN if arguments[-1] == str(ROOT) else "fast-1-cp311-cp311-linux_x86_64.whl"
        (Path(arguments[arguments.index("--wheel-dir") + 1]) / name).write_text("")

    monkeypatch.setattr(bundle, "_pip", pip)
    assert bundle.main(["--out", str(tmp_path), "--python", "3.12"]) == 1
    assert "for this machine alone: fast-1" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_pip_s_reason_is_told(
    bundle: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bundle, "PIP", ("sh", "-c", "echo ERROR: no network >&2; exit 1"))
    assert bundle.main(["--out", str(tmp_path)]) == 1
    assert "ERROR: no network" in capsys.readouterr().err
