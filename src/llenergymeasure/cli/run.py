"""``llem run``: a study, or one model, to its printed result."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llenergymeasure.cli.talk import note
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError
from llenergymeasure.files import write_text
from llenergymeasure.plan import describe_plan, make_plan
from llenergymeasure.report.wording import counted
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.runners.choice import with_runners
from llenergymeasure.workflow.drive import Drive
from llenergymeasure.workload.studies import load_study, study_from_mapping


def run_command(study_file: Path | None, settings: Mapping[str, Any], *, dry_run: bool) -> int:
    """Run a study with overrides, or a study of one made of ``settings``; return the exit code.

    Raises:
        ConfigurationError: neither or both were given, or the settings cannot be used.
    """
    if study_file is not None and "model" in settings:
        raise ConfigurationError("give either a study file or --model, not both")
    if study_file is None and "model" not in settings:
        raise ConfigurationError("say what to run: a STUDY.yaml, or --model with a model's name")
    mapping = None if study_file is not None else _study_of_one(settings)
    if study_file is not None:
        study = load_study(study_file, settings)
    else:
        assert mapping is not None
        study = study_from_mapping(mapping)
    plan = make_plan(with_runners(study, apptainer_offered=False))
    if dry_run:
        print(describe_plan(plan))
        return EXIT_OK
    folder = StudyFolder(Path(study.results_root) / study.name)
    overrides: list[str] = []
    if mapping is not None:
        study_file = folder.path / "study.yaml"
        write_text(study_file, yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True))
    elif settings:
        overrides = ["--config", *(f"{key}={value}" for key, value in settings.items())]
    assert study_file is not None

    to_do = sum(not folder.run(run.experiment, run.cycle).result.is_file() for run in plan.runs)
    runs = counted(len(plan.runs), "run")
    note(f"{study.name}: {runs}, {to_do} to do, into {folder.path}")
    code = Drive(study_file, plan, folder, note).run(overrides)
    if to_do == 0 and code == EXIT_OK:
        note("Nothing to be done: every run is complete.")
    return _tell(folder, code)


def _study_of_one(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study file that says the same as the command line, one cycle unless asked."""
    name = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(settings["model"])).strip("-.")[:60]
    mapping: dict[str, Any] = {"name": name}
    for key, value in {"execution.n_cycles": 1, **settings}.items():
        place = mapping
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return mapping


def _tell(folder: StudyFolder, code: int) -> int:
    """Print the study's text and return the exit code: 1 too if every run was disqualified."""
    from llenergymeasure.report.text import study_text

    if not (folder.path / "runs.parquet").is_file():
        return code
    print(study_text(folder.path), flush=True)
    print(f"Report: {folder.path / 'report.html'}", flush=True)
    if code == EXIT_OK and _every_run_disqualified(folder):
        print("llem: every run was disqualified; the report says why", file=sys.stderr)
        return EXIT_FAILED
    return code


def _every_run_disqualified(folder: StudyFolder) -> bool:
    import pyarrow.parquet as pq

    summary = pq.read_table(folder.path / "summary.parquet", columns=["n", "n_disqualified"])
    in_means: int = sum(summary["n"].to_pylist())
    disqualified: int = sum(summary["n_disqualified"].to_pylist())
    return in_means == 0 and disqualified > 0
