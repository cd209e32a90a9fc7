"""Ids depend on what is set and on nothing else."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.ids import (
    HASH_VERSION,
    canonical_json,
    digest,
    experiment_id,
    study_design_hash,
)

_texts = st.text(max_size=4)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | _texts
    | st.floats(allow_nan=False, allow_infinity=False)
)
_configs = st.dictionaries(
    _texts,
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
        max_leaves=4,
    ),
    max_size=4,
)


@given(_configs)
def test_order_and_unset_values_do_not_matter(config: dict[str, Any]) -> None:
    turned = dict(reversed(config.items()))
    unused = next(f"k{i}" for i in range(len(config) + 1) if f"k{i}" not in config)
    assert experiment_id(config) == experiment_id(turned)
    assert experiment_id(config) == experiment_id({**config, unused: None})
    assert experiment_id(config) == experiment_id({**config, unused: {"a": None}})


@given(st.lists(_configs, max_size=3))
def test_what_experiments_share_is_written_once_and_means_the_same(configs: list[Any]) -> None:
    written: dict[tuple[str, str], str] = {}
    for config in ({**settings, "model": "m"} for settings in configs):
        expected = digest({"config": config, "hash_version": HASH_VERSION})
        assert experiment_id(config, written) == expected[:12]


def test_numbers_are_normalised() -> None:
    assert canonical_json({"a": 1.0, "b": 0.70}) == '{"a":1,"b":0.7}'
    assert experiment_id({"temperature": 1}) == experiment_id({"temperature": 1.0})
    assert experiment_id({"a": True}) != experiment_id({"a": 1})
    assert experiment_id({"a": "1"}) != experiment_id({"a": 1})


def test_what_has_no_canonical_form_is_refused() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="no canonical form"):
            digest({"a": value})


def test_ids_of_today_are_ids_of_tomorrow() -> None:
    config = {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": 8}}
    assert experiment_id(config) == "0093b76859e6"
    design = "85e04c7e9ac7492f74462c2c616af30221991ff3cc4244a080696b7f1ca6a9d2"
    assert study_design_hash(["0093b76859e6"]) == design


def test_the_design_depends_on_the_order() -> None:
    assert study_design_hash(["a", "b"]) != study_design_hash(["b", "a"])
