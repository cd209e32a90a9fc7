"""The generated pages say what the code says."""

from types import ModuleType

import pytest

from docs.pages import ROOT
from llenergymeasure.workload.models.flops import decode_flops, prefill_flops
from llenergymeasure.workload.models.known import KNOWN
from support.programs import loaded


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return loaded("docs/generate_reference.py")


@pytest.mark.parametrize("name", ["reference.md", "fields.md"])
def test_page_is_what_the_code_says(generator: ModuleType, name: str) -> None:
    committed = (ROOT / "docs" / name).read_text()
    assert committed == generator.PAGES[name](), f"docs/{name} is out of date: run `make reference`"


def test_a_column_without_a_meaning_is_an_error(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"no meaning for \['b'\]; no such column: \['c'\]"):
        generator._must_agree(["a", "b"], {"a": "one", "c": "three"})


def test_every_setting_is_on_the_page(generator: ModuleType) -> None:
    from llenergymeasure.config.fields import all_paths

    page = generator.reference_page()
    missing = [path for path in all_paths() if f"`{path.rsplit('.', 1)[-1]}`" not in page]
    assert missing == []


def test_the_page_on_operations_has_the_program_s_figures() -> None:
    llama, page = KNOWN["Llama-3.1-8B"], (ROOT / "docs" / "method-flops.md").read_text()
    assert f"{decode_flops(llama, 512, 2) // 2:,}" in page
    assert f"{prefill_flops(llama, 512) / 1e12:.4f} TFLOP" in page
