"""The study's figures as SVG and PNG, drawn without a network.

Every figure is drawn twice, for a page's full width and for a phone's.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from llenergymeasure.analysis.drift import Drift
from llenergymeasure.report import charts
from llenergymeasure.report.charts import COLOURS, OrderPoint, Row

FIGURE_NAMES = (
    "energy_per_output_token",
    "energy_per_request",
    "energy_throughput",
    "energy_order",
)
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
PNG_SCALE = 2.0


@dataclass(frozen=True)
class Figure:
    """One figure, drawn.

    Attributes:
        svg: for a page's full width.
        narrow_svg: for a phone.
        png: the full width at twice its size.
    """

    svg: str
    narrow_svg: str
    png: bytes


def draw(
    summary: Sequence[Row],
    runs: Sequence[Row],
    order: Sequence[OrderPoint],
    trend: Drift | None,
    front: Collection[str] = (),
) -> dict[str, Figure]:
    """Return every figure of :data:`FIGURE_NAMES`; one without data says so in its place.

    Args:
        summary: the experiments, in the order to show them.
        runs: the runs that are in their means.
        order: the runs of the order plot.
        trend: the trend over the order, if there is one to tell.
        front: experiments that none beats in both energy and throughput.
    """
    token, request = "energy_per_output_token_j", "energy_per_request_j"
    return {
        FIGURE_NAMES[0]: drawn(
            lambda wide: charts.intervals(summary, runs, token, "output token", wide=wide)
        ),
        FIGURE_NAMES[1]: drawn(
            lambda wide: charts.intervals(summary, runs, request, "request", wide=wide)
        ),
        FIGURE_NAMES[2]: drawn(lambda wide: charts.throughput(summary, front, wide=wide)),
        FIGURE_NAMES[3]: drawn(lambda wide: charts.order(order, trend, wide=wide)),
    }


def drawn(chart: Callable[[bool], Any]) -> Figure:
    """Return a chart drawn at both widths; ``chart`` gets whether it is the wide one."""
    import vl_convert

    wide, narrow = (_dressed(chart(is_wide)).to_dict() for is_wide in (True, False))
    return Figure(
        svg=vl_convert.vegalite_to_svg(wide, allowed_base_urls=[]),
        narrow_svg=vl_convert.vegalite_to_svg(narrow, allowed_base_urls=[]),
        png=vl_convert.vegalite_to_png(wide, scale=PNG_SCALE, allowed_base_urls=[]),
    )


def _dressed(chart: Any) -> Any:
    """Return a chart with the house's fonts and lines; roles for readers are the page's."""
    return (
        chart.configure(font=FONT, background=COLOURS["paper"], padding=6, aria=False)
        .configure_view(stroke=None)
        .configure_axis(
            domainColor=COLOURS["muted"],
            tickColor=COLOURS["muted"],
            gridColor=COLOURS["line"],
            labelColor=COLOURS["muted"],
            titleColor=COLOURS["ink"],
            labelFontSize=13,
            titleFontSize=13.5,
            titleFontWeight="normal",
            titlePadding=10,
        )
        .configure_legend(labelColor=COLOURS["ink"], labelFontSize=13)
    )
