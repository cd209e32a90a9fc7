"""A model's chat template is a program of its author: it reaches nothing here, and ends."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import study_from_mapping
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from llenergymeasure.workload.prompts import build_workload
from support.attempts import spec_of
from support.studies import SMALL, environment

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

IMPATIENT = """
import sys
from llenergymeasure.run import supervisor, measure_script
supervisor.PREFLIGHT_LIMIT_S = 15
sys.exit(measure_script.main("pytorch", sys.argv[1:]))
"""


def settings_with(folder: Path, template: str) -> dict[str, object]:
    """Return a study's settings of a model with this template, asked a chat."""
    shutil.copytree(tiny_llama_folder(), folder / "model")
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    (folder / "chats.jsonl").write_text(json.dumps(chat) + "\n")
    model, data = str(folder / "model"), str(folder / "chats.jsonl")
    return {"model": model, "dataset": data, "n": 1}


@pytest.mark.parametrize(
    "template",
    [
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch found') }}",
        "{{ range(1000000000) | list }}",
    ],
)
def test_one_that_reaches_out_is_refused(tmp_path: Path, template: str) -> None:
    config = ExperimentConfig.model_validate(settings_with(tmp_path, template))
    with pytest.raises(ConfigurationError, match="chat template refused"):
        build_workload(config)


@pytest.mark.slow
def test_a_run_ends_whose_template_does_not(tmp_path: Path) -> None:
    plan = make_plan(study_from_mapping({**SMALL, **settings_with(tmp_path, ENDLESS)}))
    (tmp_path / "told.json").write_text(json.dumps(spec_of(plan, tmp_path / "plan.json")))
    out = tmp_path / "runs" / plan.runs[0].experiment / "1"
    command = [sys.executable, "-c", IMPATIENT, "--spec", str(tmp_path / "told.json")]
    subprocess.run(
        [*command, "--out", str(out)], env=environment(), capture_output=True, check=False
    )
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["error"]["class"] == "TimeoutError"
    assert "still reading model and prompts after 15 s" in outcome["error"]["message"]
