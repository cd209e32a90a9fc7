"""Data sets: as they are published, and as programs of all kinds write them."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.datasets.files import read_file
from support.data_files import check_refused, put

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00")).filter(str.strip)
KIND = st.sampled_from([".jsonl", ".csv", ".parquet"])
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

MULTI_TURN = Path(__file__).parents[1] / "fixtures" / "traces" / "vllm_multi_turn.json"

USER = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "yes"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
CALLING = {**CALLED, "content": ""}
IMAGE = {**USER, "content": [{"type": "image_url", "image_url": {}}]}


@quick
@given(st.lists(TEXT, min_size=1, max_size=8), KIND)
@example(['a,"b"\nc', " x "], ".csv")
def test_every_kind_of_file_gives_back_its_texts_and_their_sources(
    tmp_path: Path, texts: list[str], kind: str
) -> None:
    path = put(tmp_path / f"data{kind}", [{"prompt": text, "source": "x"} for text in texts])
    assert [(record.text, record.source) for record in read_file(path)] == [
        (text, "x") for text in texts
    ]


@quick
@given(st.binary(max_size=200), KIND)
@example(b"\xff\xfe", ".jsonl")
@example(b'prompt\n"open', ".csv")
@example(b"[" * 100_000, ".jsonl")
@example(b"PAR1PAR1", ".parquet")
def test_whatever_a_file_holds_is_read_or_refused(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    with suppress(ConfigurationError):
        dataset = read_file(put(tmp_path / f"data{kind}", content))
        assert all(record.text.strip() or record.messages for record in dataset)


READ: list[tuple[str, Any, Any]] = [
    ("alpaca_data.json", [{"instruction": "Add", "input": "1 2", "output": "3"}], "Add\n\n1 2"),
    (
        "alpaca.parquet",
        {"instruction": "Add", "input": "", "output": "3", "text": "### Add ### Response: 3"},
        "Add",
    ),
    (
        "oasst.parquet",
        [{"text": "hi", "role": "prompter"}, {"text": "yes", "role": "assistant"}],
        "hi",
    ),
    ("from.parquet", [{"text": "hi", "from": "human"}, {"text": "yes", "from": "gpt"}], "hi"),
    ("no_instruction.jsonl", {"instruction": " ", "text": "Add"}, "Add"),
    ("numbered.jsonl", {"instruction": 5, "text": "Add"}, "Add"),
    ("dolly.jsonl", {"instruction": "Who?", "context": "Ann.", "response": "A"}, "Who?\n\nAnn."),
    (
        "mt_bench.jsonl",
        {"question_id": 81, "turns": ["Write.", "Again."]},
        [{**USER, "content": "Write."}],
    ),
    ("vllm_multi_turn.json", MULTI_TURN.read_bytes(), ["user", "assistant", "user"]),
    ("gsm8k.jsonl", {"question": "2 + 2?", "answer": "4"}, "2 + 2?"),
    ("humaneval.jsonl", {"prompt": "def f():", "canonical_solution": "x"}, "def f():"),
    ("prompt_first.jsonl", {"prompt": "p", "text": "t"}, "p"),
    ("text_before_question.jsonl", {"text": "t", "question": "q"}, "t"),
    ("null_prompt.jsonl", {"prompt": None, "text": "t"}, "t"),
    ("input.jsonl", {"input": "i"}, "i"),
    ("oasst.jsonl", {"text": "hi", "role": "prompter"}, "hi"),
    ("lmsys.jsonl", {"model": "m", "conversation": [USER, {**USER, "role": "assistant"}]}, [USER]),
    ("system.jsonl", {"messages": [{**USER, "role": "system"}, USER, SAID]}, ["system", "user"]),
    ("system.parquet", {"messages": [{**USER, "role": "system"}, USER, SAID]}, ["system", "user"]),
    *(
        (
            f"answered_by_{name}.jsonl",
            {"conversations": [{"from": "Human", "value": "hi"}, {"from": name, "value": "4"}]},
            [USER],
        )
        for name in ("gpt", "chatgpt", "bing", "bard", "model", "Assistant")
    ),
    ("openai_batch.jsonl", {"custom_id": "1", "body": {"messages": [USER]}}, [USER]),
    ("completions.jsonl", {"custom_id": "1", "body": {"prompt": "hi"}}, "hi"),
    ("parts.jsonl", {"messages": [{**USER, "content": [{"type": "text", "text": "hi"}]}]}, [USER]),
    ("called.jsonl", {"messages": [USER, CALLING]}, [USER]),
    ("null_call.jsonl", {"messages": [USER, CALLED]}, [USER]),
    ("no_call.jsonl", {"messages": [USER, {**SAID, "tool_calls": "[]"}, USER]}, [USER, SAID, USER]),
    ("empty_calls.jsonl", {"messages": [{**SAID, "tool_calls": []}, USER]}, [SAID, USER]),
    (
        "null_call.parquet",
        {"messages": [{**SAID, "function_call": {"name": None}}, USER]},
        [SAID, USER],
    ),
    (
        "merged_fields.jsonl",
        {"conversations": [{"role": None, "from": "human", "content": None, "value": "hi"}]},
        [USER],
    ),
    ("nul.txt", "a\0b, said twice\n", "a\0b, said twice"),
    ("responses.jsonl", {"custom_id": "1", "body": {"input": "hi", "model": "m"}}, "hi"),
    ("ultrachat.parquet", {"prompt": "hi", "messages": [USER, CALLED]}, "hi"),
    ("UPPER.JSONL", {"prompt": "a"}, "a"),
    ("array.json", [{"prompt": "a"}], "a"),
    ("blank.jsonl", '\n{"prompt": "a"}\n \n', "a"),
    ("blank.txt", "\na \n", "a "),
    ("bom.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\n', "a"),
    ("bom.csv", b"\xef\xbb\xbfprompt\na\n", "a"),
    ("cr.csv", b"prompt\ra\r", "a"),
    ("crlf.csv", b'prompt,x\r\n"a\r\nb",1\r\n', "a\r\nb"),
    ("crlf.txt", b"a\r\n", "a"),
    ("long_field.csv", {"prompt": "word " * 100_000}, "word " * 100_000),
    ("dictionary.parquet", pa.table({"prompt": pa.array(["a"]).dictionary_encode()}), "a"),
]
"""The text of the one prompt, or its messages, or their roles."""


@pytest.mark.parametrize(("name", "content", "prompt"), READ, ids=[name for name, _, _ in READ])
def test_a_data_set_is_read(tmp_path: Path, name: str, content: Any, prompt: Any) -> None:
    (record,) = read_file(put(tmp_path / name, content))
    if isinstance(prompt, str):
        assert (record.text, record.messages) == (prompt, ())
    else:
        roles = isinstance(prompt[0], str)
        assert [each["role"] if roles else each for each in record.messages] == prompt


REFUSED: list[tuple[str, Any, str]] = [
    ("none.jsonl", "null\n", r":1: row 1: should be a mapping, not NoneType"),
    ("number.jsonl", "3\n", r":1: row 1: should be a mapping, not int"),
    ("third.jsonl", '{"prompt": "fine"}\n\n{"prompt": 3}\n', ":3: row 3: prompt .* text, not int"),
    ("nan.jsonl", '{"prompt": NaN}\n', "row 1: prompt should be text, not float"),
    ("null.jsonl", {"prompt": None}, "row 1: no prompt in it"),
    ("answer.jsonl", {"answer": "x"}, "a row needs one of prompt.* a name: answer"),
    ("nothing.jsonl", {}, "a row needs one of prompt.* a name: none"),
    ("spaces.jsonl", {"prompt": "  "}, "row 1: prompt is empty"),
    ("input.jsonl", {"instruction": "a", "input": 3}, "input should be text, not int"),
    ("array.jsonl", '[{"prompt": "a"}]', "row 1: should be a mapping, not list"),
    ("object.json", {"data": [{"prompt": "a"}]}, "with a value or a name: data"),
    ("text.jsonl", {"messages": "hi"}, "should be a list of messages, not str"),
    ("message.jsonl", {"messages": [3]}, "a message in messages should be a mapping, not int"),
    ("no_content.jsonl", {"messages": [{"role": "user"}]}, "needs a role and a content"),
    ("null_answer.jsonl", {"messages": [USER, {**CALLED, "tool_calls": None}, USER]}, "both text"),
    ("calls.jsonl", {"messages": [USER, CALLED, USER]}, "1 rows .* messages holds calls of tools"),
    ("image.jsonl", {"messages": [IMAGE]}, "row 1: .* a role and a content, both text"),
    ("more_tools.jsonl", {"messages": [USER, CALLING, USER]}, "messages holds calls of tools"),
    (
        "call_as_text.jsonl",
        {"messages": [USER, {**CALLING, "tool_calls": '[ {"name": "f"}]'}, USER]},
        "messages holds calls of tools",
    ),
    ("nested.jsonl", {"conversations": [[USER]]}, "should be a mapping, not list"),
    ("comma.jsonl", '{"prompt": "a"},\n', ":1: row 1: is not JSON"),
    ("comma.json", '[{"prompt": "a"},]', "is not JSON"),
    ("roles.jsonl", {"conversations": [{"from": "gpt-4", "value": "a"}]}, "'gpt-4'; known are"),
    ("utf16.txt", "a\nb\n".encode("utf-16-le"), ":1: row 1: holds NUL"),
    ("utf16_be.txt", "\na\u2019s\n".encode("utf-16-be"), ":1: row 1: holds NUL"),
    ("utf16.csv", "prompt\na\n".encode("utf-16"), "is not UTF-8"),
    ("latin1.csv", "prompt\ncafé\n".encode("latin-1"), "is not UTF-8"),
    ("semicolons.csv", "prompt;x\na;1\n", "its columns: prompt;x; separate columns by commas"),
    ("capitals.csv", "Prompt,X\na,1\n", "its columns: Prompt, X"),
    ("columns.parquet", {"title": "x", "body": "y"}, "its columns: title, body"),
    ("commas.csv", "prompt,x\na,b\nnot, so, a\n", "row 3: has more fields than the header"),
    ("empty_cell.csv", 'prompt,x\n"",1\n', ":2: row 2: no prompt in it"),
    ("null.parquet", [{"prompt": "a"}, {"prompt": None}], ":2: row 2: no prompt in it"),
    ("bytes.parquet", {"prompt": b"a"}, ":1: row 1: prompt should be text, not bytes"),
    ("empty.jsonl", "", "holds no prompts"),
    ("empty_chats.json", [{"conversations": []}], "holds no prompts; 1 rows of"),
    ("packed.json.gz", b"\x1f\x8b", r"known are \.jsonl, \.json, \.csv, \.parquet, \.txt"),
    ("packed.jsonl.zst", b"\x28\xb5\x2f\xfd", "not a kind of file"),
    ("packed.jsonl", b"\x1f\x8b\x08", "is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "says"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_a_data_set_is_refused_with_file_and_row(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    check_refused(read_file, put(tmp_path / name, content), says)


@pytest.mark.parametrize(("bad", "named"), [(3, 3), (1000, 10)])
def test_all_bad_rows_are_said_at_once_up_to_ten(tmp_path: Path, bad: int, named: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_file(put(tmp_path / "data.jsonl", [{"prompt": ""}] * bad))
    assert [problem.line for problem in caught.value.problems] == list(range(1, named + 1))


@pytest.mark.parametrize(
    ("rows", "kept", "reasons"),
    [
        (
            [
                *({"conversations": chat} for chat in ([], [USER], [], [SAID])),
                {"conversations": [{**USER, "content": " "}]},
            ],
            2,
            [
                "2 rows of d.json are left out: conversations is empty",
                "1 rows of d.json are left out: conversations asks nothing",
                "1 rows of d.json are left out: conversations ends with an empty question",
            ],
        ),
        (
            [{"messages": [USER, CALLED, {**USER, "role": "tool"}, USER]}, {"messages": [USER]}],
            2,
            ["1 rows of d.json are left out: messages holds calls of tools, which are not sent"],
        ),
        (
            [{"text": "hi", "role": "prompter"}, {"text": "Yes?", "role": "assistant"}],
            1,
            ["1 rows of d.json are left out: text is the assistant's own"],
        ),
        (
            [{"_provenance": "owner/prompts", "_commit": "0123abc"}, {"prompt": "first"}],
            2,
            ["d.json says of itself: provenance owner/prompts, commit 0123abc"],
        ),
    ],
    ids=["ShareGPT", "tools", "OpenAssistant", "provenance"],
)
def test_rows_that_ask_nothing_are_left_out_and_noted(
    tmp_path: Path, rows: list[Any], kept: int, reasons: list[str]
) -> None:
    dataset = read_file(put(tmp_path / "d.json", rows))
    assert [record.row for record in dataset] == [kept]
    assert dataset.notes == tuple(reasons)


def test_half_characters_are_replaced_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "bad \\ud83d half"}\n{"prompt": "\\ud83d\\ude00"}\n')
    data = read_file(path)
    assert [record.text for record in data] == ["bad \ufffd half", "\U0001f600"]
    assert data.notes[0].startswith("1 rows of data.jsonl hold halves of characters")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"question": "q", "context": "c"}, "context"),
        ({"system_prompt": "s", "question": "q"}, "system_prompt"),
        ({"instruction": "i", "context": "c"}, None),
        ({"instruction": "i", "history": [["q", "a"]]}, "history"),
        ({"body": {"messages": [USER], "tools": [{"type": "function"}]}}, "tools"),
        ({"body": {"input": "hi", "instructions": "Be brief."}}, "instructions"),
        ({"question": "q", "answer": "a"}, None),
        ({"conversations": [USER], "turns": 1}, None),
        ({"instruction": "i", "input": "x", "text": "i x: a"}, "text"),
        ({"text": "Ann is here.", "question": "Who?"}, "question"),
        ({"prompt": "p", "messages": [USER]}, "messages"),
    ],
    ids=str,
)
def test_what_a_row_says_besides_its_prompt_is_noted(
    tmp_path: Path, row: dict[str, Any], column: str | None
) -> None:
    notes = read_file(put(tmp_path / "d.jsonl", row)).notes
    said = f"1 rows of d.jsonl have a column {column} that is no part of their prompts"
    assert notes == (() if column is None else (said,))
