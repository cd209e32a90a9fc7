"""A run as one flat row, and rows as a table."""

import json

import pyarrow as pa
import pytest

from llenergymeasure.config.dotted import value_at
from llenergymeasure.results.columns import COLUMNS, RUN_SCHEMA
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.table import (
    MISSING,
    failed_row,
    rows_table,
    run_row,
    setting_array,
    setting_columns,
)
from results.synthetic import make_plan, make_result

CONFIG = {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": 8}}


def one_run():
    return make_plan([CONFIG], ["pytorch.batch_size"])["runs"][0]


def test_row_of_a_run_is_its_record_flat():
    run = one_run()
    row = run_row(make_result(run, energy_j=900.0), {"pytorch.batch_size": 8})
    expected = {
        "experiment": run["experiment"],
        "energy_gross_j": 900.0,
        "energy_per_output_token_j": 0.45,
        "power_mean_w": 45.0,
        "kind": "measured",
        "energy_scopes": ["gpu"],
        "window_s": 20.0,
        "output_tokens_per_s": 100.0,
        "gpu_name": "NVIDIA H200",
        "driver_version": "570.1",
        "engine_version": "transformers 5.0, torch 2.13",
        "host": "node-1",
        "start_temperature_celsius": 41.0,
        "started_monotonic_ns": 55_000_000_000,
        "pytorch.batch_size": 8,
        "error_class": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert list(row) == [*RUN_SCHEMA.names, "pytorch.batch_size"]
    assert rows_table([row]).to_pylist() == [row]


@pytest.mark.parametrize(
    ("tokens", "length"),
    [
        ({"output": 40, "requests": 8}, 5.0),
        ({"output": 40, "requests": 2, "output_mean": 7.5, "requests_worked": 2.5}, 7.5),
        ({"output": 40, "requests": 2, "output_mean": 0.0, "requests_worked": 2.5}, 0.0),
        ({"output": 12, "requests": 0, "requests_worked": 0.5}, 24.0),  # none ended
        ({"output": 0, "requests": 0, "requests_worked": 0.5}, None),
        ({"output": 12, "requests": 0}, None),  # of an earlier version
    ],
)
def test_an_answer_s_length_is_known_also_where_none_ended_in_the_window(tokens, length):
    result = make_result(one_run(), energy_j=900.0)
    counted = result.tokens.model_copy(update=tokens)
    row = run_row(result.model_copy(update={"tokens": counted}), {})
    assert row["output_tokens_per_request"] == length


NAMED_OTHERWISE = {
    "input_tokens_cached": "tokens.input_cached",
    "input_tokens": "tokens.input",
    "output_tokens": "tokens.output",
    "thinking_tokens": "tokens.thinking",
    "output_tokens_sd": "tokens.output_sd",
    "output_tokens_came": "tokens.output_came",
    "energy_node_j": "energy.node.gross_j",
    "energy_node_u95_j": "energy.node.gross_u95_j",
    "window_s": "window.duration_s",
    "cost_currency": "energy.footprint.currency",
}
"""Columns whose names are not those of their field."""


def test_a_column_is_the_field_that_its_name_says():
    fields = {name: source for name, source in COLUMNS.items() if isinstance(source, str)}
    for name, source in fields.items():
        section, _, leaf = source.rpartition(".")
        words = {leaf, f"{section.split('.')[0]}_{leaf}", f"{section.rpartition('.')[2]}_{leaf}"}
        words |= {source.replace(".", "_")}
        assert name in words or NAMED_OTHERWISE[name] == source
    assert len(set(fields.values())) == len(fields)


def test_row_names_the_node_by_the_schedulers_name_and_the_job():
    job = {"scheduler": "slurm", "id": "4711", "partition": "gpu", "node": "gpu-07"}
    card = {"uuid": "GPU-1", "name": "NVIDIA H200", "power_limit_w": 650.0}
    surroundings = {"host": "cn07.site", "job": job, "gpus": [card]}
    row = run_row(make_result(one_run(), environment=surroundings), {})
    assert (row["host"], row["slurm_job_id"], row["slurm_partition"]) == ("gpu-07", "4711", "gpu")
    assert (row["gpu_uuid"], row["power_limit_w"]) == ("GPU-1", 650.0)
    lost = failed_row(one_run(), Outcome(status="failed", host="cn07.site", job=job), {})
    assert (lost["host"], lost["slurm_job_id"]) == ("gpu-07", "4711")


@pytest.mark.parametrize("energy_j", [None, float("nan")])
def test_energy_that_was_not_observed_is_null_with_its_reason(energy_j):
    row = run_row(make_result(one_run(), energy_j=energy_j), {})
    assert row["energy_gross_j"] is None
    if energy_j is None:
        assert (row["kind"], row["energy_unavailable"]) == (None, "no sensor")


def test_swept_settings_are_columns_where_they_are_not_fixed_ones():
    swept = {"precision": "bf16", "model": "tiny-llama", "dataset": {"n": 4}}
    row = run_row(make_result(one_run()), swept)
    assert list(row) == [*RUN_SCHEMA.names, "dataset"]
    assert row["precision"] == "bf16"
    assert json.loads(row["dataset"]) == {"n": 4}


def test_a_setting_never_takes_a_quantitys_name():
    assert setting_columns(["order", "n"]) == {"order": "setting.order", "n": "n"}


def test_failed_run_keeps_why_and_one_that_never_began_is_missing():
    outcome = Outcome.model_validate(
        {
            "status": "failed",
            "attempt": 2,
            "phase": "load",
            "error": {"class": "OutOfMemoryError", "message": "no room"},
        }
    )
    row = failed_row(one_run(), outcome, {"study": "demo"})
    assert (row["status"], row["phase"], row["attempt"]) == ("failed", "load", 2)
    assert (row["error_class"], row["error_message"]) == ("OutOfMemoryError", "no room")
    assert row["energy_gross_j"] is None
    assert row["validity"] is None
    assert row["study"] == "demo"
    assert row["model"] == "tiny-llama"
    assert failed_row(one_run(), None, {})["status"] == MISSING


@pytest.mark.parametrize(
    ("values", "kind", "stored"),
    [
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([1, 8, None], pa.int64(), [1, 8, None]),
        ([0, 0.7], pa.float64(), [0, 0.7]),
        (["a", None], pa.string(), ["a", None]),
        ([None, None], pa.string(), [None, None]),
        # Of mixed types
        ([True, 1], pa.string(), ["true", "1"]),
        (["auto", 8], pa.string(), ["auto", "8"]),
        ([2**70, 1], pa.string(), [str(2**70), "1"]),
        ([[1, 2], {"b": 1, "a": None}], pa.string(), ["[1,2]", '{"b":1}']),
    ],
)
def test_settings_keep_their_type_or_become_text(values, kind, stored):
    array = setting_array(values)
    assert (array.type, array.to_pylist()) == (kind, stored)


def test_lookup_of_a_setting_that_is_not_there_is_null():
    assert value_at(CONFIG, "pytorch.batch_size") == 8
    assert value_at(CONFIG, "vllm.engine.max_num_seqs") is None
    assert value_at(CONFIG, "model.name") is None
