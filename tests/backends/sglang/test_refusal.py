"""What SGLang is reported to refuse: stand-ins for its classes, with their signatures."""

from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import SettingsValidator
from llenergymeasure.config.experiment import ExperimentConfig
from support.stand_in_modules import stand_in

pytest.importorskip("tokenizers")


class Sampling:
    """Refuses, when verified, what SGLang 0.5.23 refuses of a penalty."""

    def __init__(self, **parameters: Any) -> None:
        self.penalty = parameters["repetition_penalty"]

    def verify(self, _vocabulary: int) -> None:
        if not 0 < self.penalty <= 2:
            raise ValueError(f"repetition_penalty must be in (0, 2], got {self.penalty}.")


def refusal(monkeypatch: pytest.MonkeyPatch, takes: Any, **settings: Any) -> str | None:
    parts = {
        "sglang": SimpleNamespace(),
        "sglang.srt.server_args": SimpleNamespace(ServerArgs=takes),
        "sglang.srt.sampling.sampling_params": SimpleNamespace(SamplingParams=Sampling),
    }
    stand_in(monkeypatch, parts, "llenergymeasure.backends.sglang.refusal")
    backend = registry.get("sglang")
    assert isinstance(backend, SettingsValidator)
    study = {"model": "tiny-llama", "backend": "sglang", **settings}
    return backend.refusal(ExperimentConfig.model_validate(study))


def test_sglang_says_in_its_own_words_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(**arguments: Any) -> None:
        if arguments.get("page_size") == 3:
            raise AssertionError("page_size must be a power of 2")

    engine = {"sglang": {"engine": {"page_size": 3}}}
    assert refusal(monkeypatch, takes, **engine) == (
        "AssertionError: page_size must be a power of 2"
    )
    assert refusal(monkeypatch, takes, sglang={"engine": {"page_size": 4}}) is None
    penalty = {"decoder": {"repetition_penalty": 3.0}}
    assert "must be in (0, 2], got 3.0" in str(refusal(monkeypatch, takes, **penalty))


def test_what_sglang_cannot_do_here_whatever_is_set_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No card, no kernels, another release: the run's own preflight and loading say so."""

    def takes(**_: Any) -> None:
        raise ValueError("no accelerator")

    assert refusal(monkeypatch, takes, sglang={"engine": {"page_size": 3}}) is None


def test_a_sglang_that_is_not_to_be_imported_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, {"sglang": None}, "llenergymeasure.backends.sglang.refusal")
    backend = registry.get("sglang")
    assert isinstance(backend, SettingsValidator)
    with pytest.raises(ImportError):  # the process that asks ends without an answer
        backend.refusal(ExperimentConfig.model_validate({"model": "m", "backend": "sglang"}))
