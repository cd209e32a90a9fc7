"""The requests of traffic, each made from the seed and its place: prompts, answers' lengths, turns.

A request is the same whenever and in whatever order it is asked for, on every engine, so that
traffic at different rates asks the same questions. Each cycle has a seed of its own
(``ExperimentConfig.with_cycle_seed``). What no cycle repeats no prefix cache knows: prompts of a
data set, and those sent to a server that lives on, get a mark, a few random tokens in place of
their own.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count as counter
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from llenergymeasure import ids
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import ONE_USER, LengthConfig, ServingConfig
from llenergymeasure.workload.arrivals import recorded_trace
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.random_draws import Draws, choose_tokens, clip_lengths, draw_lengths
from llenergymeasure.workload.requests import Request, Workload, prompt_hash
from llenergymeasure.workload.tokens import Tokenizer, ordinary_token_ids

_LENGTHS, _PROMPTS, _PREFIXES, _PREFIX_CHOICE, _THINKING, _MARKS, _ANSWERS = 2, 3, 4, 5, 6, 7, 103
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
    seed = config.with_cycle_seed(cycle).random_seed
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
        server_persists: whether the server may know the data set's prompts from before this run.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workload: Workload | None = None,
        content_seed: int | None = None,
        *,
        server_persists: bool = False,
    ) -> None:
        self.serving: ServingConfig = config.serving or ONE_USER
        self.seed = config.random_seed
        self.content_seed = self.seed if content_seed is None else content_seed
        self._config = config
        self._first_marked: int | None = None
        if content_seed is not None and not self.serving.cached_prompts:
            self._first_marked = 0 if server_persists or config.external_server else 1
        self.trace = recorded_trace(config)
        self._workload = workload
        self._input, self._output = self._length_configs(config)
        from_trace = self._input.distribution == self._output.distribution == "data"
        has_sessions = self.trace is not None and self.trace.has_sessions
        in_sessions = from_trace and has_sessions and workload is None and not self.serving.turns
        self._replays = from_trace and (self.serving.arrivals == "trace" or in_sessions)
        self._sessions = self.trace if in_sessions else None
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

    def _first_index(self, conversation: int) -> int:
        """Return the place of a conversation's first request among all requests."""
        if self._sessions is not None:
            return self._sessions.first_request(conversation)
        return conversation * (self.serving.turns or 1)

    def turn(self, conversation: int, turn: int = 0) -> Turn:
        """Return the request that is turn ``turn`` of a conversation.

        Its prompt holds all that went before, or as much of that as a trace's prompt had. The
        earlier answers in it are made up, of the length that was asked for: what an engine really
        said differs between engines, and the work must not.
        """
        prompt: list[int] = []
        first = self._first_index(conversation)
        for index in range(first, first + turn):
            answer = self._extend(prompt, index, conversation)
            prompt += self._draw_tokens(_ANSWERS, index, answer)
        history_tokens = len(prompt)
        answer = self._extend(prompt, first + turn, conversation)
        request = Request(first + turn, tuple(prompt), answer, self._messages(first))
        if history_tokens:
            shared = min(history_tokens, len(prompt))
        elif self._workload is None:
            shared = self._shared_length(len(prompt))
        else:
            shared = self._common_tokens
        return Turn(request, conversation, turn, shared, self.turns(conversation))

    def _extend(self, history: list[int], index: int, conversation: int) -> int:
        """Make what went before a request its prompt; return the length of its answer."""
        input_tokens, output_tokens = self._draw_lengths(index)
        if self._sessions is not None:  # lengths are of whole prompts
            del history[input_tokens:]
            input_tokens -= len(history)
        history += self._new_tokens(index, conversation, input_tokens, follows=bool(history))
        return output_tokens

    def think_s(self, conversation: int, turn: int) -> float:
        """Return the pause before a turn, in seconds.

        A trace's own; else exponential, as people's are modelled.
        """
        if self._sessions is not None and turn:
            row = (self._first_index(conversation) + turn) % len(self._sessions)
            return float(self._sessions.gap_s[row])
        mean_s = self.serving.think_seconds or 0.0
        if mean_s == 0:
            return 0.0
        draws = Draws(self.seed, _THINKING, self._first_index(conversation) + turn)
        return mean_s * float(draws.exponential(1)[0])

    def workload(self, count: int) -> Workload:
        """Return the first ``count`` requests, which stand for all: they name the sequence."""
        turns = ((number, turn) for number in counter() for turn in range(self.turns(number)))
        requests = tuple(self.turn(*turn).request for turn in islice(turns, count))
        template = None if self._workload is None else self._workload.template_sha256
        digest = prompt_hash(requests)
        return Workload(requests, digest, self._notes(), template, self._longest_in_trace())

    def _longest_in_trace(self) -> int:
        if self._sessions is None:
            return 0
        inputs, outputs = self._sessions.input_tokens, self._sessions.output_tokens
        longest = clip_lengths(inputs, self._input) + clip_lengths(outputs, self._output)
        return int(longest.max())

    def unended_sessions_note(self, turns: Sequence[Turn]) -> tuple[str, ...]:
        """Return a note if none of the requests of a replay's window ends its session."""
        if self._sessions is None or not turns:
            return ()
        if any(turn.turn == turn.turns - 1 for turn in turns):
            return ()
        mean = np.mean([len(turn.request.prompt_token_ids) for turn in turns])
        trace_mean = np.mean(clip_lengths(self._sessions.input_tokens, self._input))
        return (
            f"no session of the trace ended in the window: its prompts had {mean:.0f} tokens on "
            f"average, the trace's {trace_mean:.0f}; settings of another speed reach other turns, "
            "so their energies per request or token are not of the same work",
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
            grouping = f" in {sessions} sessions that begin" if self.trace.has_sessions else ""
            notes.append(
                f"the trace has {len(self.trace)} requests{grouping} over "
                f"{self.trace.offset_s[-1]:.6g} s; {self.trace.unanswered} more had no answer and "
                "are left out"
            )
        return tuple(notes)

    def _length_configs(self, config: ExperimentConfig) -> tuple[LengthConfig, LengthConfig]:
        serving = self.serving
        recorded = LengthConfig(distribution="data") if serving.arrivals == "trace" else None
        synthetic = config.synthetic()
        input_tokens = synthetic.input_len if synthetic else config.max_input_tokens
        output_tokens = synthetic.output_len if synthetic else config.max_output_tokens
        return (
            serving.input_tokens or recorded or LengthConfig(tokens=input_tokens),
            serving.output_tokens or recorded or LengthConfig(tokens=output_tokens),
        )

    def _draw_lengths(self, index: int) -> tuple[int, int]:
        draws = Draws(self.seed, _LENGTHS, index)
        row = index if self._replays else None
        return draw_lengths(self._input, self._output, draws, self.trace, row)

    def _new_tokens(
        self, index: int, conversation: int, input_tokens: int, *, follows: bool
    ) -> tuple[int, ...]:
        """Return what a turn adds; a conversation's first begins with the shared prefix."""
        if self._workload is not None:
            requests = self._workload.requests
            prompt = requests[index % len(requests)].prompt_token_ids
            mark = () if follows else self._mark(index)
            start, end = self._markable_span(index % len(requests)) if mark else (0, 0)
            mark = mark[: max(0, end - start)]
            return prompt[:start] + mark + prompt[start + len(mark) :]
        shared = 0 if follows else self._shared_length(input_tokens)
        fresh = self._draw_tokens(_PROMPTS, index, input_tokens - shared)
        return self._shared_prefix(conversation, shared) + fresh

    def _messages(self, index: int) -> tuple[Mapping[str, str], ...]:
        """Return the chat that a request is; none where turns are joined as token ids."""
        if self._workload is None or self.serving.turns is not None:
            return ()
        messages = self._workload.requests[index % len(self._workload.requests)].messages
        mark = self._mark(index)
        if not mark or not messages:
            return messages
        position = self._marked_message(messages)
        content, split = messages[position]["content"], self._common_start[1]
        marked = f"{content[:split]}{mark[0]} {mark[1]} {content[split:]}"
        return _with_content(messages, position, marked)

    def _marked_message(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Return which message holds a chat's mark: the first after those all begin with."""
        return min(self._common_start[0], len(messages) - 1)

    def _markable_span(self, row: int) -> tuple[int, int]:
        """Return from where to where a prompt of the data set may hold a mark.

        Not in what all begin with, and not where a chat's template or a tokenizer has put tokens.
        """
        if row not in self._markable_spans:
            start, end = self._content_span(row)
            if self._common_tokens < end:
                start = max(start, self._common_tokens)
            self._markable_spans[row] = start, end
        return self._markable_spans[row]

    def _content_span(self, row: int) -> tuple[int, int]:
        assert self._workload is not None
        request = self._workload.requests[row]
        prompt, messages = request.prompt_token_ids, request.messages
        if not messages:
            ordinary = (index for index, token in enumerate(prompt) if token in self._ordinary_ids)
            return next(ordinary, len(prompt)), len(prompt)
        position = self._marked_message(messages)
        digit = "1" if "0" in messages[position]["content"] else "0"
        changed = _with_content(messages, position, digit)
        (ids,) = self._tokenizer.encode([Record(1, "", messages=changed)])
        start = _common_length(prompt, ids)
        return start, len(prompt) - _common_length(prompt[start:][::-1], ids[start:][::-1])

    def _mark(self, index: int) -> tuple[int, ...]:
        """Return what makes a data set's prompt differ from the one sent before; often nothing.

        Prompts that begin alike get the same mark, and no others do: a prefix cache knows as much
        of them as it would without marks.
        """
        rounds, row = divmod(index, len(self._earlier_copies))
        repeats = rounds * self._copies[row] + self._earlier_copies[row]
        if self._first_marked is None or repeats < self._first_marked:
            return ()
        number = repeats
        for token in self._prompts[row][self._common_tokens : self._common_tokens + MARK_TOKENS]:
            number = number << 32 | token
        raw = Draws(self.content_seed, _MARKS, number).raw(MARK_TOKENS)
        return choose_tokens(raw, self._ordinary_ids)

    @cached_property
    def _ordinary_ids(self) -> NDArray[np.int64]:
        return ordinary_token_ids(resolve_model(self._config))

    @cached_property
    def _common_start(self) -> tuple[int, int]:
        """How many messages all chats begin with, and how many characters of words the next."""
        assert self._workload is not None
        requests = self._workload.requests
        chats = [request.messages for request in requests if request.messages]
        if len(chats) < len(requests):  # a plain prompt has no message in common with a chat
            return 0, 0
        if all(chat == chats[0] for chat in chats):
            roles = [message["role"] for message in chats[0]]
            return roles.index("user") if "user" in roles else len(roles) - 1, 0
        messages = min(_common_length(chats[0], chat) for chat in chats)
        following = [chat[min(messages, len(chat) - 1)] for chat in chats]
        contents = [message["content"] for message in following]
        if len(set(contents)) == 1 or len({message["role"] for message in following}) > 1:
            return messages, 0
        characters = min(_common_length(contents[0], content) for content in contents)
        return messages, contents[0].rfind(" ", 0, characters) + 1

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer(self._config)

    @cached_property
    def _earlier_copies(self) -> list[int]:
        """How often each prompt of the data set is in it before."""
        counts: Counter[tuple[int, ...]] = Counter()
        earlier = []
        for prompt in self._prompts:
            earlier.append(counts[prompt])
            counts[prompt] += 1
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
    def _common_tokens(self) -> int:
        """How many tokens all prompts of the data set begin with: a template's, a system's."""
        first, last = min(self._prompts), max(self._prompts)  # all others lie between the two
        return self._content_span(0)[0] if first == last else _common_length(first, last)

    def _shared_length(self, tokens: int) -> int:
        """Return how many tokens of a first prompt are shared: by ratio, else the data set's."""
        ratio = self.serving.shared_prefix_ratio
        return min(self._shared_tokens, tokens) if ratio is None else round(ratio * tokens)

    def _shared_prefix(self, conversation: int, tokens: int) -> tuple[int, ...]:
        if tokens == 0:
            return ()
        choice = float(Draws(self.seed, _PREFIX_CHOICE, conversation).uniform(1)[0])
        number = int(choice * (self.serving.shared_prefixes or 1))
        prefix = self._prefixes.get(number, ())
        if len(prefix) < tokens:
            # Longer prefixes begin with the shorter ones: the stream is the same.
            prefix = self._prefixes[number] = self._draw_tokens(_PREFIXES, number, tokens)
        return prefix[:tokens]

    def _draw_tokens(self, stream: int, index: int, count: int) -> tuple[int, ...]:
        """Return ordinary tokens; of a data set's prompts, words for made-up answers."""
        if self._workload is not None:
            words = self._prompts[index % len(self._prompts)]
            return (words * (count // len(words) + 1))[:count]
        raw = Draws(self.content_seed, stream, index).raw(count)
        return choose_tokens(raw, self._ordinary_ids)


def _with_content(
    messages: tuple[Mapping[str, str], ...], index: int, content: str
) -> tuple[Mapping[str, str], ...]:
    """Return a chat in which one message says something else."""
    return (*messages[:index], {**messages[index], "content": content}, *messages[index + 1 :])


def _common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many tokens, or messages, two begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))
