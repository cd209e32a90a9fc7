"""Ids recorded from an earlier release: what was measured under them stays known."""

import json
from pathlib import Path

import pytest

from llenergymeasure.config.expansion import expand
from llenergymeasure.config.study_document import document_from

GONE = {
    **dict.fromkeys(
        ("nnodes", "data_parallel_start_rank"),
        "are refused: what other machines draw would be missing from the energy",
    ),
    "monokernel": "of vLLM 0.33: parameters are those of the release that the images have",
    '"ignore_eos": null': "was the id of a request that sends the field: the other's results",
}
RECORDED = Path(__file__).parents[1] / "fixtures" / "experiment_ids.jsonl"


def test_recorded_ids_are_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = RECORDED.read_text().splitlines()
    recorded = [json.loads(line) for line in lines if not any(name in line for name in GONE)]
    assert len(recorded) >= 400
    studies = [
        expand(document_from(entry["config"], None), lambda _model: None) for entry in recorded
    ]
    ids = [study.experiments[0].id for study in studies]
    changed = [
        entry["config"] for entry, new in zip(recorded, ids, strict=True) if entry["id"] != new
    ]
    assert changed == []
