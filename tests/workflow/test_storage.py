"""Runs on machines that share no folder: a storage carries what they need and what they leave."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow.storage import Storage, send_inputs
from llenergymeasure.workload.load_study import load_study
from support.studies import ROOT, plan_of, result_times, snakemake, write_study

WHOLE = ROOT / "tests/results/fixtures/measured_v1/runs/8914e7a2493a/1"
RUN = {"experiment": WHOLE.parent.name, "cycle": 1}

SUBMIT = """#!/bin/sh
# A machine of its own for each job: an empty folder, and nothing but what the job brings.
node=$(mktemp -d "{nodes}/XXXXXX")
cp "$1" "$node/job.sh"
cd "$node"
(env -i PATH="$PATH" PYTHONPATH="{packages}" HOME="$HOME" LLEM_CACHE="$LLEM_CACHE" \\
    sh job.sh >log 2>&1; echo $? >exit) </dev/null >/dev/null 2>&1 &
echo "$node"
"""
STATUS = """#!/bin/sh
[ -e "$1/exit" ] || {{ echo running; exit; }}
[ "$(cat "$1/exit")" = 0 ] && echo success || echo failed
"""


class Kept:
    """A file in a storage that is a folder."""

    def __init__(self, place: Path, query: str) -> None:
        self.query = query
        self._stored, self._local = place / query, Path()

    def exists(self) -> bool:
        return self._stored.exists()

    def set_local_path(self, path: Path) -> None:
        self._local = path

    def local_path(self) -> Path:
        return self._local

    def retrieve_object(self) -> None:
        shutil.copy(self._stored, self._local)

    def remove(self) -> None:
        self._stored.unlink()


def storage(place: Path, folder: StudyFolder) -> Storage:
    workflow: Any = SimpleNamespace(
        storage_registry=SimpleNamespace(
            default_storage_provider=SimpleNamespace(object=lambda query: Kept(place, query))
        ),
        storage_settings=SimpleNamespace(
            default_storage_provider="fs", default_storage_prefix="store/"
        ),
    )
    new_storage = Storage.of(workflow, folder)
    assert new_storage is not None
    return new_storage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.chdir(tmp_path)
    return StudyFolder(Path("results/small"))


def stored(folder: StudyFolder) -> RunFolder:
    run = RunFolder(Path("store") / folder.run(**RUN).path)
    shutil.copytree(WHOLE, run.path)
    return run


def test_a_whole_run_is_brought_and_left_alone_after(here: StudyFolder) -> None:
    there, run = stored(here), here.run(**RUN)
    storage(Path(), here).fetch([RUN])
    assert is_complete(run)
    before = run.result.stat().st_mtime_ns
    shutil.rmtree(there.path)
    storage(Path(), here).fetch([RUN])
    assert is_complete(run)
    assert run.result.stat().st_mtime_ns == before


def test_a_record_that_is_damaged_in_the_storage_is_no_result(
    here: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    there, run = stored(here), here.run(**RUN)
    there.row.write_bytes(b"cut")
    storage(Path(), here).fetch([RUN])
    assert not run.result.exists()
    assert not there.result.exists()
    assert run.outcome.exists()
    assert "measured again" in "".join(capsys.readouterr())


def test_a_storage_that_fails_ends_no_workflow(
    here: StudyFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: Kept) -> None:
        raise RuntimeError("503 Slow Down: https://kept.example/a?X-Signature=deadbeef01")

    stored(here)
    monkeypatch.setattr(Kept, "retrieve_object", fail)
    storage(Path(), here).fetch([RUN])
    assert not here.run(**RUN).result.exists()
    output = "".join(capsys.readouterr())
    assert "503 Slow Down" in output
    assert "deadbeef01" not in output


def test_what_runs_read_goes_along_and_what_cannot_go_is_named(here: StudyFolder) -> None:
    Path("prompts.txt").write_text("one two\nthree\n")
    plan = make_plan(load_study(write_study(Path(), dataset="prompts.txt")))
    workflow = SimpleNamespace(
        main_snakefile="Snakefile", overwrite_configfiles=["study.yaml"], configfiles=[]
    )
    send_inputs(workflow, plan, here)
    assert workflow.configfiles == ["results/small/plan.json", "prompts.txt"]
    workflow.main_snakefile = str(ROOT / "Snakefile")
    with pytest.raises(ConfigurationError, match=r"below the working folder.*\n?.*Snakefile"):
        send_inputs(workflow, plan, here)


@pytest.mark.slow
@pytest.mark.system
def test_a_study_without_a_shared_folder(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_storage_plugin_fs")
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    assert shutil.which("rsync"), "apt install rsync"
    clone, nodes, store = (tmp_path / name for name in ("clone", "nodes", "store"))
    nodes.mkdir()
    for part in ("rules", "scripts", "profiles", "config", "envs"):
        shutil.copytree(ROOT / part, clone / part)
    shutil.copy(ROOT / "Snakefile", clone)
    (clone / "src").symlink_to(ROOT / "src")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    (clone / "prompts.txt").write_text("one two three\nfour five six\n")
    study = write_study(
        clone,
        dataset="prompts.txt",
        sweep={"model": ["tiny-llama", str(broken)]},
        execution={"n_cycles": 1, "cycle_order": "sequential", "skip_preflight": True},
    )
    packages = ":".join(path for path in sys.path if path)
    for name, script in (("submit", SUBMIT), ("status", STATUS)):
        (tmp_path / name).write_text(script.format(nodes=nodes, packages=packages))
        (tmp_path / name).chmod(0o755)

    def call(*more: str) -> tuple[int, str]:
        result = snakemake(
            clone,
            *("--configfile", str(study), "--executor", "cluster-generic", "--jobs", "1"),
            *("--cluster-generic-submit-cmd", str(tmp_path / "submit")),
            *("--cluster-generic-status-cmd", str(tmp_path / "status")),
            *("--shared-fs-usage", "none", "--job-deploy-sources"),
            *("--default-storage-provider", "fs", "--default-storage-prefix", str(store)),
            *more,
            snakefile=clone / "Snakefile",
            variables={
                "PYTHONPATH": f"{clone / 'src'}:{packages}",
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            },
        )
        return result.returncode, result.stdout + result.stderr

    code, output = call()
    assert code == 1, output
    assert "1 of 2 runs completed" in output
    good, bad = (run["experiment"] for run in plan_of(clone)["runs"])
    folder = StudyFolder(clone / "results" / "small")
    assert is_complete(folder.run(good, 1))
    outcome = json.loads(folder.run(bad, 1).outcome.read_text())
    assert outcome["status"] == "failed"
    assert outcome["error"]["message"]
    assert len(list(nodes.iterdir())) == 2
    times = result_times(clone)

    # With an empty storage, and with a results folder that was lost: the failed run is left to do.
    for gone in (store, folder.path / "runs"):
        gone.rename(tmp_path / "away")
        code, output = call("--dry-run")
        assert code == 0, output
        assert bad in output
        assert f"experiment={good}" not in output
        (tmp_path / "away").rename(gone)
    assert result_times(clone) == times
