"""What a container sees of the host, and what never gets in."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.containers import docker
from llenergymeasure.containers.apptainer import (
    call_variables,
    exec_command,
    image_for_snakemake,
    missing_capabilities,
)
from llenergymeasure.containers.calls import call
from llenergymeasure.containers.container_setup import (
    ContainerSetup,
    HubToken,
    abandoned_tokens,
    inside_variables,
)
from llenergymeasure.containers.images import SifImage
from llenergymeasure.containers.launcher import needs_network
from llenergymeasure.containers.mounts import Mount, data_paths
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.machine.environment import built_digest
from llenergymeasure.processes import identity


def test_only_what_can_change_a_result_gets_in() -> None:
    host = {
        "AWS_SECRET_ACCESS_KEY": "a",
        "GITHUB_TOKEN": "b",
        "HF_TOKEN": "hf_abcdefghijklmnop",
        "PATH": "/usr/bin",
        "LD_LIBRARY_PATH": "/opt/lib",
        "LD_PRELOAD": "/opt/evil.so",
        "CUDA_HOME": "/usr/local/cuda",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ATTENTION_BACKEND": "FLASH_ATTN",
        "LLEM_RUNNER_PYTORCH": "docker",
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_GPUS": "2",
    }
    inside = inside_variables(host)
    assert inside["CUDA_VISIBLE_DEVICES"] == "GPU-1"
    assert inside["SLURM_STEP_GPUS"] == "2"  # where no CUDA_VISIBLE_DEVICES says it
    assert inside["HF_HUB_OFFLINE"] == "1"
    assert inside["VLLM_ATTENTION_BACKEND"] == "FLASH_ATTN"
    assert inside["PYTHONPATH"] == "/opt/llem"
    assert inside["PYTHONSAFEPATH"] == "1"
    passed = {"CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "SLURM_STEP_GPUS", "VLLM_ATTENTION_BACKEND"}
    assert not (set(host) - passed) & set(inside)
    assert "hf_abcdefghijklmnop" not in str(inside)


def test_the_hubs_token_goes_by_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    token = HubToken({"HF_TOKEN": "hf_secret", "XDG_RUNTIME_DIR": str(tmp_path)})
    assert token.path is not None
    assert token.path.read_text() == "hf_secret"
    assert token.path.stat().st_mode & 0o777 == 0o600
    place = token.path
    token.close()
    assert not place.exists()
    assert HubToken({}).path is None


def test_a_token_file_of_the_users_own_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "token"
    own.write_text("hf_secret")
    token = HubToken({"HF_TOKEN_PATH": str(own)})
    assert token.path == own
    token.close()
    assert own.exists()


def test_a_pipe_of_another_user_named_as_a_token_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    os.mkfifo(tmp_path / "llem-token-of-another")
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert list(abandoned_tokens()) == []


def test_a_token_whose_process_was_killed_is_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    script = (
        "import os, signal\n"
        "from llenergymeasure.containers.container_setup import HubToken\n"
        "print(HubToken(os.environ).path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    left, held = Path(result.stdout.strip()), HubToken(os.environ)
    assert left.read_text() == "hf_secret"
    assert list(abandoned_tokens()) == [left]
    found = ContainerSetup.for_runs([], tmp_path / "results")
    assert not left.exists()
    assert held.path is not None
    assert held.path.exists()
    held.close()
    found.token.close()
    assert not list(tmp_path.glob("*llem-token-*"))


def test_source_is_read_only_and_results_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    model = tmp_path / "a model, with: signs"
    model.mkdir()
    found = ContainerSetup.for_runs([{"model": str(model)}], tmp_path / "results")
    by_target = {each.target or str(each.source): each.read_only for each in found.mounts}
    assert by_target["/opt/llem/llenergymeasure"] is True
    assert by_target["/opt/llem/scripts"] is True
    assert by_target[str(tmp_path / "results")] is False
    assert by_target[str(model)] is True
    assert by_target[str(tmp_path / "hf")] is False
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = ContainerSetup.for_runs([], tmp_path / "results")
    assert {str(each.source): each.read_only for each in offline.mounts}[str(tmp_path / "hf")]


def test_a_cache_behind_a_link_is_bound_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, link in (("LLEM_CACHE", "cache"), ("HF_HOME", "hf")):
        (tmp_path / "disk" / link).mkdir(parents=True)
        (tmp_path / link).symlink_to(tmp_path / "disk" / link)
        monkeypatch.setenv(name, str(tmp_path / link))
    found = ContainerSetup.for_runs([], tmp_path / "results")
    places = {tmp_path / "disk" / "cache", tmp_path / "disk" / "hf"}
    assert places <= {each.source for each in found.mounts}
    assert {found.variables["LLEM_CACHE"], found.variables["HF_HOME"]} == {str(p) for p in places}


def test_a_folder_of_links_brings_what_they_point_at(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "0").write_text("{}")
    (snapshot / "config.json").symlink_to(blobs / "0")
    assert set(data_paths([{"model": str(snapshot)}])) == {snapshot, blobs}


def test_paths_that_would_hide_the_image_are_not_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_paths([{"model": "/", "dataset": "."}]) == []
    with pytest.raises(ConfigurationError, match="whole path"):
        data_paths([{"model": "~/model"}])


@pytest.mark.parametrize("name", ["plain", "with space", 'comma, "quote"', "colon:ed"])
def test_any_path_survives_the_mounts_grammar(name: str) -> None:
    source = Path("/data") / name
    for mount in (Mount(source), Mount(source, read_only=False)):
        for line, key in ((mount.for_docker(), "target"), (mount.for_apptainer(), "destination")):
            fields = next(csv.reader([line]))
            assert f"source={source}" in fields
            assert f"{key}={source}" in fields
            assert ("ro" in fields or "readonly" in fields) is mount.read_only


def test_lines_of_mounts_for_apptainer_have_equally_many_fields() -> None:
    mounts = [Mount(Path("/a")), Mount(Path("/b,c"), read_only=False)]
    told = call_variables(mounts, {"A": "1"}, nvidia=False)
    lines = list(csv.reader(told["APPTAINER_MOUNT"].splitlines()))
    assert len({len(line) for line in lines}) == 1
    assert told["APPTAINER_CLEANENV"] == "true"
    assert told["APPTAINERENV_A"] == "1"
    assert "APPTAINER_NV" not in told
    assert call_variables(mounts, {}, nvidia=True)["APPTAINER_NV"] == "true"


def test_capabilities_that_root_lacks_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapBnd:\t000001fffeffffff\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert missing_capabilities(status) == ["CAP_SYS_RESOURCE"]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert missing_capabilities(status) == []


def test_snakemake_gets_a_name_without_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = tmp_path / "my images" / "it's.sif"
    odd.parent.mkdir()
    odd.write_text("")
    link = image_for_snakemake(SifImage(str(odd)), Path("links"))
    assert " " not in link
    assert "'" not in link
    assert Path(link).resolve() == odd
    assert image_for_snakemake(SifImage("docker://a/b@sha256:00"), Path("links")).startswith("d")


def test_two_images_of_one_name_have_a_link_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second backend's took the place of the first one's, whose runs were in it then."""
    monkeypatch.chdir(tmp_path)
    places = [tmp_path / name / "engine.sif" for name in ("of pytorch", "of vllm")]
    for place in places:
        place.parent.mkdir()
        place.touch()
    links = [image_for_snakemake(SifImage(str(place)), Path("links")) for place in places]
    assert [Path(link).resolve() for link in links] == places
    assert image_for_snakemake(SifImage(str(places[0])), Path("links")) == links[0]


