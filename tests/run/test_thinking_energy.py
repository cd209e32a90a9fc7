"""Tokens and joules of thought in a record: under traffic, and where decode is told apart."""

import pyarrow as pa
import pytest

from llenergymeasure.energy.prefill_decode import TokenEnergy
from llenergymeasure.results.energy import Energy
from llenergymeasure.results.record import Tokens
from llenergymeasure.run.result.batch_requests import batch_tokens
from llenergymeasure.run.result.run_energy import with_thinking
from llenergymeasure.run.result.run_validity import traffic_codes
from llenergymeasure.run.result.traffic_result import ServedRun
from support.serving_runs import answers, in_window

ENERGY = Energy(kind="measured", source="nvml", readings=[], gross_j=100.0, u95_j=4.0)


def answered(thinking: int | None, differs: bool | None, start_s: int) -> pa.Table:
    """Ten tokens, one a second."""
    parts_s = [start_s + number for number in range(1, 11)]
    return answers((start_s, parts_s), thinking_tokens=thinking, thinking_differs=differs)


def counted(output: int, thinking: int | None) -> Tokens:
    return Tokens(input=1, output=output, thinking=thinking, requests=1, prompt_hash="")


def served(*tables: pa.Table, window_s: tuple[int, int] = (0, 20)) -> ServedRun:
    return in_window(pa.concat_tables(tables), window_s, {"arrivals": "closed", "concurrency": 2})


def test_under_traffic_every_token_has_the_same_part_of_the_energy() -> None:
    run = served(answered(6, False, 0), answered(0, None, 0))

    tokens = run.tokens("")
    energy = with_thinking(ENERGY, tokens).thinking

    assert (tokens.output, tokens.thinking) == (20, 6)
    assert energy is not None
    assert energy.method == "tokens"
    assert (energy.thinking_j, energy.answer_j) == (30.0, 70.0)
    assert energy.thinking_u95_j == pytest.approx(1.2)


def test_thought_counts_in_the_window_in_which_it_was_worked_at() -> None:
    """A tenth of the work is the prompt's: after 4 s four tenths are done, after 7 s seven."""
    complete = served(answered(6, None, 0))
    thought, answer = (
        served(answered(6, None, 0), window_s=window_s).tokens("") for window_s in ((0, 4), (7, 20))
    )

    assert complete.tokens("").thinking == 6
    assert (thought.output, thought.output_came, thought.thinking) == (4, 3, 4)
    assert (answer.output, answer.output_came, answer.thinking) == (3, 4, None)


@pytest.mark.parametrize(("differs", "marked"), [(True, True), (False, False), (None, False)])
def test_a_servers_wrong_count_of_thought_is_a_code(differs: bool | None, marked: bool) -> None:
    run = served(answered(0, differs, 0), answered(0, differs, 1))

    assert ("thinking_mismatch" in traffic_codes(run)) == marked
    assert with_thinking(ENERGY, run.tokens("")).thinking is None


def test_where_decode_is_told_apart_its_own_split_counts() -> None:
    split = TokenEnergy(0.1, 0.5, 0.01, 0.02, 0.0, 0.01, 30.0, 50.0, 1.0, 2.0)

    thinking = with_thinking(ENERGY, counted(160, 60), split).thinking

    assert thinking is not None
    assert thinking.method == "split"
    assert (thinking.thinking_j, thinking.answer_j) == (30.0, 50.0)
    assert (thinking.thinking_u95_j, thinking.answer_u95_j) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("column", "total"), [([3, None, 4], 7), ([0, 0], None), ([None], None), ([], None)]
)
def test_none_of_thought_is_not_observed(column: list[int | None], total: int | None) -> None:
    lengths = pa.array([10] * len(column), pa.int64())
    old = pa.table({"input_tokens": lengths, "output_tokens": lengths})
    table = old.append_column("thinking_tokens", pa.array(column, pa.int64()))

    assert batch_tokens(table, "").thinking == total
    assert batch_tokens(old, "").thinking is None
    assert with_thinking(ENERGY, counted(10, None)) == ENERGY
