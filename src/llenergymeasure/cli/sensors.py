"""``llem sensors``: what can be measured here."""

import json

from llenergymeasure.meter.command import sensors_report, sensors_text


def sensors_command(*, as_json: bool) -> None:
    """Print the sensors of this machine."""
    report = sensors_report()
    print(json.dumps(report, indent=1) if as_json else sensors_text(report))