@pytest.mark.system
def test_values_reach_a_container_of_apptainer_as_they_are(base_root: Path, tmp_path: Path) -> None:
    """A shell would read each of them."""
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    value = f"$HOME `id` $(touch {tmp_path}/run) {{'a': \"b\"}}"
    mounts = [Mount(tmp_path, read_only=False)]
    result = call(
        exec_command(str(base_root), ["python3", "-c", "import os; print(os.environ['VLLM_X'])"]),
        60,
        call_variables(mounts, {"VLLM_X": value}, nvidia=False),
    )
    assert (result.stdout.rstrip("\n"), result.stderr) == (value, "")
    assert not (tmp_path / "run").exists()


ENGINE = docker.Engine("docker", nvidia_runtime=True)


def _words(engine: docker.Engine = ENGINE, **settings: object) -> list[str]:
    return docker.run_command(engine, "i:1", ["python3", "x.py"], name="n", **settings)  # type: ignore[arg-type]


def test_a_container_has_no_network_and_a_root_that_cannot_be_written() -> None:
    words = _words()
    for word in ("--network=none", "--read-only", "--pid=host", "--rm", "--cap-drop=ALL"):
        assert word in words
    assert words[-2:] == ["i:1", "x.py"]
    assert "--network=bridge" in _words(network=True)


