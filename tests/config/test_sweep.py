"""The grid: how many points, which settings each has, and what is left out."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import study_from_mapping

LOCAL = {"base_url": "http://127.0.0.1:9/v1"}


def study(**keys: Any) -> Study:
    return study_from_mapping({"model": "tiny-llama", **keys})


def written(text: str) -> Study:
    return study(**yaml.safe_load(text))


def points(loaded: Study, *names: str) -> list[Any]:
    """Return the values of settings at each point; of one setting without a tuple around them."""
    rows = [tuple(value_at(point.config, name) for name in names) for point in loaded.experiments]
    return [values for (values,) in rows] if len(names) == 1 else rows


@given(
    n=st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
    temperatures=st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True),
    batches=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    seqs=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
)
def test_grid_is_the_product_within_each_backend(
    n: list[int], temperatures: list[int], batches: list[int], seqs: list[int]
) -> None:
    sweep = {
        "n": n,
        "pytorch.batch_size": batches,
        "decoder.temperature": [t / 10 for t in temperatures],
        "vllm.engine.max_num_seqs": seqs,
    }
    loaded = study(backend=["pytorch", "vllm"], sweep=sweep)
    assert len(loaded.experiments) == len(n) * len(temperatures) * (len(batches) + len(seqs))
    assert not loaded.left_out
    for experiment in loaded.experiments:
        backend = experiment.model.backend
        assert (experiment.model.pytorch is None) == (backend != "pytorch")
        assert (experiment.model.vllm is None) == (backend != "vllm")
        assert set(experiment.swept) == set(sweep)


GRIDS: dict[str, tuple[str, str, list[Any]]] = {
    "the last axis varies fastest": (
        "sweep: {pytorch.batch_size: [1, 2], n: [8, 16]}",
        "pytorch.batch_size n",
        [(1, 8), (1, 16), (2, 8), (2, 16)],
    ),
    "a default written out repeats the default": (
        "sweep: {precision: [null, bf16, fp16]}",
        "precision",
        ["bf16", "fp16"],
    ),
    "null takes a setting back to its default": (
        "{decoder: {top_k: 7}, sweep: {decoder.top_k: [null, 3]}}",
        "decoder.top_k",
        [50, 3],
    ),
    "a group moves its settings together": (
        "sweep: {load: [{n: 8, pytorch.batch_size: 1}, {n: 64, pytorch.batch_size: 8}]}",
        "n pytorch.batch_size",
        [(8, 1), (64, 8)],
    ),
    "a group gives each backend its own settings": (
        "backend: [pytorch, vllm]\n"
        "sweep: {load: [{pytorch.batch_size: 4, vllm.engine.max_num_seqs: 5},"
        " {pytorch.batch_size: 8, vllm.engine.max_num_seqs: 9}]}",
        "pytorch.batch_size vllm.engine.max_num_seqs",
        [(4, None), (8, None), (None, 5), (None, 9)],
    ),
    "a group of one backend leaves the other at one point": (
        "backend: [pytorch, vllm]\n"
        "sweep: {load: [{pytorch.batch_size: 4}, {pytorch.batch_size: 8}]}",
        "backend pytorch.batch_size",
        [("pytorch", 4), ("pytorch", 8), ("vllm", None)],
    ),
    "an empty entry of a group is the study as it is": (
        "{backend: [pytorch, vllm], sweep: {cache: [{}, {pytorch.use_cache: true}]}}",
        "pytorch.use_cache",
        [None, True, None],
    ),
    "an entry of a group may set a section in two places": (
        "sweep: {load: [{decoder: {top_k: 2}, decoder.top_p: 0.5}]}",
        "decoder.top_k decoder.top_p",
        [(2, 0.5)],
    ),
    "a swept section is laid over the shared one": (
        "decoder: {top_k: 7}\nsweep: {decoder: [{temperature: 0.5}, {temperature: 1.5, top_k: 9}]}",
        "decoder.top_k decoder.temperature",
        [(7, 0.5), (9, 1.5)],
    ),
    "a section of an engine too": (
        "{backend: vllm, vllm: {engine: {enforce_eager: true}}, "
        "sweep: {vllm.engine: [{max_num_seqs: 8}]}}",
        "vllm.engine",
        [{"enforce_eager": True, "max_num_seqs": 8}],
    ),
    "an engine's whole section too": (
        "{backend: vllm, vllm: {engine: {enforce_eager: true}}, "
        "sweep: {vllm: [{engine: {max_num_seqs: 8}}]}}",
        "vllm.engine",
        [{"enforce_eager": True, "max_num_seqs": 8}],
    ),
    "a swept data set replaces the shared one": (
        "{dataset: {n: 3, input_len: 9}, sweep: {dataset: [{n: 4}, synthetic]}}",
        "dataset.input_len",
        [512, None],
    ),
    "a made data set keeps its lengths when one of them is swept": (
        "{dataset: synthetic, max_output_tokens: 32, sweep: {dataset.input_len: [16, 64]}}",
        "dataset.input_len dataset.output_len",
        [(16, 32), (64, 32)],
    ),
    "an experiment runs on each shared backend": (
        "{backend: [pytorch, vllm], experiments: [{n: 4}, {backend: vllm}]}",
        "backend n",
        [("pytorch", 4), ("vllm", 4), ("vllm", 100)],
    ),
    "a list of backends alone compares them": (
        "{backend: [vllm, pytorch], pytorch: {batch_size: 2}}",
        "backend pytorch.batch_size",
        [("vllm", None), ("pytorch", 2)],
    ),
    "a backend is an axis like any other": (
        "sweep: {n: [4, 8], backend: [pytorch, vllm], vllm.engine.max_num_seqs: [1, 2]}",
        "n backend vllm.engine.max_num_seqs",
        [
            *((4, "pytorch", None), (4, "vllm", 1), (4, "vllm", 2)),
            *((8, "pytorch", None), (8, "vllm", 1), (8, "vllm", 2)),
        ],
    ),
    "a setting of all backends may be swept on one alone": (
        "backend: [pytorch, vllm]\n"
        "sweep: {pytorch.precision: [fp32, fp16], vllm.decoder.temperature: [0.5, 0.7]}",
        "backend precision decoder.temperature",
        [
            *(("pytorch", "fp32", 1.0), ("pytorch", "fp16", 1.0)),
            *(("vllm", "bf16", 0.5), ("vllm", "bf16", 0.7)),
        ],
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_points_of_a_grid(name: str) -> None:
    text, settings, expected = GRIDS[name]
    assert points(written(text), *settings.split()) == expected


@pytest.mark.parametrize(
    ("text", "swept"),
    [
        ("sweep: {load: [{n: 8, precision: fp16}, {n: 64, precision: fp32}]}", ("n", "precision")),
        (
            "{backend: [pytorch, vllm], sweep: {pytorch.precision: [fp32], vllm.n: [1]}}",
            ("precision", "n"),
        ),
        (
            "experiments: [{n: 4, precision: fp16, decoder: {top_k: 3}}, {n: 4, precision: fp32}]",
            ("precision", "decoder.top_k"),
        ),
    ],
    ids=["a group", "settings of one backend", "experiments that differ"],
)
def test_settings_that_differ_are_swept(text: str, swept: tuple[str, ...]) -> None:
    loaded = written(text)
    assert loaded.swept_keys == swept
    for experiment in loaded.experiments:
        assert experiment.swept == {name: value_at(experiment.config, name) for name in swept}


def test_points_that_repeat_are_run_once_and_said() -> None:
    loaded = written("{sweep: {n: [4, 8, 4]}, experiments: [{n: 8}]}")
    assert points(loaded, "n") == [4, 8]
    assert any("2 points repeat" in note for note in loaded.notes)


def test_publication_asks_for_five_cycles_unless_told_otherwise() -> None:
    assert written("protocol: publication").n_cycles == 5
    fewer = written("{protocol: publication, execution: {n_cycles: 2}}")
    assert fewer.n_cycles == 2
    assert any("asks for 5 cycles" in note for note in fewer.notes)


def test_name_is_made_a_folder_name_and_said() -> None:
    loaded = written("name: My first study!")
    assert loaded.name == "My-first-study"
    assert any("My-first-study" in note for note in loaded.notes)


def test_runner_of_an_unused_backend_is_noted() -> None:
    loaded = written("runners: {pytorch: 'apptainer:image.sif', vllm: docker}")
    assert set(loaded.runners) == {"pytorch"}
    assert loaded.runner("pytorch").image == "image.sif"
    assert any("vllm" in note for note in loaded.notes)


TEMPERATURE = r"temperature.*must be at least 0 and at most 2 \(found 3\)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        # What is wrong by itself is an error, though other points could run.
        ("sweep: {decoder.temperature: [0.5, 3], n: [1, 2]}", TEMPERATURE),
        ("sweep: {decoder: [{temperature: 0.5}, {temperature: 3}]}", TEMPERATURE),
        ("sweep: {gpu.devices: [[0], [0, 0]]}", r"sweep\.gpu\.devices\[1\].*each GPU once"),
        (
            "{backend: [pytorch, vllm], vllm: {engine: {max_num_seqs: 0}}, sweep: {n: [1, 2]}}",
            r"vllm\.engine\.max_num_seqs: must be at least 1",
        ),
        (
            "{backend: [pytorch, vllm], vllm: 5, sweep: {vllm.engine.max_num_seqs: [8]}}",
            "vllm: must be a mapping of engine, samp",
        ),
        (
            "sweep: {engines: [{backend: pytorch, n: 4}, {backend: vllm, n: many}]}",
            r"sweep\.engines\[1\]",
        ),
        ("sweep: {cache: [{}]}", "sets nothing"),
        (
            "{decoder: [{top_k: 1}], experiments: [{decoder: {min_p: 0}}]}",
            r"decoder: must be a mapping of preset, temp",
        ),
        (
            "{backend: vllm, experiments: [{vllm: {engine: 3}}]}",
            r"\[0\].vllm.engine: must be a mapping",
        ),
        # An entry of a group loses nothing.
        (
            "sweep: {load: [{precision: fp16, pytorch.precision: bf16}]}",
            "is set by precision of the same",
        ),
        (
            "sweep: {load: [{decoder.top_k: 1, decoder: {top_k: 2}}]}",
            "is set by decoder.top_k of the same",
        ),
        (
            "sweep: {load: [{decoder: {top_k: 2}, decoder.top_k: 1}]}",
            "is set by decoder of the same entry",
        ),
        (
            "sweep: {load: [{backend: pytorch, vllm.precision: fp16}]}",
            "is for vllm, and its entry for pyto",
        ),
        # What no backend has for itself.
        (
            "sweep: {pytorch.precision: [fp16], precision: [bf16]}",
            "which pytorch.precision sets",
        ),
        (
            "sweep: {pytorch.precision: [fp17]}",
            r"sweep\.pytorch\.precision\[0\].*did you mean",
        ),
        ("sweep: {pytorch.backend: [vllm]}", "unknown key"),
        ("sweep: {pytorch.execution.n_cycles: [1]}", "unknown key"),
        ("sweep: {pytorch.vllm.engine.max_num_seqs: [1]}", "unknown key"),
    ],
)
def test_what_no_point_can_be_is_an_error(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        written(text)


@pytest.mark.parametrize(
    ("text", "kept", "backend", "settings", "why"),
    [
        (
            "sweep: {pytorch.load_in_4bit: [true, false], pytorch.load_in_8bit: [true, false]}",
            [("pytorch", 100)] * 3,
            "pytorch",
            {"pytorch": {"load_in_4bit": True, "load_in_8bit": True}},
            "exclude each other",
        ),
        (
            "sweep: {engine: [{backend: pytorch, pytorch.batch_size: 4}, {backend: vllm, n: 7},"
            " {backend: vllm, pytorch.batch_size: 4}]}",
            [("pytorch", 100), ("vllm", 7)],
            "vllm",
            {"pytorch": {"batch_size": 4}},
            "the section pytorch belongs to backend pytorch",
        ),
        (
            "backend: openai\n"
            "sweep: {openai.base_url: ['http://127.0.0.1:1/v1', 'http://gpu2:1/v1'],"
            " openai.allow_remote: [null, true]}",
            [("openai", 100)] * 3,
            "openai",
            {"openai": {"base_url": "http://gpu2:1/v1", "allow_remote": None}},
            "allow_remote: true takes any other",
        ),
    ],
    ids=["settings that exclude each other", "another backend's section", "an address"],
)
def test_a_point_that_cannot_be_is_left_out_as_it_was_written_with_its_reason(
    text: str, kept: list[Any], backend: str, settings: dict[str, Any], why: str
) -> None:
    loaded = written(text)
    assert points(loaded, "backend", "n") == kept
    (left_out,) = loaded.left_out
    assert left_out["config"] == {"model": "tiny-llama", "backend": backend, **settings}
    assert why in left_out["reason"]


@pytest.mark.parametrize(
    ("key", "range_", "values"),
    [
        ("n", {"min": 1, "max": 9, "num": 3}, [1, 5, 9]),
        ("n", {"min": 1, "max": 3, "num": 9}, [1, 2, 3]),
        ("n", {"min": 4, "max": 4, "num": 1}, [4]),
        ("n", {"log": {"min": 1, "max": 1000, "num": 4}}, [1, 10, 100, 1000]),
        ("n", {"pow2": {"min": 3, "max": 40}}, [4, 8, 16, 32]),
        ("decoder.top_p", {"min": 0.1, "max": 0.3, "num": 3}, [0.1, 0.2, 0.3]),
        ("decoder.temperature", {"min": 0, "max": 1, "num": 3}, [0, 0.5, 1]),
        ("decoder.temperature", {"log": {"min": 0.01, "max": 1, "num": 3}}, [0.01, 0.1, 1]),
    ],
)
def test_ranges(key: str, range_: dict[str, Any], values: list[float]) -> None:
    assert points(study(sweep={key: range_}), key) == values


@given(
    low=st.floats(0.01, 1.0), width=st.floats(0.0, 1.0), num=st.integers(2, 40), log=st.booleans()
)
def test_range_rises_from_min_to_max(low: float, width: float, num: int, log: bool) -> None:
    bounds = {"min": low, "max": low + width, "num": num}
    sweep = {"decoder.temperature": {"log": bounds} if log else bounds}
    values = points(study(sweep=sweep), "decoder.temperature")
    assert values == sorted(values)
    assert len(values) <= num
    assert math.isclose(values[0], low, rel_tol=1e-9)
    assert math.isclose(values[-1], low + width, rel_tol=1e-9)


def test_points_of_the_same_work_are_measured_once_and_named() -> None:
    loaded = study(
        decoder={"do_sample": False}, sweep={"decoder.temperature": [0.5, 1.0], "n": [1, 2]}
    )
    first = {experiment.config["n"]: experiment.id for experiment in loaded.experiments}
    assert len(loaded.experiments) == 2
    assert [
        (point["experiment"], point["config"]["decoder"]["temperature"]) for point in loaded.same_as
    ] == [(first[1], 1.0), (first[2], 1.0)]
    assert all("greedy decoding" in point["reason"] for point in loaded.same_as)


SAMPLED = {
    f"{backend}.{part}": {"backend": backend, backend: {part: {"temperature": 0.5}, **rest}}
    for backend, part, rest in (
        *((name, "sampling", {}) for name in ("vllm", "sglang", "tensorrt")),
        ("openai", "body", LOCAL),
    )
}
"""Experiments whose engine has a temperature of its own, which wins over the decoder's."""


