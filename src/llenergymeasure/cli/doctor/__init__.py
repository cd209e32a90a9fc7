"""``llem doctor``: what works on this machine, and the remedy for what does not."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from llenergymeasure.cli.doctor.cluster import cluster
from llenergymeasure.cli.doctor.containers import containers
from llenergymeasure.cli.doctor.engines import engines
from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.cli.doctor.machine import gpus, sensors
from llenergymeasure.cli.doctor.program import program
from llenergymeasure.cli.doctor.storage import hub, storage
from llenergymeasure.cli.output import JsonOption, Level, level, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK

_LOOKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "This program": program,
    "GPUs": gpus,
    "Energy": sensors,
    "Engines": engines,
    "Containers": containers,
    "Cluster": cluster,
    "Disk": storage,
    "Models and data": hub,
}
_MARKS = {"ok": "✓", "absent": "-", "wrong": "✗"}
_PLAIN_MARKS = {"ok": "ok", "absent": "--", "wrong": "NO"}


def doctor(as_json: JsonOption = False) -> int:
    """Say what works on this machine, and how to fix the rest.

    Ends with 1 if something that is here or needed does not work.
    """
    areas: dict[str, list[Finding]] = {}
    for area, look in _LOOKS.items():
        areas[area] = list(look())
        if not as_json:
            _print(area, areas[area])
    wrong = [each for found in areas.values() for each in found if each.state == "wrong"]
    if as_json:
        document = {
            "ok": not wrong,
            "findings": [
                {"area": area, **asdict(each)} for area, found in areas.items() for each in found
            ],
        }
        print_json(document)
    elif wrong:
        print(f"\nWrong: {', '.join(each.name for each in wrong)}")
    else:
        print("\nNothing is wrong.")
    return EXIT_FAILED if wrong else EXIT_OK


def _print(area: str, found: list[Finding]) -> None:
    encoding = (sys.stdout.encoding or "").lower()
    marks = _MARKS if encoding.startswith("utf") else _PLAIN_MARKS
    print(area)
    for each in found:
        if each.state == "ok" and level() == Level.QUIET:
            continue
        print(f"  {marks[each.state]} {each.name}: {each.detail}")
        if each.remedy is not None:
            print(f"      {each.remedy}")
    sys.stdout.flush()
