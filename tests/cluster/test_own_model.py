"""Step 4 of the page "HPC and SLURM, from zero": a downloaded model in jobs without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.slurm import Cluster
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from support.hub import COMMIT, serving_repository
from support.studies import write_study

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]

REPOSITORY = "owner/own-model"


def test_a_model_that_hf_download_fetched_runs_in_jobs_that_have_no_network(
    cluster: Cluster, tmp_path: Path
) -> None:
    home = tmp_path / "huggingface"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with serving_repository(REPOSITORY, tiny_llama_folder()) as endpoint:
        process = subprocess.run(
            [Path(sys.executable).with_name("hf"), "download", REPOSITORY],
            env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert process.returncode == 0, process.stderr
    snapshot = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    fetched = {path.name: path.read_bytes() for path in snapshot.iterdir()}
    assert fetched == {path.name: path.read_bytes() for path in tiny_llama_folder().iterdir()}

    write_study(tmp_path, model=REPOSITORY)
    # A proxy that nothing listens at is as good as no network.
    closed = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    workflow = cluster.workflow(tmp_path, HF_HOME=str(home), HF_HUB_OFFLINE="1", **closed)
    assert workflow.end() == 0, workflow.log()
    assert "not in the hub's cache" not in workflow.log()
    (path,) = tmp_path.glob("results/small/runs/*/1/result.json")
    result = json.loads(path.read_text())
    assert result["config"]["model"] == REPOSITORY
    assert result["environment"]["job"]["scheduler"] == "slurm"
