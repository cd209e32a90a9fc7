"""Draw the home page's figure from the recordings of the H100: ``python tools/home_figure.py``."""

from pathlib import Path
from typing import Any

from llenergymeasure.report.drawing import COLOURS, Chart, draw_figure, layer, quantitative
from llenergymeasure.report.formatting import rounded
from llenergymeasure.results.record import Result
from llenergymeasure.results.record_files import read_result

DOCS = Path(__file__).resolve().parent.parent / "docs"
STUDY = DOCS / "validation" / "nvidia-h100-80gb-hbm3-580.159.04" / "study" / "study"
PROMPT, ANSWER = 512, 128
"""Tokens of each request in the runs that are drawn; the study's fourth run has other lengths."""


def main() -> None:
    """Write ``docs/images/h100.svg``."""
    results = map(read_result, STUDY.glob("*/result.json"))
    rows = sorted(
        (_row(result) for result in results if _is_drawn(result)),
        key=lambda row: row["batch_size"],
    )
    means = ", ".join(f"{row['text']} at batch size {row['batch_size']}" for row in rows)
    figure = draw_figure(
        lambda _: _chart(rows), "Energy per output token against batch size on an H100", means
    )
    (DOCS / "images" / "h100.svg").write_text(figure.svg)


def _is_drawn(result: Result) -> bool:
    tokens = result.tokens
    return (tokens.input, tokens.output) == (tokens.requests * PROMPT, tokens.requests * ANSWER)


def _row(result: Result) -> dict[str, Any]:
    """Return a run's energy per token, and the band of its sensor's gain around it."""
    energy_j = result.energy.per_output_token_j
    headline = next(reading for reading in result.energy.readings if reading.headline)
    if energy_j is None or headline.gross_j is None or headline.u_sys_j is None:
        raise ValueError(f"experiment {result.experiment} has no energy")
    band = headline.u_sys_j / headline.gross_j
    return {
        "batch_size": result.config["pytorch"]["batch_size"],
        "energy_j": energy_j,
        "low_j": energy_j * (1 - band),
        "high_j": energy_j * (1 + band),
        "text": f"{rounded(energy_j)} J",
    }


def _chart(rows: list[dict[str, Any]]) -> Chart:
    sizes = [row["batch_size"] for row in rows]
    x = quantitative(
        "batch_size",
        title="Batch size",
        scale={"type": "log", "base": 2, "domain": [0.8, 110], "nice": False},
        axis={"values": sizes, "grid": False},
    )
    energy: dict[str, Any] = {
        "title": "Energy per output token (J)",
        "scale": {"type": "log", "domain": [0.15, 9], "nice": False},
        "axis": {"values": [0.2, 0.5, 1, 2, 5]},
    }
    colour = COLOURS["measured"]
    y = quantitative("energy_j", **energy)
    band = {"y": quantitative("low_j", **energy), "y2": {"field": "high_j"}}
    words = {"type": "text", "align": "left", "dx": 10, "dy": -8, "fontSize": 13}
    return {
        "layer": [
            layer(rows, {"type": "line", "strokeWidth": 1.5, "color": colour}, x=x, y=y),
            layer(rows, {"type": "rule", "strokeWidth": 5, "color": colour}, x=x, **band),
            layer(rows, {"type": "point", "filled": True, "size": 60, "color": colour}, x=x, y=y),
            layer(rows, words, x=x, y=y, text={"field": "text"}),
        ],
        "width": 560,
        "height": 200,
        "background": "white",
    }


if __name__ == "__main__":
    main()
