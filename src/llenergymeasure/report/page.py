"""The page that a person reads, and the figures next to it: whole, offline, without a script."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from llenergymeasure.analysis.selection import used_runs
from llenergymeasure.analysis.tables import read_plan, read_table, write_file
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.dotted import leaves
from llenergymeasure.files import load_text, remove
from llenergymeasure.report import charts, experiments, findings, method
from llenergymeasure.report.charts import SHOWN_EXPERIMENTS
from llenergymeasure.report.drawing import COLOURS, Figure
from llenergymeasure.report.failed_runs import failures
from llenergymeasure.report.formatting import count_text, plain, shortened
from llenergymeasure.report.pareto_figure import front_figure
from llenergymeasure.report.relations import one_order_note, relations_content
from llenergymeasure.report.serving import ramp_experiments, serving_content
from llenergymeasure.report.sweep import sweep_figures
from llenergymeasure.report.traces import trace_figures
from llenergymeasure.results.columns import RUN_SCHEMA
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, TABLE_NAMES, StudyFolder
from llenergymeasure.results.notes import distinct, noted_in

PAGE_NAME = "report.html"
FIGURES_FOLDER = "figures"
LISTED_EXPERIMENTS = 200
LISTED_FAILURES = 50
LISTED_RUNS = 8
LISTED_LEFT_OUT = 100
LISTED_FACTS = 4
LISTED_NOTES = 30


def write_report(study_dir: Path, *, partial: bool) -> None:
    """Write ``report.html`` and ``figures/`` from the study's plan and tables.

    Figures that only the previous page links to are removed. The same tables give the same bytes,
    except for the PDF files, whose parts have no fixed order.

    Args:
        study_dir: the study's folder, with ``plan.json`` and the merged tables.
        partial: the study did not finish; files get the time stamp of partial tables.

    Raises:
        ResultsError: plan or tables are absent or damaged.
    """
    plan = read_plan(StudyFolder(study_dir).plan)
    runs = read_table(study_dir, RUNS_NAME).to_pylist()
    summary = findings.ranked(read_table(study_dir, SUMMARY_NAME).to_pylist())
    by_experiment = used_runs(runs)
    used = [run for members in by_experiment.values() for run in members]
    relations = relations_content(study_dir, summary)
    plotted = findings.comparable_experiments(summary)
    offered_loads = _mean_offered_loads(used)
    sweeps = sweep_figures(plotted, offered_loads)
    figures = {
        **_figures(study_dir, plotted, used, served=bool(offered_loads)),
        "energy_order": charts.order_figure(findings.order_points(summary, runs, by_experiment)),
    }
    traces = trace_figures(study_dir, summary, used)
    group_numbers = {row["experiment"]: row["comparison_group"] for row in summary}
    ramp_names = ramp_experiments(plan)
    settings = [name for name in (runs[0] if runs else ()) if name not in RUN_SCHEMA.names]
    serving = serving_content(runs, settings, group_numbers, ramp_names)
    all_figures = {**sweeps, **figures, **traces, **(serving.figures if serving else {})}
    for name, figure in all_figures.items():
        for suffix, drawing in (("svg", figure.svg.encode()), ("pdf", figure.pdf)):
            path = study_dir / FIGURES_FOLDER / f"{name}.{suffix}"
            _write(path, drawing, partial=partial)
    for name in _linked_figures(study_dir / PAGE_NAME) - set(all_figures):
        for suffix in ("svg", "pdf"):
            remove(study_dir / FIGURES_FOLDER / f"{name}.{suffix}")
    groups = findings.comparable_groups(summary)
    page = _render(
        **_content(plan, summary, runs, by_experiment),
        **_captions(plotted),
        headline=findings.headline(summary, runs, relations.verdicts, ramp_names),
        order_notes=one_order_note(runs, by_experiment, relations.verdicts),
        trend=findings.trend_sentence(findings.order_trend(runs, by_experiment)),
        drawn_total=len(plotted),
        not_drawn=sum(map(len, groups)) - len(plotted) if groups else 0,
        sweeps=sweeps,
        figures=figures,
        serving=serving,
        relations=relations,
        traces=traces,
        files=all_figures,
    )
    _write(study_dir / PAGE_NAME, page.encode(), partial=partial)


def _figures(
    study_dir: Path, summary: list[Any], used: list[Any], *, served: bool
) -> dict[str, Figure]:
    points = read_table(study_dir, "pareto.parquet").to_pylist()

    def tradeoff(metric: str) -> Figure:
        front = {
            row["experiment"] for row in points if row["objective"] == metric and row["on_front"]
        }
        return front_figure(summary, front, metric)

    has_quality = any(row["quality_score_mean"] is not None for row in summary)
    quality = {"energy_quality": tradeoff("quality_score")} if has_quality else {}
    return {
        **quality,
        "energy_per_output_token": charts.intervals_figure(
            summary, used, findings.ENERGY_PER_TOKEN
        ),
        "energy_per_request": charts.intervals_figure(
            summary, used, experiments.ENERGY_PER_REQUEST
        ),
        "energy_throughput": tradeoff("output_tokens_per_s"),
        "energy_latency": tradeoff("request_latency_p95_s" if served else "request_latency_p50_s"),
    }


def _mean_offered_loads(used: list[Any]) -> dict[str, float]:
    """Return the mean load offered to each experiment that was under traffic."""
    loads: dict[str, list[float]] = {}
    for run in used:
        if run["offered_requests_per_s"] is not None:
            loads.setdefault(run["experiment"], []).append(run["offered_requests_per_s"])
    return {experiment: fmean(values) for experiment, values in loads.items()}


def _linked_figures(page: Path) -> set[str]:
    """Return the figures that an earlier report links to; other files there are the user's own."""
    text = load_text(page) if page.is_file() else ""
    return set(re.findall(rf'<a href="{FIGURES_FOLDER}/([\w-]+)\.svg">', text))


