"""Protocols: what each name stands for, and that a study's own settings win."""

from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol


def config(**settings: Any) -> ExperimentConfig:
    return ExperimentConfig(model="tiny-llama", **settings)


@pytest.mark.parametrize(
    ("protocol", "measured", "name"),
    [
        ("auto", True, "standard"),
        ("auto", False, "quick"),
        ("quick", True, "quick"),
        ("standard", False, "standard"),
        ("publication", False, "publication"),
    ],
)
def test_auto_depends_on_whether_a_sensor_measures(
    protocol: Any, measured: bool, name: str
) -> None:
    assert resolve_protocol(config(protocol=protocol), measured).name == name


def test_quick_has_short_windows_and_no_idle_phases() -> None:
    quick = resolve_protocol(config(protocol="quick"), measured=True)
    assert quick.window_min_s >= 1
    assert (quick.idle_before_s, quick.idle_after_s, quick.settle_enabled) == (0, 0, False)


def test_each_protocol_is_at_least_as_careful_as_the_one_before() -> None:
    quick, standard, publication = (
        resolve_protocol(config(protocol=name), measured=True)
        for name in ("quick", "standard", "publication")
    )
    assert standard.window_min_s >= 20
    assert publication.window_min_s >= 60
    assert publication.cycles_min >= 5
    for looser, stricter in ((quick, standard), (standard, publication)):
        assert stricter.idle_before_s > looser.idle_before_s
        assert stricter.min_batches > looser.min_batches
        assert stricter.precision < looser.precision


@pytest.mark.parametrize("protocol", ["quick", "standard", "publication"])
def test_settings_of_the_study_win(protocol: Any) -> None:
    settings = resolve_protocol(
        config(
            protocol=protocol,
            window={"min_seconds": 3.5, "min_batches": 7},
            baseline={"duration_seconds": 6.0},
            warmup={
                "n_warmup": 50,
                "thermal_floor_seconds": 0,
                "convergence_detection": False,
                "cv_threshold": 0.1,
                "min_prompts": 6,
                "enabled": False,
                "window_size": 7,
            },
        ),
        measured=True,
    )
    assert (settings.window_min_s, settings.min_batches) == (3.5, 7)
    assert (settings.idle_before_s, settings.idle_after_s) == (6.0, 6.0)
    assert (settings.warmup_n, settings.warmup_floor_s) == (50, 0)
    assert (settings.warmup_convergence, settings.warmup_enabled) == (False, False)
    assert (settings.warmup_cv_threshold, settings.warmup_min_prompts) == (0.1, 6)
    assert settings.warmup_window_size == 7
    assert settings.warmup_max_prompts >= 50
    most = resolve_protocol(config(protocol=protocol, warmup={"max_prompts": 99}), measured=True)
    assert most.warmup_max_prompts == 99


def test_idle_phases_can_be_asked_for_and_turned_off() -> None:
    settings = resolve_protocol(
        config(protocol="quick", baseline={"enabled": True}), measured=False
    )
    assert settings.idle_before_s > 0
    off = resolve_protocol(config(baseline={"enabled": False}), measured=True)
    assert (off.idle_before_s, off.idle_after_s) == (0, 0)
