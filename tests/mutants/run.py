"""Put each fault of ``faults.py`` into a copy of the package and say whether a test notices it.

``python tests/mutants/run.py`` runs them all, and ends with 1 where one survives; with words
behind it only those whose file, text or meaning holds one of them. Takes some minutes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
    path.write_text(sound.replace(mutant.old, mutant.new))
    found = not passes(package, mutant.tests)
    path.write_text(sound)
    print(f"{'caught  ' if found else 'SURVIVED'}  {mutant.file}: {mutant.told}", flush=True)
    return found


def passes(package: Path, tests: Sequence[str]) -> bool:
    """Return whether the tests pass with a copy of the package."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not system", *(str(TESTS / test) for test in tests)]
    # A changed file may have its old size and second: no bytecode is kept of it.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = f"{package.parent}{os.pathsep}{TESTS}"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
