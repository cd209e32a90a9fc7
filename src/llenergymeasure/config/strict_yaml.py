"""YAML read strictly: plain values only, each with the line it stands on.

Beyond what a YAML reader checks: UTF-8 only, a size limit, no documents that grow when their
aliases are expanded, no duplicate keys, no tags, no numbers that are not finite. Booleans are those
of YAML 1.2, ``true`` and ``false``: ``on`` is a key like any other. Dates, base-60 and zero-led
integers of YAML 1.1 stay text, and ``1e-3`` is a number.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llenergymeasure.errors import ConfigurationError, Problem

MAX_BYTES = 8 * 1024 * 1024
MAX_NODES = 500_000
MAX_DEPTH = 50
MAX_KEYS = 2_000
"""Of one mapping: each that is not known costs a search for what may have been meant."""
MAX_DIGITS = 100

KeyPath = tuple[str | int, ...]

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_MERGE = _STANDARD + "merge"
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Place:
    """Where a value was written. Lines count from 1."""

    file: Path | None
    line: int | None = None


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which quotes text that a reader of either YAML takes for another value."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    """Quote text with line ends of Unicode, which a reader takes for spaces otherwise."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_STANDARD + "str", text, style=style)


_Dumper.add_representer(str, _represent_text)


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader with the surprising plain scalars of YAML 1.1 taken out."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (
        "int",
        r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+)$",
        list("-+0123456789"),
    ),
    (
        "float",
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        list("-+0123456789."),
    ),
    ("merge", r"^(?:<<)$", ["<"]),
):
    for _reader in (_Loader, _Dumper):
        _reader.add_implicit_resolver(_STANDARD + _name, re.compile(_pattern), _first)


def dump(values: Mapping[str, Any], **options: Any) -> str:
    """Return plain values as a file from which :func:`read` gives the same."""
    options = {"sort_keys": False, "allow_unicode": True, **options}
    return str(yaml.dump(dict(values), Dumper=_Dumper, **options))


def read(path: Path) -> tuple[Any, dict[KeyPath, Place]]:
    """Return the value of a YAML file and the place of each key and item in it.

    Raises:
        ConfigurationError: the file cannot be read or is not strict YAML.
    """
    try:
        if path.is_dir():
            raise ConfigurationError(Problem("is a folder; name a YAML file in it", file=path))
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(Problem("no such file; check the path", file=path)) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(Problem(f"cannot be read: {error}", file=path)) from None
    return parse(content, path)


def parse(content: bytes, file: Path | None = None) -> tuple[Any, dict[KeyPath, Place]]:
    """Return the value of YAML bytes and the place of each key and item in it.

    Raises:
        ConfigurationError: the content is not strict YAML; all problems are named at once.
    """
    if len(content) > MAX_BYTES:
        message = f"is too large: at most {MAX_BYTES} bytes are read"
        raise ConfigurationError(Problem(message, file=file))
    text = _decode(content, file)
    try:
        _check_shape(text, file)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigurationError(_syntax_problem(error, text, file)) from None
    if node is None:
        return None, {}
    builder = _Builder(file)
    value = builder.build(node, ())
    if builder.problems:
        raise ConfigurationError(builder.problems)
    return value, builder.places


def _decode(content: bytes, file: Path | None) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            Problem("is not UTF-8 text; save it as UTF-8", file=file, line=line)
        ) from None
    unprintable = _UNPRINTABLE.search(text)
    if unprintable is None:
        return text
    line = text.count("\n", 0, unprintable.start()) + 1
    raise ConfigurationError(
        Problem(
            "holds a control character, which text may not; remove it",
            found=f"U+{ord(unprintable.group()):04X}",
            file=file,
            line=line,
        )
    )


def _check_shape(text: str, file: Path | None) -> None:
    """Refuse what would take the reader too deep, before anything recursive sees it."""
    nodes = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            size = _TOO_DEEP if depth > MAX_DEPTH else _TOO_MANY
            mark = event.start_mark
            line = None if mark is None else mark.line + 1
            raise ConfigurationError(Problem(f"is {size}; make it simpler", file=file, line=line))


_TOO_DEEP = f"nested deeper than {MAX_DEPTH}"
_TOO_MANY = f"larger than {MAX_NODES} values"


