"""What of an answer a model thought before it answered: between markers, or as its server says.

Servers that know the markers send thought in a field of its own; of others the text holds them.
Templates of some models open the thought in the prompt, so that the answer holds its end alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARKERS = (
    *(("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    *(("◁think▷", "◁/think▷"), ("<thought>", "</thought>")),
)
"""Begin and end of thought: DeepSeek-R1, Qwen3 and most others; Mistral's; Seed-OSS's; Cohere's;
Kimi-VL's; EXAONE Deep's."""

_TOLERANCE_TOKENS = 4
_TOLERANCE_SHARE = 0.1
"""By how many tokens, or by what share of an answer's, a server's count may differ from what the
answer shows: it counts its markers or not, and parts may hold several tokens."""

_OPENING_TOKENS = 4
"""A template opens the thought within the last tokens of a prompt; a marker before is a text's."""


def thinking_parts(parts: Sequence[tuple[bool, str]], *, opened: bool = False) -> int:
    """Return how many of an answer's parts are thought.

    Args:
        parts: of each part that holds output, whether the server calls it thought, and its text.
        opened: whether the prompt opened a thought, which is all of an answer that does not end it.
    """
    named_thinking = sum(is_thought for is_thought, _ in parts)
    if named_thinking:
        return named_thinking
    text = "".join(part for _, part in parts)
    for begin, end in MARKERS:
        end_index = text.find(end)
        if end_index < 0 and not text.lstrip().startswith(begin):
            continue
        stop = len(text) if end_index < 0 else end_index + len(end)
        count = offset = 0
        for _, part in parts:
            count += offset < stop
            offset += len(part)
        return count
    return len(parts) if opened else 0


@dataclass(frozen=True)
class ThinkingMarks:
    """A vocabulary's tokens that begin and end thought."""

    begins: frozenset[int]
    ends: frozenset[int]

    @classmethod
    def from_vocabulary(cls, vocabulary: Mapping[str, int]) -> "ThinkingMarks | None":
        """Return the marks among a tokenizer's added tokens; None where there are none."""
        begins = frozenset(vocabulary[begin] for begin, _ in MARKERS if begin in vocabulary)
        ends = frozenset(vocabulary[end] for _, end in MARKERS if end in vocabulary)
        return cls(begins, ends) if ends else None

    def opens_in(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt ends within a thought."""
        marks = [token for token in prompt[-_OPENING_TOKENS:] if token in self.begins | self.ends]
        return bool(marks) and marks[-1] in self.begins

    def count(self, prompt: Sequence[int], answer: Sequence[int]) -> int:
        """Return how many of an answer's tokens are thought, its marks with it."""
        end = next((n for n, token in enumerate(answer, start=1) if token in self.ends), None)
        if end is not None:
            return end
        begins = self.opens_in(prompt) or self.begins.intersection(answer[:2])
        return len(answer) if begins else 0


def reconcile(
    thinking: int, visible: int, tokens: int, reported: int | None
) -> tuple[int, bool | None]:
    """Return an answer's tokens of thought, and whether the server's count differs from them.

    What is seen counts. A server's count counts where it hides the thought: then fewer parts came
    than it says the answer has tokens. SGLang has called plain answers thought.

    Args:
        thinking: how many parts are thought.
        visible: how many parts hold output.
        tokens: the answer's tokens, thought and all.
        reported: how many of them were thought, by the server; None if it does not say.
    """
    observed = round(tokens * thinking / visible) if visible else 0
    if reported is None:
        return observed, None
    if not thinking and visible <= tokens - reported:
        return reported, False
    return observed, abs(observed - reported) > max(_TOLERANCE_TOKENS, _TOLERANCE_SHARE * tokens)
