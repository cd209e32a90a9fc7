"""``llem config``: the parameters of an engine."""

from dataclasses import asdict
from typing import Annotated

import typer

from llenergymeasure.cli.output import JsonOption, print_json
from llenergymeasure.config.engine_parameters import ENGINES, load
from llenergymeasure.config.engine_parameters.show import matching_settings, setting_lines
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.errors import ConfigurationError, Problem


def config(
    backend: Annotated[str, typer.Argument(help="pytorch, vllm, sglang or tensorrt")],
    pattern: Annotated[
        str | None, typer.Argument(help="part of an option's name, or words of its description")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look up the engine options that a study can set."""
    backend, _, key = backend.partition(".")  # a study's dotted key names both
    pattern = key.rpartition(".")[2] or pattern
    if backend not in ENGINES:
        hint = did_you_mean(nearest_names(backend, ENGINES)[:1])
        message = f"has no parameters to look up: there are {', '.join(ENGINES)}{hint}"
        raise ConfigurationError(Problem(message, key="backend", found=backend))
    parameters = matching_settings(backend, pattern)
    if not parameters and pattern is not None:
        names = [parameter.key.rpartition(".")[2] for parameter in matching_settings(backend, None)]
        words = sorted({word for name in names for word in name.split("_")})
        hint = did_you_mean(nearest_names(pattern, [*words, *names]))
        engine = load(backend)
        message = f"no parameter of {engine['x-package']} {engine['x-version']} fits{hint}"
        raise ConfigurationError(Problem(message, found=pattern))
    if as_json:
        print_json([asdict(parameter) for parameter in parameters])
    else:
        print("\n".join(setting_lines(backend, parameters, brief=pattern is None)))
