"""What the page says about runs under traffic: energy against latency, power against load."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

from llenergymeasure.analysis.knee import Knee, find_knee
from llenergymeasure.analysis.load_curve import (
    SURROUNDINGS,
    GroupKey,
    LoadCurve,
    load_curve,
    load_points,
    runs_without_result,
    served_groups,
)
from llenergymeasure.analysis.selection import Row, in_means, selections
from llenergymeasure.analysis.summary import label_part
from llenergymeasure.plan.fairness import configs_by_experiment
from llenergymeasure.report.charts import NO_ENERGY
from llenergymeasure.report.drawing import (
    COLOURS,
    Channel,
    Chart,
    Figure,
    draw_figure,
    layer,
    no_figure,
    nominal,
    plot_size,
    quantitative,
)
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.formatting import (
    count_text,
    join_words,
    plain,
    rounded,
    scale_for,
    shortened,
    with_interval,
)
from llenergymeasure.units import percent

FIGURE_NAMES = ("serving_energy_latency", "serving_power_load")
LISTED_RUNS = 200
LINE_NOTE = (
    "The line is fitted to the measured runs that keep up: its slope is the energy of one request "
    "more. Where it meets the axis it is an extrapolation to a loaded server that waits, unless a "
    "run had no traffic."
)
BENT_LINE_NOTE = "No line is drawn where power is no straight line over these loads."
NO_LINE_NOTE = (
    "A line is drawn only where measured runs that keep up, at three loads or more, show that "
    "power changes with load."
)
NAME_LIMIT = 60

NamedRuns: TypeAlias = tuple[str, Sequence[Row]]
"""A group's name and its runs."""
_LATENCY = "request_latency_p95_s"


@dataclass(frozen=True)
class ServingContent:
    """The page's part on traffic.

    Attributes:
        figures: by name.
        rows: the table's, one a run, as texts.
        rows_total: how many runs there are.
        sentences: knee and curve of each group of runs that differ only in load.
        energy_unit: of the table's energies a token.
    """

    figures: dict[str, Figure]
    rows: list[dict[str, str]]
    rows_total: int
    sentences: list[str]
    energy_unit: str


def ramp_experiments(plan: Mapping[str, Any]) -> set[str]:
    """Return the experiments whose rate of requests rises within the window."""
    configs = configs_by_experiment(plan["runs"])
    traffic = {name: config.get("serving") or {} for name, config in configs.items()}
    return {name for name, serving in traffic.items() if serving.get("arrivals") == "ramp"}


def serving_content(
    runs: Sequence[Row],
    settings: Sequence[str],
    group_numbers: Mapping[str, int | None],
    ramps: Collection[str] = (),
) -> ServingContent | None:
    """Return the page's part on traffic; None if no run had any.

    Args:
        runs: rows of ``runs.parquet``.
        settings: the columns of the swept settings.
        group_numbers: the ``comparison_group`` of each experiment.
        ramps: experiments whose rate rises within the window, so that they have no rate to keep.
    """
    serving_runs = [run for run in runs if run["offered_requests_per_s"] is not None]
    if not serving_runs:
        return None
    groups = served_groups(serving_runs, settings, group_numbers)
    names = _group_names(list(groups))
    n_ungrouped = len(serving_runs) - sum(map(len, groups.values()))
    token_scale = scale_for((run[ENERGY_PER_TOKEN] for run in serving_runs), "J")
    first_group = min((key.group or 0 for key in groups), default=0)
    drawn_groups = [(names[key], groups[key]) for key in groups if (key.group or 0) == first_group]
    undrawn_names = [names[key] for key in groups if (key.group or 0) != first_group]
    lost_runs = runs_without_result(runs, settings, groups)
    sentences = []
    for key, members in groups.items():
        planned = (*members, *lost_runs[key])
        with_rate = [run for run in planned if run["experiment"] not in ramps]
        has_slo = any(run["slo_attained"] is not None for run in members)
        sentences += knee_sentence(names[key], find_knee(with_rate), slo=has_slo)
        sentences += line_sentence(names[key], load_curve(load_points(members)))
    sentences += [*ungrouped_sentence(n_ungrouped), *undrawn_sentence(undrawn_names)]
    return ServingContent(
        figures={
            FIGURE_NAMES[0]: _energy_latency_figure(drawn_groups),
            FIGURE_NAMES[1]: _power_load_figure(drawn_groups),
        },
        rows=[_run_row(run, token_scale) for run in serving_runs[:LISTED_RUNS]],
        rows_total=len(serving_runs),
        sentences=sentences,
        energy_unit=token_scale.unit,
    )


def _group_names(keys: Sequence[GroupKey]) -> dict[GroupKey, str]:
    """Return a distinct name for each group, from what the groups differ in."""
    varied = [
        name
        for index, (name, _) in enumerate(keys[0].values)
        if len({key.values[index][1] for key in keys}) > 1
    ]
    texts = {}
    for key in keys:
        settings = [(name, value) for name, value in key.values if name in varied]
        texts[key] = _settings_text(settings) or plain(key.values[0][1])
    text_counts, name_counts, names = Counter(texts.values()), Counter[str](), {}
    for key, text in texts.items():
        name = text if text_counts[text] == 1 else f"{text} (group {key.group})"
        name_counts[name] += 1
        names[key] = name if name_counts[name] == 1 else f"{name} #{name_counts[name]}"
    return names


