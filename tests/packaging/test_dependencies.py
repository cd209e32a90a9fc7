"""What the code imports is declared where it is needed, and what was tested lies in the bounds."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from docs.pages import ROOT
from llenergymeasure.backends.pytorch.checks import MIN_TRANSFORMERS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

DISTRIBUTIONS = {
    "lm_eval": "lm-eval",
    "pynvml": "nvidia-ml-py",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
"""Modules whose distribution has another name."""

BROUGHT = {
    "huggingface_hub": "transformers",
    "markupsafe": "jinja2",
    "packaging": "snakemake",
    "pydantic_core": "pydantic",
    "snakemake_interface_executor_plugins": "snakemake",
}
"""Modules that a declared distribution requires itself, and hands out objects of."""

ENGINES = {"sglang", "tensorrt_llm", "vllm"}
"""They come with their images, or from envs/."""

DRIVERS = {"amdsmi"}
"""They come with a GPU's driver: another release than the driver's does not work."""

NOT_IMPORTED = {"snakemake-executor-plugin-slurm"}
"""Snakemake finds it by its name."""


def _names(requirements: list[str]) -> set[str]:
    return {Requirement(each).name for each in requirements}


BASE = _names(PROJECT["dependencies"])
DECLARED = BASE.union(*(_names(EXTRAS[name]) for name in EXTRAS if name not in ("docs", "dev")))


def _imported(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each foreign module's name, and whether it is imported as soon as the file is."""
    tree = ast.parse(path.read_text("utf-8"))
    apart = ast.FunctionDef | ast.AsyncFunctionDef | ast.If  # if TYPE_CHECKING
    later = {
        inner for node in ast.walk(tree) if isinstance(node, apart) for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        for module in modules:
            name = module.partition(".")[0]
            if name not in sys.stdlib_module_names and name != "llenergymeasure":
                yield name, node not in later


SOURCES = [*ROOT.glob("src/**/*.py"), *ROOT.glob("scripts/*.py")]
FOUND = [(path, *found) for path in SOURCES for found in _imported(path)]


def _distribution(module: str) -> str:
    return DISTRIBUTIONS.get(module) or BROUGHT.get(module) or module


def test_every_import_is_declared_and_every_declared_package_is_used() -> None:
    used = {_distribution(module) for _path, module, _at_once in FOUND} - ENGINES - DRIVERS
    assert used == DECLARED - NOT_IMPORTED


def test_the_base_install_imports_no_extra_s_package() -> None:
    """An engine's own files and the command line alone need more than the base from the start."""
    strangers = {
        f"{path.relative_to(ROOT)}: {module}"
        for path, module, at_once in FOUND
        if at_once and _distribution(module) not in BASE and "cli" not in path.parts
        if not re.search(r"backends/(pytorch|vllm|sglang|tensorrt)/", path.as_posix())
    }
    assert strangers == set()


@pytest.mark.parametrize(
    "file", ["constraints.txt", "pytorch.txt", "vllm-cpu.txt", "sglang-cpu.txt"]
)
def test_tested_versions_lie_in_the_bounds(file: str) -> None:
    lines = (ROOT / "envs" / file).read_text().splitlines()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", "\n".join(lines), re.MULTILINE))
    versions = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    bounds = [Requirement(each) for group in groups for each in group]
    outside = {
        str(each): versions[each.name.lower()]
        for each in bounds
        if each.name.lower() in versions
        and not each.specifier.contains(versions[each.name.lower()])
    }
    assert outside == {}


def test_the_least_transformers_is_the_one_that_pip_is_asked_for() -> None:
    assert f"transformers>={MIN_TRANSFORMERS}" in EXTRAS["pytorch"]
