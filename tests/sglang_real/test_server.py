"""SGLang's own server, started and asked as the backend says, on a CPU."""

import argparse
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llenergymeasure.backends.sglang.arguments import server_command
from llenergymeasure.config.engine_parameters import Schema, choices, forms, parameters
from llenergymeasure.config.engine_parameters.reserved import why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from support.attempts import start
from support.sglang_cpu import ON_CPU

SKIPPED = {
    *(
        name
        for name, parameter in parameters("sglang.engine").items()
        if parameter.get("x-command-line") is False
    ),
    # The study's own, under other names.
    *("dtype", "random_seed"),
    # Texts of a form of their own.
    *("limit_mm_data_per_request", "preferred_sampling_params"),
    *("kv_canary_real_data", "reasoning_parser", "tool_call_parser"),
}


def experiment(engine: dict[str, Any]) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {"model": "tiny-llama", "backend": "sglang", "sglang": {"engine": engine}}
    )


def sample(schema: Schema) -> Any:
    """Return a value other than the default, of a kind that a command line can carry."""
    if choices(schema):
        return next((choice for choice in choices(schema) if choice != schema.get("default")), None)
    if "boolean" in forms(schema):
        return schema.get("default") is not True
    if "integer" in forms(schema):
        limits = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
        return max([1, *(int(limit) + 1 for limit in limits)])
    return 0.5 if "number" in forms(schema) else "text" if "string" in forms(schema) else None


def test_every_knob_is_spelt_as_the_command_line_takes_it() -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(exit_on_error=False)
    ServerArgs.add_cli_args(parser)
    checked = 0
    wrong = {}
    for name, schema in parameters("sglang.engine").items():
        value = sample(schema)
        if value is None or schema.get("readOnly") or schema.get("deprecated") or name in SKIPPED:
            continue
        if why_reserved("sglang.engine", name) is not None:
            continue
        try:
            argv = server_command(experiment({name: value}), 1).argv[3:]
            parsed = getattr(parser.parse_args(argv), name)
        except (Exception, SystemExit) as error:  # What argparse and SGLang's types refuse.
            wrong[name] = f"{type(error).__name__}: {error}"
            continue
        checked += 1
        if parsed != value and str(parsed) != str(value):
            wrong[name] = f"{value!r} came out as {parsed!r}"
    assert checked > 400, wrong
    assert not wrong


def test_a_run_under_traffic_leaves_its_result(tmp_path: Path) -> None:
    attempt = start(
        tmp_path,
        backend="sglang",
        sglang={"engine": ON_CPU},
        decoder={"preset": "deterministic"},
        serving={"arrivals": "closed", "concurrency": 2, "ramp_up_max_seconds": 3},
        window={"min_seconds": 3.0},
        energy={"backend": None},
    )
    assert attempt.process.wait(600) == 0, (attempt.folder / "outcome.json").read_text()
    result = attempt.result()
    assert result["tokens"]["requests"] > 2
    resolved = result["environment"]["engine"]["resolved_config"]
    assert resolved["settings"]["device"] == "cpu"
    assert resolved["settings"]["version"]
    assert result["environment"]["engine"]["statistics"]["kv_cache_share_max"] >= 0
    requests = pq.read_table(attempt.folder / "requests.parquet")
    assert set(requests["output_tokens"].to_pylist()) == {4}
    assert set(requests["input_tokens"].to_pylist()) == {8}
    assert all(first is not None for first in requests["time_to_first_token_s"].to_pylist())
    attempt.nothing_left()
