"""The page of a card: every figure computed from what was kept, and each check's verdict.

What it says is in ``page.md.j2``; what is not known is a dash there.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_stages import figures, sensor
from gpu_stages.checks import judge
from gpu_stages.keeping import RESULTS, read_json

Row = Mapping[str, Any]


def write(folder: Path) -> Path:
    """Write the page next to an output folder, named after the card; return its path."""
    card = _card(read_json(folder / RESULTS))
    name = f"{card['name']}-{card['driver_version']}".lower()
    slug = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in name)
    path = folder.absolute().parent / f"{slug}.md"
    path.write_text(text(folder))
    return path


def text(folder: Path) -> str:
    """Return the page."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    writer = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    writer.filters |= {
        "f": _number,
        "percent": _percent,
        "cell": _cell,
        "median": statistics.median,
        "apart": _offset_lines,
    }
    return writer.get_template("page.md.j2").render(_content(folder)).rstrip() + "\n"


def _content(folder: Path) -> dict[str, Any]:
    results = read_json(folder / RESULTS)
    stages = results.get("stages", {})
    runs = [
        run
        for name in ("first", "study", "standard", "vllm", "serving", "faults")
        for run in figures.runs(folder / name)
    ]
    ratios = stages.get("engine", {}).get("meter_on_over_off") or []
    shares = [run["recorder_cpu_share"] for run in runs]
    checks = judge(folder)
    verdicts = ("ok", "not ok", "inconclusive")
    return {
        **results,
        "stages": stages,
        "folder": folder.name,
        "card": _card(results),
        "behaviour": sensor.behaviour(stages.get("probe", {})),
        "raw": sensor.raw(folder / "raw"),
        # Of the H100 the buffer was recorded apart.
        "buffer": sensor.buffer(folder / "raw") or sensor.buffer(folder / "buffer"),
        "windows": [row for name in ("engine", "pulses") for row in figures.windows(folder / name)],
        "runs": runs,
        "ratios": ratios,
        "cost": figures.mean_ratio(ratios),
        "shares": [share for share in shares if share is not None],
        "checks": {
            verdict: [check for check in checks if check.verdict == verdict] for verdict in verdicts
        },
        "kept": {name: _files(folder / name) for name in stages},
    }


def _card(results: Row) -> dict[str, Any]:
    cards = results.get("stages", {}).get("inventory", {}).get("cards") or [{}]
    return {"name": "Unknown card", "driver_version": "unknown", **cards[0]}


def _files(folder: Path) -> list[str]:
    return sorted({path.name for path in folder.rglob("*") if path.is_file()})


def _offset_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how far the readings are from the counter, on steady work and on pulses."""
    for kind in ("steady", "pulses"):
        for name in ("average", "instant"):
            offsets = [
                100 * (row[f"{name}_w"] / row["counter_w"] - 1)
                for row in rows
                if row["load"].endswith("ms") == (kind == "pulses")
                and row[f"{name}_w"]
                and row["counter_w"]
            ]
            if offsets:
                ends = dict.fromkeys((f"{min(offsets):+.1f}", f"{max(offsets):+.1f}"))
                yield f"{kind}: the {name} is {' to '.join(ends)} % from the counter."


def _number(value: Any, form: str = ".1f") -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def _percent(share: Any) -> str:
    return f"{100 * share:.1f} %" if isinstance(share, int | float) else "-"


def _cell(words: Any) -> str:
    return str(words).replace("|", "\\|").replace("\n", " ")
