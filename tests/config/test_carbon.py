"""The carbon section: checked, looked up, and no part of what is measured."""

from typing import Any

import pytest

from llenergymeasure.config.carbon import country_grid
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.plan.plan import Plan
from llenergymeasure.workload.load_study import study_from_mapping
from support.attempts import spec_of


def study(carbon: Any) -> Any:
    return study_from_mapping({"model": "tiny-llama", "carbon": carbon})


def test_what_is_declared_reaches_every_run_and_changes_no_id(tmp_path) -> None:
    carbon = {"grid_gco2e_per_kwh": 50, "pue": 1.3, "source": "ours"}
    declared, plain = make_plan(study(carbon)), make_plan(study(None))
    assert declared.experiments == plain.experiments
    path = tmp_path / "plan.json"
    assert spec_of(plain, path)["sections"] == {}
    spec = spec_of(declared, path)
    assert spec["sections"]["carbon"] == {"grid_gco2e_per_kwh": 50.0, "pue": 1.3, "source": "ours"}
    assert Plan.read(tmp_path / "plan.json") == declared


def test_a_countrys_grid_is_codecarbons() -> None:
    grid, source = country_grid("NOR")
    assert 5 < grid < 100
    assert "Norway" in source
    assert "codecarbon" in source
    assert study({"country": "NOR"}).sections["carbon"] == {
        "grid_gco2e_per_kwh": grid,
        "pue": 1.0,
        "source": source,
    }


@pytest.mark.parametrize(
    ("carbon", "key", "says"),
    [
        ({"country": "ZZZ"}, "carbon.country", "no grid of ZZZ"),
        ({"country": "Germany"}, "carbon.country", "Germany"),
        ({"pue": 0.9, "grid_gco2e_per_kwh": 1}, "carbon.pue", "0.9"),
        ({"pue": 1.2}, "carbon", "give grid_gco2e_per_kwh"),
        ({"country": "DEU", "grid_gco2e_per_kwh": 3}, "carbon", "only one"),
        ({"price_per_kwh": 0.3}, "carbon", "currency"),
        ({"country": "DEU", "embodied_kgco2e": 9}, "carbon", "lifetime_years need each other"),
        ({"gird": 3}, "carbon.gird", "gird"),
        ("DEU", "carbon", "mapping"),
    ],
)
def test_what_cannot_be_is_named(carbon: Any, key: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=key) as caught:
        study(carbon)
    assert says in str(caught.value)