class _Builder:
    """Turns YAML nodes into plain values, noting where each stands.

    What aliases and merges stand for is built each time: it counts, and may be nested, so often.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self._built = 0
        self._open_nodes: dict[int, yaml.Node] = {}

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._built += 1
        message = None
        if id(node) in self._open_nodes:
            message = "an anchor refers to itself; remove it"
        elif self._built > MAX_NODES:
            message = f"its aliases expand to something {_TOO_MANY}"
        elif len(self._open_nodes) > MAX_DEPTH:
            message = f"its aliases are nested deeper than {MAX_DEPTH}"
        if message is not None:
            # The alias to blame stands below all that it is part of; what it names, above.
            lowest = max((*self._open_nodes.values(), node), key=lambda n: n.start_mark.line)
            raise ConfigurationError(self._problem(lowest, (), message))
        self._open_nodes[id(node)] = node
        value = self._value(node, path)
        del self._open_nodes[id(node)]
        return value

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.places.setdefault(path, Place(self.file, node.start_mark.line + 1))
        if node.tag.removeprefix(_STANDARD) not in _KNOWN_TAGS:
            self._add(node, path, "only plain values are read; remove the tag", found=node.tag)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, place)) for place, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        if len(node.value) > MAX_KEYS:
            message = f"is a mapping of more than {MAX_KEYS} keys; make it simpler"
            raise ConfigurationError(self._problem(node, path, message))
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        sources: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                is_list = isinstance(value_node, yaml.SequenceNode)
                sources += value_node.value if is_list else [value_node]
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            name, colon, _ = key.partition(":")
            no_blank = value_node.start_mark.index == key_node.end_mark.index
            if colon and no_blank and value_node.value == "" and not key_node.style:
                message = "needs a blank after its colon; without one YAML reads no value"
                self._add(key_node, (*path, name), message)
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                self._add(
                    key_node, (*path, key), f"is given twice, first on line {lines[key]}; keep one"
                )
                continue
            lines[key] = line
            self.places.setdefault((*path, key), Place(self.file, line))
            values[key] = self.build(value_node, (*path, key))
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._add(source, path, "<< merges mappings only; name an anchor of a mapping")
                continue
            for key, value in self.build(source, path).items():
                values.setdefault(key, value)
        return values

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        kinds = ("str", "int") if path[-1:] == ("max_memory",) else ("str",)  # devices by number
        if isinstance(node, yaml.ScalarNode) and node.tag in {_STANDARD + kind for kind in kinds}:
            return str(node.value)
        found = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self._add(node, path, "a key must be text; put it in quotes", found=str(found))
        return None

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text = node.value
        kind = node.tag.removeprefix(_STANDARD)
        if kind in ("str", "merge", "value"):
            return text
        try:
            if kind in ("null", "bool"):
                return _CONSTANTS[text.lower()]
            number = _integer(text) if kind == "int" else _number(text)
        except KeyError:
            self._add(node, path, "is not what its tag says; remove the tag", found=text)
            return None
        except ValueError:
            self._add(node, path, "is no number that can be read; put text in quotes", found=text)
            return None
        if isinstance(number, float) and not math.isfinite(number):
            self._add(node, path, "must be a finite number, or text in quotes", found=text)
            return None
        return number

    def _add(
        self, node: yaml.Node, path: KeyPath, message: str, *, found: str | None = None
    ) -> None:
        self.problems.append(self._problem(node, path, message, found=found))

    def _problem(
        self, node: yaml.Node, path: KeyPath, message: str, *, found: str | None = None
    ) -> Problem:
        return Problem(
            message,
            key=dotted_name(path) or None,
            found=None if found is None else found[:60],
            file=self.file,
            line=node.start_mark.line + 1,
        )


_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}

_KNOWN_TAGS = frozenset({"str", "null", "bool", "int", "float", "map", "seq", "merge", "value"})


def dotted_name(path: KeyPath) -> str:
    """Return ``path`` as it is written in messages: ``experiments[0].decoder.top_k``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _plain_digits(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return text.replace("_", "").lower()


def _integer(text: str) -> int:
    digits = _plain_digits(text)
    return int(digits, 0) if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else int(digits)


def _number(text: str) -> int | float:
    digits = _plain_digits(text)
    if digits.lstrip("+-") in (".inf", ".nan"):
        return math.nan
    number = float(digits)
    # 1e3 is how people write a thousand, also where a whole number is asked for.
    if "." not in digits and abs(number) < 2**53 and number.is_integer():
        return int(number)
    return number


_ALIGN = "keys of one section begin in the same column, and a quoted value ends its line"
_SYNTAX_ADVICE = {
    "expected <block end>": _ALIGN,
    "did not find expected key": _ALIGN,
    "mapping values are not allowed": "check the indentation, and quote a value that holds a colon",
}
"""What to do, by words of PyYAML's own parser and of libyaml's."""


def _syntax_problem(error: yaml.YAMLError, text: str, file: Path | None) -> Problem:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(f"is no valid YAML: {str(error).splitlines()[0]}", file=file)
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "cannot be parsed"
    if error.context == "while scanning a simple key" and error.context_mark is not None:
        # The scanner sees only on a later line that the colon is not there.
        mark, problem = error.context_mark, "a key without a colon and a blank; write key: value"
    remedy = next((advice for words, advice in _SYNTAX_ADVICE.items() if words in problem), None)
    problem = f"{problem}; {remedy}" if remedy else problem
    if mark is None:
        return Problem(f"is no valid YAML: {problem}", file=file)
    lines = text.splitlines()
    line_text = lines[mark.line] if mark.line < len(lines) else ""
    line = mark.line + 1
    if "single document" in f"{error.context} {error.problem}":
        return Problem("holds several documents; keep one, without ---", file=file, line=line)
    if "nesting depth" in problem:  # libyaml from 0.2.6 on refuses the deepest by itself
        return Problem(f"is {_TOO_DEEP}; make it simpler", file=file, line=line)
    if line_text[mark.column : mark.column + 1] == "\t":
        return Problem("is indented with a tab; use spaces", file=file, line=line)
    found = repr(line_text.strip()[:60]) if line_text.strip() else None
    return Problem(f"is no valid YAML: {problem}", found=found, file=file, line=line)
