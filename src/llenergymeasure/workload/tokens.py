"""From texts to token ids with the model's own tokenizer, and which ids are ordinary text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.config.experiment import OWN_TEMPLATE, ChatConfig, ExperimentConfig
from llenergymeasure.errors import BackendError, ConfigurationError, Problem
from llenergymeasure.files import TEXT_LIMIT_BYTES, lfs_pointer_problem, read_bytes
from llenergymeasure.installation import install_command
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.models.hub import cached_file
from llenergymeasure.workload.models.known import known_architecture
from llenergymeasure.workload.models.resolve import HUB_ID, ModelSource, model_json, resolve_model
from llenergymeasure.workload.thinking import ThinkingMarks


def ordinary_token_ids(source: ModelSource) -> NDArray[np.int64]:
    """Return the ids a synthetic prompt is drawn from: valid, and none of them special.

    Taken from the table of known architectures; else from the configuration's vocabulary, less
    the special tokens that the configuration and the tokenizer's files name.

    Raises:
        BackendError: the model's configuration does not give its vocabulary.
    """
    config = source.config.get("text_config") or source.config
    size = config.get("vocab_size")
    shapes = [source.architecture, None if source.folder else known_architecture(source.name)]
    text_range = next((shape.text_tokens for shape in shapes if shape and shape.text_tokens), None)
    # A checkpoint under a known name may be another: its own vocabulary counts.
    if text_range is not None and not (isinstance(size, int) and size < text_range[1]):
        return np.arange(*text_range, dtype=np.int64)
    if not isinstance(size, int) or size < 1:
        raise BackendError(f"model {source.name}: its config.json gives no vocab_size")
    tokenizer = _read_json(source, "tokenizer.json")
    special_ids = set(_ids_in(config.get(f"{kind}_token_id") for kind in ("bos", "eos", "pad")))
    if tokenizer is not None:
        added_tokens = tokenizer.get("added_tokens") or []
        special_ids |= set(_ids_in(token.get("id") for token in added_tokens))
        size = min(size, _vocabulary_size(tokenizer, size))
    ids = np.arange(size, dtype=np.int64)
    ids = ids[~np.isin(ids, list(special_ids))]
    if ids.size == 0:
        raise BackendError(f"model {source.name}: its vocabulary holds special tokens alone")
    return ids


def thinking_marks(source: ModelSource) -> ThinkingMarks | None:
    """Return the tokens that begin and end a model's thought; None where it has none."""
    added_tokens = (_read_json(source, "tokenizer.json") or {}).get("added_tokens") or []
    ids = {str(token.get("content")): int(token["id"]) for token in added_tokens}
    return ThinkingMarks.from_vocabulary(ids)


def eos_token_ids(source: ModelSource) -> list[int]:
    """Return the ids that end a sequence: as the checkpoint's generation settings name them.

    Raises:
        BackendError: these cannot be read.
    """
    settings = _read_json(source, "generation_config.json") or {}
    # Checkpoints of several modalities name them next to the text model's settings, or in them.
    for section in (settings, source.config, source.config.get("text_config") or {}):
        if section.get("eos_token_id") is not None:
            return list(_ids_in([section["eos_token_id"]]))
    return []


