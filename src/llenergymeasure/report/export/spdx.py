"""A study's results as an SPDX 3.0.1 document: the AI profile's energy fields, in JSON-LD.

Source: SPDX 3.0.1, AI profile. Its energy of inference is a quantity and a unit, without what it
is the energy of: each package's comment says that. Conformance to the profile is not claimed:
it asks for supplier, version and place of the model, which a measurement does not know.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import llenergymeasure
from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.summary import total95
from llenergymeasure.report.findings import interval_caveats, ranked
from llenergymeasure.report.formatting import count_text, plain
from llenergymeasure.units import J_PER_WH

_INFO = "_:creation"


def spdx(plan: Mapping[str, Any], summary: Sequence[Row], runs: Sequence[Row]) -> str:
    """Return a package for each experiment with the energy of 1,000 requests in kWh."""
    base = f"urn:llenergymeasure:{plan['study_design_hash']}"
    rows = ranked(summary)
    starts = [run["started_at"] for run in runs if run["started_at"]]
    created_at = datetime.fromisoformat(max(starts)) if starts else datetime.now(UTC)
    agent = {
        "type": "SoftwareAgent",
        "spdxId": f"{base}:agent",
        "creationInfo": _INFO,
        "name": f"LLenergyMeasure {llenergymeasure.__version__}",
    }
    info = {
        "type": "CreationInfo",
        "@id": _INFO,
        "specVersion": "3.0.1",
        "created": created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "createdBy": [agent["spdxId"]],
    }
    used = used_runs(runs)
    packages = [_package(base, row, used.get(row["experiment"], ())) for row in rows]
    document = {
        "type": "SpdxDocument",
        "spdxId": f"{base}:document",
        "creationInfo": _INFO,
        "name": f"Energy of inference, study {plain(plan['study'], 80)}",
        "profileConformance": ["core", "software"],
        "rootElement": [package["spdxId"] for package in packages],
    }
    context = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
    graph = [info, agent, document, *packages]
    return json.dumps({"@context": context, "@graph": graph}, indent=1) + "\n"


def _package(base: str, row: Row, used: Sequence[Row]) -> dict[str, Any]:
    package = {
        "type": "ai_AIPackage",
        "spdxId": f"{base}:{row['experiment']}",
        "creationInfo": _INFO,
        "name": plain(row["model"] or "unknown", 200),
        "software_primaryPurpose": "model",
        "description": plain(row["label"], 200),
    }
    mean_j = row["energy_per_request_j_mean"]
    if mean_j is None:
        return {**package, "comment": "Its energy was not observed."}
    ends = total95(row, "energy_per_request_j")
    interval = ""
    if ends:
        low, high = map(_kwh_per_1000, ends)
        interval = f", 95 % interval with the sensor's gain {low} to {high}"
    comment = (
        "Energy of inference is that of 1,000 requests in kWh: "
        f"mean of {count_text(row['n'], 'run')}{interval}; "
        f"{row['kind']} by {row['energy_source']}, scope {', '.join(row['energy_scopes'])}."
    )
    return {
        **package,
        "comment": " ".join((comment, *interval_caveats(used))),
        "ai_energyConsumption": {
            "type": "ai_EnergyConsumption",
            "ai_inferenceEnergyConsumption": [
                {
                    "type": "ai_EnergyConsumptionDescription",
                    "ai_energyQuantity": _kwh_per_1000(mean_j),
                    "ai_energyUnit": "kilowattHour",
                }
            ],
        },
    }


def _kwh_per_1000(energy_j: float) -> str:
    """Return the kWh of a thousand as a decimal without exponent, as SPDX has it."""
    return format(Decimal(repr(energy_j / J_PER_WH)), "f")
