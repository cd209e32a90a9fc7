"""The grid: how many points, which settings each has, and what is left out."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import study_from_mapping


def study(**keys: Any) -> Study:
    return study_from_mapping({"model": "tiny-llama", **keys})


def swept(loaded: Study, key: str) -> list[Any]:
    return [value_at(experiment.config, key) for experiment in loaded.experiments]


@given(
    n=st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
    temperatures=st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True),
    batches=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    seqs=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
)
def test_grid_is_the_product_within_each_backend(
    n: list[int], temperatures: list[int], batches: list[int], seqs: list[int]
) -> None:
    loaded = study(
        backend=["pytorch", "vllm"],
        sweep={
            "n": n,
            "pytorch.batch_size": batches,
            "decoder.temperature": [t / 10 for t in temperatures],
            "vllm.engine.max_num_seqs": seqs,
        },
    )
    universal = len(n) * len(temperatures)
    assert len(loaded.experiments) == universal * (len(batches) + len(seqs))
    assert not loaded.left_out
    for experiment in loaded.experiments:
        backend = experiment.model.backend
        assert (experiment.model.pytorch is None) == (backend != "pytorch")
        assert (experiment.model.vllm is None) == (backend != "vllm")
        assert set(experiment.swept) == {
            "n",
            "pytorch.batch_size",
            "decoder.temperature",
            "vllm.engine.max_num_seqs",
        }


def test_last_axis_varies_fastest_in_the_order_of_the_file() -> None:
    loaded = study(sweep={"pytorch.batch_size": [1, 2], "n": [8, 16]})
    pairs = list(zip(swept(loaded, "pytorch.batch_size"), swept(loaded, "n"), strict=True))
    assert pairs == [(1, 8), (1, 16), (2, 8), (2, 16)]


def test_points_that_repeat_are_run_once_and_said() -> None:
    loaded = study(sweep={"n": [4, 8, 4]}, experiments=[{"n": 8}])
    assert swept(loaded, "n") == [4, 8]
    assert any("2 points repeat" in note for note in loaded.notes)


def test_default_written_out_repeats_the_default() -> None:
    loaded = study(sweep={"precision": [None, "bf16", "fp16"]})
    assert swept(loaded, "precision") == ["bf16", "fp16"]


@pytest.mark.parametrize(
    "sweep",
    [
        {"decoder.temperature": [0.5, 3], "n": [1, 2]},
        {"decoder": [{"temperature": 0.5}, {"temperature": 3}]},
    ],
)
def test_a_value_wrong_by_itself_is_an_error_in_a_sweep_too(sweep: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"temperature.*must be at least 0 and at most 2 \(found 3\)"
    ):
        study(sweep=sweep)


def test_settings_that_exclude_each_other_are_left_out() -> None:
    loaded = study(
        sweep={"pytorch.load_in_4bit": [True, False], "pytorch.load_in_8bit": [True, False]}
    )
    assert len(loaded.experiments) == 3
    (left_out,) = loaded.left_out
    assert "exclude each other" in left_out["reason"]


def test_bad_shared_value_is_an_error_though_other_points_could_run() -> None:
    with pytest.raises(ConfigurationError, match=r"vllm\.engine\.max_num_seqs: must be at least 1"):
        study(
            backend=["pytorch", "vllm"],
            vllm={"engine": {"max_num_seqs": 0}},
            sweep={"n": [1, 2]},
        )


def test_group_moves_its_settings_together() -> None:
    loaded = study(
        sweep={"load": [{"n": 8, "pytorch.batch_size": 1}, {"n": 64, "pytorch.batch_size": 8}]}
    )
    pairs = list(zip(swept(loaded, "n"), swept(loaded, "pytorch.batch_size"), strict=True))
    assert pairs == [(8, 1), (64, 8)]
    assert loaded.swept_keys == ("n", "pytorch.batch_size")


def test_group_gives_each_backend_its_own_settings() -> None:
    loaded = study(
        backend=["pytorch", "vllm"],
        sweep={
            "load": [
                {"pytorch.batch_size": 4, "vllm.engine.max_num_seqs": 4},
                {"pytorch.batch_size": 8, "vllm.engine.max_num_seqs": 8},
            ]
        },
    )
    assert swept(loaded, "pytorch.batch_size") == [4, 8, None, None]
    assert swept(loaded, "vllm.engine.max_num_seqs") == [None, None, 4, 8]


def test_group_of_one_backend_leaves_the_other_at_one_point() -> None:
    loaded = study(
        backend=["pytorch", "vllm"],
        sweep={"load": [{"pytorch.batch_size": 4}, {"pytorch.batch_size": 8}]},
    )
    assert [experiment.model.backend for experiment in loaded.experiments] == [
        "pytorch",
        "pytorch",
        "vllm",
    ]


def test_group_that_names_backends_makes_only_those_points() -> None:
    loaded = study(
        sweep={
            "engine": [
                {"backend": "pytorch", "pytorch.batch_size": 4},
                {"backend": "vllm", "n": 7},
                {"backend": "vllm", "pytorch.batch_size": 4},
            ]
        }
    )
    assert [
        (experiment.model.backend, experiment.model.n) for experiment in loaded.experiments
    ] == [
        ("pytorch", 100),
        ("vllm", 7),
    ]
    (left_out,) = loaded.left_out
    assert left_out["config"]["backend"] == "vllm"
    assert "the section pytorch belongs to backend pytorch" in left_out["reason"]


def test_swept_section_is_laid_over_the_shared_one() -> None:
    loaded = study(
        decoder={"top_k": 7},
        sweep={"decoder": [{"temperature": 0.5}, {"temperature": 1.5, "top_k": 9}]},
    )
    assert swept(loaded, "decoder.top_k") == [7, 9]


@pytest.mark.parametrize("key", ["vllm.engine", "vllm"])
def test_a_swept_section_keeps_what_the_study_says_of_it(key: str) -> None:
    value: dict[str, Any] = {"max_num_seqs": 8}
    loaded = study(
        backend="vllm",
        vllm={"engine": {"enforce_eager": True}},
        sweep={key: [value if key == "vllm.engine" else {"engine": value}]},
    )
    (only,) = loaded.experiments
    assert only.config["vllm"]["engine"] == {"enforce_eager": True, "max_num_seqs": 8}


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"precision": "fp16", "pytorch.precision": "bf16"}, "is set by precision of the same"),
        ({"decoder.top_k": 1, "decoder": {"top_k": 2}}, "is set by decoder.top_k of the same"),
        ({"decoder": {"top_k": 2}, "decoder.top_k": 1}, "is set by decoder of the same entry"),
        ({"backend": "pytorch", "vllm.precision": "fp16"}, "is for vllm, and its entry for pyto"),
    ],
)
def test_an_entry_of_a_group_loses_nothing(entry: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        study(sweep={"load": [entry]})


def test_an_entry_of_a_group_may_set_a_section_in_two_places() -> None:
    loaded = study(sweep={"load": [{"decoder": {"top_k": 2}, "decoder.top_p": 0.5}]})
    assert loaded.experiments[0].model.decoder.top_k == 2
    assert loaded.experiments[0].model.decoder.top_p == 0.5


def test_a_plain_value_for_a_section_is_an_error_though_other_points_could_run() -> None:
    with pytest.raises(ConfigurationError, match="vllm: must be a mapping of engine, samp"):
        study(backend=["pytorch", "vllm"], vllm=5, sweep={"vllm.engine.max_num_seqs": [8]})


def test_swept_data_set_replaces_the_shared_one() -> None:
    loaded = study(
        dataset={"n": 3, "input_len": 9},
        sweep={"dataset": [{"n": 4}, "synthetic"]},
    )
    assert swept(loaded, "dataset.input_len") == [512, None]


def test_synthetic_keeps_its_lengths_when_one_of_them_is_swept() -> None:
    loaded = study(dataset="synthetic", max_output_tokens=32, sweep={"dataset.input_len": [16, 64]})
    assert swept(loaded, "dataset.input_len") == [16, 64]
    assert swept(loaded, "dataset.output_len") == [32, 32]


def test_null_takes_a_setting_back_to_its_default() -> None:
    loaded = study(decoder={"top_k": 7}, sweep={"decoder.top_k": [None, 3]})
    assert swept(loaded, "decoder.top_k") == [50, 3]


@pytest.mark.parametrize(
    ("key", "written", "values"),
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
def test_ranges(key: str, written: dict[str, Any], values: list[float]) -> None:
    assert swept(study(sweep={key: written}), key) == values


@given(
    low=st.floats(0.01, 1.0), width=st.floats(0.0, 1.0), num=st.integers(2, 40), log=st.booleans()
)
def test_range_rises_from_min_to_max(low: float, width: float, num: int, log: bool) -> None:
    bounds = {"min": low, "max": low + width, "num": num}
    values = swept(
        study(sweep={"decoder.temperature": {"log": bounds} if log else bounds}),
        "decoder.temperature",
    )
    assert values == sorted(values)
    assert len(values) <= num
    assert math.isclose(values[0], low, rel_tol=1e-9)
    assert math.isclose(values[-1], low + width, rel_tol=1e-9)


def test_settings_that_differ_between_explicit_experiments_are_swept() -> None:
    loaded = study(
        experiments=[
            {"n": 4, "precision": "fp16", "decoder": {"top_k": 3}},
            {"n": 4, "precision": "fp32"},
        ]
    )
    assert loaded.swept_keys == ("precision", "decoder.top_k")
    assert [experiment.swept["decoder.top_k"] for experiment in loaded.experiments] == [3, 50]


def test_explicit_experiments_run_on_each_shared_backend() -> None:
    loaded = study(backend=["pytorch", "vllm"], experiments=[{"n": 4}, {"backend": "vllm"}])
    assert [
        (experiment.model.backend, experiment.model.n) for experiment in loaded.experiments
    ] == [
        ("pytorch", 4),
        ("vllm", 4),
        ("vllm", 100),
    ]


def test_backend_list_alone_compares_the_backends() -> None:
    loaded = study(backend=["vllm", "pytorch"], pytorch={"batch_size": 2})
    assert [experiment.model.backend for experiment in loaded.experiments] == ["vllm", "pytorch"]


def test_publication_asks_for_five_cycles_unless_told_otherwise() -> None:
    assert study(protocol="publication").n_cycles == 5
    fewer = study(protocol="publication", execution={"n_cycles": 2})
    assert fewer.n_cycles == 2
    assert any("asks for 5 cycles" in note for note in fewer.notes)


def test_name_is_made_a_folder_name_and_said() -> None:
    loaded = study(name="My first study!")
    assert loaded.name == "My-first-study"
    assert any("My-first-study" in note for note in loaded.notes)


def test_runner_of_an_unused_backend_is_noted() -> None:
    loaded = study(runners={"pytorch": "apptainer:image.sif", "vllm": "docker"})
    assert set(loaded.runners) == {"pytorch"}
    assert loaded.runner("pytorch").image == "image.sif"
    assert any("vllm" in note for note in loaded.notes)


def test_points_of_the_same_work_are_measured_once_and_named() -> None:
    loaded = study(
        decoder={"do_sample": False}, sweep={"decoder.temperature": [0.5, 1.0], "n": [1, 2]}
    )
    assert len(loaded.experiments) == 2
    first = {experiment.config["n"]: experiment.id for experiment in loaded.experiments}
    assert [
        (point["experiment"], point["config"]["decoder"]["temperature"]) for point in loaded.same_as
    ] == [
        (first[1], 1.0),
        (first[2], 1.0),
    ]
    assert all("greedy decoding" in point["reason"] for point in loaded.same_as)


@pytest.mark.parametrize("temperature", [0.8, None])
def test_a_temperature_that_requests_are_given_is_in_the_rule_that_merges_points(
    temperature: float | None,
) -> None:
    body = {"temperature": temperature}
    loaded = study(
        backend="openai",
        openai={"base_url": "http://127.0.0.1:9/v1", "body": body},
        decoder={"do_sample": False},
        sweep={"decoder.top_k": [1, 5]},
    )
    (same,) = loaded.same_as
    assert "openai.body.temperature, the same in both" in same["reason"]
    assert "likeliest" not in same["reason"]


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("{decoder_x}", {"decoder_x": 3}),
        ("{decoder}", {"decoder": "mine"}),
        ("{decoder.repetition_penalty}", None),
    ],
)
def test_greedy_points_are_one_where_the_command_holds_nothing_of_what_varies(
    place: str, values: dict[str, Any] | None
) -> None:
    loaded = study(
        backend="openai",
        openai={"command": ["server", "{port}", place], "values": values},
        decoder={"do_sample": False},
        sweep={"decoder.top_k": [1, 5]},
    )
    assert (len(loaded.experiments), len(loaded.same_as)) == (1, 1)


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
        *(
            {
                "backend": "openai",
                "openai": {"command": ["server", "{port}", "--top-k", place]},
                "decoder": {"do_sample": False},
                "sweep": {"decoder.top_k": [1, 5]},
            }
            for place in ("{decoder.top_k}", "{decoder}")
        ),
    ],
)
def test_points_of_other_work_are_not_merged(settings: dict[str, Any]) -> None:
    loaded = study(**settings)
    assert len(loaded.experiments) == 2
    assert loaded.same_as == ()


def test_a_backend_is_an_axis_like_any_other() -> None:
    loaded = study(
        sweep={
            "n": [4, 8],
            "backend": ["pytorch", "vllm"],
            "vllm.engine.max_num_seqs": [1, 2],
            "max_output_tokens": [16, 32],
        }
    )
    points = [
        (
            experiment.model.n,
            experiment.model.backend,
            value_at(experiment.config, "vllm.engine.max_num_seqs"),
        )
        for experiment in loaded.experiments
    ]
    of_four = [
        *[(4, "pytorch", None)] * 2,
        *[(4, "vllm", 1)] * 2,
        *[(4, "vllm", 2)] * 2,
    ]
    assert points == [*of_four, *((8, *rest) for _, *rest in of_four)]


def test_a_left_out_point_of_a_named_backend_is_found_where_it_was_written() -> None:
    groups = [
        {"backend": "pytorch", "n": 4},
        {"backend": "vllm", "n": "many"},
    ]
    with pytest.raises(ConfigurationError, match=r"sweep\.engines\[1\]"):
        study(sweep={"engines": groups})


def test_an_empty_entry_of_a_group_is_the_study_as_it_is() -> None:
    loaded = study(
        backend=["pytorch", "vllm"],
        sweep={
            "cache": [{}, {"pytorch.use_cache": True, "pytorch.cache_implementation": "static"}]
        },
    )
    assert swept(loaded, "pytorch.use_cache") == [None, True, None]
    with pytest.raises(ConfigurationError, match="sets nothing"):
        study(sweep={"cache": [{}]})


def test_a_setting_of_all_backends_may_be_swept_on_one_alone() -> None:
    loaded = study(
        backend=["pytorch", "vllm"],
        sweep={"pytorch.precision": ["fp32", "fp16"], "vllm.decoder.temperature": [0.5, 0.7]},
    )
    assert [
        (experiment.model.backend, experiment.model.precision, experiment.model.decoder.temperature)
        for experiment in loaded.experiments
    ] == [
        ("pytorch", "fp32", 1.0),
        ("pytorch", "fp16", 1.0),
        ("vllm", "bf16", 0.5),
        ("vllm", "bf16", 0.7),
    ]
    assert loaded.swept_keys == ("precision", "decoder.temperature")


@pytest.mark.parametrize(
    ("sweep", "why"),
    [
        ({"pytorch.precision": ["fp16"], "precision": ["bf16"]}, "which pytorch.precision sets"),
        ({"pytorch.precision": ["fp17"]}, r"sweep\.pytorch\.precision\[0\].*did you mean"),
        ({"pytorch.backend": ["vllm"]}, "unknown key"),
        ({"pytorch.execution.n_cycles": [1]}, "unknown key"),
        ({"pytorch.vllm.engine.max_num_seqs": [1]}, "unknown key"),
    ],
)
def test_what_no_backend_has_for_itself(sweep: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        study(sweep=sweep)


@pytest.mark.parametrize(
    "point",
    [
        {"passthrough_kwargs": {"hf_token": "CANARY"}},
        {"passthrough_kwargs": {"nested": {"api_key": "CANARY"}}},
        {"passthrough_kwargs": {"hf_token": "CANARY"}, "slo": {"ttft_ms": 1.0}},
        *(
            {"backend": "openai", "openai": server}
            for server in (
                {"base_url": "http://127.0.0.1:1/v1", "body": {"api_key": "CANARY"}},
                {"base_url": "http://user:CANARY@127.0.0.1:1/v1"},
                {"base_url": "http://127.0.0.1:1/v1?key=CANARY"},
                {"command": ["serve", "--api-key", "CANARY", "{port}"]},
                {"command": ["serve", "{port}"], "environment": {"API_KEY": "CANARY"}},
            )
        ),
    ],
)
def test_a_secret_in_one_point_is_an_error_and_not_left_out_into_the_plan(
    point: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError, match=r"experiments\[1\]") as caught:
        study(experiments=[{"n": 1}, point])
    assert "CANARY" not in str(caught.value)


def test_a_secret_in_what_each_run_is_given_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"quality\.command: holds a secret") as caught:
        study(quality={"command": ["judge", "--api-key", "CANARY"]})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (
            {"quality": {"command": ["x", "--password", "CANARY"], "tasks": ["llem-small"]}},
            "quality.command",
        ),
        (
            {
                "carbon": {
                    "country": "DEU",
                    "grid_gco2e_per_kwh": 3,
                    "source": "https://me:CANARY@grid.example",
                }
            },
            "carbon.source",
        ),
    ],
    ids=("quality", "carbon"),
)
def test_a_secret_is_named_next_to_what_does_not_go_together(
    section: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{key}: holds a secret") as caught:
        study(**section)
    assert "CANARY" not in str(caught.value)


def test_a_list_that_is_wrong_by_itself_is_an_error_in_a_sweep_too() -> None:
    with pytest.raises(ConfigurationError, match=r"sweep\.gpu\.devices\[1\].*each GPU once"):
        study(sweep={"gpu.devices": [[0], [0, 0]]})


def test_an_address_that_another_point_allows_leaves_one_point_out() -> None:
    addresses = ["http://127.0.0.1:1/v1", "http://gpu2:1/v1"]
    sweep = {"openai.base_url": addresses, "openai.allow_remote": [None, True]}
    loaded = study_from_mapping({"model": "m", "backend": "openai", "sweep": sweep})
    assert len(loaded.experiments) == 3
    (left_out,) = loaded.left_out
    assert "allow_remote: true takes any other" in left_out["reason"]


def test_a_file_s_name_is_no_secret_where_a_point_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "token=abc.txt"
    path.write_text("a prompt\n" * 4)
    study = {"model": "tiny-llama", "backend": "vllm", "n": 2, "dataset": str(path)}
    sizes = {"vllm.engine.tensor_parallel_size": [1, 3]}
    loaded = study_from_mapping({**study, "sweep": sizes})
    assert (len(loaded.experiments), len(loaded.left_out)) == (1, 1)


@pytest.mark.parametrize(
    ("backend", "part", "rest"),
    [
        ("vllm", "sampling", {}),
        ("sglang", "sampling", {}),
        ("tensorrt", "sampling", {}),
        ("openai", "body", {"base_url": "http://127.0.0.1:9/v1"}),
    ],
)
def test_points_that_differ_in_what_the_engines_own_sampling_replaces_are_one(
    backend: str, part: str, rest: dict[str, Any]
) -> None:
    section = {backend: {part: {"temperature": 0.5}, **rest}}
    loaded = study(backend=backend, **section, sweep={"decoder.temperature": [0.3, 0.7]})
    (same,) = loaded.same_as
    assert len(loaded.experiments) == 1
    assert same["reason"] == f"{backend}.{part}.temperature counts in place of the decoder's"
    others = study(backend=backend, **section, sweep={"decoder.top_p": [0.5, 0.9]})
    assert (len(others.experiments), others.same_as) == (2, ())
    greedy = study(backend=backend, **section, sweep={"decoder.temperature": [0, 0.7]})
    assert len(greedy.experiments) == 2


def test_a_section_that_is_no_mapping_is_refused_where_each_entry_has_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"decoder: must be a mapping of preset, temp"):
        study(decoder=[{"top_k": 1}], experiments=[{"decoder": {"min_p": 0}}])
    with pytest.raises(ConfigurationError, match=r"\[0\].vllm.engine: must be a mapping"):
        study(backend="vllm", experiments=[{"vllm": {"engine": 3}}])