def greedy(**openai: Any) -> dict[str, Any]:
    """Greedy points of a server that differ in what is chosen from, and so in nothing."""
    decoder, sweep = {"do_sample": False}, {"decoder.top_k": [1, 5]}
    return {"backend": "openai", "openai": openai, "decoder": decoder, "sweep": sweep}


def command(place: str, **values: Any) -> dict[str, Any]:
    return greedy(command=["server", "{port}", place], values=values or None)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        *(
            (greedy(**LOCAL, body={"temperature": value}), "openai.body.temperature, the same in")
            for value in (0.8, None)
        ),
        # Where the command holds nothing of what varies.
        (command("{decoder_x}", decoder_x=3), "likeliest"),
        (command("{decoder}", decoder="mine"), "likeliest"),
        (command("{decoder.repetition_penalty}"), "likeliest"),
        # What the engine's own sampling replaces.
        *(
            (
                {**sampled, "sweep": {"decoder.temperature": [0.3, 0.7]}},
                f"{name}.temperature counts in place of the decoder's",
            )
            for name, sampled in SAMPLED.items()
        ),
    ],
)
def test_points_that_differ_in_nothing_that_counts_are_one(
    settings: dict[str, Any], why: str
) -> None:
    loaded = study(**settings)
    (same,) = loaded.same_as
    assert len(loaded.experiments) == 1
    assert why in same["reason"]
    assert ("likeliest" in same["reason"]) == (why == "likeliest")


