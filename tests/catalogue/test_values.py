"""Whether a value fits a type, and what is told where it does not."""

from typing import Any

import pytest

from llenergymeasure.config.catalogue.knob import Catalogue, Knob, Type, type_text
from llenergymeasure.config.catalogue.values import faults

INNER = {"size": Knob("size", ("int",), bounds={"ge": 1}), "name": Knob("name", ("str",))}
CATALOGUE = Catalogue("vllm", "vllm", "9", {}, {"Inner": INNER})
CHOICES = {"choices": ["auto", "fp8", "FULL", 3]}


def messages(kind: Type, value: Any, **bounds: float) -> list[str]:
    knob = Knob("knob", kind, bounds=bounds)
    return [
        ".".join(map(str, fault.path)) + ": " + fault.message
        for fault in faults(knob, value, CATALOGUE)
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (("bool",), False),
        (("int",), 3),
        (("float",), 3),
        (("float",), 0.5),
        (("str",), "x"),
        (("any",), {"x": [1]}),
        (("int",), None),
        ((CHOICES,), "fp8"),
        ((CHOICES,), "full"),
        ((CHOICES,), 3),
        ((CHOICES, "str"), "my.module.Thing"),
        ((CHOICES, "str"), "/a/path"),
        (("str", {"list": ["str"]}), ["x", "y"]),
        (({"list": ["int"]},), []),
        (({"dict": ["float"]},), {"x": 1}),
        (({"dict": ["any"]},), {"x": None}),
        (({"class": "Inner"},), {"size": 2, "name": "x"}),
        (({"class": "Unread"},), {"whatever": 2}),
    ],
)
def test_fits(kind: Type, value: Any) -> None:
    assert messages(kind, value) == []


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (("int",), True, ": must be a whole number"),
        (("int",), 1.5, ": must be a whole number"),
        (("int",), "1", ": must be a whole number, without quotes"),
        (("bool",), 1, ": must be true or false"),
        (("bool",), "yes", ": must be true or false, without quotes"),
        (("str",), 4, ": must be text, in quotes"),
        (("float",), float("nan"), ": must be a finite number"),
        (("int", "bool"), "x", ": must be a whole number or true or false, without quotes"),
        ((CHOICES,), "fp88", ": must be one of auto, fp8, FULL, 3; did you mean fp8?"),
        (
            (CHOICES,),
            True,
            "must be one of auto, fp8, FULL, 3; text that reads true or false needs quotes",
        ),
        ((CHOICES, "str"), "odd", "what a plugin adds goes into passthrough_kwargs"),
        (({"choices": ["only"]},), "other", ": must be only"),
        (({"list": ["int"]},), 4, ": must be a list"),
        (({"list": ["int"]},), [1, "x"], "1: must be a whole number"),
        (({"dict": ["float"]},), {"x": "y"}, "x: must be a number"),
        (({"dict": ["any"]},), [], ": must be a mapping"),
        (({"class": "Inner"},), {"size": 0}, "size: must be at least 1"),
        (({"class": "Inner"},), {"sise": 1}, "sise: unknown key; did you mean size?"),
        (({"class": "Inner"},), {"zzzz": 1}, "zzzz: unknown key; known here: size, name"),
        (("python",), 1, "takes a Python object"),
    ],
)
def test_is_told(kind: Type, value: Any, message: str) -> None:
    (found,) = messages(kind, value)
    assert message in found


def test_bounds_are_told_together() -> None:
    assert messages(("float",), 2, gt=0, le=1) == [": must be more than 0 and at most 1"]
    assert messages(("float",), 0, gt=0, le=1)
    assert messages(("float",), 1, gt=0, le=1) == []
    assert messages(("int",), 5, ge=0, lt=5)


def test_types_read_as_people_write_them() -> None:
    kind: Type = ({"choices": ["a", 1]}, {"list": ["int", "str"]}, {"dict": ["any"]}, "python")
    assert type_text(kind) == '"a" | 1 | list[int | str] | dict[str, any] | Python object'
