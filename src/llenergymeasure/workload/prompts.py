"""An experiment's workload: from its data set to requests in batch order.

The order never changes which prompts are taken: studies that sweep it compare the same work.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from llenergymeasure.config.experiment import (
    SYNTHETIC,
    ChatConfig,
    DatasetOrder,
    ExperimentConfig,
    SyntheticDataset,
)
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.arrivals import recorded_trace
from llenergymeasure.workload.datasets.files import READERS, read_file
from llenergymeasure.workload.datasets.hub import is_hub_name, read_hub
from llenergymeasure.workload.datasets.record import Dataset, Record
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.random_draws import choose_tokens
from llenergymeasure.workload.requests import Request, Workload, prompt_hash
from llenergymeasure.workload.tokens import Tokenizer, ordinary_token_ids
from llenergymeasure.workload.traffic_prompts import TrafficPrompts

_DATE_NOTE = (
    "the chat template can write the day's date into prompts, which then differ from day to day; "
    "chat.arguments may set it (date_string in Llama's)"
)


def build_workload(config: ExperimentConfig) -> Workload:
    """Return the requests of an experiment; the same for the same configuration everywhere.

    Synthetic prompts have the lengths the data set gives. Others are cut to
    ``max_input_tokens`` (their beginning is kept; with ``chat`` the last message is cut, and
    the template stays complete) and ask for ``max_output_tokens``.

    Raises:
        ConfigurationError: the data set or a row of it cannot be used.
        BackendError: the model's tokenizer or a data set on the hub cannot be fetched.
    """
    if config.serving is not None:
        return traffic_prompts(config).workload(config.n)
    return _batch_workload(config)


def traffic_prompts(
    config: ExperimentConfig, content_seed: int | None = None, *, server_persists: bool = False
) -> TrafficPrompts:
    """Return what makes the requests of an experiment's traffic.

    Without a section ``serving`` they are the requests of its batches, in their order.

    Args:
        config: the experiment, as drawn in its cycle.
        content_seed: of what prompts say, see :class:`TrafficPrompts`.
        server_persists: likewise.

    Raises:
        ConfigurationError: the data set, a row of it, or the trace cannot be used.
        BackendError: the model's tokenizer or a data set on the hub cannot be fetched.
    """
    is_synthetic = config.serving is not None and config.synthetic() is not None
    workload = None if is_synthetic else _batch_workload(config)
    return TrafficPrompts(config, workload, content_seed, server_persists=server_persists)


def check_files(configs: Iterable[ExperimentConfig]) -> list[str]:
    """Read every file of prompts and every trace that experiments name.

    Returns:
        What of the files' rows is not asked, or asked again, as sentences.

    Raises:
        ConfigurationError: one cannot be used; runs would find that out one by one.
    """
    counts: dict[str, int] = {}
    for config in configs:
        recorded_trace(config)
        name = config.dataset
        if isinstance(name, str) and name != SYNTHETIC and not _is_on_hub(name):
            counts[name] = max(counts.get(name, 0), 0 if config.served else config.n)
    notes: list[str] = []
    for name, count in sorted(counts.items()):
        dataset = read_dataset(name)
        notes += (*dataset.notes, *_cycle_notes(name, len(dataset), count))
    return notes


def _batch_workload(config: ExperimentConfig) -> Workload:
    synthetic = config.synthetic()
    if synthetic is not None:
        return _synthetic(config, synthetic)
    return _from_texts(config, str(config.dataset))


def read_dataset(name: str) -> Dataset:
    """Return the prompts of a data set by its name: a local file or folder, or an id on the hub.

    Raises:
        ConfigurationError: the name means nothing, or a row cannot be used.
        BackendError: a data set on the hub cannot be fetched.
    """
    path = Path(name).expanduser()
    if _is_file(path):
        return read_file(path)
    if not _is_on_hub(name):
        raise ConfigurationError(
            Problem(
                f"neither synthetic, nor aienergyscore, nor a file ({', '.join(READERS)}), nor "
                "an id on the hub (owner/name)",
                key="dataset",
                found=name,
            )
        )
    return read_hub(name)


def _is_on_hub(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_dir() or (is_hub_name(name) and not _is_file(path))


def _is_file(path: Path) -> bool:
    return (path.exists() and not path.is_dir()) or path.suffix.lower() in READERS


def _synthetic(config: ExperimentConfig, dataset: SyntheticDataset) -> Workload:
    """Return the requests of prompts made from a seed: exact lengths, no download, no tokenizer.

    A prompt depends on the seed, its place and the length, not on how many there are. Only the
    generator's raw stream is taken: NumPy keeps it the same in every release, its distributions
    not (NEP 19), and every engine's own process must get the same prompts.
    """
    token_ids = ordinary_token_ids(resolve_model(config))
    count = dataset.n or config.n
    bits = np.random.PCG64(dataset.seed)
    distinct = [choose_tokens(bits.random_raw(dataset.input_len), token_ids) for _ in range(count)]
    shared = distinct[0][: dataset.shared_prefix_len or 0]
    prompts = [shared + prompt[len(shared) :] for prompt in distinct]
    # All are of one length and one source: no order but shuffled differs from the one made.
    records = [Record(row, "synthetic") for row in range(1, count + 1)]
    return _workload(config, records, prompts, dataset.output_len, ())


def _from_texts(config: ExperimentConfig, name: str) -> Workload:
    available, max_tokens = read_dataset(name), config.max_input_tokens
    records = [_as_chat(record, config.chat) for record in interleave(available)[: config.n]]
    tokenizer = Tokenizer(config)
    encoded = tokenizer.encode(records)
    for record, ids in zip(records, encoded, strict=True):
        if not ids:
            raise ConfigurationError(
                Problem(f"row {record.row} of {name} has no tokens", key="dataset")
            )
    template = tokenizer.template if any(record.messages for record in records) else None
    prompts = [tuple(ids[:max_tokens]) for ids in encoded]
    needs_messages = config.serving is not None and config.serving.endpoint == "chat"
    for index, ids in enumerate(encoded):
        if len(ids) > max_tokens and records[index].messages:
            if config.chat is None and not needs_messages:
                records[index] = replace(records[index], messages=())  # no whole chat any more
            else:
                records[index], prompts[index] = tokenizer.shorten(records[index], max_tokens)
    notes = [*available.notes, *_cycle_notes(name, len(available), config.n)]
    cut_tokens = sum(map(len, encoded)) - sum(map(len, prompts))
    if cut_tokens:
        notes.append(f"prompts were cut to {max_tokens} tokens, by {cut_tokens} in all")
    if template is not None and "strftime_now" in template:
        notes.append(_DATE_NOTE)
    indices = [index % len(records) for index in range(config.n)]
    records = [records[index] for index in indices]
    prompts = [prompts[index] for index in indices]
    workload = _workload(config, records, prompts, config.max_output_tokens, tuple(notes))
    template_sha256 = None if template is None else hashlib.sha256(template.encode()).hexdigest()
    return replace(workload, template_sha256=template_sha256)


def _as_chat(record: Record, chat: ChatConfig | None) -> Record:
    """Return a prompt as the chat it is to be; as it stands where the study asks for none."""
    if chat is None or not chat.templated:
        return record
    messages = record.messages or ({"role": "user", "content": record.text},)
    if chat.system is not None and messages[0]["role"] not in ("system", "developer"):
        messages = ({"role": "system", "content": chat.system}, *messages)
    return replace(record, text="", messages=messages)


def _cycle_notes(name: str, available: int, n: int) -> list[str]:
    if available >= n:
        return []
    return [f"{name} holds {available} prompts; they are cycled to make {n}"]


def _workload(
    config: ExperimentConfig,
    records: Sequence[Record],
    prompts: list[tuple[int, ...]],
    output_len: int,
    notes: tuple[str, ...],
) -> Workload:
    lengths = [len(prompt) for prompt in prompts]
    positions = order_positions(records, lengths, config.dataset_order, config.random_seed)
    requests = tuple(
        Request(index, prompts[position], output_len, records[position].messages)
        for index, position in enumerate(positions)
    )
    return Workload(requests, prompt_hash(requests), notes)


def interleave(records: Sequence[Record]) -> list[Record]:
    """Return the first of each source, then the second of each, and so on."""
    by_source: dict[str, list[Record]] = {}
    for record in records:
        by_source.setdefault(record.source, []).append(record)
    rounds = zip_longest(*by_source.values())
    return [record for turn in rounds for record in turn if record is not None]


def order_positions(
    records: Sequence[Record], lengths: Sequence[int], order: DatasetOrder, seed: int
) -> list[int]:
    """Return the positions of ``records`` in the wanted order.

    - ``interleaved``: sources take turns (as :func:`interleave` left them);
    - ``grouped``: source after source, in the order in which they first come;
    - ``shuffled``: at random, by ``seed``;
    - ``given``: by row of the data set;
    - ``length``: by rising number of tokens, so that batches hold little padding.
    """
    positions = list(range(len(records)))
    if order == "interleaved":
        return positions
    if order == "shuffled":
        # By random keys from the raw stream, which NumPy keeps the same in every release.
        keys = np.random.PCG64(seed).random_raw(len(positions)).tolist()
        return sorted(positions, key=lambda position: keys[position])
    if order == "length":
        return sorted(positions, key=lambda position: lengths[position])
    if order == "given":
        return sorted(positions, key=lambda position: records[position].row)
    sources = dict.fromkeys(record.source for record in records)
    ranks = {source: rank for rank, source in enumerate(sources)}
    return sorted(positions, key=lambda position: ranks[records[position].source])
