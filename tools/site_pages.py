"""Write the site's pages into ``build/pages``, as plain Markdown that any generator can build.

``python tools/site_pages.py`` copies ``docs/``, adds the pages that are kept elsewhere in the
repository, where their readers look first, and turns formulas into MathML, which browsers draw
without a script.
"""

import re
import shutil
from pathlib import Path

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "build" / "pages"
SHARED = {
    "study.md": ROOT / "config" / "README.md",
    "profiles.md": ROOT / "profiles" / "README.md",
    "simulated-card.md": ROOT / "tests" / "nvml_sim" / "README.md",
}
CHANGES = {
    "study.md": {
        "# Configuration": "# Writing a study",
        "[examples/](examples/)": "[the examples below](#examples)",
    }
}
EXAMPLES = ROOT / "config" / "examples"

_CODE_OR_FORMULA = re.compile(
    r"^ *(?P<fence>`{3,}).*?^ *(?P=fence)"
    r"|`(?:[^`\n]|\n(?!\n))*`"
    r"|\$(?P<formula>[^\s$](?:[^$\n]*[^\s$])?)\$",
    re.MULTILINE | re.DOTALL,
)


def main() -> None:
    """Write every page; nothing of an earlier build stays."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(
        ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py", "*.yaml", "__pycache__")
    )
    for name, source in SHARED.items():
        (PAGES / name).write_text(_shared(name, source))
    for page in PAGES.rglob("*.md"):
        page.write_text(with_formulas(_as_on_the_site(page.read_text())))


def _as_on_the_site(text: str) -> str:
    """Return a page's text with its links to where the site has the pages kept elsewhere."""
    for name, source in SHARED.items():
        text = text.replace(f"](../{source.relative_to(ROOT)}", f"]({name}")
    return text


def _shared(name: str, source: Path) -> str:
    text = source.read_text().replace("(../docs/", "(")
    for old, new in CHANGES.get(name, {}).items():
        if old not in text:
            raise ValueError(f"{source} no longer contains {old!r}; change tools/site_pages.py")
        text = text.replace(old, new)
    return text + _examples() if name == "study.md" else text


def _examples() -> str:
    parts = ["\n\n## Examples\n"]
    for path in sorted(EXAMPLES.glob("*.yaml")):
        text = path.read_text().split("\n", 2)[2].strip()  # without the editor's line and its blank
        parts.append(f'```yaml title="config/examples/{path.name}"\n{text}\n```\n')
    return "\n".join(parts)


def with_formulas(text: str) -> str:
    """Return a page with its formulas between dollar signs, outside code, as MathML."""
    return _CODE_OR_FORMULA.sub(
        lambda match: convert(match["formula"]) if match["formula"] else match[0], text
    )


if __name__ == "__main__":
    main()
