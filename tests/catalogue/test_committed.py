"""The committed catalogues: whole, consistent in themselves, and written as the program writes."""

from pathlib import Path

import pytest

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.energy import MATTERS
from llenergymeasure.config.catalogue.knob import Catalogue, Knob
from llenergymeasure.config.catalogue.page import page
from llenergymeasure.config.catalogue.reading.engines import PACKAGES, read_release
from llenergymeasure.config.catalogue.values import faults
from llenergymeasure.config.fields import ENGINE_SECTIONS

ROOT = Path(__file__).parents[2]
BACKENDS = list(PACKAGES)


def everything(catalogue: Catalogue) -> list[Knob]:
    knobs = [knob for _, knob in catalogue.knobs()]
    return knobs + [knob for fields in catalogue.classes.values() for knob in fields.values()]


@pytest.mark.parametrize(
    ("backend", "section", "least"),
    [
        ("vllm", "engine", 250),
        ("vllm", "sampling", 40),
        ("sglang", "engine", 540),
        ("sglang", "sampling", 30),
        ("pytorch", "generation", 70),
        ("pytorch", "loading", 30),
    ],
)
def test_holds_the_whole_engine(backend: str, section: str, least: int) -> None:
    catalogue = store.load(backend)
    assert len(catalogue.sections[section]) >= least
    assert catalogue.incomplete is None
    assert catalogue.changes is not None


def test_tensorrt_s_arguments_are_there_and_what_they_were_read_from_is_said() -> None:
    catalogue = store.load("tensorrt")
    assert len(catalogue.sections["engine"]) >= 95
    assert len(catalogue.sections["sampling"]) >= 50
    assert sum(len(fields) for fields in catalogue.classes.values()) >= 300
    assert catalogue.version == "1.2.1"
    for words in ("copied out by hand", "TensorRT-LLM 1.2.1", "lora_helper.py"):
        assert words in (catalogue.incomplete or "")
    assert "incomplete" in page("tensorrt")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_default_fits_its_own_knob(backend: str) -> None:
    catalogue = store.load(backend)
    wrong = {
        knob.name: found
        for knob in everything(catalogue)
        if knob.default is not None and (found := list(faults(knob, knob.default, catalogue)))
    }
    assert not wrong


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_class_named_is_there(backend: str) -> None:
    catalogue = store.load(backend)

    def named(kind: object) -> list[str]:
        if isinstance(kind, dict):
            return [kind["class"]] if "class" in kind else named(list(kind.values()))
        if isinstance(kind, list | tuple):
            return [name for part in kind for name in named(part)]
        return []

    names = {name for knob in everything(catalogue) for name in named(knob.type)}
    assert names <= set(catalogue.classes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_file_is_what_the_program_writes(backend: str, tmp_path: Path) -> None:
    store.save(store.load(backend), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == store.path_of(backend).read_bytes()


def test_installed_transformers_gives_the_committed_catalogue() -> None:
    committed, read = store.load("pytorch"), read_release("pytorch", None)
    if read.version != committed.version:
        pytest.skip(f"the catalogue is of {committed.version}, installed is {read.version}")
    assert read.sections == committed.sections


@pytest.mark.parametrize("backend", BACKENDS)
def test_page_is_the_generated_one(backend: str) -> None:
    written = (ROOT / "docs" / "engines" / f"{backend}.md").read_text()
    assert written == page(backend), "run: python -m llenergymeasure.config.catalogue.page"


@pytest.mark.parametrize("backend", BACKENDS)
def test_knobs_said_to_matter_exist(backend: str) -> None:
    catalogue = store.load(backend)
    assert MATTERS[backend]
    for dotted in MATTERS[backend]:
        section, _, name = dotted.partition(".")
        assert name in catalogue.sections[section], dotted


def test_prefix_caching_is_explained_for_both_engines_that_have_it() -> None:
    assert "prefill" in MATTERS["vllm"]["engine.enable_prefix_caching"]
    assert "radix" in MATTERS["sglang"]["engine.disable_radix_cache"]


@pytest.mark.parametrize("section", ENGINE_SECTIONS, ids=lambda section: section.study_path)
def test_no_knob_hides_a_method_of_its_section(section: type) -> None:
    # An extra of the same name as a method would be read as the method.
    own = {name for name in vars(section) if not name.startswith("_")}
    assert not own & {knob.name for _, knob in store.load(section.catalogue_of[0]).knobs()} - set(
        section.model_fields
    )
