"""A study's results in the forms of other tools, as far as what was measured fills them.

What a form asks for and was not observed stays empty; nothing is made up to fill it.
"""

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from llenergymeasure.analysis.tables import harmless_text
from llenergymeasure.report.findings import TOKEN, ranked
from llenergymeasure.report.wording import plain
from llenergymeasure.units import J_PER_WH

Row: TypeAlias = Mapping[str, Any]

CODECARBON_COLUMNS = (
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "tracking_mode",
    "on_cloud",
    "pue",
)
"""Of codecarbon's ``emissions.csv``. Source: codecarbon documentation, "Output"."""


def energy_score(summary: Sequence[Row]) -> str:
    """Return Wh per 1,000 queries of each experiment, as AI Energy Score reports it, as CSV.

    Source: AI Energy Score documentation: GPU energy in watt-hours per 1,000 queries. There a
    model's score holds for its data sets and hardware alone; here the settings stand beside it.
    """
    intervals = (("", "mean"), ("_ci95_low", "ci95_low"), ("_ci95_high", "ci95_high"))
    return _csv(
        [
            {
                "model": row.get("model"),
                "experiment": row["experiment"],
                "settings": plain(row["label"], 200),
                "kind": row["kind"],
                **{
                    f"wh_per_1000_queries{suffix}": _thousand(row[f"energy_per_request_j_{name}"])
                    for suffix, name in intervals
                },
                "n": row["n"],
            }
            for row in ranked(summary)
        ]
    )


def mlperf(summary: Sequence[Row], runs: Sequence[Row], study: str) -> str:
    """Return a summary after the terms of MLPerf Inference: Power, as JSON.

    It is no MLPerf result: neither rules, scenarios nor data sets are those of the benchmark.
    Source: MLPerf Inference rules, "Power": samples a second, and energy a sample, by scenario.
    """
    entries = []
    for row in ranked(summary):
        mine = [run for run in runs if run["experiment"] == row["experiment"]]
        served = any(run.get("offered_requests_per_s") is not None for run in mine)
        entries.append(
            {
                "system_desc_id": next((run["gpu_name"] for run in mine if run["gpu_name"]), None),
                "benchmark": row.get("model"),
                "scenario": "Server" if served else "Offline",
                "settings": plain(row["label"], 200),
                "valid_runs": row["n"],
                "samples_per_second": _mean(run["requests_per_s"] for run in mine),
                "tokens_per_second": row["output_tokens_per_s_mean"],
                "energy_per_sample_j": row["energy_per_request_j_mean"],
                "energy_per_token_j": row[f"{TOKEN}_mean"],
                "average_power_w": row["power_mean_w_mean"],
                "power_source": row["kind"],
            }
        )
    note = "In the terms of MLPerf Inference: Power; not an MLPerf result."
    return json.dumps({"note": note, "study": study, "results": entries}, indent=2) + "\n"


def codecarbon(runs: Sequence[Row], study: str, carbon: Mapping[str, Any] | None) -> str:
    """Return one row a completed run in the columns of codecarbon's ``emissions.csv``.

    Energies are in kWh, of the window; emissions in kg, only where the study declares its grid.
    """
    rows = []
    for run in runs:
        if run["status"] != "completed":
            continue
        consumed = _kwh(run["energy_gross_j"])
        emissions = _emissions_kg(consumed, carbon)
        duration_s = run["window_s"]
        rate = emissions / duration_s if emissions is not None and duration_s else None
        rows.append(
            {
                **dict.fromkeys(CODECARBON_COLUMNS),
                "timestamp": run["started_at"],
                "project_name": study,
                "run_id": f"{run['experiment']}-{run['cycle']}",
                "experiment_id": run["experiment"],
                "duration": duration_s,
                "emissions": emissions,
                "emissions_rate": rate,
                "gpu_energy": consumed if run["gpu_name"] and run["kind"] == "measured" else None,
                "energy_consumed": consumed,
                "gpu_model": run["gpu_name"],
                "tracking_mode": "process" if run["kind"] == "estimated" else "machine",
                "pue": (carbon or {}).get("pue"),
            }
        )
    return _csv(rows, CODECARBON_COLUMNS)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _thousand(energy_j: float | None) -> float | None:
    return None if energy_j is None else 1000 * energy_j / J_PER_WH


def _kwh(energy_j: float | None) -> float | None:
    return None if energy_j is None else energy_j / J_PER_WH / 1000


def _emissions_kg(energy_kwh: float | None, carbon: Mapping[str, Any] | None) -> float | None:
    factor = (carbon or {}).get("grid_gco2e_per_kwh")
    if energy_kwh is None or factor is None:
        return None
    return energy_kwh * float((carbon or {}).get("pue") or 1.0) * float(factor) / 1000


def _csv(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    text = io.StringIO()
    names = list(columns or (rows[0] if rows else ()))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {key: harmless_text(each) for key, each in row.items() if isinstance(each, str)}
        writer.writerow({**row, **texts})
    return text.getvalue()