def test_a_meters_command_is_not_on_dockers_command_line() -> None:
    """Every user of a machine sees that; Docker takes the value from its own environment."""
    variables = {"LLEM_NODE_METER": "command:/opt/pdu -P hunter2", "LANG": "C.UTF-8"}
    words = _words(variables=variables)
    assert {"LLEM_NODE_METER", "LANG=C.UTF-8"} <= set(words)
    assert not [word for word in words if "hunter2" in word]


def test_gpus_are_given_by_uuid() -> None:
    uuids = ("GPU-a", "GPU-b")
    words = _words(gpus=uuids)
    assert words[words.index("--gpus") + 1] == '"device=GPU-a,GPU-b"'
    described = _words(docker.Engine("podman", podman=True), gpus=uuids)
    assert [word for word in described if "GPU" in word] == [
        "nvidia.com/gpu=GPU-a",
        "nvidia.com/gpu=GPU-b",
    ]
    assert "--gpus" not in _words()


def test_a_toolkit_gives_gpus_in_each_of_its_modes_and_without_its_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its mode cdi it refuses ``--gpus`` alone; Docker by itself needs its hook and no more."""
    assert "--runtime=nvidia" in _words(gpus=("GPU-a",))
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    plain = docker.Engine("docker")
    assert not plain.gives_gpus
    hook.chmod(0o755)
    assert plain.gives_gpus
    words = _words(plain, gpus=("GPU-a",))
    assert words[words.index("--gpus") + 1] == '"device=GPU-a"'
    assert "--runtime=nvidia" not in words
    assert not docker.Engine("podman", podman=True).gives_gpus
    described = docker.Engine("docker", cdi=True)
    monkeypatch.setattr(docker, "cdi_described", lambda: True)
    # In its mode cdi the hook alone refuses, too, and these devices need neither.
    assert "nvidia.com/gpu=GPU-a" in _words(described, gpus=("GPU-a",))
    assert plain.gives_gpus


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        ("1,0", "GPU-b,GPU-a"),
        ("1,0,", "GPU-b,GPU-a"),
        ("1,0,-1", "GPU-b,GPU-a"),
        ("GPU-b,GPU-a", "GPU-b,GPU-a"),
        ("MIG-c", "MIG-c"),
    ],
)
def test_a_number_of_a_gpu_outside_is_its_uuid_inside(outside: str, inside: str) -> None:
    """Docker shows the cards that are given alone, and they are counted from 0 there."""
    words = _words(gpus=("GPU-b", "GPU-a"), variables={"CUDA_VISIBLE_DEVICES": outside})
    assert f"CUDA_VISIBLE_DEVICES={inside}" in words
    hidden = _words(variables={"CUDA_VISIBLE_DEVICES": "-1"})
    assert "CUDA_VISIBLE_DEVICES=-1" in hidden


def test_it_gets_the_memory_and_processors_that_its_launcher_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A daemon's containers are in no job's control group."""
    monkeypatch.setattr(docker, "memory_limit_bytes", lambda: 8 << 30)
    monkeypatch.setattr(docker, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 2})
    assert {f"--memory={8 << 30}", "--cpuset-cpus=0,2", "--cpus=1.5"} <= set(_words())
    monkeypatch.setattr(docker, "cpu_quota", lambda: 8.0)  # which Docker would refuse
    assert not [word for word in _words() if word.startswith("--cpus=")]
    monkeypatch.setattr(docker, "cpu_quota", lambda: 1.5)
    few = docker.Engine("podman", podman=True, limits=frozenset({"memory", "pids"}))
    limited = [word for word in _words(few) if word.startswith(("--memory", "--cpu"))]
    assert limited == [f"--memory={8 << 30}"]


