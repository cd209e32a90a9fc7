"""Put each fault of ``faults.py`` into a copy of the package and say whether a test notices it.

``python tests/mutants/run.py`` runs them all, and ends with 1 where one survives; with words
behind it only those whose file, text or meaning holds one of them. Takes some minutes.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet  # noqa: F401 - imported once, for all forks
import pydantic  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
from faults import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def main(words: Sequence[str]) -> int:
    """Run the faults that the words name; return 1 where a test misses one."""
    chosen = [each for each in MUTANTS if not words or any(word in str(each) for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        package = Path(name) / "llenergymeasure"
        shutil.copytree(ROOT / "src" / "llenergymeasure", package)
        tests = list(dict.fromkeys(test for each in chosen for test in each.tests))
        if not passes(package, tests):
            print("the tests fail without a fault", file=sys.stderr)
            return 2
        survived = [each for each in chosen if not caught(package, each)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    return 1 if survived else 0


def caught(package: Path, mutant: Mutant) -> bool:
    """Return whether a test fails with the fault, and print it."""
    path = package / mutant.file
    sound = path.read_text()
    _write(path, sound.replace(mutant.old, mutant.new))
    found = not passes(package, mutant.tests)
    _write(path, sound)
    print(f"{'caught  ' if found else 'SURVIVED'}  {mutant.file}: {mutant.told}", flush=True)
    return found


def _write(path: Path, text: str) -> None:
    """Write a module; its bytecode may be taken for that of the new text, and goes."""
    path.write_text(text)
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def passes(package: Path, tests: Sequence[str]) -> bool:
    """Return whether the tests pass with a copy of the package.

    They run in a fork of this process, which has imported what takes longest.
    """
    child = multiprocessing.get_context("fork").Process(target=_test, args=(package, tests))
    child.start()
    child.join()
    if child.exitcode not in (0, 1):
        raise SystemExit(f"pytest ended with {child.exitcode} on {' '.join(tests)}")
    return child.exitcode == 0


def _test(package: Path, tests: Sequence[str]) -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (package.parent, TESTS)))
    sys.path[:0] = [str(package.parent), str(TESTS)]
    os.chdir(ROOT)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow and not system"]
    code = pytest.ExitCode.INTERNAL_ERROR
    try:
        code = pytest.main([*options, *(str(TESTS / test) for test in tests)])
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
