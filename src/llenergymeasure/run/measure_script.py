"""What the scripts ``measure_*.py`` do: read which run is asked for, and supervise it.

Standard library only, as the supervisor is: it has to start at once in any engine's image.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from llenergymeasure.errors import EXIT_CONFIGURATION, errors_as_messages
from llenergymeasure.files import load_json
from llenergymeasure.results.layout import RunFolder, planned_run
from llenergymeasure.run.supervisor import Supervisor
from llenergymeasure.screen import say


def run_as_script(backend: str) -> NoReturn:
    """Run :func:`main` and exit with its code."""
    with errors_as_messages():
        sys.exit(main(backend))


def main(backend: str, arguments: list[str] | None = None) -> int:
    """Run one cycle of one experiment; return the exit code."""
    options = _parser(backend).parse_args(arguments)
    try:
        supervisor = _supervisor(options, backend)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        say(f"{options.spec}: {error}")
        return EXIT_CONFIGURATION
    return supervisor.run()


def _supervisor(options: argparse.Namespace, backend: str) -> Supervisor:
    spec = read_spec(options.spec, options.run)
    if spec["backend"] != backend:
        raise ValueError(f"backend is {spec['backend']}, not {backend}")
    launcher = json.loads(options.engine_launcher) if options.engine_launcher else None
    folder = RunFolder(options.out.absolute())
    supervisor = Supervisor(spec, folder, options.watch, launcher)
    if options.share is not None:
        supervisor.followers = [
            Supervisor(run, folder.study.run(run["experiment"], run["cycle"]), options.watch)
            for run in followers(options.spec, spec)
        ]
        for run in (supervisor, *supervisor.followers):
            run.workflow_pid = options.share or options.watch
    return supervisor


def _parser(backend: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"measure_{backend}.py", description=f"Measure one run of the {backend} backend."
    )
    parser.add_argument(
        "--spec", type=Path, required=True, help="a plan.json (with --run) or one run's spec.json"
    )
    parser.add_argument("--run", help="EXPERIMENT/CYCLE, to pick from a plan")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--watch", type=int, help="end the run when this process ends")
    parser.add_argument(
        "--share",
        type=int,
        nargs="?",
        const=0,
        metavar="PID",
        help="measure the runs after it that share its server, too; they finish by themselves, "
        "for the workflow that --watch or PID is",
    )
    parser.add_argument(
        "--engine-launcher",
        metavar="JSON",
        help="a command that starts the engine elsewhere, given --out and --watch",
    )
    return parser


def read_spec(path: Path, run: str | None) -> dict[str, Any]:
    """Return one run's spec from its own file, or picked from a plan.

    Raises:
        ValueError: not JSON, or the plan does not hold that run.
    """
    document = load_json(path)
    if not isinstance(document, dict):
        raise TypeError("neither a plan nor a run's spec")
    if run is None:
        if "runs" in document:
            raise ValueError("this is a plan: say which run with --run EXPERIMENT/CYCLE")
        if missing := {"experiment", "cycle", "backend", "config"}.difference(document):
            raise ValueError(f"not a run's spec: it lacks {', '.join(sorted(missing))}")
        return document
    return _spec(document, planned_run(document, run))


def followers(path: Path, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the specs of the runs that come after one in its plan and share its server."""
    document = load_json(path)
    return [
        _spec(document, entry)
        for entry in document.get("runs", [])
        if spec.get("session") is not None
        and entry.get("session") == spec["session"]
        and entry["order"] > spec["order"]
    ]


def _spec(plan: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    study = {key: plan[key] for key in ("study", "study_design_hash")}
    execution = plan.get("execution", {})
    settings = {name: execution.get(name) for name in ("pin", "pin_scope")}
    settings["skip_preflight"] = bool(execution.get("skip_preflight"))
    settings["sections"] = plan.get("sections", {})
    return {**study, **entry, **settings}
