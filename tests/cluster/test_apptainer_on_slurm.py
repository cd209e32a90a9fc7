"""Apptainer inside SLURM's jobs: the whole run in the image, or the engine alone."""

import json
from pathlib import Path

import pytest

from cluster.slurm import Cluster
from llenergymeasure.files import sha256
from support.studies import write_study

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]


@pytest.mark.parametrize("meter", ["inside", "host"])
def test_a_job_in_an_image_measures_its_nodes_card_and_says_which_job_it_was(
    cluster: Cluster, sif: Path, tmp_path: Path, meter: str
) -> None:
    write_study(
        tmp_path,
        runners={"pytorch": f"apptainer:{sif}"},
        # The image's PyTorch is one for CPUs, which a preflight refuses beside a card.
        execution={"n_cycles": 1, "meter": meter, "pin": "node", "skip_preflight": True},
    )
    # What --nv brings in beside a real driver: its library.
    library = cluster.cards["LD_LIBRARY_PATH"].partition(":")[0]
    driver = {
        "APPTAINER_BINDPATH": f"{library},{cluster.folder.parent}",
        "APPTAINERENV_LD_LIBRARY_PATH": library,
    }
    workflow = cluster.workflow(tmp_path, "--use-apptainer", **driver)
    assert workflow.end() == 0, workflow.log()

    (path,) = tmp_path.glob("results/small/runs/*/1/result.json")
    result = json.loads(path.read_text())
    assert result["runner"] == "apptainer"
    container = {"runtime": "apptainer", "image": str(sif), "digest": f"sha256:{sha256(sif)}"}
    assert result["provenance"]["container"] == container
    job = result["environment"]["job"]
    assert job["partition"] == "main"
    (card,) = result["environment"]["gpus"]
    assert card["uuid"] in {f"GPU-{job['node']}-0", f"GPU-{job['node']}-1"}
    assert result["energy"]["kind"] == "measured"
    (claim,) = tmp_path.glob("results/small/pins/*.json")
    assert json.loads(claim.read_text())["node"] == job["node"]