def _settings_text(values: Sequence[tuple[str, Any]]) -> str:
    """Return the settings as in an experiment's name; if none is set, those that are not."""
    parts = [
        str(value) if name in SURROUNDINGS else label_part(name, value)
        for name, value in values
        if value is not None
    ]
    return plain(", ".join(parts or [f"{name.rpartition('.')[2]} not set" for name, _ in values]))


def _run_row(run: Row, token_scale: Any) -> dict[str, str]:
    def ms(column: str) -> str:
        return rounded(None if run[column] is None else run[column] * 1e3)

    energy = run[ENERGY_PER_TOKEN]
    return {
        "run": f"{run['experiment']}/{run['cycle']}",
        "offered": rounded(run["offered_requests_per_s"]),
        "answered": rounded(run["requests_per_s"]),
        "first_token": f"{ms('time_to_first_token_p50_s')}, {ms('time_to_first_token_p99_s')}",
        "tpot_p50": ms("time_per_output_token_p50_s"),
        "e2e_p99": ms("request_latency_p99_s"),
        "good": percent(run["slo_share"]),
        "energy": rounded(None if energy is None else token_scale(energy)),
        "energy_good": rounded(run["energy_per_good_request_j"]),
        "power": rounded(run["power_mean_w"]),
        "failed": str(run["requests_failed"] or 0),
        "state": ", ".join(
            ["over-saturated"] * bool(run["over_saturated"])
            + ["left out of means"] * (not in_means(run))
        ),
    }


def knee_sentence(name: str, knee: Knee | None, *, slo: bool = False) -> list[str]:
    """Return between which rates a server stopped keeping up; nothing if no rate is set.

    With an ``slo``, a rate at which it was missed counts as not kept up with.
    """
    name, condition = shortened(name, NAME_LIMIT), " within its SLO" if slo else ""
    if knee is None:
        return []
    counts = [f"{n} of {total} at {rate:g}/s" for rate, n, total in knee.unknown]
    runs_text = plain(join_words(counts), 120)
    unknown = f"; of its runs {runs_text} have no result that shows it" if counts else ""
    if knee.failed_per_s is None:
        highest = f"the highest {knee.sustained_per_s:g}/s"
        return [
            f"{name}: kept up{condition} with every rate that was measured, {highest}{unknown}."
        ]
    sustained = "no rate asked" if knee.sustained_per_s is None else f"{knee.sustained_per_s:g}"
    return [
        f"{name}: keeps up{condition} with {sustained} and no longer with {knee.failed_per_s:g} "
        f"requests per second: the knee lies between{unknown}."
    ]


def line_sentence(name: str, curve: LoadCurve | None) -> list[str]:
    """Return a sentence on a group's power at no load and per further request, if that is shown."""
    if curve is None:
        return []
    name = shortened(name, NAME_LIMIT)
    slope = _plus_minus(curve.slope_j, curve.slope_half_j)
    basis = f"95 % intervals with what the sensor leaves open, {curve.points} runs"
    if not curve.is_significant:
        claim = "that power changes with load is not shown"
        if curve.off_line:
            claim = "loads lie on no line: power is bent over them, or off at each by itself"
        return [f"{name}: {claim} ({slope} J per request, {basis})."]
    if curve.bent:
        at_no_load = "what it is at no load only a run without traffic shows"
        if curve.idle_w is not None:
            idle_w, half_w = curve.idle_w
            power_text = _plus_minus(idle_w, half_w) if half_w else rounded(idle_w)
            at_no_load = f"without traffic it is {power_text} W in the mean of such runs"
        return [
            f"{name}: power is no straight line over these loads, {slope} J for each request more "
            f"in their mean ({basis}); {at_no_load}."
        ]
    power_text = _plus_minus(curve.intercept_w, curve.intercept_half_w)
    return [
        f"{name}: {power_text} W at no load by the line, and {slope} J for each request more "
        f"({basis})."
    ]


def _plus_minus(value: float, half_width: float) -> str:
    return with_interval(value, value - half_width, value + half_width)


def ungrouped_sentence(count: int) -> list[str]:
    """Return how many runs are in no group because of their meter or machine."""
    if not count:
        return []
    verb = "is" if count == 1 else "are"
    return [
        f"{count_text(count, 'run')} of another meter or machine than the rest of "
        f"{'its' if count == 1 else 'their'} experiment {verb} in no line and no figure."
    ]


def undrawn_sentence(names: Sequence[str]) -> list[str]:
    """Return which groups are not drawn because they may not be compared with the drawn ones."""
    if not names:
        return []
    listing = "; ".join(shortened(name, NAME_LIMIT) for name in names)
    return [f"Not drawn, because they may not be compared with what is: {listing}."]


