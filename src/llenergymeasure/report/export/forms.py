"""Every form of text that a study's results are exported in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from llenergymeasure.report.export.citation import citation
from llenergymeasure.report.export.energy_score import energy_score
from llenergymeasure.report.export.sci import sci
from llenergymeasure.report.export.spdx import spdx
from llenergymeasure.report.export.text_tables import latex, markdown, table

Row: TypeAlias = Mapping[str, Any]
Writer: TypeAlias = Callable[[Row, Sequence[Row], Sequence[Row], Sequence[str]], str]
"""Makes the text of plan, experiments, runs, and the quantities that a table is to have."""

FORMS: dict[str, Writer] = {
    "markdown": lambda plan, summary, runs, columns: markdown(
        table(summary, runs, str(plan["study"]), columns)
    ),
    "latex": lambda plan, summary, runs, columns: latex(
        table(summary, runs, str(plan["study"]), columns), str(plan["study"])
    ),
    "citation": lambda plan, _summary, runs, _columns: citation(plan, runs),
    "energy-score": lambda _plan, summary, _runs, _columns: energy_score(summary),
    "sci": lambda plan, summary, runs, _columns: sci(plan, summary, runs),
    "spdx": lambda plan, summary, runs, _columns: spdx(plan, summary, runs),
}
