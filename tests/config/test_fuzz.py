"""Whatever a study file holds, it plans or is refused with a message: nothing else comes out."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import Plan, describe_plan, make_plan
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.studies import ROOT

SOURCES = [
    path.read_text()
    for folder in (Path(__file__).parent / "v1_19", ROOT / "config" / "examples")
    for path in sorted(folder.glob("*.yaml"))
]
SNIPPETS = [
    *("{", "}", "[", "]", ":", ": ", "- ", "\n", "\n  ", "\t"),
    *("&a ", "*a", "<<: *a", "!!set ", "!x "),
    *("null", "~", "true", "no", ".nan", ".inf", "-1", "0", "1e9", "1e999", "9" * 40, '"', "'"),
    *("sweep:", "experiments:", "base: ", "backend: ", "vllm:", "pytorch:", "model: ", "n: "),
    *("---", "...", "%YAML 9.9\n", "? ", "| ", "> ", "#", "@", "`", "\\", "\u2028", "\ufeff", "é"),
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["pytorch", "vllm", "bf16", "docker:x", "synthetic", "deterministic"]),
)
NAMES = [
    *("model", "backend", "n", "dataset", "precision", "decoder", "pytorch", "vllm", "openai"),
    *("sweep", "experiments", "base", "name", "runners", "execution", "output_dir", "energy"),
    *("temperature", "preset", "batch_size", "engine", "sampling", "max_memory", "min", "max"),
    *("num", "log", "pow2", "n_cycles", "cycle_order", "decoder.temperature", "pytorch.batch_size"),
    *("vllm.engine.max_num_seqs", "dataset.input_len", "backend", "base_url", "lora", "group"),
]
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
studies = st.dictionaries(st.sampled_from(NAMES), values, max_size=7)


def planned(study: Any) -> None:
    plan = make_plan(study)
    assert plan.runs
    stored = json.loads(plan.to_json_bytes())
    assert len(stored["runs"]) == len(plan.runs)
    assert isinstance(plan, Plan)
    assert describe_plan(plan)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    source=st.sampled_from(SOURCES),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(SNIPPETS)),
        min_size=1,
        max_size=6,
    ),
)
def test_mutated_files(source: str, edits: list[tuple[float, int, str]], tmp_path: Path) -> None:
    text = source
    for where, removed, inserted in edits:
        place = int(where * len(text))
        text = text[:place] + inserted + text[place + removed :]
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(ConfigurationError):
        planned(load_study(path))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=200))
def test_any_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_study(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(study=studies)
def test_any_mapping(study: dict[str, Any]) -> None:
    with suppress(ConfigurationError):
        planned(study_from_mapping({"model": "tiny-llama", **study}))
