"""One archive from which LLenergyMeasure installs on a machine without a network.

    python tools/offline_bundle.py [--extras host,zeus] [--python 3.12] [--platform x86_64]

Wheels of this repository and of all that the extras need, for this interpreter, or for another one
and another machine. What has no wheel on the index is built here.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
GLIBC = (5, 12, 17, *range(24, 40))
"""Minor versions of glibc 2 that wheels are made for, up to that of Ubuntu 24.04."""
SOURCE_ONLY = ("connection_pool",)
"""What the index has no wheel of: pip finds it for another interpreter only if it is made first."""


def main(arguments: list[str] | None = None) -> int:
    """Build the archive; return 1 if something cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="host,zeus", help="what pyproject.toml calls so")
    parser.add_argument("--python", help="its version there, as 3.12; default this one")
    parser.add_argument("--platform", default="x86_64", help="its processor there, with --python")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="offline-bundle-") as name:
        wheels = Path(name) / "wheels"
        wheels.mkdir()
        try:
            _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
            # By its file, never by its name: what the index has under that name is another program.
            requirement = f"{next(wheels.iterdir())}[{options.extras}]"
            if options.python is None:
                _pip("wheel", "--wheel-dir", str(wheels), *_constraints(), requirement)
            else:
                _download(wheels, requirement, options.python, options.platform)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        wheel = requirement.removeprefix(f"{wheels.parent}/")
        print(pack(wheels, wheel, options.out, options.python or "this", options.platform))
    return 0


def _constraints() -> list[str]:
    return ["--constraint", str(ROOT / "envs" / "constraints.txt")]


def _download(wheels: Path, requirement: str, python: str, processor: str) -> None:
    """Get the wheels for another interpreter, building those that no one offers."""
    for package in SOURCE_ONLY:
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), *_constraints(), package)
    local_wheels = [
        wheel.name for wheel in wheels.iterdir() if not wheel.name.endswith("-none-any.whl")
    ]
    if local_wheels:
        raise RuntimeError(f"made for this machine alone: {', '.join(local_wheels)}")
    options = ["--find-links", str(wheels), *_constraints(), *tags(python, processor)]
    _pip("download", "--dest", str(wheels), *options, requirement)


def tags(python: str, processor: str) -> Iterator[str]:
    """Yield pip's options for another interpreter's wheels."""
    yield from ("--only-binary=:all:", "--implementation", "cp", "--python-version", python)
    for minor in reversed(GLIBC):
        yield from ("--platform", f"manylinux_2_{minor}_{processor}")
    for older in ("manylinux2014", "manylinux2010", "manylinux1", "linux"):
        yield from ("--platform", f"{older}_{processor}")


def pack(wheels: Path, requirement: str, out: Path, python: str, processor: str) -> Path:
    """Write the archive and how to install from it; return its path."""
    if python == "this":
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        processor = next(iter(subprocess.check_output(["uname", "-m"], text=True).split()))
    name = f"llenergymeasure-offline-python{python}-{processor}.tar"
    (wheels.parent / "INSTALL.txt").write_text(
        f"tar xf {name}\n"
        "python3 -m venv llem-env\n"
        f"llem-env/bin/pip install --no-index --find-links wheels './{requirement}'\n"
    )
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{name}.part"
    with tarfile.open(temporary, "w") as archive:  # wheels are compressed already
        archive.add(wheels.parent / "INSTALL.txt", "INSTALL.txt")
        for wheel in sorted(wheels.iterdir()):
            archive.add(wheel, f"wheels/{wheel.name}")
    return temporary.replace(out / name)


def _pip(*arguments: str) -> None:
    result = subprocess.run([*PIP, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        lines = (result.stdout + result.stderr).splitlines()
        raise RuntimeError("\n".join(line for line in lines if not line.startswith("WARN"))[-2000:])


if __name__ == "__main__":
    sys.exit(main())
