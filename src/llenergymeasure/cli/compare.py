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

from llenergymeasure.analysis.compare_studies import (
    ENERGY_PER_MATCHED_REQUEST,
    Match,
    compare_sides,
    experiment_runs,
)
from llenergymeasure.analysis.comparison_tables import COMPARED, experiment_labels
from llenergymeasure.analysis.pooling import duplicate_runs
from llenergymeasure.analysis.selection import in_means
from llenergymeasure.analysis.tables import outdated_reason, read_table
from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, note, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem
from llenergymeasure.report.findings import CAVEAT_COLUMNS, interval_caveats
from llenergymeasure.report.formatting import (
    count_text,
    join_words,
    p_value,
    plain,
    rounded_range,
    shortened,
)
from llenergymeasure.report.relations import comparison_method, sensor_warning, verdict
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.screen import align_columns
from llenergymeasure.units import NO_VALUE

Row: TypeAlias = Mapping[str, Any]

MAX_NAMED = 3
UNPAIRED_NOTE = (
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
    conditions = [parse_condition(text) for text in fail_if or ()]
    if study is None:
        names, matches = (a, b), _two_studies(Path(a), Path(b))
    else:
        names, matches = _two_experiments(study, a, b)
    folders = [folder for match in matches for folder in (match.folder_a, match.folder_b)]
    for stale in filter(None, (outdated_reason(folder.path) for folder in dict.fromkeys(folders))):
        if conditions:
            raise ConfigurationError(f"--fail-if: {stale}")
        note(stale)
    rows = compare_sides(matches)
    if as_json:
        print_json(rows)
    else:
        print(*(f"{side}: {plain(name)}" for side, name in zip("AB", names, strict=True)), sep="\n")
        print(f"\n{_results_text(rows)}")
        sides = [side for match in matches for side in (match.runs_a, match.runs_b)]
        needed = [side.select(CAVEAT_COLUMNS & {*side.column_names}) for side in sides]
        runs = [run for side in needed for run in side.to_pylist()]
        for sentence in (*_missing_runs_note(runs), *interval_caveats(runs)):
            print(f"\n{sentence}")
    failures = [line for condition in conditions for line in _failures(condition, rows)]
    for line in failures:
        print(line, file=sys.stderr)
    return EXIT_FAILED if failures else EXIT_OK


def _missing_runs_note(runs: Sequence[Row]) -> list[str]:
    """Return how many runs are not compared, which may be those that would have used more."""
    missing = sum(not in_means(run) for run in runs)
    if not missing:
        return []
    return [
        f"{missing} of {count_text(len(runs), 'run')} have no result or do not count: if they "
        "would have used more than the others, their side looks better than it is."
    ]


def parse_condition(text: str) -> Condition:
    """Return a condition that was written as ``QUANTITY > NUMBER``.

    Raises:
        ConfigurationError: it is written otherwise, or there is no such quantity.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            Problem("is not QUANTITY > NUMBER (or >=, <, <=)", key="--fail-if", found=text)
        )
    metric, sign, limit = match.groups()
    if metric not in COMPARED:
        raise ConfigurationError(
            Problem(f"is none of {', '.join(COMPARED)}", key="--fail-if", found=metric)
        )
    return Condition(metric, sign, limit)


def _failures(condition: Condition, rows: Sequence[Row]) -> list[str]:
    """Return a line for each pair in which a condition holds."""
    lines = []
    pairs = [row for row in rows if row["metric"] == condition.metric]
    if not pairs:
        raise ConfigurationError(f"--fail-if: no two runs have {condition.metric} to compare")
    for row in pairs:
        if row["ratio"] is None:
            reason = plain(row["unavailable"] or "there is no ratio", 300)
            raise ConfigurationError(f"--fail-if: {row['label']} cannot be compared: {reason}")
        if _OPERATORS[condition.sign](row["ratio"], float(condition.limit)):
            label = plain(row["label"], 90)
            lines.append(f"{label}: {condition} holds, the ratio is {row['ratio']:.4g}")
    return lines


class _Study(NamedTuple):
    """A study to compare; ``labels`` are those of its experiments."""

    path: Path
    folder: StudyFolder
    runs: pa.Table
    labels: Mapping[str, str]

    def first_labels(self, experiments: Sequence[str]) -> str:
        """Return the labels of the first of some experiments."""
        names = [plain(self.labels[experiment], 60) for experiment in experiments[:MAX_NAMED]]
        return f"{'; '.join(names)}{'; …' * (len(experiments) > MAX_NAMED)}"

    def find(self, name: str) -> str:
        """Return the experiment whose id begins with ``name``."""
        found = [experiment for experiment in self.labels if experiment.startswith(name)]
        if len(found) != 1:
            count = "no experiment" if not found else f"{len(found)} experiments"
            raise ConfigurationError(f"{count} of the study begins with {name}; there are {self}")
        return found[0]

    def __str__(self) -> str:
        return "; ".join(f"{name} ({plain(label, 60)})" for name, label in self.labels.items())


def _read_study(path: Path) -> _Study:
    folder = study_folder(path)
    labels = experiment_labels(read_table(folder.path, SUMMARY_NAME).to_pylist())
    return _Study(path, folder, read_table(folder.path, RUNS_NAME), labels)


def _match(label: str, a: _Study, experiment_a: str, b: _Study, experiment_b: str) -> Match:
    runs_a, runs_b = experiment_runs(a.runs, experiment_a), experiment_runs(b.runs, experiment_b)
    return Match(label, runs_a, runs_b, a.folder, b.folder)


def _two_studies(path_a: Path, path_b: Path) -> list[Match]:
    a, b = _read_study(path_a), _read_study(path_b)
    if a.folder.path.resolve() == b.folder.path.resolve():
        raise ConfigurationError(
            f"{path_a} and {path_b} are the same study; to compare two of its experiments give "
            "their ids and --study"
        )
    common = [experiment for experiment in a.labels if experiment in b.labels]
    copies = {
        copy.experiment: copy for copy in duplicate_runs([(path_a, a.runs), (path_b, b.runs)])
    }
    if common and copies.keys() >= {*common}:
        raise ConfigurationError(copies[common[0]].words())
    if copied := [experiment for experiment in common if experiment in copies]:
        number = count_text(len(copied), "experiment")
        subject = f"{number} with a run that {path_a} and {path_b} both hold"
        note(f"{subject}, as a folder and its copy do, not compared: {a.first_labels(copied)}")
    if not common:
        raise ConfigurationError(
            f"{path_a} and {path_b} have no experiment in common; to compare two experiments of "
            "one study give their ids and --study"
        )
    for study, other in ((a, b), (b, a)):
        alone = [experiment for experiment in study.labels if experiment not in other.labels]
        if alone:
            verb = "is" if len(alone) == 1 else "are"
            subject = (
                f"{count_text(len(alone), 'experiment')} of {study.path} {verb} not in {other.path}"
            )
            note(f"{subject} and not compared: {study.first_labels(alone)}")
    return [
        _match(a.labels[experiment], a, experiment, b, experiment)
        for experiment in common
        if experiment not in copies
    ]


def _two_experiments(path: Path, a: str, b: str) -> tuple[tuple[str, str], list[Match]]:
    """Return the names of both, and how one is compared with the other."""
    study = _read_study(path)
    experiment_a, experiment_b = study.find(a), study.find(b)
    if experiment_a == experiment_b:
        raise ConfigurationError(f"{a} and {b} are the same experiment; there are {study}")
    label_a, label_b = study.labels[experiment_a], study.labels[experiment_b]
    match = _match(f"{label_b} against {label_a}", study, experiment_a, study, experiment_b)
    return (label_a, label_b), [match]


def _last_column(row: Row, previous: Row) -> str:
    """Return how a ratio was found; why there is none, once for a pair's rows with one reason."""
    if row["ratio"] is None:
        is_repeated = all(previous.get(name) == row[name] for name in ("label", "unavailable"))
        return "as above" if is_repeated else shortened(row["unavailable"] or NO_VALUE, 120)
    parts: list[str | None] = [comparison_method(row)]
    if row["metric"] == ENERGY_PER_MATCHED_REQUEST:
        parts.append(f"over {row['matched']} of {row['asked']} answers, as long in both")
    if row["differs"]:
        parts.append(f"differ in {join_words(row['differs'])}")
    parts.append(sensor_warning(row, row["ratio"]))
    return "; ".join(filter(None, parts))


def _results_text(rows: Sequence[Row]) -> str:
    """Return a table for each pair, with its name above where there are several."""
    pairs = [list(pair) for _, pair in groupby(rows, key=itemgetter("label"))]
    tables = [_table(pair) for pair in pairs]
    if len(pairs) > 1:
        names = [plain(pair[0]["label"]) for pair in pairs]
        tables = [f"{name}\n{table}" for name, table in zip(names, tables, strict=True)]
    has_unpaired = any(row["method"] == "unpaired" for row in rows)
    return "\n\n".join([*tables, *([UNPAIRED_NOTE] if has_unpaired else [])])


def _table(rows: Sequence[Row]) -> str:
    lines = [["quantity", "B/A", "95 % interval", "p", "verdict", "how"]]
    lines += [
        [
            row["metric"],
            NO_VALUE if row["ratio"] is None else f"{row['ratio']:.4g}",
            rounded_range(row["ci95_low"], row["ci95_high"]),
            p_value(row["p_holm"]),
            verdict(row),
            _last_column(row, previous),
        ]
        for previous, row in zip(({}, *rows), rows, strict=False)
    ]
    # Where there is no ratio, the last column says why; else the interval is worth more.
    spare = (3, 5, 2) if all(row["ratio"] is not None for row in rows) else (3, 2)
    return align_columns(lines, left=(0, 2, 4, 5), droppable=spare, names=(0,))
