"""The Python sources of a release: a wheel, an unpacked folder, or what is installed here."""

import ast
import re
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from llenergymeasure.errors import ConfigurationError, Problem

_STATED = re.compile(r"""^__version__[^\n]*=\s*["']([^"']+)["']""", re.MULTILINE)


class Release:
    """The sources of one release of one package. Nothing of it is imported."""

    def __init__(self, package: str, location: Path) -> None:
        """Open a release.

        Args:
            package: the package's import name.
            location: a wheel, or a folder that holds the package's folder.

        Raises:
            ConfigurationError: the package is not there.
        """
        self.package = package
        self.location = location
        self._archive = _archive(location)
        if self.text(f"{package}/__init__.py") is None:
            message = (
                f"holds no package {package}; give a wheel of it, or a folder it is unpacked in"
            )
            raise ConfigurationError(Problem(message, file=location))

    @classmethod
    def installed(cls, package: str) -> "Release":
        """Open the release that is installed in this environment.

        Raises:
            ConfigurationError: none is.
        """
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            message = f"{package} is not installed here; give a wheel with --wheel"
            raise ConfigurationError(Problem(message))
        return cls(package, Path(next(iter(spec.submodule_search_locations))).parent)

    @cached_property
    def version(self) -> str:
        """The release's version; ``unknown`` where no metadata lies beside it."""
        for name in self._metadata_files():
            text = self.text(name)
            if text is not None:
                return str(HeaderParser().parsestr(text)["Version"])
        for name in ("_version.py", "version.py", "__init__.py"):
            stated = _STATED.search(self.text(f"{self.package}/{name}") or "")
            if stated is not None:
                return stated.group(1)
        return "unknown"

    def text(self, path: str) -> str | None:
        """Return the text of a file in the release; null if there is no such file."""
        if self._archive is not None:
            try:
                return self._archive.read(path).decode()
            except KeyError:
                return None
        try:
            return (self.location / path).read_text("utf-8")
        except OSError:
            return None

    def tree(self, path: str) -> ast.Module:
        """Return a source file's syntax tree.

        Raises:
            ConfigurationError: the file is missing, or is no Python.
        """
        text = self.text(path)
        if text is None:
            message = f"has no {path}: this release of {self.package} is laid out otherwise"
            raise ConfigurationError(Problem(message, file=self.location))
        try:
            return ast.parse(text)
        except SyntaxError as error:
            message = f"{path} cannot be read by this Python: {error.msg}, line {error.lineno}"
            raise ConfigurationError(Problem(message, file=self.location)) from None

    def path_of(self, module: str) -> str | None:
        """Return the file of a module given by its dotted name; null if it is not in here."""
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if self.has(path):
                return path
        return None

    def has(self, path: str) -> bool:
        """Whether the release has such a file."""
        if self._archive is not None:
            return path in self._names
        return (self.location / path).is_file()

    def files(self, folder: str) -> list[str]:
        """Return the Python files right inside a folder of the release, sorted."""
        if self._archive is not None:
            found = [name for name in self._names if str(PurePosixPath(name).parent) == folder]
        else:
            found = [f"{folder}/{path.name}" for path in (self.location / folder).glob("*.py")]
        return sorted(name for name in found if name.endswith(".py"))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._archive.namelist() if self._archive is not None else ())

    def _metadata_files(self) -> Iterator[str]:
        prefix = f"{self.package}-"
        if self._archive is not None:
            yield from (
                name
                for name in sorted(self._names)
                if name.startswith(prefix) and name.endswith(".dist-info/METADATA")
            )
            return
        for path in sorted(self.location.glob(f"{prefix}*.dist-info/METADATA")):
            yield path.relative_to(self.location).as_posix()


def _archive(location: Path) -> zipfile.ZipFile | None:
    if location.is_dir():
        return None
    try:
        return zipfile.ZipFile(location)
    except (OSError, zipfile.BadZipFile) as error:
        message = f"is neither a folder nor a wheel: {error}"
        raise ConfigurationError(Problem(message, file=location)) from None