def _energy_latency_figure(groups: Sequence[NamedRuns]) -> Figure:
    """Return energy per output token against latency, of the experiments' means."""
    token = scale_for((run[ENERGY_PER_TOKEN] for _, members in groups for run in members), "J")
    values: list[dict[str, Any]] = []
    for name, members in groups:
        for selection in selections(members).values():
            used = selection.used_runs
            if not used or any(
                run[ENERGY_PER_TOKEN] is None or run[_LATENCY] is None for run in used
            ):
                continue
            load = fmean(run["offered_requests_per_s"] for run in used)
            means = {
                "latency": 1e3 * fmean(run[_LATENCY] for run in used),
                "energy": token(fmean(run[ENERGY_PER_TOKEN] for run in used)),
                "load": load,
                "label": f"{load:.3g}/s",
            }
            values.append({"group": name, "state": _state(used), **means})
    title = "Energy per output token against latency under load"
    if not values:
        return no_figure(title, NO_ENERGY)
    text = "; ".join(
        f"{value['group']} at {value['label']}: {rounded(value['energy'])} {token.unit} and "
        f"{rounded(value['latency'])} ms"
        for value in values
    )
    shape = _shape(groups)
    return draw_figure(
        lambda wide: _energy_latency_chart(values, token.unit, shape, wide=wide), title, text
    )


def _shape(groups: Sequence[NamedRuns]) -> Channel:
    """Return the marks of groups; if there are several, their shapes differ."""
    return nominal("group", title=None) if len(groups) > 1 else {"value": "circle"}


def _energy_latency_chart(values: Sequence[Row], unit: str, shape: Channel, *, wide: bool) -> Chart:
    """Return means by energy and latency, joined as the load rises; numbers are offered loads."""
    zero = {"scale": {"zero": True}}  # these are means without intervals: no axis enlarges noise
    x = quantitative("latency", title="95th percentile of the time to the last token (ms)", **zero)
    y = quantitative("energy", title=f"Energy per output token ({unit})", **zero)
    line = {"type": "line", "strokeWidth": 1.2, "color": COLOURS["muted"], "strokeDash": [4, 3]}
    label = {"type": "text", "align": "left", "dx": 8, "dy": -6, "fontSize": 12}
    return {
        "layer": [
            layer(values, line, x=x, y=y, order=quantitative("load"), detail=nominal("group")),
            layer(values, _POINT, x=x, y=y, color=_state_colour(), shape=shape),
            layer(values, {**label, "color": COLOURS["ink"]}, x=x, y=y, text=nominal("label")),
        ],
        **plot_size(320, 260, wide=wide),
    }


def _power_load_figure(groups: Sequence[NamedRuns]) -> Figure:
    """Return power against the requests answered per second, and the line through them."""
    values = [
        {
            "group": name,
            "load": run["requests_per_s"],
            "power": run["power_mean_w"],
            "state": _state([run]),
        }
        for name, members in groups
        for run in members
        if in_means(run) and run["power_mean_w"] is not None
    ]
    title = "Power against load"
    if not values:
        return no_figure(title, NO_ENERGY)
    max_load = max(value["load"] for value in values)
    curves = [(name, load_curve(load_points(members))) for name, members in groups]
    shown_curves = [
        (name, curve) for name, curve in curves if curve is not None and curve.is_significant
    ]
    ends = [
        {"group": name, "load": load, "power": curve.intercept_w + curve.slope_j * load}
        for name, curve in shown_curves
        if not curve.bent
        for load in (0.0, max_load)
    ]
    is_bent = any(curve.bent for _, curve in shown_curves)
    notes = (
        (LINE_NOTE, ends),
        (BENT_LINE_NOTE, is_bent),
        (NO_LINE_NOTE, len(shown_curves) < len(curves)),
    )
    x = quantitative("load", title="Requests answered per second")
    y = quantitative("power", title="Power (W)", scale={"zero": True})
    line = {"type": "line", "strokeWidth": 1.2, "color": COLOURS["muted"]}
    marks = [
        layer(ends, line, x=x, y=y, detail=nominal("group")),
        layer(values, _POINT, x=x, y=y, color=_state_colour(), shape=_shape(groups)),
    ]
    text = count_text(len(values), "run") + (
        "; the lines are given in words above." if ends else "."
    )
    chart = {"layer": marks}
    return draw_figure(
        lambda wide: {**chart, **plot_size(320, 260, wide=wide)},
        title,
        text,
        " ".join(note for note, applies in notes if applies),
    )


_POINT = {"type": "point", "size": 70, "filled": True, "opacity": 1}


def _state(runs: Sequence[Row]) -> str:
    return "over-saturated" if any(run["over_saturated"] for run in runs) else "keeps up"


def _state_colour() -> Channel:
    """Return the colours of runs that keep up and of those that do not."""
    states = {"keeps up": COLOURS["measured"], "over-saturated": COLOURS["flag"]}
    return nominal("state", title=None, scale={"domain": [*states], "range": [*states.values()]})
