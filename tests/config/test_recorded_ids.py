"""Ids recorded from an earlier release: what was measured under them stays known."""

import json
from pathlib import Path

import pytest

from llenergymeasure.config.loading import study_from_mapping

RECORDED = Path(__file__).parents[1] / "fixtures" / "experiment_ids.jsonl"


def test_recorded_ids_are_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorded = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert len(recorded) >= 400
    given = [study_from_mapping(each["config"]).experiments[0].id for each in recorded]
    changed = [
        each["config"] for each, new in zip(recorded, given, strict=True) if each["id"] != new
    ]
    assert changed == []
