"""The real SGLang is asked what it refuses of a study, before any of its runs."""

import subprocess
import sys
from pathlib import Path

from llenergymeasure.backends.refusals import read_refusal
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workload.load_study import study_from_mapping
from support.sglang_cpu import ON_CPU
from support.studies import environment


def test_sglang_says_in_its_own_words_what_it_refuses(tmp_path: Path) -> None:
    study = study_from_mapping(
        {
            "model": "tiny-llama",
            "backend": "sglang",
            "sglang": {"engine": {**ON_CPU, "page_size": 2}, "sampling": {"min_new_tokens": 64}},
            "experiments": [
                {},
                {"sglang": {"engine": {"chunked_prefill_size": 3}}},
                {"decoder": {"repetition_penalty": 3.0}},
            ],
        }
    )
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    folder.plan.write_bytes(make_plan(study).to_json_bytes())
    subprocess.run(
        [sys.executable, "-m", "llenergymeasure.backends.refusals", "sglang", folder.path],
        env=environment(),
        timeout=500,
        check=True,
    )
    runs = [folder.run(experiment.id, 1) for experiment in study.experiments]
    accepted, engine, sampling = (read_refusal(run, "sglang") for run in runs)
    assert accepted is None
    assert engine == "AssertionError: chunked_prefill_size must be divisible by page_size"
    assert sampling is not None
    assert "repetition_penalty must be in (0, 2]" in sampling
