"""A hook of MkDocs: pages that stand elsewhere in the repository, where their readers look first.

Each is shown in the site as it is; only its links into the repository are given a place here.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SHARED = {
    "study.md": ROOT / "config" / "README.md",
    "profiles.md": ROOT / "profiles" / "README.md",
    "simulated-card.md": ROOT / "tests" / "nvml_sim" / "README.md",
}
TITLES = {"study.md": ("# Configuration", "# Writing a study")}
EXAMPLES = ROOT / "config" / "examples"
LINKS = {
    "profiles.md": {"(../docs/slurm.md)": "(slurm.md)"},
    "study.md": {
        "[examples/](examples/)": "[the examples below](#examples)",
        "(../docs/method.md)": "(method.md)",
        "(../docs/statistics.md#stopping-when-sure)": "(statistics.md#stopping-when-sure)",
    },
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere to the site's files."""
    for name, path in SHARED.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend title and links of a page from elsewhere; append the example studies to theirs."""
    name = page.file.src_uri
    changes = dict([TITLES[name]] if name in TITLES else []) | LINKS.get(name, {})
    for old, new in changes.items():
        if old not in markdown:
            raise ValueError(f"{SHARED[name]} no longer holds {old!r}; mend docs/shared_pages.py")
        markdown = markdown.replace(old, new)
    return markdown + _examples() if name == "study.md" else markdown


def _examples() -> str:
    parts = ["\n\n## Examples\n"]
    for path in sorted(EXAMPLES.glob("*.yaml")):
        text = path.read_text().split("\n", 2)[2].strip()  # without the editor's line and its blank
        parts.append(f'```yaml title="config/examples/{path.name}"\n{text}\n```\n')
    return "\n".join(parts)
