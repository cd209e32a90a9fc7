"""The requests of traffic, each made from the seed and its place: prompts, answers' lengths, turns.

A request is the same whenever and in whatever order it is asked for, on every engine, so that
traffic at different rates asks the same questions. Each cycle has a seed of its own
(``ExperimentConfig.drawn_in``). What no cycle repeats no prefix cache knows: prompts of a data set,
and those sent to a server that lives on, get a mark, a few random tokens in place of their own.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import count as counter
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from llenergymeasure import ids
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import ONE_USER, LengthConfig, ServingConfig
from llenergymeasure.workload.arrivals import recorded_trace
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.draws import Draws, chosen, draw_lengths, within
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request, Workload, prompt_hash
from llenergymeasure.workload.tokens import Tokenizer, ordinary_token_ids

_LENGTHS, _TOKENS, _PREFIX, _CHOICE, _THINK, _MARK = 2, 3, 4, 5, 6, 7
"""Streams of the seed; the first is the arrivals'."""

MARK_TOKENS = 4
"""Makes a prompt differ from the same one sent before; a vocabulary has over 2**32 of so many."""


@dataclass(frozen=True)
class Turn:
    """A request and its place in a conversation, both from 0.

    ``shared_tokens`` of its prompt may be in a prefix cache: the traffic shares them. The whole
    conversation has ``turns``.
    """

    request: Request
    conversation: int
    turn: int
    shared_tokens: int = 0
    turns: int = 1


def content_seed(config: ExperimentConfig, cycle: int, experiment: str | None = None) -> int:
    """Return the seed of what a cycle's prompts say; one of its own on a server that lives on.

    Args:
        config: the experiment.
        cycle: which.
        experiment: its id, where one server is asked by several experiments.
    """
    if config.serving is not None and config.serving.cached_prompts:
        return config.random_seed
    if config.external_server:
        return secrets.randbits(63)
    seed = config.drawn_in(cycle).random_seed
    if experiment is None:
        return seed
    return int(ids.digest({"content_seed": seed, "experiment": experiment}), 16) % 2**63


