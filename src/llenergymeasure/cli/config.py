"""``llem config``: what a study can set of an engine."""

from typing import Annotated

import typer

from llenergymeasure.cli.output import JsonOption, print_json
from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.showing import knob_lines, matching
from llenergymeasure.config.fields import ENGINE_SECTIONS
from llenergymeasure.config.nearest import nearest_names
from llenergymeasure.errors import ConfigurationError, Problem


def config(
    backend: Annotated[str, typer.Argument(help="pytorch, vllm, sglang or tensorrt")],
    pattern: Annotated[
        str | None, typer.Argument(help="part of a name, or words of the help")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look up what a study can set of an engine."""
    known = list(dict.fromkeys(each.catalogue_of[0] for each in ENGINE_SECTIONS))
    if backend not in known:
        message = f"has no parameters to look up: there are {', '.join(known)}"
        raise ConfigurationError(
            Problem(f"{message}{_near(backend, known)}", key="backend", found=backend)
        )
    found = matching(backend, pattern)
    if not found and pattern is not None:
        catalogue = store.load(backend)
        names = [knob.name for _, knob in catalogue.knobs()]
        words = sorted({word for name in names for word in name.split("_")})
        message = f"no parameter of {catalogue.package} {catalogue.version} fits"
        raise ConfigurationError(
            Problem(f"{message}{_near(pattern, [*words, *names])}", found=pattern)
        )
    if as_json:
        print_json([shown.as_dict() for shown in found])
    else:
        print("\n".join(knob_lines(backend, found, brief=pattern is None)))


def _near(name: str, known: list[str]) -> str:
    near = nearest_names(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""
