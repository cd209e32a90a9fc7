"""What installs what is missing, in the installation at hand; and the other program's name."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from docs.pages import ROOT
from llenergymeasure.installation import DISTRIBUTION, install_command, namesake_warning

METADATA = """Metadata-Version: 2.4
Name: {name}
Version: {version}
Requires-Dist: numpy>=1.26
Requires-Dist: typer>=0.16; extra == "host"
Requires-Dist: snakemake<10,>=9.27; extra == "host"
Requires-Dist: torch>=2.6; extra == "pytorch"
"""


def _installed(folder: Path, name: str, version: str, origin: str | None = None) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(METADATA.format(name=name, version=version))
    if origin is not None:
        (info / "direct_url.json").write_text(origin)


def test_in_a_clone_it_is_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    (clone / "pyproject.toml").touch()
    origin = f'{{"url": "{clone.as_uri()}", "dir_info": {{"editable": true}}}}'
    _installed(tmp_path / "site", DISTRIBUTION, "9", origin)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert install_command("host") == f"{sys.executable} -m pip install -e '{clone}[host]'"


def test_from_a_wheel_it_is_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(tmp_path, DISTRIBUTION, "9", '{"url": "file:///w.whl", "archive_info": {}}')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert install_command("host") == (
        f"{sys.executable} -m pip install 'typer>=0.16' 'snakemake<10,>=9.27'"
    )


def test_copied_code_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", none)
    assert "image" in install_command("pytorch")
    assert namesake_warning() is None


def test_the_other_program_beside_this_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(tmp_path, "llenergymeasure", "0.7.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = namesake_warning()
    assert said is not None
    assert "llenergymeasure 0.7.0, another program" in said
    assert "pip uninstall llenergymeasure" in said


def test_without_the_command_line_s_packages_llem_says_what_installs_them() -> None:
    code = "import sys; sys.modules['typer'] = None; from llenergymeasure.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"llem: the command line's own packages are missing: {install_command('host')}\n"
    )


def test_nothing_says_to_install_the_other_program() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("profiles/*.md")]
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("envs/*"), *ROOT.glob("containers/*")]
    line = re.compile(
        r"^.*(?:install|^\s*-)\s[^\n]*\bllenergymeasure(?:\[|['\"]?$).*$", re.MULTILINE
    )
    found = {
        str(path.relative_to(ROOT)): line.findall(path.read_text())
        for path in [*pages, *sources]
        if path.is_file()
    }
    assert {name: lines for name, lines in found.items() if lines} == {}
