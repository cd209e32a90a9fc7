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


def test_null_energy_measures_none() -> None:
    assert ExperimentConfig(model="x", energy={"backend": None}).energy.backend == "none"
    assert ExperimentConfig(model="x").energy.backend == "auto"


def test_plain_synthetic_takes_its_lengths_from_the_token_limits() -> None:
    config = ExperimentConfig(
        model="x", n=3, max_input_tokens=5, max_output_tokens=7, random_seed=11
    )
    assert config.synthetic() == SyntheticDataset(n=3, input_len=5, output_len=7, seed=11)


def test_synthetic_mapping_falls_back_to_the_studys_n() -> None:
    config = ExperimentConfig(model="x", n=3, dataset={"input_len": 5})
    assert config.synthetic() == SyntheticDataset(n=3, input_len=5, output_len=128, seed=42)
    assert ExperimentConfig(model="x", dataset="aienergyscore").synthetic() is None


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
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        ExperimentConfig(model="x", backend="openai", openai={"base_url": url})


def test_password_in_an_address_reaches_no_message_and_no_plan() -> None:
    from llenergymeasure.config.loading import study_from_mapping

    loaded = study_from_mapping(
        {
            "model": "x",
            "backend": "openai",
            "sweep": {
                "openai.base_url": ["http://user:hunter2@localhost/v1", "http://localhost/v1"]
            },
        }
    )
    (left_out,) = loaded.left_out
    assert "hunter2" not in f"{left_out.reason}{left_out.config}"