@pytest.mark.parametrize(
    ("host", "limits"), [({}, {"memory", "cpuset", "cpu"}), ({"cgroupControllers": []}, set())]
)
def test_podman_says_what_it_may_limit(host: dict[str, object], limits: set[str]) -> None:
    """A systemd gives users' containers memory and pids alone; more was refused by runc."""
    assert docker._podman("podman", {"host": host}).limits == limits


def test_files_belong_to_who_asked_with_and_without_a_root_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setattr("os.getgid", lambda: 56)
    assert "--user=1234:56" in _words()
    assert "--user=0:0" in _words(docker.Engine("docker", rootless=True))
    assert "--user=0:0" in _words(docker.Engine("podman", podman=True, rootless=True))


def test_a_container_has_the_groups_of_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and models of a group could not be used by its members."""
    monkeypatch.setattr("os.getgid", lambda: 56)
    monkeypatch.setattr("os.getgroups", lambda: [900, 56, 70])
    assert [word for word in _words() if "group" in word] == ["--group-add=70", "--group-add=900"]
    rootless = _words(docker.Engine("docker", rootless=True))  # they have no number there
    assert not [word for word in rootless if "group" in word]


def test_podman_is_given_the_folder_to_start_in() -> None:
    """It makes none by itself, as for results elsewhere than below the working folder.

    What the image, or a mount, has in that folder stays to be seen.
    """
    podman, here = docker.Engine("podman", podman=True), Path("/home/me, and you")
    results = [Mount(Path("/scratch/results"), read_only=False)]
    words = _words(podman, workdir=here, mounts=results)
    assert '"destination=/home/me, and you/.llem"' in words[words.index(f"--workdir={here}") + 2]
    for seen in (here / "data", here, here.parent):
        mounts = [*results, Mount(seen)]
        words = _words(podman, workdir=here, mounts=mounts)
        assert not [word for word in words if "tmpfs," in word]
    assert not [word for word in _words(workdir=here, mounts=results) if "tmpfs," in word]


def test_a_network_only_where_something_must_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    data = tmp_path / "data.jsonl"
    data.write_text("")
    hub = {"model": "owner/name", "dataset": "synthetic"}
    assert needs_network(hub)
    assert needs_network({"model": "gpt2", "dataset": "synthetic"})
    assert not needs_network({"model": "tiny-llama", "dataset": "synthetic"})
    assert not needs_network({"model": str(tmp_path), "dataset": str(data)})
    assert needs_network({"model": "tiny-llama", "dataset": "owner/data"})
    assert needs_network({"model": str(tmp_path), "lora": {"adapter_id": "owner/adapter"}})
    draft = {"engine": {"speculative_config": {"model": "owner/draft"}}}
    assert needs_network({"model": str(tmp_path), "vllm": draft})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not needs_network(hub)


def test_an_owner_is_told_from_a_later_process_of_the_same_number() -> None:
    assert identity(1) == identity(1)
    boot, pid, start = identity(1).split(":")
    assert (bool(boot), pid, start.isdigit()) == (True, "1", True)


def test_a_digest_beside_an_image_holds_for_that_image_alone(tmp_path: Path) -> None:
    image = tmp_path / "pytorch.sif"
    image.write_bytes(b"image")
    assert built_digest(str(image)) is None
    Path(f"{image}.digest").write_text("sha256:ab 5\n")
    assert built_digest(str(image)) == "sha256:ab"
    image.write_bytes(b"another image")
    assert built_digest(str(image)) is None
    assert built_digest(None) is None
