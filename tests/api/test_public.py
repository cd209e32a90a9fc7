"""The public names: what they are, that they are used and documented, and that they stay light."""

import re
import subprocess
import sys

import llenergymeasure
from docs.pages import ROOT, blocks

NAMES = {
    "BackendError",
    "ConfigurationError",
    "ExperimentResult",
    "FailedRun",
    "LlemError",
    "MeterError",
    "Metered",
    "PreflightError",
    "ResultsError",
    "RunFailedError",
    "StudyLockedError",
    "StudyPaths",
    "StudyResult",
    "__version__",
    "load_result",
    "load_results",
    "meter",
    "run_experiment",
    "run_study",
}
"""A name leaves this list one minor version after it was deprecated; see docs/api.md."""


def test_the_public_names_are_these_and_exist() -> None:
    assert set(llenergymeasure.__all__) == NAMES
    for name in NAMES:
        assert getattr(llenergymeasure, name) is not None
    assert set(dir(llenergymeasure)) >= NAMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(llenergymeasure, "run_experimnt")


def test_every_public_name_is_used_in_an_example_that_runs() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    code = "\n".join(block.text for block in blocks(page) if block.language == "python")
    missing = [name for name in NAMES if not re.search(rf"\b{name}\b", code)]
    assert missing == []


def test_every_error_is_one_of_ours() -> None:
    errors = [name for name in NAMES if name.endswith("Error")]
    assert all(
        issubclass(getattr(llenergymeasure, name), llenergymeasure.LlemError) for name in errors
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, llenergymeasure; print(sorted(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("numpy", "pyarrow", "pydantic", "torch", "pandas", "snakemake"):
        assert f"'{heavy}'" not in child.stdout