def _head(facts: Mapping[str, list[str]], plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what was measured on what, for the lines under the title."""
    protocols = dict.fromkeys(
        plain(run["config"]["protocol"]) for run in plan["runs"] if "protocol" in run["config"]
    )
    engines = facts.get("Engine", [])
    words = {word for engine in engines for word in engine.replace(",", " ").split()}
    lines = {
        "Model": facts.get("Model"),
        "Device": facts.get("GPU") or (["no GPU"] if facts.get("Host") else None),
        "Engine": [*(name for name in facts.get("Backend", []) if name not in words), *engines],
        "Protocol": list(protocols),
        "Runs began": facts.get("Runs began"),
    }
    return [
        (name, "; ".join(values[:LISTED_FACTS]) + (" …" if len(values) > LISTED_FACTS else ""))
        for name, values in lines.items()
        if values
    ]


def _content(
    plan: dict[str, Any], summary: list[Any], runs: list[Any], used: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    token, request = experiments.energy_scales(summary)
    failed = failures(runs)
    left_out = plan.get("left_out") or []
    provenance = method.provenance(plan, runs)
    return {
        "study": plain(plan["study"]),
        "design": plain(plan["study_design_hash"]),
        "meters": method.meters(summary),
        "estimated": any(row["kind"] == "estimated" for row in summary),
        "experiments": experiments.table_rows(summary[:LISTED_EXPERIMENTS], token, request),
        "experiments_total": len(summary),
        "length_note": experiments.length_note(summary),
        "thinking_note": experiments.thinking_note(summary, used),
        "footprint_units": experiments.footprint_units(summary, runs),
        "correct_answers": experiments.correct_answer_rows(summary[:LISTED_EXPERIMENTS]),
        "drawn_limit": SHOWN_EXPERIMENTS,
        "token_unit": token.unit,
        "request_unit": request.unit,
        "runs_total": len(runs),
        "runs_completed": sum(run["status"] == "completed" for run in runs),
        "flags": experiments.flag_rows(runs),
        "failures": failed[:LISTED_FAILURES],
        "failures_total": len(failed),
        "failed_runs": sum(len(failure.runs) for failure in failed),
        "listed_runs": LISTED_RUNS,
        "labels": {row["experiment"]: shortened(row["label"], 120) for row in summary},
        "left_out": [_left_out_row(item) for item in left_out[:LISTED_LEFT_OUT]],
        "left_out_total": len(left_out),
        "method": method.paragraph(summary, runs, used),
        "exclusions": method.exclusion_note(summary),
        "notes": [plain(note, 400) for note in [*(plan.get("notes") or []), *_run_notes(runs)]],
        "head": _head(dict(provenance), plan),
        "study_yaml": _study_file(plan),
        "tables": TABLE_NAMES,
        "provenance": provenance,
        "differing_facts": method.differing_facts(runs),
        "version": ", ".join(dict(provenance).get("LLenergyMeasure", [])),
    }


def _captions(plotted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the captions' notes on the experiments that figures show."""
    energies = (f"{findings.ENERGY_PER_TOKEN}_mean", f"{experiments.ENERGY_PER_REQUEST}_mean")
    rows = [row for row in plotted if any(row[name] is not None for name in energies)]
    repeated = any(row["n"] > 1 for row in rows)
    meters = "; ".join(meter for _, meter in method.meters(rows))
    estimated = any(row["kind"] == "estimated" for row in rows)
    hollow_note = " A hollow mark is an estimate." if estimated else ""
    if repeated:
        means = f"Means over {method.run_counts(rows)} with 95 % Student t intervals"
    else:
        means = "Single runs, without intervals" if rows else "No experiment has a mean of energy"
    return {
        "means": means,
        "repeated": repeated,
        "dashed": any(row["n"] == 1 and row["energy_u95_rel"] is not None for row in rows),
        "energies": f"Energy was {meters}.{hollow_note}" if meters else "",
    }


def _run_notes(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the notes of runs' preflights and workloads, each once."""
    notes = distinct(run["notes"] for run in runs)[:LISTED_NOTES]
    return [note if count == len(runs) else f"{note} ({noted_in(count)})" for note, count in notes]


def _study_file(plan: Mapping[str, Any]) -> str:
    """Return the study as it was written; empty where the plan does not hold it.

    Characters beyond ASCII are escaped: a name may hold some that change how the page is shown.
    """
    if not plan.get("written"):
        return ""
    overrides = plan.get("overrides") or {}
    overrides_yaml = strict_yaml.dump(overrides, allow_unicode=False) if overrides else ""
    text = strict_yaml.dump(plan["written"], allow_unicode=False, width=100)
    return text + "".join(f"# set over it: {line}\n" for line in overrides_yaml.splitlines())


def _left_out_row(item: dict[str, Any]) -> dict[str, str]:
    settings = leaves(item.get("config") or {})
    return {
        "config": plain(" · ".join(f"{key}={value}" for key, value in settings), 300),
        "reason": plain(item.get("reason", "no reason was given"), 400),
    }


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
    environment.globals["counted"] = count_text
    environment.globals["css"] = Markup(  # noqa: S704 - ours, with our colours
        environment.get_template("page.css").render(colours=COLOURS)
    )
    environment.globals["draw"] = lambda figure: Markup(_figure_html(figure))  # noqa: S704 - escaped
    return environment.get_template("page.html").render(content)


def _figure_html(figure: Figure) -> str:
    return f'<div class="wide">{figure.svg}</div><div class="narrow">{figure.narrow_svg}</div>'


def _write(path: Path, content: bytes, *, partial: bool) -> None:
    write_file(path, lambda temporary: temporary.write_bytes(content), partial=partial)
