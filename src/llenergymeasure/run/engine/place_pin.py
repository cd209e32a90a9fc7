"""Keeping a study, or each experiment, on one node or one model of GPU.

The first run to begin claims the place for all that follow, with a file that only one can make
(link(2)). A run that finds itself elsewhere refuses before it takes any time of the GPU.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import PreflightError, Problem
from llenergymeasure.files import load_json, make_folder, open_file, remove, sync_folder
from llenergymeasure.machine.scheduler import job_facts
from llenergymeasure.results.layout import StudyFolder


def hold_to_pin(spec: RunSpec, study: StudyFolder, surroundings: Mapping[str, Any]) -> None:
    """Claim this place for the study's runs, or see that it is the one that was claimed.

    Raises:
        PreflightError: the study, or this experiment, is pinned elsewhere.
    """
    if spec.pin is None:
        return
    here = _place(surroundings)
    claim = study.pin(spec.experiment if spec.pin_scope == "experiment" else None)
    made = {**here, "by": f"{spec.experiment}/{spec.cycle}"}
    first = _claim(claim, made)
    if first[spec.pin] == here[spec.pin]:
        return
    what = "experiment" if spec.pin_scope == "experiment" else "study"
    name = "node" if spec.pin == "node" else "GPU model"
    raise PreflightError(
        [
            Problem(
                f"this {what} is pinned to {name} {first[spec.pin]}, where run {first['by']} was "
                f"made; this is {here[spec.pin]}. Let it run there; or remove {claim}, and the "
                "runs that are left go elsewhere",
                key="execution.pin",
                found=spec.pin,
            )
        ]
    )


def _place(surroundings: Mapping[str, Any]) -> dict[str, str]:
    node = (job_facts() or {}).get("node") or str(surroundings.get("host"))
    models = dict.fromkeys(str(card.get("name")) for card in surroundings.get("gpus") or [])
    return {"node": node, "gpu_model": ", ".join(models) or "none"}


def _claim(path: Path, place: Mapping[str, str]) -> dict[str, str]:
    """Return the claim that holds: this one, if it is the first.

    Raises:
        OSError: the one that is there cannot be read now.
        PreflightError: it is damaged.
    """
    make_folder(path.parent)
    own = path.with_name(f".{path.name}.{place['node']}.{os.getpid()}.part")
    remove(own)  # of a process that was killed, or somebody else's link
    with os.fdopen(open_file(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as stream:
        json.dump(dict(place), stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(own, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    finally:
        own.unlink(missing_ok=True)
    claimed: Any = None
    with suppress(ValueError):
        claimed = load_json(path)
    if not isinstance(claimed, dict) or not place.keys() <= claimed.keys():
        raise PreflightError(f"{path} does not say where the first run was made: remove it")
    return claimed
