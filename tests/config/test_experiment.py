"""The experiment's model: what holds when it is made in a program."""

from typing import Any

import pytest
from pydantic import ValidationError

from llenergymeasure.config.experiment import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.fields import all_paths, field_at


def test_every_setting_is_described() -> None:
    for path in all_paths():
        field = field_at(tuple(path.split(".")))
        assert field is not None
        assert field.description, path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"energy": {"backend": None}},
        {"decoder": {"preset": "creative", "top_p": 0.5}},
        {"dataset": {"n": 3}, "pytorch": {"max_memory": {0: "2GiB"}}},
        {"backend": "vllm", "vllm": {"engine": {"attention": {"backend": "X"}}}},
    ],
)
def test_set_values_make_the_same_experiment_again(settings: dict[str, Any]) -> None:
    config = ExperimentConfig(model="tiny-llama", **settings)
    assert ExperimentConfig(**config.model_dump(exclude_none=True)) == config


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        (
            {"max_input_tokens": 5, "max_output_tokens": 7, "random_seed": 11},
            SyntheticDataset(n=3, input_len=5, output_len=7, seed=11),
        ),
        (
            {"dataset": {"input_len": 5}},
            SyntheticDataset(n=3, input_len=5, output_len=128, seed=42),
        ),
        ({"dataset": "aienergyscore"}, None),
    ],
    ids=["by the token limits", "by a mapping", "another data set"],
)
def test_a_made_data_set_has_its_lengths(settings: dict[str, Any], made: Any) -> None:
    assert ExperimentConfig(model="x", n=3, **settings).synthetic() == made


def test_experiment_cannot_be_changed() -> None:
    config = ExperimentConfig(model="x")
    with pytest.raises(ValidationError):
        config.n = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://[::1]/v1", "https://localhost/v1"]
)
def test_loopback_addresses_are_taken(url: str) -> None:
    ExperimentConfig(model="x", backend="openai", openai={"base_url": url})


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0/v1",
        "http://10.0.0.1/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1@example.com/v1",
        "ftp://localhost",
        "localhost:8000",
        "http://[::1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:eighty/v1",
        "http://127.0.0.1:0/v1",
        "http://127.0.0.1:8000/v1?api-version=1",
        "http://127.0.0.1:8000/v1#models",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ExperimentConfig(model="x", backend="openai", openai={"base_url": url})


def natural(**values: Any) -> ExperimentConfig:
    return ExperimentConfig(model="x", answer_length="natural", **values)


def test_answers_may_end_where_the_study_says_so() -> None:
    assert ExperimentConfig(model="x").fewest_tokens is None
    assert ExperimentConfig(model="x", answer_length="fixed").fewest_tokens is None
    assert ExperimentConfig(model="x", decoder={"min_new_tokens": 3}).fewest_tokens == 3
    assert natural().fewest_tokens == 1
    assert natural(decoder={"min_new_tokens": 3}).fewest_tokens == 3


def test_natural_answers_are_drawn_anew_in_each_cycle() -> None:
    seeds = [natural().with_cycle_seed(cycle).random_seed for cycle in range(1, 101)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    # The same for all experiments of a cycle, and everywhere.
    assert natural(precision="fp16").with_cycle_seed(1).random_seed == seeds[0] == 1342812844
    assert natural(random_seed=7).with_cycle_seed(1).random_seed != seeds[0]
    assert natural().with_cycle_seed(1).model_copy(update={"random_seed": 42}) == natural()


def test_traffic_is_drawn_anew_in_each_cycle_by_the_same_seeds() -> None:
    config = ExperimentConfig(model="x", serving={"rate_per_s": 1})
    assert config.with_cycle_seed(1).random_seed == natural().with_cycle_seed(1).random_seed
    assert config.with_cycle_seed(1) != config.with_cycle_seed(2)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"answer_length": "fixed"},
        {"decoder": {"min_new_tokens": 1}},
        {"answer_length": "natural", "decoder": {"temperature": 0.0}},
        {"answer_length": "natural", "decoder": {"do_sample": False}},
    ],
)
def test_all_others_are_told_the_same_in_every_cycle(settings: dict[str, Any]) -> None:
    config = ExperimentConfig(model="x", **settings)
    assert config.with_cycle_seed(3) == config


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"answer_length": "fixed", "decoder": {"min_new_tokens": 1}}, "remove it"),
        ({"answer_length": "natural", "weights": "random"}, "by chance"),
    ],
)
def test_answers_that_cannot_be_as_asked_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ExperimentConfig(model="x", **settings)
