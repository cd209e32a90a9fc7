"""Texts as chats: through the model's template, a file's, or none, with what a study adds."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Workload
from llenergymeasure.workload.tokens import Tokenizer
from support.checkpoints import changed_model
from support.data_files import put

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[{{ mood | default('plain') }}]{% endif %}"
)
ROWS: list[dict[str, Any]] = [
    {"prompt": "What is energy?"},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
    {
        "messages": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
        ]
    },
]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(put(tmp_path / "prompts.jsonl", ROWS))


@pytest.fixture
def template(tmp_path: Path) -> str:
    path = tmp_path / "template.jinja"
    path.write_text(TEMPLATE)
    return str(path)


def experiment(**values: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "n": 3, **values})


def workload(**values: Any) -> Workload:
    return build_workload(experiment(**values))


def texts(requested: Workload) -> list[str]:
    tokenizer = Tokenizer(experiment())
    return [tokenizer.decode(request.prompt_token_ids) for request in requested.requests]


def model_with(folder: Path, template: str | None) -> str:
    """Return a copy of the tiny model with another chat template, or without one."""
    return str(changed_model(folder, "tokenizer_config.json", chat_template=template))


def test_a_file_s_template_with_a_system_message_and_arguments(data: str, template: str) -> None:
    chat = {"template": template, "system": "Be kind.", "arguments": {"mood": "calm"}}
    chats = workload(dataset=data, dataset_order="given", chat=chat)
    assert texts(chats) == [
        "[system] Be kind.\n[user] What is energy?\n[calm]",
        "[system] Be brief.\n[user] Why?\n[calm]",
        "[system] Be kind.\n[user] One?\n[assistant] Two.\n[user] Three?\n[calm]",
    ]
    assert chats.template_sha256 == hashlib.sha256(TEMPLATE.encode()).hexdigest()


def test_the_model_s_own_template_is_for_plain_prompts_too(data: str) -> None:
    closed: dict[str, Any] = {"serving": {"arrivals": "closed", "concurrency": 1}}
    plain, chatted, traffic = (
        workload(dataset=data, dataset_order="given", **more)
        for more in (dict[str, Any](), {"chat": {}}, {"chat": {}, **closed})
    )
    words = plain.requests[0].prompt_token_ids[1:]
    assert chatted.requests[0].prompt_token_ids == (0, 2, *words, 1, 3)
    # Rows with messages go through it with and without the section, as batches and as traffic.
    assert chatted.requests[1:] == plain.requests[1:]
    assert traffic.requests == chatted.requests
    assert traffic.template_sha256 == chatted.template_sha256 == plain.template_sha256 is not None
    assert traffic.prompt_hash == chatted.prompt_hash != plain.prompt_hash


def test_what_transformers_takes_for_itself_is_no_variable_of_a_template() -> None:
    named = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    own = named.keys() - {"self", "tools", "documents", "kwargs"}
    with pytest.raises(ValueError, match="own: " + ", ".join(sorted({*own, "messages"}))):
        experiment(dataset="x", chat={"arguments": dict.fromkeys({*own, "messages"}, True)})


def test_a_template_s_variables_include_tools(data: str, tmp_path: Path) -> None:
    """Transformers has an argument of that name, and passes it on."""
    path = tmp_path / "tools.jinja"
    path.write_text("{{ tools[0].function.name }}" + TEMPLATE)
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    chat = {"template": str(path), "arguments": {"tools": [tool]}}
    assert all(text.startswith("search[") for text in texts(workload(dataset=data, chat=chat)))


def test_bare_texts_have_no_template_s_hash(tmp_path: Path) -> None:
    data = str(put(tmp_path / "plain.jsonl", ROWS[0]))
    none = workload(dataset=data, n=1, chat={"template": "none"})
    assert none == workload(dataset=data, n=1)
    assert none.template_sha256 is None


@pytest.mark.parametrize("more", [{}, {"chat": {}}])
def test_a_text_for_whoever_encodes_it_himself_has_no_beginning_twice(
    data: str, more: dict[str, Any]
) -> None:
    tokenizer = Tokenizer(experiment(**more, dataset=data))
    for request in workload(dataset=data, **more).requests:
        text = tokenizer.bare_text(request.prompt_token_ids)
        assert tokenizer.encode([Record(1, "", text)]) == [list(request.prompt_token_ids)]


def test_a_base_model_without_a_template_is_told(tmp_path: Path, data: str, template: str) -> None:
    base = model_with(tmp_path / "base", None)
    with pytest.raises(ConfigurationError, match=r"row 1 .*no chat template .*base models"):
        workload(model=base, dataset=data, chat={})
    assert texts(workload(model=base, dataset=data, chat={"template": template}))


def test_without_a_template_a_chat_is_no_prompt(data: str) -> None:
    with pytest.raises(ConfigurationError, match="row 2 is to be asked as a chat"):
        workload(dataset=data, chat={"template": "none"})


def test_a_template_that_is_not_there_is_told(data: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        workload(dataset=data, chat={"template": "nowhere"})
    assert caught.value.problems[0].key == "chat.template"


def test_a_long_chat_keeps_its_template_whole(tmp_path: Path, template: str) -> None:
    data = str(put(tmp_path / "long.jsonl", {"prompt": "energy, wärme and 力 of the model " * 50}))
    for max_tokens in (40, 41, 42, 43):
        chats = workload(
            dataset=data,
            n=1,
            max_input_tokens=max_tokens,
            chat={"template": template, "system": "x"},
        )
        (text,) = texts(chats)
        assert text.startswith("[system] x\n[user] energy, wärme")
        assert text.endswith("\n[plain]")
        assert max_tokens - 4 <= len(chats.requests[0].prompt_token_ids) <= max_tokens
        assert f"cut to {max_tokens} tokens" in chats.notes[-1]
        assert chats.requests[0].messages[-1]["content"] in text
    with pytest.raises(ConfigurationError, match=r"without its last message takes \d+ tokens"):
        workload(dataset=data, n=1, max_input_tokens=8, chat={"template": template})


def test_a_template_that_tells_the_date_is_noted(tmp_path: Path, data: str) -> None:
    dated = "{{ strftime_now('%d %b') }}" + TEMPLATE
    model = model_with(tmp_path / "dated", dated)
    assert "differ from day to day" in workload(model=model, dataset=data, chat={}).notes[-1]
    assert not any("day" in note for note in workload(dataset=data, chat={}).notes)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "synthetic prompts are none"),
        ({"dataset": {"input_len": 4}}, "synthetic prompts are none"),
        *(
            ({"dataset": "x", "chat": {"arguments": arguments}}, rf"own: .*{name}")
            for name, arguments in (
                ("max_length", {"truncation": True, "max_length": 5}),  # prompts were cut to it
                ("return_tensors", {"return_tensors": "pt"}),  # a traceback
                ("add_generation_prompt", {"add_generation_prompt": False}),
            )
        ),
        ({"dataset": "x", "chat": {"template": "none", "system": "y"}}, "template: none"),
        (
            {"dataset": "x", "serving": {"arrivals": "poisson", "rate_per_s": 1, "turns": 2}},
            "serving.turns joins",
        ),
        (
            {
                "dataset": "x",
                "chat": {"template": "a.jinja"},
                "serving": {"arrivals": "poisson", "rate_per_s": 1, "endpoint": "chat"},
            },
            "server has its own template",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        experiment(**{"chat": {}, **settings})
