"""What others open our files with takes no text of a study for a command."""

from pathlib import Path

import pyarrow as pa
import pytest

from llenergymeasure.analysis.tables import _write_csv
from llenergymeasure.api.notebook import SavedFigure, html_table
from llenergymeasure.report.export.text_tables import Table, _escape_markdown, markdown


@pytest.mark.parametrize(
    "text",
    [
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-2+3",
        "@SUM(1)",
        "\t=1",
        "\x1b[2J",
        "a\x00b",
        "\u202ex",
        "\uff1d1+1",
        "\n=1",
    ],
)
def test_a_table_as_text_holds_no_formula_and_nothing_that_steers(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "t.csv"
    _write_csv(pa.table({"label": [text, None], "x": [-1.5, 2.0], "l": [[text], None]}), path)
    written = path.read_text()
    for cell in written.splitlines()[1].replace('"', "").split(","):
        assert cell[0] not in "=+@\t\n\uff1d" and (cell[0] != "-" or cell == "-1.5")  # noqa: PT018
    assert not {"\x1b", "\x00", "\u202e"} & set(written)


def test_other_cells_stay(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = pa.table({"label": ["tiny-llama, n=1 · bf16", None, ""], "x": [-1.5, 2.0, 0.0]})
    _write_csv(table, path)
    assert path.read_text() == '"label","x"\n"tiny-llama, n=1 · bf16",-1.5\n,2\n"",0\n'


def test_a_markdown_cell_stays_text() -> None:
    assert _escape_markdown("<script>x</script>") == "&lt;script>x&lt;/script>"
    assert _escape_markdown("a|b") == "a\\|b"
    assert _escape_markdown("![x](http://y)") == "!\\[x\\](http://y)"
    assert _escape_markdown("tiny-llama n=1") == "tiny-llama n=1"


def test_a_markdown_caption_stays_text() -> None:
    table = Table(["n"], [["1"]], 0, "![x](http://y) <script>: means.")
    assert markdown(table).endswith("!\\[x\\](http://y) &lt;script>: means.\n")


def test_a_drawing_in_a_notebook_is_an_image_in_which_nothing_runs(tmp_path: Path) -> None:
    drawing = tmp_path / "a.svg"
    drawing.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    figure = SavedFigure(drawing)
    html = figure._repr_html_()
    assert html.startswith('<img alt="a" ')
    assert 'src="data:image/svg+xml;base64,' in html
    assert not hasattr(figure, "_repr_svg_")


def test_a_notebook_shows_text() -> None:
    html = html_table("a\u202eb", [["label"], ["<script>\u200b"]])
    assert not {"\u202e", "\u200b"} & set(html)
    assert "<script" not in html