@pytest.mark.parametrize(
    "settings",
    [
        {"sweep": {"decoder.temperature": [0.5, 1.0]}},
        {"sweep": {"decoder.repetition_penalty": [1.0, 1.1]}, "decoder": {"temperature": 0}},
        {
            "backend": "vllm",
            "decoder": {"temperature": 0},
            "sweep": {"decoder.top_k": [1, 5], "vllm.sampling.temperature": [0.7]},
        },
        command("{decoder.top_k}"),
        command("{decoder}"),
        *(
            {**sampled, "sweep": sweep}
            for sampled in SAMPLED.values()
            for sweep in ({"decoder.top_p": [0.5, 0.9]}, {"decoder.temperature": [0, 0.7]})
        ),
    ],
)
def test_points_of_other_work_are_not_merged(settings: dict[str, Any]) -> None:
    loaded = study(**settings)
    assert len(loaded.experiments) == 2
    assert loaded.same_as == ()


def one_of_two(**point: Any) -> dict[str, Any]:
    return {"experiments": [{"n": 1}, point]}


def server(**openai: Any) -> dict[str, Any]:
    return one_of_two(backend="openai", openai=openai)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (one_of_two(passthrough_kwargs={"hf_token": "CANARY"}), "experiments"),
        (one_of_two(passthrough_kwargs={"nested": {"api_key": "CANARY"}}), "experiments"),
        (
            one_of_two(passthrough_kwargs={"hf_token": "CANARY"}, slo={"ttft_ms": 1.0}),
            "experiments",
        ),
        (server(**LOCAL, body={"api_key": "CANARY"}), "experiments"),
        (server(base_url="http://user:CANARY@127.0.0.1:1/v1"), "experiments"),
        (server(base_url="http://127.0.0.1:1/v1?key=CANARY"), "experiments"),
        (server(command=["serve", "--api-key", "CANARY", "{port}"]), "experiments"),
        (server(command=["serve", "{port}"], environment={"API_KEY": "CANARY"}), "experiments"),
        # In what each run is given, next to what does not go together too.
        ({"quality": {"command": ["judge", "--api-key", "CANARY"]}}, "quality.command: holds a"),
        (
            {"quality": {"command": ["x", "--password", "CANARY"], "tasks": ["llem-small"]}},
            "quality.command: holds a secret",
        ),
        (
            {
                "carbon": {
                    "country": "DEU",
                    "grid_gco2e_per_kwh": 3,
                    "source": "https://me:CANARY@grid.example",
                }
            },
            "carbon.source: holds a secret",
        ),
    ],
)
def test_a_secret_is_an_error_and_not_left_out_into_the_plan(
    settings: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        study(**settings)
    assert (r"experiments[1]" if key == "experiments" else key) in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_a_file_s_name_is_no_secret_where_a_point_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "token=abc.txt"
    path.write_text("a prompt\n" * 4)
    sizes = {"vllm.engine.tensor_parallel_size": [1, 3]}
    loaded = study(backend="vllm", n=2, dataset=str(path), sweep=sizes)
    assert (len(loaded.experiments), len(loaded.left_out)) == (1, 1)
