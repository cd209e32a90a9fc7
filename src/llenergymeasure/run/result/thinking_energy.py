"""Tokens and energy of what a model thought, apart from those of what it answered."""

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.energy.split import TokenEnergy
from llenergymeasure.results.record import Energy, ThinkingEnergy


def thinking_total(requests: pa.Table) -> int | None:
    """Return how many of the window's output tokens were thought; None where none was."""
    if "thinking_tokens" not in requests.column_names:
        return None  # as in tables of before they were counted
    return pc.sum(requests["thinking_tokens"]).as_py() or None


def with_thinking(
    energy: Energy, output: int, thinking: int | None, split: TokenEnergy | None = None
) -> Energy:
    """Return the record's part on energy with that of thought and of answers.

    Args:
        energy: the part so far.
        output: output tokens of the window.
        thinking: those of them that were thought; None for none.
        split: prefill and decode, where they can be separated.
    """
    if not thinking or energy.gross_j is None:
        return energy
    if split is not None:
        found = ThinkingEnergy(
            method="split",
            thinking_j=split.thinking_j,
            thinking_u95_j=split.thinking_u95_j,
            answer_j=split.answer_j,
            answer_u95_j=split.answer_u95_j,
        )
    else:
        share = thinking / output
        found = ThinkingEnergy(
            method="tokens",
            thinking_j=share * energy.gross_j,
            thinking_u95_j=None if energy.u95_j is None else share * energy.u95_j,
            answer_j=(1 - share) * energy.gross_j,
            answer_u95_j=None if energy.u95_j is None else (1 - share) * energy.u95_j,
        )
    return energy.model_copy(update={"thinking": found})
