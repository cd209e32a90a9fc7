"""``llem compare``: how one study, or one experiment, relates to another; a guard for a CI."""

import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import pyarrow as pa
import typer

from llenergymeasure.analysis.compare_studies import MATCHED, Match, compare_sides, of_experiment
from llenergymeasure.analysis.pooling import same_runs
from llenergymeasure.analysis.relations import COMPARED, labels_of
from llenergymeasure.analysis.tables import behind, read_table
from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, note, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem
from llenergymeasure.report.findings import UNSEEN_COLUMNS, unseen
from llenergymeasure.report.formatting import (
    counted,
    listed,
    p_value,
    plain,
    rounded_range,
    shortened,
)
from llenergymeasure.report.relations import how, verdict, within_sensor
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.screen import aligned
from llenergymeasure.units import NOTHING

Row: TypeAlias = Mapping[str, Any]

NAMED = 3
UNPAIRED = (
    "Unpaired: what all runs of one side have in common (their day, a drift, another machine) is "
    "in no interval and looks like an effect."
)
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Condition(NamedTuple):
    """What must not hold: a quantity's ratio, B over A, above or below a limit."""

    metric: str
    sign: str
    limit: str

    def __str__(self) -> str:
        return f"{self.metric} {self.sign} {self.limit}"


def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="a study; with --study, an experiment's id")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="what to compare with A")],
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="the study that holds both experiments")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="exit with 1 if true, e.g. 'energy_per_output_token_j > 1.02' (B over A)"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Compare two studies experiment by experiment, or two experiments of one study."""
    conditions = [condition(text) for text in fail_if or ()]
    if study is None:
        names, matches = (a, b), _two_studies(Path(a), Path(b))
    else:
        names, matches = _two_experiments(study, a, b)
    folders = dict.fromkeys(folder for each in matches for folder in (each.folder_a, each.folder_b))
    for old in filter(None, (behind(folder.path) for folder in folders)):
        if conditions:
            raise ConfigurationError(f"--fail-if: {old}")
        note(old)
    rows = compare_sides(matches)
    if as_json:
        print_json(rows)
    else:
        print(*(f"{side}: {plain(name)}" for side, name in zip("AB", names, strict=True)), sep="\n")
        print(f"\n{_text(rows)}")
        sides = [side for each in matches for side in (each.runs_a, each.runs_b)]
        needed = [side.select(UNSEEN_COLUMNS & {*side.column_names}) for side in sides]
        for sentence in unseen([run for side in needed for run in side.to_pylist()]):
            print(f"\n{sentence}")
    held = [line for each in conditions for line in _held(each, rows)]
    for line in held:
        print(line, file=sys.stderr)
    return EXIT_FAILED if held else EXIT_OK


def condition(text: str) -> Condition:
    """Return a condition that was written as ``QUANTITY > NUMBER``.

    Raises:
        ConfigurationError: it is written otherwise, or there is no such quantity.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ConfigurationError(
            Problem("is not QUANTITY > NUMBER (or >=, <, <=)", key="--fail-if", found=text)
        )
    metric, sign, limit = found.groups()
    if metric not in COMPARED:
        raise ConfigurationError(
            Problem(f"is none of {', '.join(COMPARED)}", key="--fail-if", found=metric)
        )
    return Condition(metric, sign, limit)


def _held(each: Condition, rows: Sequence[Row]) -> list[str]:
    """Return a line for each pair in which a condition holds."""
    lines = []
    members = [row for row in rows if row["metric"] == each.metric]
    if not members:
        raise ConfigurationError(f"--fail-if: no two runs have {each.metric} to compare")
    for row in members:
        if row["ratio"] is None:
            reason = plain(row["unavailable"] or "there is no ratio", 300)
            raise ConfigurationError(f"--fail-if: {row['label']} cannot be compared: {reason}")
        if _OPERATORS[each.sign](row["ratio"], float(each.limit)):
            label = plain(row["label"], 90)
            lines.append(f"{label}: {each} holds, the ratio is {row['ratio']:.4g}")
    return lines


def _first_of(names: Sequence[str]) -> str:
    return f"{'; '.join(names[:NAMED])}{'; …' * (len(names) > NAMED)}"