class TrafficPrompts:
    """Makes the requests of an experiment's traffic.

    Args:
        config: the experiment, as drawn in its cycle.
        workload: the requests of its data set, where prompts come from one; they are cycled.
        content_seed: of what prompts say, see :func:`content_seed`; None says what the workload
            says everywhere, without marks.
        lives_on: whether the server may know the data set's prompts from before this run.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workload: Workload | None = None,
        content_seed: int | None = None,
        *,
        lives_on: bool = False,
    ) -> None:
        self.serving: ServingConfig = config.serving or ONE_USER
        self.seed = config.random_seed
        self.content_seed = self.seed if content_seed is None else content_seed
        self._config = config
        marked = content_seed is not None and not self.serving.cached_prompts
        known = lives_on or config.external_server
        self._first_marked = (0 if known else 1) if marked else None
        self.trace = recorded_trace(config)
        self._workload = workload
        self._input, self._output = self._lengths(config)
        sessions = None if workload is not None or self.serving.turns else self.trace
        sessions = sessions if sessions is not None and sessions.has_sessions else None
        own = self._input.distribution == self._output.distribution == "data"
        self._replays = own and (self.serving.arrivals == "trace" or sessions is not None)
        self._sessions = sessions if own else None
        """The trace whose sessions are replayed."""
        synthetic = config.synthetic()
        self._shared_tokens = (synthetic and synthetic.shared_prefix_len) or 0
        self._prefixes: dict[int, tuple[int, ...]] = {}
        self._markable_spans: dict[int, tuple[int, int]] = {}

    def turns(self, conversation: int) -> int:
        """Return the requests in a conversation."""
        if self._sessions is not None:
            return self._sessions.turns(conversation)
        return self.serving.turns or 1

    def _index(self, conversation: int) -> int:
        """Return the place of a conversation's first request among all requests."""
        if self._sessions is not None:
            return self._sessions.first(conversation)
        return conversation * (self.serving.turns or 1)

    def turn(self, conversation: int, turn: int = 0) -> Turn:
        """Return the request that is turn ``turn`` of a conversation.

        Its prompt holds all that went before, or as much of that as a trace's prompt had. The
        earlier answers in it are made up, of the length that was asked for: what an engine really
        said differs between engines, and the work must not.
        """
        prompt: list[int] = []
        first = self._index(conversation)
        for index in range(first, first + turn):
            answer = self._extend(prompt, index, conversation)
            prompt += self._drawn(_TOKENS, index, answer, answer_part=True)
        before = len(prompt)
        answer = self._extend(prompt, first + turn, conversation)
        request = Request(first + turn, tuple(prompt), answer, self._messages(first))
        shared = min(before, len(prompt))
        if not before:
            shared = self._shared(len(prompt)) if self._workload is None else self._head
        return Turn(request, conversation, turn, shared, self.turns(conversation))

    def _extend(self, history: list[int], index: int, conversation: int) -> int:
        """Make what went before a request its prompt; return the length of its answer."""
        asked, answer = self._lengths_of(index)
        if self._sessions is not None:  # lengths are of whole prompts
            del history[asked:]
            asked -= len(history)
        history += self._new_tokens(index, conversation, asked, follows=bool(history))
        return answer

    def think_s(self, conversation: int, turn: int) -> float:
        """Return the pause before a turn, in seconds.

        A trace's own; else exponential, as people's are modelled.
        """
        if self._sessions is not None and turn:
            row = (self._index(conversation) + turn) % len(self._sessions)
            return float(self._sessions.gap_s[row])
        mean_s = self.serving.think_seconds or 0.0
        if mean_s == 0:
            return 0.0
        draws = Draws(self.seed, _THINK, self._index(conversation) + turn)
        return mean_s * float(draws.exponential(1)[0])

    def workload(self, count: int) -> Workload:
        """Return the first ``count`` requests, which stand for all: they name the sequence."""
        places = ((number, turn) for number in counter() for turn in range(self.turns(number)))
        requests = tuple(self.turn(*place).request for place in islice(places, count))
        template = None if self._workload is None else self._workload.template_sha256
        hashed = prompt_hash(requests)
        return Workload(requests, hashed, self._notes(), template, self._longest_of_trace())

    def _longest_of_trace(self) -> int:
        if self._sessions is None:
            return 0
        asked, answered = self._sessions.input_tokens, self._sessions.output_tokens
        longest = within(asked, self._input) + within(answered, self._output)
        return int(longest.max())

    def short_of_the_trace(self, sent: Sequence[Turn]) -> tuple[str, ...]:
        """Return a note if none of the requests of a replay's window ends its session."""
        if self._sessions is None or not sent or any(one.turn == one.turns - 1 for one in sent):
            return ()
        mean = np.mean([len(one.request.prompt_token_ids) for one in sent])
        whole = np.mean(within(self._sessions.input_tokens, self._input))
        return (
            f"no session of the trace ended in the window: its prompts had {mean:.0f} tokens on "
            f"average, the trace's {whole:.0f}; settings of another speed reach other turns, so "
            "their energies per request or token are not of the same work",
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [] if self._workload is None else list(self._workload.notes)
        if self._workload is not None:
            notes.append("prompts come from the data set in turn, and again once all were sent")
            if not self.serving.cached_prompts:
                notes.append(
                    f"what a prefix cache could know of them has {MARK_TOKENS} random tokens in "
                    "place of its first; serving.cached_prompts leaves them as they are"
                )
        if self.serving.endpoint == "chat":
            notes.append("prompts are sent as messages, which the server's own template renders")
        if self.trace is not None:
            sessions = len(self.trace.offset_s)
            within = f" in {sessions} sessions that begin" if self.trace.has_sessions else ""
            notes.append(
                f"the trace has {len(self.trace)} requests{within} over "
                f"{self.trace.offset_s[-1]:.6g} s; {self.trace.unanswered} more had no answer and "
                "are left out"
            )
        return tuple(notes)

    def _lengths(self, config: ExperimentConfig) -> tuple[LengthConfig, LengthConfig]:
        serving = self.serving
        recorded = LengthConfig(distribution="data") if serving.arrivals == "trace" else None
        synthetic = config.synthetic()
        asked = synthetic.input_len if synthetic else config.max_input_tokens
        answer = synthetic.output_len if synthetic else config.max_output_tokens
        return (
            serving.input_tokens or recorded or LengthConfig(tokens=asked),
            serving.output_tokens or recorded or LengthConfig(tokens=answer),
        )

    def _lengths_of(self, index: int) -> tuple[int, int]:
        draws = Draws(self.seed, _LENGTHS, index)
        row = index if self._replays else None
        return draw_lengths(self._input, self._output, draws, self.trace, row)

    def _new_tokens(
        self, index: int, conversation: int, asked: int, *, follows: bool
    ) -> tuple[int, ...]:
        """Return what a turn adds; a conversation's first begins with the shared prefix."""
        if self._workload is not None:
            requests = self._workload.requests
            prompt = requests[index % len(requests)].prompt_token_ids
            mark = () if follows else self._mark(index)
            start, end = self._markable(index % len(requests)) if mark else (0, 0)
            mark = mark[: max(0, end - start)]
            return prompt[:start] + mark + prompt[start + len(mark) :]
        shared = 0 if follows else self._shared(asked)
        own = self._drawn(_TOKENS, index, asked - shared)
        return self._prefix(conversation, shared) + own

    def _messages(self, index: int) -> tuple[Mapping[str, str], ...]:
        """Return the chat that a request is; none where turns are joined as token ids."""
        if self._workload is None or self.serving.turns is not None:
            return ()
        messages = self._workload.requests[index % len(self._workload.requests)].messages
        mark = self._mark(index)
        if not mark or not messages:
            return messages
        place = self._marked_message(messages)
        said, at = messages[place]["content"], self._common[1]
        return _saying(messages, place, f"{said[:at]}{mark[0]} {mark[1]} {said[at:]}")

    def _marked_message(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return which message holds a chat's mark: the first after those all begin with."""
        return min(self._common[0], len(messages) - 1)

    def _markable(self, place: int) -> tuple[int, int]:
        """Return from where to where a prompt of the data set may hold a mark.

        Not in what all begin with, and not where a chat's template or a tokenizer has put tokens.
        """
        if place not in self._markable_spans:
            start, end = self._own_words(place)
            span = max(start, self._head) if self._head < end else start, end
            self._markable_spans[place] = span
        return self._markable_spans[place]

    def _own_words(self, place: int) -> tuple[int, int]:
        assert self._workload is not None
        request = self._workload.requests[place]
        prompt, messages = request.prompt_token_ids, request.messages
        if not messages:
            ordinary = (at for at, token in enumerate(prompt) if token in self._ordinary)
            return next(ordinary, len(prompt)), len(prompt)
        marked = self._marked_message(messages)
        other = _saying(messages, marked, "1" if "0" in messages[marked]["content"] else "0")
        (ids,) = self._tokenizer.encode([Record(1, "", messages=other)])
        start = _alike(prompt, ids)
        return start, len(prompt) - _alike(prompt[start:][::-1], ids[start:][::-1])

    def _mark(self, index: int) -> tuple[int, ...]:
        """Return what makes a data set's prompt differ from the one sent before; often nothing.

        Prompts that begin alike get the same mark, and no others do: a prefix cache knows as much
        of them as it would without marks.
        """
        around, place = divmod(index, len(self._earlier))
        times = around * self._copies[place] + self._earlier[place]
        if self._first_marked is None or times < self._first_marked:
            return ()
        replaced = self._prompts[place][self._head : self._head + MARK_TOKENS]
        number = reduce(lambda known, token: known << 32 | token, replaced, times)
        raw = Draws(self.content_seed, _MARK, number).raw(MARK_TOKENS)
        return chosen(raw, self._ordinary)

    @cached_property
    def _ordinary(self) -> NDArray[np.int64]:
        return ordinary_token_ids(resolve_model(self._config))

    @cached_property
    def _common(self) -> tuple[int, int]:
        """How many messages all chats begin with, and how many characters of words the next."""
        assert self._workload is not None
        chats = [each.messages for each in self._workload.requests if each.messages]
        messages = min(_alike(chats[0], each) for each in chats)
        following = [each[min(messages, len(each) - 1)] for each in chats]
        said = [each["content"] for each in following]
        if len(set(said)) == 1 or len({each["role"] for each in following}) > 1:
            return messages, 0
        return messages, said[0].rfind(" ", 0, min(_alike(said[0], each) for each in said)) + 1

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._config)

    @cached_property
    def _earlier(self) -> list[int]:
        """How often each prompt of the data set is in it before."""
        seen: Counter[tuple[int, ...]] = Counter()
        earlier = []
        for prompt in self._prompts:
            earlier.append(seen[prompt])
            seen[prompt] += 1
        return earlier

    @cached_property
    def _copies(self) -> list[int]:
        """How often each prompt of the data set is in it."""
        copies = Counter(self._prompts)
        return [copies[prompt] for prompt in self._prompts]

    @cached_property
    def _prompts(self) -> list[tuple[int, ...]]:
        assert self._workload is not None
        return [request.prompt_token_ids for request in self._workload.requests]

    @cached_property
    def _head(self) -> int:
        """How many tokens all prompts of the data set begin with: a template's, a system's."""
        least, most = min(self._prompts), max(self._prompts)  # all others lie between the two
        return self._own_words(0)[0] if least == most else _alike(least, most)

    def _shared(self, asked: int) -> int:
        """Return how many tokens of a first prompt are shared: by ratio, else the data set's."""
        ratio = self.serving.shared_prefix_ratio
        return min(self._shared_tokens, asked) if ratio is None else round(ratio * asked)

    def _prefix(self, conversation: int, tokens: int) -> tuple[int, ...]:
        if tokens == 0:
            return ()
        choice = float(Draws(self.seed, _CHOICE, conversation).uniform(1)[0])
        number = int(choice * (self.serving.shared_prefixes or 1))
        known = self._prefixes.get(number, ())
        if len(known) < tokens:
            # Longer prefixes begin with the shorter ones: the stream is the same.
            known = self._prefixes[number] = self._drawn(_PREFIX, number, tokens)
        return known[:tokens]

    def _drawn(
        self, stream: int, index: int, count: int, *, answer_part: bool = False
    ) -> tuple[int, ...]:
        """Return ordinary tokens; of a data set's prompts, words for made-up answers."""
        if self._workload is not None:
            words = self._prompts[index % len(self._prompts)]
            return (words * (count // len(words) + 1))[:count]
        raw = Draws(self.content_seed, stream + (100 if answer_part else 0), index).raw(count)
        return chosen(raw, self._ordinary)


def _saying(
    messages: tuple[Mapping[str, str], ...], place: int, content: str
) -> tuple[Mapping[str, str], ...]:
    """Return a chat in which one message says something else."""
    return (*messages[:place], {**messages[place], "content": content}, *messages[place + 1 :])


def _alike(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many tokens, or messages, two begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
