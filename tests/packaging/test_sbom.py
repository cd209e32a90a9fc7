"""The bill of materials of an image is one by its published schema, and names all it holds."""

import json
import subprocess
import sys
from importlib.metadata import distributions
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from support.studies import ROOT

NAME, DIGEST = "ghcr.io/owner/repository/pytorch:1.0", f"sha256:{'ab' * 32}"


def printed() -> str:
    """What is printed by the script as an image gets it: from standard input."""
    with (ROOT / "tools" / "sbom.py").open() as script:
        return subprocess.run(
            [sys.executable, "-", NAME, DIGEST],
            stdin=script,
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        files("cyclonedx.schema._res").joinpath(f"{name}.SNAPSHOT.schema.json").read_text()
    )
    return content


def test_it_is_valid_complete_and_the_same_each_time() -> None:
    pytest.importorskip("cyclonedx", reason="no cyclonedx-python-lib: the extra dev has it")
    others = [("spdx", "spdx"), ("jsf-0.82", "jsf-0.82")]
    registry: Registry[Any] = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", resource)
        for name, resource in (
            (name, Resource.from_contents(schema(file))) for name, file in others
        )
    )
    text = printed()
    bill = json.loads(text)
    validator = Draft7Validator(schema("bom-1.6"), registry=registry)
    assert [error.message for error in validator.iter_errors(bill)] == []
    assert list(validator.iter_errors({**bill, "components": [{"name": "x"}]}))
    assert bill["metadata"]["component"]["version"] == DIGEST
    refs = [each["bom-ref"] for each in bill["components"]]
    assert refs == sorted(set(refs))
    held = {
        each.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        for each in distributions()
    }
    listed = {each["name"] for each in bill["components"] if each["purl"].startswith("pkg:pypi/")}
    assert held <= listed
    assert printed() == text
