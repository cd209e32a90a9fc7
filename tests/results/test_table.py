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
    assert row["experiment"] == run["experiment"]
    assert row["energy_gross_j"] == 900.0
    assert row["energy_per_output_token_j"] == 0.45
    assert row["power_mean_w"] == 45.0
    assert row["kind"] == "measured"
    assert row["energy_scopes"] == ["gpu"]
    assert row["window_s"] == 20.0
    assert row["output_tokens_per_s"] == 100.0
    assert row["gpu_name"] == "NVIDIA H200"
    assert row["driver_version"] == "570.1"
    assert row["engine_version"] == "transformers 5.0, torch 2.13"
    assert row["host"] == "node-1"
    assert row["start_temperature_celsius"] == 41.0
    assert row["started_monotonic_ns"] == 55_000_000_000
    assert row["pytorch.batch_size"] == 8
    assert row["error_class"] is None
    assert list(row) == [*RUN_SCHEMA.names, "pytorch.batch_size"]


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


def test_rows_schema_fits_the_row():
    row = run_row(make_result(one_run()), {"pytorch.batch_size": 8, "dataset": {"n": 4}})
    assert rows_table([row]).to_pylist() == [row]
    assert json.loads(row["dataset"]) == {"n": 4}


def test_energy_that_was_not_observed_is_null_with_its_reason():
    row = run_row(make_result(one_run(), energy_j=None), {})
    assert row["energy_gross_j"] is None
    assert row["kind"] is None
    assert row["energy_unavailable"] == "no sensor"


def test_numbers_that_are_none_become_null():
    row = run_row(make_result(one_run(), energy_j=float("nan")), {})
    assert row["energy_gross_j"] is None


def test_swept_settings_that_are_fixed_columns_are_not_repeated():
    row = run_row(make_result(one_run()), {"precision": "bf16", "model": "tiny-llama"})
    assert list(row) == RUN_SCHEMA.names
    assert row["precision"] == "bf16"


def test_a_setting_never_takes_a_quantitys_name():
    assert setting_columns(["order", "n"]) == {"order": "setting.order", "n": "n"}


def test_failed_run_keeps_why():
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


def test_run_that_was_never_started_is_missing():
    assert failed_row(one_run(), None, {})["status"] == MISSING


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None, False], pa.bool_()),
        ([1, 8, None], pa.int64()),
        ([0, 0.7], pa.float64()),
        (["a", None], pa.string()),
        ([None, None], pa.string()),
    ],
)
def test_settings_keep_their_type(values, kind):
    array = setting_array(values)
    assert array.type == kind
    assert array.to_pylist() == values


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([True, 1], ["true", "1"]),
        (["auto", 8], ["auto", "8"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([[1, 2], {"b": 1, "a": None}], ["[1,2]", '{"b":1}']),
    ],
)
def test_settings_of_mixed_types_become_text(values, texts):
    assert setting_array(values).to_pylist() == texts


def test_lookup_of_a_setting_that_is_not_there_is_null():
    assert value_at(CONFIG, "pytorch.batch_size") == 8
    assert value_at(CONFIG, "vllm.engine.max_num_seqs") is None
    assert value_at(CONFIG, "model.name") is None
