"""A study that is pinned stays where its first run was made."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure import files
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import PreflightError
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run import pin as pinning
from llenergymeasure.run.pin import Node, enforce_pin, parse_nodes

CARD = {"name": "NVIDIA H200"}
HERE = {"host": "n1", "gpus": [CARD]}


def spec(experiment: str = "a" * 12, **pin: str) -> RunSpec:
    return RunSpec.model_validate(
        {
            "study": "small",
            "study_design_hash": "0" * 64,
            "experiment": experiment,
            "cycle": 1,
            "order": 1,
            "backend": "pytorch",
            "runner": "local",
            "config": {},
            **pin,
        }
    )


@pytest.fixture(autouse=True)
def outside_of_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def test_without_a_pin_nothing_is_claimed(tmp_path: Path) -> None:
    enforce_pin(spec(), StudyFolder(tmp_path), HERE)
    assert list(tmp_path.iterdir()) == []


def test_the_first_run_decides_the_node_and_others_elsewhere_refuse(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    enforce_pin(spec(pin="node"), study, HERE)
    enforce_pin(spec("b" * 12, pin="node"), study, HERE)
    with pytest.raises(
        PreflightError, match=r"^execution.pin: .*pinned to node n1, .*this is n2.*elsewhere$"
    ):
        enforce_pin(spec("b" * 12, pin="node"), study, {**HERE, "host": "n2"})
    assert [path.name for path in (tmp_path / "pins").iterdir()] == ["study.json"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"node": "n1"}'])
def test_a_damaged_pin_is_said_with_the_way_out(tmp_path: Path, content: str) -> None:
    study = StudyFolder(tmp_path)
    study.pin(None).parent.mkdir()
    study.pin(None).write_text(content)
    with pytest.raises(PreflightError, match=r"study\.json does not say where .* remove it"):
        enforce_pin(spec(pin="node"), study, HERE)


def test_a_pin_that_cannot_be_read_now_is_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyFolder(tmp_path)
    enforce_pin(spec(pin="node"), study, HERE)

    def stale(path: Path, _limit: int | None = None) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    monkeypatch.setattr(files, "read_bytes", stale)
    with pytest.raises(OSError, match="Stale file handle"):
        enforce_pin(spec(pin="node"), study, HERE)


def test_one_model_of_gpu_may_be_on_many_nodes(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    enforce_pin(spec(pin="gpu_model"), study, HERE)
    enforce_pin(spec(pin="gpu_model"), study, {**HERE, "host": "n2"})
    with pytest.raises(PreflightError, match=r"pinned to GPU model NVIDIA H200"):
        enforce_pin(spec(pin="gpu_model"), study, {"host": "n1", "gpus": [{"name": "NVIDIA L4"}]})


def test_each_experiment_may_have_a_node_of_its_own(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    pin = {"pin": "node", "pin_scope": "experiment"}
    enforce_pin(spec("a" * 12, **pin), study, HERE)
    enforce_pin(spec("b" * 12, **pin), study, {**HERE, "host": "n2"})
    with pytest.raises(PreflightError, match="this experiment is pinned to node n2"):
        enforce_pin(spec("b" * 12, **pin), study, HERE)


def test_on_a_cluster_the_node_goes_by_the_schedulers_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyFolder(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "gpu-07")
    enforce_pin(spec(pin="node"), study, HERE)
    monkeypatch.setenv("SLURMD_NODENAME", "gpu-08")
    with pytest.raises(PreflightError, match=r"gpu-07.*gpu-08"):
        enforce_pin(spec(pin="node"), study, HERE)


SINFO = """\
n1|gpu:h100:4|mixed|gpu*
n2|gpu:h100:4(S:0-1)|idle|gpu*
n3|gpu:a100:8|idle~|gpu*
n4|gpu:2|down*|gpu*
n5|(null)|idle|cpu
"""


def test_nodes_of_the_default_partition_the_most_idle_first() -> None:
    nodes = parse_nodes(SINFO, None)
    assert [node.name for node in nodes] == ["n2", "n3", "n1"]
    assert [sorted(node.gpu_types) for node in nodes] == [["h100"], ["a100"], ["h100"]]
    (other,) = parse_nodes(SINFO, "cpu")
    assert (other.name, other.has_gpus) == ("n5", False)
    assert parse_nodes(f"Welcome!\n\n{SINFO}a|b|c|d|e\n", None) == nodes


@pytest.mark.parametrize(("names", "node"), [("bc", "c"), ("cb", "c"), ("b", "b")])
def test_a_study_is_not_pinned_to_the_node_that_its_own_small_job_is_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, node: str
) -> None:
    """Its runs would wait for what that job holds until they end, and it until they have."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURMD_NODENAME", "b")
    monkeypatch.setattr(pinning.shutil, "which", lambda _: "sinfo")
    nodes = [Node(name, frozenset(), has_gpus=True) for name in names]
    monkeypatch.setattr(pinning, "_nodes", lambda _: nodes)
    plan: Any = SimpleNamespace(execution={"pin": "node"}, experiments=["0123456789ab"])
    options = pinning.pin_options(plan, StudyFolder(tmp_path), None)
    assert options == {"0123456789ab": f"--nodelist={node}"}


@pytest.mark.parametrize(
    ("claim", "option"),
    [
        ('{"node": "gpu-7.cluster"}', "--nodelist=gpu-7.cluster"),
        ('{"node": "a; touch /tmp/x"}', "--nodelist=b"),
        ('{"node": "$(touch x)"}', "--nodelist=b"),
        ('{"node": "a --uid=0"}', "--nodelist=b"),
        ('{"node": 7}', "--nodelist=b"),
        ("[]", "--nodelist=b"),
    ],
)
def test_a_claim_of_somebody_else_is_a_name_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str, option: str
) -> None:
    """What is asked of SLURM goes through a shell."""
    folder = StudyFolder(tmp_path)
    folder.pin(None).parent.mkdir()
    folder.pin(None).write_text(claim)
    monkeypatch.setattr(pinning.shutil, "which", lambda _: "sinfo")
    monkeypatch.setattr(pinning, "_nodes", lambda _: [Node("b", frozenset(), has_gpus=True)])
    plan: Any = SimpleNamespace(execution={"pin": "node"}, experiments=["0123456789ab"])
    assert pinning.pin_options(plan, folder, None) == {"0123456789ab": option}
