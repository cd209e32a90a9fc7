"""``llem sensors``: what can be measured here, and how the cards' sensors behave."""

import json
from collections.abc import Sequence
from pathlib import Path

from llenergymeasure.api.characterise import Probed, probe
from llenergymeasure.api.sensors import known_lines, known_report, sensors_report, sensors_text
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK


def sensors_command(
    *,
    as_json: bool,
    characterise: bool = False,
    devices: str | None = None,
    load: Sequence[str] = (),
    samples: Path | None = None,
) -> int:
    """Print the sensors of this machine; return 1 if a card was to be characterised and was not."""
    if not characterise:
        report = sensors_report(devices)
        print(json.dumps(report, indent=1) if as_json else sensors_text(report))
        return EXIT_OK
    probed = probe(devices, load, samples)
    if as_json:
        print(json.dumps({"characterised": [_report(each) for each in probed]}, indent=1))
    else:
        print("\n".join(line for each in probed for line in _lines(each)))
    return EXIT_OK if all(each.kept for each in probed) else EXIT_FAILED


def _report(probed: Probed) -> dict[str, object]:
    found = known_report(probed.info, probed.found)
    return {**found, "kept": probed.kept, "not_kept_because": probed.reason}


def _lines(probed: Probed) -> list[str]:
    mark = "✓" if probed.kept else "✗"
    lines = [f"{mark} {probed.found.device}  {probed.found.name}"]
    lines += known_lines(known_report(probed.info, probed.found))
    return lines + ([] if probed.kept else [f"    not kept: {probed.reason}"])
