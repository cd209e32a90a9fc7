"""The page that a person reads, and the figures beside it: whole, offline, without a script."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.analysis.tables import (
    RUNS_NAME,
    SUMMARY_NAME,
    read_plan,
    read_table,
    write_file,
)
from llenergymeasure.report import experiments, findings, method
from llenergymeasure.report.advice import failures
from llenergymeasure.report.charts import COLOURS, SHOWN_EXPERIMENTS
from llenergymeasure.report.figures import FIGURE_NAMES, Figure, draw
from llenergymeasure.report.relations import relations_content
from llenergymeasure.report.serving import serving_content
from llenergymeasure.report.traces import FIGURE_NAME as TRACES
from llenergymeasure.report.traces import SHOWN_RUNS, power_figure
from llenergymeasure.report.wording import counted, plain, scale_for
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.table import RUN_SCHEMA

PAGE_NAME = "report.html"
FIGURES_FOLDER = "figures"
FIGURE_FILES = tuple(
    f"{FIGURES_FOLDER}/{name}.{suffix}" for name in FIGURE_NAMES for suffix in ("svg", "png")
)
LISTED_EXPERIMENTS = 200
LISTED_FAILURES = 50
LISTED_RUNS = 8
LISTED_LEFT_OUT = 100


def write_report(study_dir: Path, *, partial: bool) -> None:
    """Write ``report.html`` and ``figures/`` from the study's plan and tables.

    The same tables give the same bytes.

    Args:
        study_dir: the study's folder, with ``plan.json`` and the merged tables.
        partial: the study did not finish; files get the time stamp of partial tables.

    Raises:
        ResultsError: plan or tables are absent or damaged.
    """
    plan = read_plan(StudyFolder(study_dir).plan)
    summary = read_table(study_dir, SUMMARY_NAME).to_pylist()
    runs = read_table(study_dir, RUNS_NAME).to_pylist()
    summary = findings.ranked(summary)
    used = findings.runs_in_means(summary, runs)
    trend = findings.order_trend(summary, runs)
    relations = relations_content(study_dir)
    drawn = findings.drawn_together(summary)
    figures = draw(drawn, used, findings.order_points(summary, runs), trend, relations.front)
    traces = power_figure(study_dir, summary, used)
    group_of = {row["experiment"]: row["comparison_group"] for row in summary}
    serving = serving_content(runs, _settings(runs), group_of)
    drawings = {**figures, **(serving.figures if serving else {})}
    if traces is not None:
        drawings[TRACES] = traces
    for name, figure in drawings.items():
        path = study_dir / FIGURES_FOLDER / name
        _write(path.with_suffix(".svg"), figure.svg.encode(), partial=partial)
        _write(path.with_suffix(".png"), figure.png, partial=partial)
    content = {**_content(plan, summary, runs), "trend": findings.trend_sentence(trend)}
    content["headline"] = findings.headline(summary, runs, relations.verdicts)
    groups = findings.comparable_groups(summary)
    content["drawn_total"] = len(drawn)
    content["not_drawn"] = sum(map(len, groups)) - len(drawn) if groups else 0
    page = _render(figures=figures, serving=serving, relations=relations, traces=traces, **content)
    _write(study_dir / PAGE_NAME, page.encode(), partial=partial)


def _content(plan: dict[str, Any], summary: list[Any], runs: list[Any]) -> dict[str, Any]:
    token = scale_for((row["energy_per_output_token_j_mean"] for row in summary), "J")
    request = scale_for((row["energy_per_request_j_mean"] for row in summary), "J")
    failed = failures(runs)
    left_out = plan.get("left_out") or []
    return {
        "study": plain(plan["study"]),
        "design": plain(plan["study_design_hash"]),
        "meters": method.meters(summary),
        "estimated": any(row["kind"] == "estimated" for row in summary),
        "experiments": experiments.table_rows(summary[:LISTED_EXPERIMENTS], token, request),
        "experiments_total": len(summary),
        "declared": experiments.declared(summary, runs),
        "drawn": SHOWN_EXPERIMENTS,
        "traced": SHOWN_RUNS,
        "token_unit": token.unit,
        "request_unit": request.unit,
        "runs_total": len(runs),
        "runs_completed": sum(run["status"] == "completed" for run in runs),
        "flags": experiments.flags(runs),
        "failures": failed[:LISTED_FAILURES],
        "failures_total": len(failed),
        "failed_runs": sum(len(failure.runs) for failure in failed),
        "listed_runs": LISTED_RUNS,
        "labels": {row["experiment"]: plain(row["label"], 120) for row in summary},
        "left_out": [_left_out(item) for item in left_out[:LISTED_LEFT_OUT]],
        "left_out_total": len(left_out),
        "method": method.method(summary, runs),
        "notes": [plain(note, 400) for note in plan.get("notes") or []],
        "provenance": method.provenance(plan, runs),
        "mixtures": method.mixtures(runs),
        "version": next(
            (run["llenergymeasure_version"] for run in runs if run["llenergymeasure_version"]), None
        ),
    }


def _settings(runs: list[dict[str, Any]]) -> list[str]:
    """Return the columns of the swept settings."""
    return [name for name in (runs[0] if runs else {}) if name not in RUN_SCHEMA.names]


def _left_out(item: dict[str, Any]) -> dict[str, str]:
    settings = _dotted(item.get("config") or {})
    return {
        "config": plain(", ".join(f"{key}={value}" for key, value in settings), 300),
        "reason": plain(item.get("reason", "no reason was given"), 400),
    }


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting with its dotted key."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _render(**content: Any) -> str:
    """Return the page; every text is escaped but the drawings, which the drawer escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("llenergymeasure.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["counted"] = counted
    environment.globals["css"] = Markup(  # noqa: S704 - ours, with our colours
        environment.get_template("page.css").render(colours=COLOURS)
    )
    environment.globals["drawing"] = lambda figure: Markup(_drawing(figure))  # noqa: S704 - escaped
    return environment.get_template("page.html").render(content)


def _drawing(figure: Figure) -> str:
    return (
        f'<div class="wide">{_hidden(figure.svg)}</div>'
        f'<div class="narrow">{_hidden(figure.narrow_svg)}</div>'
    )


def _hidden(svg: str) -> str:
    """Return a drawing that readers aloud pass over: caption and table say what it shows."""
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _write(path: Path, content: bytes, *, partial: bool) -> None:
    write_file(path, lambda temporary: temporary.write_bytes(content), partial=partial)
