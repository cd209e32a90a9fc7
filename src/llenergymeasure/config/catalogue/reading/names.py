"""What a name in a source file stands for, followed through imports and assignments."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llenergymeasure.config.catalogue.reading.release import Release

MAX_STEPS = 30
"""More imports in a row than any release has."""


@dataclass(frozen=True)
class Found:
    """A node of a syntax tree, and the module its names are to be looked up in."""

    node: ast.AST
    module: "Module"


class Module:
    """One source file: its top-level classes, assignments and imports, by name."""

    def __init__(self, name: str, path: str, tree: ast.Module, sources: "Sources") -> None:
        self.name = name
        self.path = path
        self.tree = tree
        self.sources = sources
        self._own: dict[str, ast.AST] = {}
        self._imported: dict[str, tuple[str, str | None]] = {}
        self._collect(tree.body)

    def find(self, name: str) -> Found | None:
        """Return what a plain name stands for, wherever it is defined; null if not in here."""
        return self._find(name, MAX_STEPS)

    def _find(self, name: str, steps: int) -> Found | None:
        if name in self._own:
            return Found(self._own[name], self)
        if steps == 0 or name not in self._imported:
            return None
        module, attribute = self._imported[name]
        if attribute is None:
            return None
        other = self.sources.module(module)
        return other._find(attribute, steps - 1) if other is not None else None

    def find_dotted(self, node: ast.expr) -> Found | None:
        """Return what a name, or a name in an imported module, stands for."""
        if isinstance(node, ast.Name):
            return self.find(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            other = self._module_named(node.value.id)
            return other.find(node.attr) if other is not None else None
        return None

    def imported_names(self) -> tuple[str, ...]:
        """Return the names that come from other modules, in order."""
        return tuple(self._imported)

    def _module_named(self, name: str) -> "Module | None":
        if name not in self._imported:
            return None
        module, attribute = self._imported[name]
        full = module if attribute is None else f"{module}.{attribute}"
        return self.sources.module(full)

    def _collect(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.If):
                # A name that only a type checker sees says more than its stand-in.
                self._collect(statement.body)
                self._collect(statement.orelse)
            elif isinstance(statement, ast.Try):
                self._collect(statement.body)
                for handler in statement.handlers:
                    self._collect(handler.body)
            else:
                self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.ClassDef):
            self._own.setdefault(statement.name, statement)
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name) and target.id not in self._imported:
                    self._own.setdefault(target.id, statement.value)
        elif isinstance(statement, ast.AnnAssign):
            if isinstance(statement.target, ast.Name) and statement.value is not None:
                self._own.setdefault(statement.target.id, statement.value)
        elif isinstance(statement, ast.ImportFrom):
            source = self._absolute(statement)
            for alias in statement.names:
                self._imported.setdefault(alias.asname or alias.name, (source, alias.name))
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                top = alias.name.partition(".")[0]
                target_module = alias.name if alias.asname else top
                self._imported.setdefault(alias.asname or top, (target_module, None))

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        package = self.name.split(".")
        if not self.path.endswith("__init__.py"):
            package = package[:-1]
        package = package[: len(package) - statement.level + 1]
        return ".".join([*package, *([statement.module] if statement.module else [])])


class Sources:
    """The modules of a release, each read once."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self._known: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """Return a module by its dotted name; null if the release has none by it."""
        if name not in self._known:
            path = self.release.path_of(name)
            self._known[name] = None
            if path is not None:
                self._known[name] = Module(name, path, self.release.tree(path), self)
        return self._known[name]

    def find_class(self, name: str) -> Found | None:
        """Return a class by its name, from whichever module read so far knows it."""
        for module in list(self._known.values()):
            found = None if module is None else module.find(name)
            if found is not None and isinstance(found.node, ast.ClassDef):
                return found
        return None

    def read(self) -> tuple[str, ...]:
        """Return the paths of the files read so far, sorted."""
        return tuple(sorted(each.path for each in self._known.values() if each is not None))


def class_in(module: Module, name: str) -> tuple[ast.ClassDef, Module] | None:
    """Return a class by the name it has in ``module``; null if that is no class."""
    found = module.find(name)
    if found is None or not isinstance(found.node, ast.ClassDef):
        return None
    return found.node, found.module


def attributes(node: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Yield a class's annotated attributes in order, each with the text that describes it."""
    body = list(node.body)
    for place, statement in enumerate(body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        after = body[place + 1] if place + 1 < len(body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = after.value.value if isinstance(after.value.value, str) else ""
        yield statement, text
