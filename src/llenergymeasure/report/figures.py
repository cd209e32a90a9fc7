"""A chart drawn as a figure: SVG and PDF, without a network.

A chart is a Vega-Lite specification. Colours are those of :data:`COLOURS` exactly, so that the page
can exchange them in its dark dress. Texts of a study go in as data or titles, never into an
expression.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llenergymeasure.report.wording import plain

Chart: TypeAlias = dict[str, Any]
Channel: TypeAlias = dict[str, Any]

COLOURS = {
    "ink": "#1d2126",
    "muted": "#5a636e",
    "line": "#dce1e6",
    "paper": "#ffffff",
    "measured": "#0072b2",
    "estimated": "#c04a00",
    "flag": "#a8326e",
    "green": "#00795c",
    "gold": "#8a6d00",
}
"""Blue and vermilion stay apart under the common colour blindnesses (after Okabe and Ito,
2008); shape says the same: filled circles are measured, hollow diamonds estimated."""

WIDTH = 800
"""Of a drawing, in pixels; on a phone it scrolls, as the tables do."""


def plot_size(height: int) -> dict[str, int]:
    """Return the size of a plot with an axis on its left."""
    return {"width": WIDTH - 60, "height": height}


_CONFIG = {
    "font": "Helvetica, Arial, 'Liberation Sans', sans-serif",
    "background": COLOURS["paper"],
    "padding": 6,
    "aria": False,  # the drawing is one image with one text
    "view": {"stroke": None},
    "axis": {
        "domainColor": COLOURS["muted"],
        "tickColor": COLOURS["muted"],
        "gridColor": COLOURS["line"],
        "labelColor": COLOURS["muted"],
        "titleColor": COLOURS["ink"],
        "labelFontSize": 13,
        "titleFontSize": 13.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        # Labels at the ends that are pushed inwards run into their neighbours.
        "labelFlush": False,
        "labelOverlap": "greedy",
        "labelSeparation": 6,
    },
    "legend": {
        "orient": "top",
        "labelColor": COLOURS["ink"],
        "titleColor": COLOURS["ink"],
        "titleFontWeight": "normal",
        "labelFontSize": 13,
        "titleFontSize": 13,
    },
    "title": {
        "anchor": "start",
        "fontSize": 13.5,
        "color": COLOURS["ink"],
        "fontWeight": "normal",
    },
}


@dataclass(frozen=True)
class Figure:
    """One figure, drawn."""

    title: str
    text: str
    note: str
    svg: str
    pdf: bytes


def drawn(chart: Chart, title: str, text: str, note: str = "") -> Figure:
    """Return a chart, drawn."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg({**chart, "config": _CONFIG}, allowed_base_urls=[])
    title, text = plain(title), plain(text)
    return Figure(title, text, note, _titled(svg, title, text), vl_convert.svg_to_pdf(svg))


def no_figure(title: str, reason: str) -> Figure:
    """Return a figure that says why there is none."""
    words = {"type": "text", "fontSize": 14, "color": COLOURS["muted"]}
    chart = layer([{}], words, text={"value": reason})
    return drawn({**chart, "width": WIDTH - 20, "height": 90}, title, reason)


def layer(rows: Sequence[Any], mark: str | dict[str, Any], **encoding: Channel) -> Chart:
    """Return one layer of a chart: rows drawn as marks."""
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def numbers(name: str, **options: Any) -> Channel:
    """Return the encoding of a field of numbers."""
    return {"field": name, "type": "quantitative", **options}


def texts(name: str, **options: Any) -> Channel:
    """Return the encoding of a field of texts."""
    return {"field": name, "type": "nominal", **options}


_MARK_ROLES = re.compile(r' role="graphics-\w+" aria-roledescription="[^"]*"( aria-label="[^"]*")?')
"""Each mark as an image of its own, without a name: noise for screen readers."""


def _titled(svg: str, title: str, text: str) -> str:
    """Return a drawing that is one image with a title and a text, for screen readers."""
    from markupsafe import escape

    head, end, body = svg.partition(">")
    body = _MARK_ROLES.sub("", body)
    label = escape(f"{title}. {text}")
    return f'{head} role="img" aria-label="{label}"{end}<title>{escape(title)}</title>{body}'
