"""The committed parameters are those of the engines that are installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.config.engine_parameters import ENGINES, load
from support.studies import ROOT
from support.vllm import vllm_python

sys.path.append(str(ROOT / "tools"))
PAGES = ROOT / "docs" / "engines"


def dumped(python: Path | str, engine: str, folder: Path) -> object:
    """Return what the engine in another environment says."""
    tool, path = ROOT / "tools" / "dump_engine_parameters.py", folder / "asked.json"
    command = [str(python), str(tool), engine, str(path)]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    return json.loads(path.read_text())


@pytest.mark.slow
def test_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert dumped(sys.executable, "pytorch", tmp_path) == load("pytorch")


@pytest.mark.slow
def test_of_vllm(tmp_path: Path) -> None:
    assert dumped(vllm_python(), "vllm", tmp_path) == load("vllm")


@pytest.mark.parametrize("engine", ENGINES)
def test_page_is_the_generated_one(engine: str) -> None:
    from engine_pages import page

    assert (PAGES / f"{engine}.md").read_text() == page(engine), "run: make reference"


@pytest.mark.parametrize("engine", ENGINES)
def test_what_matters_to_energy_is_there(engine: str) -> None:
    from engine_energy import MATTERS

    properties = load(engine)["properties"]
    for dotted in MATTERS[engine]:
        section, _, name = dotted.partition(".")
        assert name in (properties if engine == "pytorch" else properties[section]["properties"]), (
            dotted
        )