def has_tokenizer(source: ModelSource) -> bool:
    """Whether a model has a tokenizer; one on the hub is taken to have one."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    folder = source.folder
    return folder is None or any((folder / name).is_file() for name in names)


class Tokenizer:
    """A model's own tokenizer, and the chat template: its own unless another is given."""

    def __init__(self, config: ExperimentConfig) -> None:
        """Load that of an experiment's model."""
        source = resolve_model(config)
        trusted = bool(config.pytorch and config.pytorch.trust_remote_code)
        self._model, self._chat_config = source.name, config.chat or ChatConfig()
        location = source.location
        if source.random and not has_tokenizer(source):
            if "/" not in source.name or not HUB_ID.fullmatch(source.name):
                raise ConfigurationError(
                    Problem(
                        "the architecture alone has no tokenizer to read texts with; use "
                        "dataset: synthetic, or the model's full id on the hub",
                        key="dataset",
                        found=source.name,
                    )
                )
            location = source.name
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise BackendError(
                "prompts that are text need the transformers package: "
                f"{install_command('pytorch')}; or use dataset: synthetic"
            ) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                location, revision=source.revision, trust_remote_code=trusted
            )
        except Exception as error:
            # Its libraries raise bare exceptions for a file of a later version of themselves.
            reason = f"{error}; the model may need newer packages tokenizers and transformers"
            for path in () if source.folder is None else source.folder.glob("*token*"):
                if (pointer := lfs_pointer_problem(path)) is not None:
                    reason = f"{path.name} {pointer}"
            raise BackendError(
                f"model {source.name}: its tokenizer cannot be loaded: {reason}"
            ) from error

    def encode(self, records: Sequence[Record]) -> list[list[int]]:
        """Return the token ids of each prompt; chats go through the chat template.

        Raises:
            ConfigurationError: a chat comes and the model has no template, or refuses it.
        """
        texts = [record.text for record in records if not record.messages]
        plain: Iterator[list[int]] = iter(())
        if texts:
            plain = iter(self._tokenizer(texts, verbose=False)["input_ids"])
        return [self._chat(record) if record.messages else next(plain) for record in records]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids; encoded again it may have other tokens."""
        text: str = self._tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)
        return text

    def bare_text(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids without the beginning that encoding adds by itself."""
        length = len(self._prefix_ids)
        has_prefix = tuple(token_ids[:length]) == self._prefix_ids
        return self.decode(token_ids[length if has_prefix else 0 :])

    @cached_property
    def _prefix_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before each text."""
        ids = self._tokenizer("a", add_special_tokens=True)["input_ids"]
        bare_ids = self._tokenizer("a", add_special_tokens=False)["input_ids"]
        for length in range(len(ids) - len(bare_ids) + 1):
            if ids[length : length + len(bare_ids)] == bare_ids:
                return tuple(ids[:length])
        return ()

    @cached_property
    def template(self) -> str | None:
        """The chat template in force; None where the model has none, or the study wants none."""
        if not self._chat_config.templated:
            return None
        if self._chat_config.template != OWN_TEMPLATE:
            return _template_file(self._chat_config.template)
        templates = self._tokenizer.chat_template
        template: str | None = (
            templates.get("default") if isinstance(templates, dict) else templates
        )
        return template or None

    def shorten(self, record: Record, max_tokens: int) -> tuple[Record, tuple[int, ...]]:
        """Return a chat whose last message is cut so that all of it takes ``max_tokens`` tokens.

        Raises:
            ConfigurationError: the template and the other messages alone take more.
        """
        *earlier, last = record.messages
        encoded = self._tokenizer(last["content"], add_special_tokens=False, verbose=False)
        content, limit = list(encoded["input_ids"]), max_tokens
        while True:
            # Half a character at the end would take more tokens than it had.
            text = self.decode(content[:limit]).rstrip("\ufffd")
            record = replace(record, messages=(*earlier, {**last, "content": text}))
            ids = self._chat(record)
            if len(ids) <= max_tokens:
                return record, tuple(ids)
            limit = min(limit, len(content)) - (len(ids) - max_tokens)
            if limit < 1:
                tokens = max_tokens - limit
                text = f"row {record.row}: its chat without its last message takes {tokens} tokens"
                raise ConfigurationError(Problem(text, "max_input_tokens", str(max_tokens)))

    def _chat(self, record: Record) -> list[int]:
        if self.template is None:
            text = (
                f"row {record.row} is to be asked as a chat, and there is no chat template for "
                f"{self._model} (base models have none); give one (chat.template: FILE), or plain "
                "texts without chat"
            )
            raise ConfigurationError(Problem(text, key="chat.template"))
        try:
            ids = self._tokenizer.apply_chat_template(
                [dict(message) for message in record.messages],
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
                **(self._chat_config.arguments or {}),
            )
        except Exception as error:
            # A template is a program of the model's author: it raises what it likes.
            raise ConfigurationError(
                Problem(f"row {record.row}: the model's chat template refused it: {error}")
            ) from error
        return list(ids)


def _template_file(name: str) -> str:
    try:
        return read_bytes(Path(name).expanduser(), TEXT_LIMIT_BYTES).decode()
    except (OSError, ValueError) as error:
        problem = Problem(f"cannot be read: {error}", key="chat.template", found=name)
        raise ConfigurationError(problem) from error


def _read_json(source: ModelSource, name: str) -> Mapping[str, Any] | None:
    """Return one of the JSON files of a model; None where it is not here."""
    folder = source.folder
    path = folder / name if folder else cached_file(source.name, name, source.revision)
    if path is None or not path.is_file():
        return None
    content = model_json(path)
    return content if isinstance(content, Mapping) else None


def _vocabulary_size(tokenizer: Mapping[str, Any], otherwise: int) -> int:
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    return len(vocabulary) if isinstance(vocabulary, Mapping | list) else otherwise


def _ids_in(values: Any) -> Iterator[int]:
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, int))
