"""A study's results as SCI scores: carbon of a token and of a request, the hardware's with it.

Source: Software Carbon Intensity (ISO/IEC 21031:2024) and SCI for AI, the consumer's boundary:
SCI = (E x I + M) per R. E is measured; I, the site's PUE and M are what the study declares. The
form is a manifest of the Green Software Foundation's Impact Framework, whose ``if-run`` computes
the outputs again from the inputs next to them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.summary import total95
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.plan.plan import run_sections
from llenergymeasure.report.experiments import ENERGY_PER_REQUEST
from llenergymeasure.report.findings import ENERGY_PER_TOKEN, interval_caveats, ranked
from llenergymeasure.report.formatting import plain
from llenergymeasure.units import J_PER_WH

FUNCTIONAL_UNITS = {"output-tokens": "output-token", "tokens": "token", "requests": "request"}
"""The functional unit, and its singular; tokens are input and output tokens together."""

_NEEDED = ("grid_gco2e_per_kwh", "embodied_kgco2e", "lifetime_years")
_S_PER_YEAR = 365.25 * 24 * 3600


def sci(plan: Mapping[str, Any], summary: Sequence[Row], runs: Sequence[Row]) -> str:
    """Return the scores of each experiment that has energy, as a manifest in YAML.

    Raises:
        ConfigurationError: the study declares no grid, or no embodied carbon.
    """
    declared = run_sections(plan).get("carbon") or {}
    for name in _NEEDED:
        if declared.get(name) is None:
            remedy = "declare it in the study and call llem run; nothing is measured again"
            raise ConfigurationError(Problem(f"an SCI score needs it: {remedy}", f"carbon.{name}"))
    used = used_runs(runs)
    rows = [row for row in ranked(summary) if row[f"{ENERGY_PER_TOKEN}_mean"] is not None]
    children = {row["experiment"]: _child(row, used[row["experiment"]], declared) for row in rows}
    document = {
        "name": plain(plan["study"], 80),
        "description": " ".join(
            (
                _description(plan, declared, left_out=len(summary) - len(rows)),
                *interval_caveats(runs),
            )
        ),
        "tags": {"kind": "sci", "category": "ml-inference"},
        "initialize": {"plugins": _PLUGINS},
        "tree": {"children": children},
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))


def _description(plan: Mapping[str, Any], declared: Row, left_out: int) -> str:
    sources = plain(declared.get("source") or "not named", 1000)
    return (
        f"Study {plain(plan['study'], 80)}, design {plan['study_design_hash']}. SCI of inference "
        "in gCO2eq per output token, per token in or out, and per request: sums over each "
        "experiment's runs. Boundary: the devices of the scope named, within the measured windows; "
        "loading, warm-up and rests are outside. Low and high are the 95 % interval of the energy, "
        "with the sensor's gain; what is declared counts as exact. Source of PUE, grid and "
        f"embodied carbon: {sources}. "
        f"Experiments without energy per output token, left out: {left_out}."
    )


def _arithmetic(inputs: Sequence[str], output: str, method: str = "Multiply") -> dict[str, Any]:
    config = {"input-parameters": list(inputs), "output-parameter": output}
    return {"path": "builtin", "method": method, "config": config}


_PLUGINS: dict[str, dict[str, Any]] = {
    "site-energy": _arithmetic(("energy-metered", "pue"), "energy"),
    "operational": _arithmetic(("energy", "grid/carbon-intensity"), "carbon-operational"),
    "time-share": {
        "path": "builtin",
        "method": "Divide",
        "config": {"numerator": "duration", "denominator": "lifetime", "output": "time-share"},
    },
    "embodied": _arithmetic(("emissions-embodied-total", "time-share"), "carbon-embodied"),
    "carbon": _arithmetic(("carbon-operational", "carbon-embodied"), "carbon", "Sum"),
    **{
        f"sci-{singular}": {
            "path": "builtin",
            "method": "Sci",
            "config": {"functional-unit": plural},
            "mapping": {"sci": f"sci-per-{singular}"},
        }
        for plural, singular in FUNCTIONAL_UNITS.items()
    },
}


def _child(row: Row, used: Sequence[Row], declared: Row) -> dict[str, Any]:
    """Return an experiment: the sums over its runs in kWh and s, and what follows in gCO2eq."""
    starts = [run["started_at"] for run in used if run["started_at"]]
    if not starts:
        raise ConfigurationError(
            f"an SCI score needs when its runs began; no record of {row['experiment']} says so"
        )
    inputs = {
        "timestamp": min(starts),
        "duration": sum(run["window_s"] for run in used),
        "settings": plain(row["label"], 200),
        "kind": row["kind"],
        "scopes": ", ".join(row["energy_scopes"]),
        "energy-metered": sum(run["energy_gross_j"] for run in used) / (1000 * J_PER_WH),
        "pue": declared.get("pue", 1.0),
        "grid/carbon-intensity": declared["grid_gco2e_per_kwh"],
        "emissions-embodied-total": 1000 * declared["embodied_kgco2e"],
        "lifetime": declared["lifetime_years"] * _S_PER_YEAR,
        "output-tokens": sum(run["output_tokens"] for run in used),
        "tokens": sum(run["input_tokens"] + run["output_tokens"] for run in used),
        "requests": sum(
            run["requests"] if run["requests_worked"] is None else run["requests_worked"]
            for run in used
        ),
    }
    # Without work on a request there is no score of one.
    steps = [name for name in _PLUGINS if name != "sci-request" or inputs["requests"]]
    outputs = _outputs(inputs)
    for name in [name for name in outputs if "sci" in name]:
        metric = ENERGY_PER_REQUEST if name == "sci-per-request" else ENERGY_PER_TOKEN
        ends = total95(row, metric) if row[f"{metric}_mean"] is not None else None
        for end, bound in zip(("low", "high"), ends or (), strict=False):
            outputs[f"{name}-{end}"] = _outputs(inputs, bound / row[f"{metric}_mean"])[name]
    return {
        "pipeline": {"compute": steps},
        "inputs": [inputs],
        "outputs": [{**inputs, **outputs}],
    }


def _outputs(inputs: Mapping[str, Any], factor: float = 1.0) -> dict[str, float]:
    """Return what the plugins compute, for an energy multiplied by a factor."""
    energy_kwh = factor * inputs["energy-metered"] * inputs["pue"]
    operational_g = energy_kwh * inputs["grid/carbon-intensity"]
    time_share = inputs["duration"] / inputs["lifetime"]
    embodied_g = inputs["emissions-embodied-total"] * time_share
    return {
        "energy": energy_kwh,
        "carbon-operational": operational_g,
        "time-share": time_share,
        "carbon-embodied": embodied_g,
        "carbon": operational_g + embodied_g,
        **{
            f"sci-per-{singular}": (operational_g + embodied_g) / inputs[plural]
            for plural, singular in FUNCTIONAL_UNITS.items()
            if inputs[plural]
        },
    }
