"""Studies on disk whose sentences are known, and their page as a browser takes it."""

import contextlib
import html.parser
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.report.page import write_report
from results.synthetic import GPU, make_plan, write_runs

SWEPT = ["pytorch.batch_size"]
MakeRecord = Callable[[Mapping[str, Any], int], dict[str, Any]]
"""What a run's record holds, from the run and the place of its experiment."""


def config(size: int, **more: Any) -> dict[str, Any]:
    return {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}, **more}


def machine(host: str = "node-1", name: str = "NVIDIA H200", uuid: str = GPU) -> dict[str, Any]:
    card = {"uuid": uuid, "name": name, "driver": "570.1", "power_limit_w": 700.0}
    return {"environment": {"host": host, "gpus": [card]}}


def write_study(
    folder: Path,
    record: MakeRecord,
    *,
    configs: Sequence[Mapping[str, Any]] = (config(1), config(2)),
    swept: Sequence[str] = SWEPT,
    cycles: int = 5,
    sequential: bool = False,
    shuffled: bool = False,
) -> None:
    """Write a study and its tables.

    Args:
        folder: of the study.
        record: gives each run's record.
        configs: one an experiment.
        swept: the settings in which they differ.
        cycles: of each.
        sequential: all cycles of an experiment before the next one's, else cycle by cycle.
        shuffled: each cycle in an order of its own.
    """
    plan = make_plan(configs, swept, cycles=cycles)
    place = {run["experiment"]: number for number, run in enumerate(plan["runs"][: len(configs)])}
    if sequential:
        plan["runs"].sort(key=lambda run: place[run["experiment"]])
    if shuffled:
        draw = random.Random(1).random
        plan["runs"].sort(key=lambda run: (run["cycle"], draw()))
    if sequential or shuffled:
        plan["runs"] = [{**run, "order": order} for order, run in enumerate(plan["runs"], start=1)]
    write_runs(folder, plan, lambda run: record(run, place[run["experiment"]]))
    write_tables(folder, partial=False)


@contextlib.contextmanager
def without_drawing() -> Iterator[None]:
    """Leave figures empty: drawing them is most of a page's time."""
    with (
        patch("vl_convert.vegalite_to_svg", lambda *_, **__: "<svg></svg>"),
        patch("vl_convert.svg_to_pdf", lambda _: b"%PDF"),
    ):
        yield


class Page(html.parser.HTMLParser):
    """The page as a browser takes it: its elements, their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self._words: list[str] = []
        self._hidden = 0
        self.feed(source)
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._words.append(data)

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def captions(self) -> list[str]:
        parts = re.findall(r"<figcaption>(.*?)</figcaption>", self.source, re.DOTALL)
        return [" ".join(part.split()) for part in parts]


def page_of(folder: Path, *, partial: bool = False, drawn: bool = False) -> Page:
    """Write a report from a study's tables and read its page."""
    with contextlib.nullcontext() if drawn else without_drawing():
        write_report(folder, partial=partial)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(folder, f"{name}.parquet").to_pylist()
    return rows
