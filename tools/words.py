"""Check that pages, messages, help texts and docstrings use the field's words: ``make words``.

Looked at are the pages' prose and, in the package, comments and all strings. What is written in
backticks or as code is a name and not looked at.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*.md", "config/*.md", "profiles/*.md", "tests/*/README.md")
PACKAGE = "src/llenergymeasure"
WORDS = {
    r"told|tells?|telling": "report, say, notify, show, distinguish",
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again, new",
    r"redraw(s|n|ings?)?": "resample",
    r"at work": "running, current",
    r"knobs?": "setting, engine parameter",
    r"besides?": "next to, compared with, in addition",
    r"surest": "most significant",
    r"hears|wears": "reads, gets, has",
    r"reckon(s|ed|ing)?": "compute, count",
    r"for ever": "forever, without end",
    r"in silence": "silently",
    r"(can|cannot|could) be had": "be fetched, be available",
    r"(is|are|was|were|be|been|measured|stays?|left) whole": "complete",
    r"(tokens|requests|operations|joules|J) a (second|token|request)|answered a second": "per",
}
PYTHON_WORDS = {r"null": "None"}
NULLS = re.compile(
    r"results/|analysis/(tables|pooling|summary|merge)"
    r"|config/(strict_yaml|schema|section|backends|experiment|measurement|merge_settings)"
    r"|config/engine_parameters"
)
"""Where *null* is right: what speaks of YAML, JSON and Parquet."""
EXCEPTIONS = {
    "CHANGELOG.md": "what was published stays as it was",
    "nvidia-h100-80gb-hbm3-580.159.04.md": "quotes the notes of its recordings",
}

_CODE = re.compile(
    r"^ *(`{3,}).*?^ *\1|``.*?``|`[^`]*`|<!--.*?-->|\]\([^)]*\)|^ +\w+:(?= )|^[\"']\w+[\"']$",
    re.MULTILINE | re.DOTALL,
)


def main() -> int:
    """Print each place; return 1 if there is one."""
    places = [*_in_pages(), *_in_package()]
    for place in places:
        print(place, file=sys.stderr)
    return 1 if places else 0


def _in_pages() -> Iterator[str]:
    for path in sorted({path for pattern in PAGES for path in ROOT.glob(pattern)}):
        if path.name not in EXCEPTIONS:
            yield from _places(path, 1, path.read_text(), WORDS)


def _in_package() -> Iterator[str]:
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        for line, prose in _strings_and_comments(path.read_text()):
            null = {} if NULLS.match(path.relative_to(ROOT / PACKAGE).as_posix()) else PYTHON_WORDS
            yield from _places(path, line, prose, WORDS | null)
    for path in sorted((ROOT / PACKAGE).rglob("*.html")):
        yield from _places(path, 1, path.read_text(), WORDS)


def _strings_and_comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each, without the expressions inside an f-string."""
    prose = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in prose:
            is_formatted = re.match(r"\w*f\w*[\"']", token.string, re.IGNORECASE)
            text = re.sub(r"\{[^{}\n]*\}", "{}", token.string) if is_formatted else token.string
            yield token.start[0], text


def _places(path: Path, first_line: int, text: str, words: dict[str, str]) -> Iterator[str]:
    prose = _CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    for pattern, better in words.items():
        for match in re.finditer(rf"\b({pattern})\b", prose, re.IGNORECASE):
            line = first_line + prose.count("\n", 0, match.start())
            yield f"{path.relative_to(ROOT)}:{line}: {match[0]!r}: {better}"


if __name__ == "__main__":
    sys.exit(main())
