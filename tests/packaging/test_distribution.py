"""What is released: a source distribution and a wheel, each complete and installable."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import llenergymeasure
from docs.pages import ROOT
from support.studies import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = f"llenergymeasure_workflow-{llenergymeasure.__version__}"


def _run(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Run a command that must end well, with none of this environment's own code in its way."""
    base = {key: value for key, value in environment().items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=base | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _made_here(folder: str, names: list[str]) -> set[str]:
    """Return what a fresh clone does not hold."""
    made = {name for name in names if name in ("__pycache__", ".git") or name.endswith("_cache")}
    if Path(folder) == ROOT:
        made |= {".venv", "build", "dist", "results", "site", ".snakemake", ".hypothesis"}
    return made


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy of the sources; the wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("release")
    clone, out = folder / "clone", folder / "dist"
    shutil.copytree(ROOT, clone, ignore=_made_here)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), "."], clone)
    return out


@pytest.fixture(scope="module")
def clean(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what a worker needs, from the package index."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, with_pip=True)
    wheel = str(dist / f"{NAME}-py3-none-any.whl")
    constraints = str(ROOT / "envs" / "constraints.txt")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", constraints]
    _run([*pip, "--disable-pip-version-check", wheel], folder.parent)
    return folder


def test_both_are_complete(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl") as wheel:
        held = set(wheel.namelist())
        metadata = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    workflow = [
        "Snakefile",
        "config/config.yaml",
        "profiles/default/config.yaml",
        *(str(path.relative_to(ROOT)) for path in (ROOT / "rules").glob("*.smk")),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "scripts").glob("*.py")),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "containers").glob("*.def")),
    ]
    assert [name for name in workflow if f"llenergymeasure/_workflow/{name}" not in held] == []
    source = ROOT / "src"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    package = [path for path in files if path.suffix != ".pyc" and "egg-info" not in str(path)]
    assert [path for path in package if str(path) not in held] == []
    assert f"{NAME}.dist-info/licenses/LICENSE" in held
    assert not [name for name in held if name.startswith(("tests/", "docs/"))]
    assert "Requires-Python: <3.14,>=3.11" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    with tarfile.open(dist / f"{NAME}.tar.gz") as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    for name in ("LICENSE", "CHANGELOG.md", "Makefile", "tests/conftest.py", "docs/index.md"):
        assert name in names
    assert not [name for name in names if name.startswith(("build/", "results/", ".venv/"))]


def test_a_base_install_is_light_and_works(clean: Path, tmp_path: Path) -> None:
    python = str(clean / "bin" / "python")
    _run([python, "-m", "pip", "check"], tmp_path)
    code = (
        "import llenergymeasure, sys\n"
        "import llenergymeasure.run.measure_script, llenergymeasure.run.engine.engine_process\n"
        "import llenergymeasure.run.result.build_result, llenergymeasure.recording.recorder\n"
        "with llenergymeasure.meter() as energy:\n    sum(range(100000))\n"
        "assert energy.window_s > 0\n"
        "from llenergymeasure.installation import engine_install_command, workflow_root\n"
        "assert open(engine_install_command('vllm').removeprefix('pip install -r ')).read()\n"
        "assert (workflow_root() / 'containers' / 'vllm.def').is_file()\n"
        "print(llenergymeasure.__version__, llenergymeasure.__file__)\n"
        "print(sorted(set(sys.modules) & {'torch', 'scipy', 'pandas', 'snakemake', 'typer'}))"
    )
    told = _run([python, "-c", code], tmp_path).splitlines()
    assert told[0].startswith(f"{llenergymeasure.__version__} {clean}")
    assert told[1] == "[]"


def test_the_installed_command_runs_a_model(clean: Path, tmp_path: Path) -> None:
    """The rest comes from the environment of these tests; the code only from the wheel."""
    packages = next((clean / "lib").glob("python*/site-packages"))
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    llem = str(clean / "bin" / "llem")
    cache = os.environ["LLEM_CACHE"]
    assert _run([llem, "--version"], tmp_path) == f"llem {llenergymeasure.__version__}\n"
    where = [str(clean / "bin" / "python"), "-c", "import llenergymeasure as l; print(l.__file__)"]
    assert _run(where, tmp_path).startswith(str(clean))
    said = _run(
        [llem, "run", "--model", "tiny-llama", "--n", "2", "--max-output-tokens", "4"],
        tmp_path,
        LLEM_CACHE=cache,
    )
    assert "1 of 1 run completed" in said
    assert (tmp_path / "results" / "run-tiny-llama" / "report.html").is_file()
    home = {"HOME": str(tmp_path / "home"), "LLEM_CACHE": cache}
    study = tmp_path / "study.yaml"
    study.write_text(
        "model: tiny-llama\nn: 2\nmax_output_tokens: 4\nprotocol: quick\n"
        "sweep: {pytorch.batch_size: [1, 2]}\nexecution: {n_cycles: 1}\n"
    )
    assert "2 of 2 runs completed" in _run([llem, "run", str(study)], tmp_path, **home)
    assert _run([llem, "report"], tmp_path, **home).endswith("results/study/report.html\n")