def _two_studies(a: Path, b: Path) -> list[Match]:
    (folder_a, of_a, labels), (folder_b, of_b, others) = _runs_and_labels(a), _runs_and_labels(b)
    if folder_a.path.resolve() == folder_b.path.resolve():
        raise ConfigurationError(
            f"{a} and {b} are the same study; to compare two of its experiments give their ids and "
            "--study"
        )
    common = [each for each in labels if each in others]
    same = {found.experiment: found for found in same_runs([(a, of_a), (b, of_b)])}
    if common and same.keys() >= {*common}:
        raise ConfigurationError(same[common[0]].words())
    if shared := [plain(labels[each], 60) for each in common if each in same]:
        what = f"{counted(len(shared), 'experiment')} with a run that {a} and {b} both hold"
        note(f"{what}, as a folder and its copy do, not compared: {_first_of(shared)}")
    if not common:
        raise ConfigurationError(
            f"{a} and {b} have no experiment in common; to compare two experiments of one study "
            "give their ids and --study"
        )
    for one, known, other, known_there in ((a, labels, b, others), (b, others, a, labels)):
        alone = [plain(known[each], 60) for each in known if each not in known_there]
        if alone:
            verb = "is" if len(alone) == 1 else "are"
            what = f"{counted(len(alone), 'experiment')} of {one} {verb} not in {other}"
            note(f"{what} and not compared: {_first_of(alone)}")
    return [
        Match(
            labels[each], of_experiment(of_a, each), of_experiment(of_b, each), folder_a, folder_b
        )
        for each in common
        if each not in same
    ]


def _two_experiments(study: Path, a: str, b: str) -> tuple[tuple[str, str], list[Match]]:
    """Return the names of both, and how one is compared with the other."""
    folder, runs, labels = _runs_and_labels(study)
    one, other = (_experiment(name, labels) for name in (a, b))
    if one == other:
        raise ConfigurationError(f"{a} and {b} are the same experiment; there are {_known(labels)}")
    label = f"{labels[other]} against {labels[one]}"
    match = Match(label, of_experiment(runs, one), of_experiment(runs, other), folder, folder)
    return (labels[one], labels[other]), [match]


def _runs_and_labels(study: Path) -> tuple[StudyFolder, pa.Table, dict[str, str]]:
    folder = study_folder(study)
    labels = labels_of(read_table(folder.path, SUMMARY_NAME).to_pylist())
    return folder, read_table(folder.path, RUNS_NAME), labels


def _experiment(name: str, labels: Mapping[str, str]) -> str:
    """Return the id that begins with ``name``."""
    found = [each for each in labels if each.startswith(name)]
    if len(found) != 1:
        count = "no experiment" if not found else f"{len(found)} experiments"
        raise ConfigurationError(
            f"{count} of the study begins with {name}; there are {_known(labels)}"
        )
    return found[0]


def _known(labels: Mapping[str, str]) -> str:
    return "; ".join(f"{each} ({plain(label, 60)})" for each, label in labels.items())


def _answers(row: Row) -> str | None:
    """Return over how many answers a row on matched requests is."""
    if row["metric"] != MATCHED:
        return None
    return f"over {row['matched']} of {row['asked']} answers, as long in both"


def _reason(row: Row, before: Row) -> str:
    """Return why there is no ratio, once for a pair's quantities that have none for one reason."""
    same = (before.get("label"), before.get("unavailable")) == (row["label"], row["unavailable"])
    return "as above" if same else shortened(row["unavailable"] or NOTHING, 120)


def _differs(row: Row) -> str | None:
    """Return in what the two differ apart from their settings."""
    return f"differ in {listed(row['differs'])}" if row["differs"] else None


def _text(rows: Sequence[Row]) -> str:
    """Return a table for each pair, with its name above where there are several."""
    pairs = [list(pair) for _, pair in groupby(rows, key=itemgetter("label"))]
    tables = [_table(pair) for pair in pairs]
    if len(pairs) > 1:
        names = [plain(pair[0]["label"]) for pair in pairs]
        tables = [f"{name}\n{table}" for name, table in zip(names, tables, strict=True)]
    unpaired = any(row["method"] == "unpaired" for row in rows)
    return "\n\n".join([*tables, *([UNPAIRED] if unpaired else [])])


def _table(rows: Sequence[Row]) -> str:
    lines = [["quantity", "B/A", "95 % interval", "p", "verdict", "how"]]
    lines += [
        [
            row["metric"],
            NOTHING if row["ratio"] is None else f"{row['ratio']:.4g}",
            rounded_range(row["ci95_low"], row["ci95_high"]),
            p_value(row["p_holm"]),
            verdict(row),
            "; ".join(
                filter(
                    None, (how(row), _answers(row), _differs(row), within_sensor(row, row["ratio"]))
                )
            )
            if row["ratio"] is not None
            else _reason(row, before),
        ]
        for before, row in zip(({}, *rows), rows, strict=False)
    ]
    # Where there is no ratio, the last column says why; else the interval is worth more.
    spare = (3, 5, 2) if all(row["ratio"] is not None for row in rows) else (3, 2)
    return aligned(lines, left=(0, 2, 4, 5), spare=spare, names=(0,))
