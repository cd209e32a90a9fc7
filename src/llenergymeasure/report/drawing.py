"""A chart drawn as a figure: SVG at two widths and PDF, without a network.

A chart is a Vega-Lite specification. Colours are those of :data:`COLOURS` exactly, so that the page
can replace them in dark mode. Texts of a study are passed as data or titles, never inside an
expression.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llenergymeasure.report.formatting import plain

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
"""Blue and vermilion differ for people with the common colour blindnesses (after Okabe and Ito,
2008); the shape shows the same: filled circles are measured, hollow diamonds estimated."""

WIDE, NARROW = 800, 340


def plot_size(height: int, narrow_height: int | None = None, *, wide: bool) -> dict[str, int]:
    """Return the size of a plot with an axis on its left; equally tall on a phone by default."""
    width = WIDE - 60 if wide else NARROW - 56
    return {"width": width, "height": height if wide or narrow_height is None else narrow_height}


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
        # Labels at the ends would overlap their neighbours if they were moved inwards.
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
    """One figure, drawn.

    Attributes:
        title: what it shows, in a few words.
        text: what it shows, for readers who cannot see it.
        note: what its caption must add, such as what is not drawn; empty for nothing.
        svg: for a page's full width.
        narrow_svg: for a phone.
        pdf: the full width, for a paper.
    """

    title: str
    text: str
    note: str
    svg: str
    narrow_svg: str
    pdf: bytes


def draw_figure(chart: Callable[[bool], Chart], title: str, text: str, note: str = "") -> Figure:
    """Return a chart drawn at both widths; ``chart`` is called with whether it is the wide one."""
    import vl_convert

    wide, narrow = (
        vl_convert.vegalite_to_svg({**chart(is_wide), "config": _CONFIG}, allowed_base_urls=[])
        for is_wide in (True, False)
    )
    title, text = plain(title), plain(text)
    return Figure(
        title=title,
        text=text,
        note=note,
        svg=_accessible(wide, title, text),
        narrow_svg=_accessible(narrow, title, text),
        pdf=vl_convert.svg_to_pdf(wide),
    )


def no_figure(title: str, reason: str) -> Figure:
    """Return a figure that only says why it cannot be drawn."""

    def chart(wide: bool) -> Chart:
        mark = {"type": "text", "fontSize": 14, "color": COLOURS["muted"]}
        width = WIDE - 20 if wide else NARROW - 20
        return {**layer([{}], mark, text={"value": reason}), "width": width, "height": 90}

    return draw_figure(chart, title, reason)


def layer(rows: Sequence[Any], mark: str | dict[str, Any], **encoding: Channel) -> Chart:
    """Return one layer of a chart: rows drawn as marks."""
    return {"data": {"values": list(rows)}, "mark": mark, "encoding": encoding}


def quantitative(name: str, **options: Any) -> Channel:
    """Return the encoding of a field of numbers."""
    return {"field": name, "type": "quantitative", **options}


def nominal(name: str, **options: Any) -> Channel:
    """Return the encoding of a field of texts."""
    return {"field": name, "type": "nominal", **options}


_MARK_ROLES = re.compile(r' role="graphics-\w+" aria-roledescription="[^"]*"( aria-label="[^"]*")?')
"""Attributes that make each mark an unnamed image of its own: noise for screen readers."""


def _accessible(svg: str, title: str, text: str) -> str:
    """Return a drawing that is one image with a title and a text, for screen readers."""
    from markupsafe import escape

    head, end, body = svg.partition(">")
    body = _MARK_ROLES.sub("", body)
    label = escape(f"{title}. {text}")
    return f'{head} role="img" aria-label="{label}"{end}<title>{escape(title)}</title>{body}'
