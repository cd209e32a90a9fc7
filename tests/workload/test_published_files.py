"""Data sets and traces as they are published, and as programs of all kinds write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.arrivals_trace import read_trace
from llenergymeasure.workload.datasets.files import read_file

USER = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "yes"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
CALLING = {**CALLED, "content": ""}


def parquet(values: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table({"prompt": values}), path)


def parquet_rows(*rows: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.Table.from_pylist(list(rows)), path)


def put(path: Path, content: Any) -> Path:
    """Write bytes, text, or a row as JSON."""
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


READ: list[tuple[str, Any, Any]] = [
    ("alpaca_data.json", [{"instruction": "Add", "input": "1 2", "output": "3"}], "Add\n\n1 2"),
    (
        "alpaca.parquet",
        parquet_rows(
            {"instruction": "Add", "input": "", "output": "3", "text": "### Add ### Response: 3"}
        ),
        "Add",
    ),
    (
        "oasst.parquet",
        parquet_rows({"text": "hi", "role": "prompter"}, {"text": "yes", "role": "assistant"}),
        "hi",
    ),
    (
        "from.parquet",
        parquet_rows({"text": "hi", "from": "human"}, {"text": "yes", "from": "gpt"}),
        "hi",
    ),
    ("no_instruction.jsonl", {"instruction": " ", "text": "Add"}, "Add"),
    ("numbered.jsonl", {"instruction": 5, "text": "Add"}, "Add"),
    ("dolly.jsonl", {"instruction": "Who?", "context": "Ann.", "response": "A"}, "Who?\n\nAnn."),
    ("mt_bench.jsonl", {"question_id": 81, "turns": ["Write.", "Again."]}, "Write."),
    ("gsm8k.jsonl", {"question": "2 + 2?", "answer": "4"}, "2 + 2?"),
    ("humaneval.jsonl", {"prompt": "def f():", "canonical_solution": "x"}, "def f():"),
    ("oasst.jsonl", {"text": "hi", "role": "prompter"}, "hi"),
    ("lmsys.jsonl", {"model": "m", "conversation": [USER, {**USER, "role": "assistant"}]}, "hi"),
    ("openai_batch.jsonl", {"custom_id": "1", "body": {"messages": [USER]}}, "hi"),
    ("completions.jsonl", {"custom_id": "1", "body": {"prompt": "hi"}}, "hi"),
    ("parts.jsonl", {"messages": [{**USER, "content": [{"type": "text", "text": "hi"}]}]}, "hi"),
    ("called.jsonl", {"messages": [USER, CALLING]}, "hi"),
    ("null_call.jsonl", {"messages": [USER, CALLED]}, "hi"),
    ("no_call.jsonl", {"messages": [USER, {**SAID, "tool_calls": "[]"}, USER]}, "hi"),
    ("empty_calls.jsonl", {"messages": [USER, {**SAID, "tool_calls": []}, USER]}, "hi"),
    (
        "null_call.parquet",
        parquet_rows({"messages": [USER, {**SAID, "function_call": {"name": None}}, USER]}),
        "hi",
    ),
    (
        "merged_fields.jsonl",
        {"conversations": [{"role": None, "from": "human", "content": None, "value": "hi"}]},
        "hi",
    ),
    ("nul.txt", "a\0b, said twice\n", "a\0b, said twice"),
    ("responses.jsonl", {"custom_id": "1", "body": {"input": "hi", "model": "m"}}, "hi"),
    ("ultrachat.parquet", parquet_rows({"prompt": "hi", "messages": [USER, CALLED]}), "hi"),
    ("UPPER.JSONL", {"prompt": "a"}, "a"),
    ("array.json", [{"prompt": "a"}], "a"),
    ("blank.jsonl", '\n{"prompt": "a"}\n \n', "a"),
    ("bom.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\n', "a"),
    ("bom.csv", b"\xef\xbb\xbfprompt\na\n", "a"),
    ("cr.csv", b"prompt\ra\r", "a"),
    ("crlf.csv", b'prompt,x\r\n"a\r\nb",1\r\n', "a\r\nb"),
    ("crlf.txt", b"a\r\n", "a"),
    ("dictionary.parquet", parquet(pa.array(["a"]).dictionary_encode()), "a"),
]


@pytest.mark.parametrize(("name", "content", "text"), READ, ids=[name for name, _, _ in READ])
def test_a_data_set_is_read(tmp_path: Path, name: str, content: Any, text: str) -> None:
    (record,) = read_file(put(tmp_path / name, content))
    assert (record.text or record.messages[-1]["content"]) == text


REFUSED: list[tuple[str, Any, str]] = [
    ("none.jsonl", "null\n", r":1: row 1: should be a mapping, not NoneType"),
    ("number.jsonl", "3\n", r":1: row 1: should be a mapping, not int"),
    ("nan.jsonl", '{"prompt": NaN}\n', "row 1: prompt should be text, not float"),
    ("null.jsonl", {"prompt": None}, "row 1: no prompt in it"),
    ("array.jsonl", '[{"prompt": "a"}]', "row 1: should be a mapping, not list"),
    ("object.json", {"data": [{"prompt": "a"}]}, "with a value or a name: data"),
    ("null_answer.jsonl", {"messages": [USER, {**CALLED, "tool_calls": None}, USER]}, "both text"),
    ("calls.jsonl", {"messages": [USER, CALLED, USER]}, "1 rows .* messages holds calls of tools"),
    (
        "image.jsonl",
        {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {}}]}]},
        "row 1: .* a role and a content, both text",
    ),
    ("more_tools.jsonl", {"messages": [USER, CALLING, USER]}, "messages holds calls of tools"),
    (
        "call_as_text.jsonl",
        {"messages": [USER, {**CALLING, "tool_calls": '[ {"name": "f"}]'}, USER]},
        "messages holds calls of tools",
    ),
    ("nested.jsonl", {"conversations": [[USER]]}, "should be a mapping, not list"),
    ("comma.jsonl", '{"prompt": "a"},\n', ":1: row 1: is not JSON"),
    ("comma.json", '[{"prompt": "a"},]', "is not JSON"),
    ("roles.jsonl", {"conversations": [{"from": "gpt-4", "value": "a"}]}, "the role 'gpt-4'"),
    ("utf16.txt", "a\nb\n".encode("utf-16-le"), ":1: row 1: holds NUL"),
    ("utf16_be.txt", "\na\u2019s\n".encode("utf-16-be"), ":1: row 1: holds NUL"),
    ("utf16.csv", "prompt\na\n".encode("utf-16"), "is not UTF-8"),
    ("latin1.csv", "prompt\ncafé\n".encode("latin-1"), "is not UTF-8"),
    ("semicolons.csv", "prompt;x\na;1\n", "its columns: prompt;x; separate columns by commas"),
    ("capitals.csv", "Prompt,X\na,1\n", "its columns: Prompt, X"),
    ("empty_cell.csv", 'prompt,x\n"",1\n', ":2: row 2: no prompt in it"),
    ("null.parquet", parquet(["a", None]), ":2: row 2: no prompt in it"),
    ("bytes.parquet", parquet([b"a"]), ":1: row 1: prompt should be text, not bytes"),
    ("packed.json.gz", b"\x1f\x8b", "not a kind of file"),
    ("packed.jsonl.zst", b"\x28\xb5\x2f\xfd", "not a kind of file"),
    ("packed.jsonl", b"\x1f\x8b\x08", "is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "says"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_a_data_set_is_refused_with_file_and_row(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_file(path)
    assert str(path) in str(caught.value)


def test_a_chat_that_calls_a_tool_is_left_out_and_counted_and_the_others_are_asked(
    tmp_path: Path,
) -> None:
    chats = [[USER, CALLED, {"role": "tool", "content": "3"}, USER], [USER]]
    content = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
    dataset = read_file(put(tmp_path / "d.jsonl", content))
    assert [record.row for record in dataset] == [2]
    assert dataset.notes == (
        "1 rows of d.jsonl are left out: messages holds calls of tools, which are not sent",
    )


def test_an_assistant_s_own_message_is_left_out_and_counted(tmp_path: Path) -> None:
    """OpenAssistant's collections have a message a row, of people and of the assistant in turn."""
    rows = [{"text": "hi", "role": "prompter"}, {"text": "Yes?", "role": "assistant"}]
    dataset = read_file(put(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows))))
    assert [record.text for record in dataset] == ["hi"]
    assert dataset.notes == ("1 rows of d.jsonl are left out: text is the assistant's own",)


@pytest.mark.parametrize(
    ("row", "note"),
    [
        (
            {"question": "q", "context": "c"},
            ["1 rows of d.jsonl have a column context that is no part"],
        ),
        (
            {"system_prompt": "s", "question": "q"},
            ["1 rows of d.jsonl have a column system_prompt that"],
        ),
        ({"instruction": "i", "context": "c"}, []),
        (
            {"instruction": "i", "history": [["q", "a"]]},
            ["1 rows of d.jsonl have a column history that"],
        ),
        (
            {"custom_id": "1", "body": {"messages": [USER], "tools": [{"type": "function"}]}},
            ["1 rows of d.jsonl have a column tools that"],
        ),
        (
            {"body": {"input": "hi", "instructions": "Be brief."}},
            ["1 rows of d.jsonl have a column instructions that"],
        ),
        ({"question": "q", "answer": "a"}, []),
        ({"conversations": [USER], "turns": 1}, []),
        (
            {"instruction": "i", "input": "x", "text": "i x: a"},
            ["1 rows of d.jsonl have a column text that"],
        ),
        (
            {"text": "Ann is here.", "question": "Who?"},
            ["1 rows of d.jsonl have a column question"],
        ),
        ({"prompt": "p", "messages": [USER]}, ["1 rows of d.jsonl have a column messages that"]),
    ],
)
def test_what_a_row_says_besides_its_prompt_is_noted(
    tmp_path: Path, row: dict[str, Any], note: list[str]
) -> None:
    notes = read_file(put(tmp_path / "d.jsonl", row)).notes
    assert len(notes) == len(note)
    assert all(text.startswith(begin) for text, begin in zip(notes, note, strict=True))


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "timestamp,input_tokens,output_tokens\n"
MOONCAKE = '{"timestamp": %s, "input_length": 5, "output_length": 6, "hash_ids": [0, 1]}\n'
BAILIAN = '{"chat_id": 1, "timestamp": %s, "input_length": 5, "output_length": 6, "turn": 2}\n'

TRACES: list[tuple[str, Any, list[float], tuple[int, int]]] = [
    (
        "azure_2023.csv",
        AZURE + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n",
        [0, 0.052],
        (4808, 10),
    ),
    (
        "azure_2024.csv",
        AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n",
        [0, 0.99007],
        (2162, 5),
    ),
    (
        "azure_2025_images.csv",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.2,1,5,6\n",
        [0],
        (5, 6),
    ),
    (
        "zones.csv",
        AZURE + "2024-05-10T00:00:00Z,1,2\n2024-05-10T02:00:01+02:00,3,4\n"
        "2024-05-10 00:00:02 UTC,5,6\n2024-05-10 02:00:03.5 +0200,7,8\n",
        [0, 1, 2, 3.5],
        (1, 2),
    ),
    (
        "burstgpt.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n",
        [0],
        (472, 18),
    ),
    (
        "burstgpt_2.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n5,1,3.2,ChatGPT,472,18,490,Conversation log\n",
        [0],
        (472, 18),
    ),
    ("mooncake_toolagent.jsonl", MOONCAKE % 0 + MOONCAKE % 3053, [0, 3.053], (5, 6)),
    ("qwen_traceA_blksz_16.jsonl", BAILIAN % 0.0 + BAILIAN % 61.114, [0, 61.114], (5, 6)),
    ("epoch_ms.jsonl", MOONCAKE % 1700000000000 + MOONCAKE % 1700000000250, [0, 0.25], (5, 6)),
    ("UPPER.JSONL", MOONCAKE % 0 + MOONCAKE % 1000, [0, 1], (5, 6)),
    ("epoch.csv", PLAIN + "1700000001.5,2,2\n1700000000,1,1\n", [0, 1.5], (1, 1)),
    ("same.csv", PLAIN + "1,1,1\n1,2,2\n2,3,3\n", [0, 0, 1], (1, 1)),
    ("blanks.csv", "Timestamp , Input_Tokens,OUTPUT_TOKENS\n1,1,1\n", [0], (1, 1)),
    ("unsorted.csv", PLAIN + "5,5,5\n1,1,1\n", [0, 4], (1, 1)),
    ("negative.csv", PLAIN + "-1,1,1\n0,2,2\n", [0, 1], (1, 1)),
    ("bom.csv", b"\xef\xbb\xbf" + PLAIN.encode() + b"1,1,1\n", [0], (1, 1)),
    ("cr.csv", (PLAIN + "1,1,1\n2,2,2\n").replace("\n", "\r"), [0, 1], (1, 1)),
    ("blank.csv", PLAIN + "\n1,1,1\n\n", [0], (1, 1)),
    ("newline.csv", PLAIN + '1,1,1\n"2\n",2,2\n', [0, 1], (1, 1)),
    ("failed.csv", PLAIN + "0,1,1\n1,5,0\n2,2,2\n", [0, 2], (1, 1)),
]


@pytest.mark.parametrize(
    ("name", "content", "offsets_s", "first"), TRACES, ids=[name for name, *_ in TRACES]
)
def test_a_trace_is_read(
    tmp_path: Path, name: str, content: Any, offsets_s: list[float], first: tuple[int, int]
) -> None:
    trace = read_trace(put(tmp_path / name, content))
    assert trace.offset_s.tolist() == pytest.approx(offsets_s, abs=1e-6)
    assert trace.lengths(0) == first
    assert trace.unanswered == (name == "failed.csv")


NO_TRACES: list[tuple[str, Any, str]] = [
    ("semicolons.csv", PLAIN.replace(",", ";") + "1;1;1\n", "is no trace"),
    ("commas.csv", PLAIN + '"1,5",1,1\n', "trace.*: a row that is none.*1,5"),
    ("milliseconds.csv", PLAIN + "1700000000000,1,1\n", ":2: .*in milliseconds or finer"),
    ("nanoseconds.csv", AZURE + "1700000000000000000,1,1\n", ":2: .*in milliseconds or finer"),
    ("digits.jsonl", MOONCAKE % ("9" * 400), ":1: .*its fields are other than"),
    ("true.jsonl", MOONCAKE.replace("5,", "true,") % 0, ":1: .*a row that is none"),
    ("packed.csv.gz", b"\x1f\x8b\x08", "cannot be read"),
    ("thousands.csv", PLAIN + "1,000,5,5\n", ":2: .*its fields are other than"),
    ("short.csv", PLAIN + "1,5\n", ":2: .*its fields are other than"),
    ("short.jsonl", '{"timestamp": 1, "input_length": 2}\n', ":1: .*a row that is none"),
    ("words.csv", PLAIN + "1,two,3\n", "a row that is none"),
    ("below_0.csv", PLAIN + "1,-2,3\n", "no number of tokens: -2"),
    ("half.csv", PLAIN + "1,2.5,3\n", "no number of tokens: 2.5"),
    ("endless.csv", PLAIN + "1,inf,3\n", "no number of tokens: inf"),
    ("huge.csv", PLAIN + f"1,{'9' * 20},3\n", "no number of tokens: 9"),
    ("no_time.csv", PLAIN + "0,1,1\nnan,2,2\n1,3,3\n", "no time: nan"),
    ("never.csv", PLAIN + "inf,2,3\n", "no time: inf"),
    ("empty.csv", PLAIN, "no request"),
    ("american.csv", AZURE + "11/16/2023 18:17:03,1,1\n", ":2: .*a row that is none"),
    ("utf16.csv", PLAIN.encode("utf-16"), "cannot be read"),
    (
        "agents.jsonl",
        '{"session_id": "a", "timestamp": 0, "input_length": 5, "output_length": 6}\n'
        '{"session_id": "a", "timestamp": 9, "input_length": 7, "output_length": 6}\n',
        ":2: .*a later turn of its session, without the delay after the answer before",
    ),
    (
        "pause.jsonl",
        '{"session_id": "a", "timestamp": 0, "input_length": 5, "output_length": 6}\n'
        '{"session_id": "a", "delay": -1, "input_length": 7, "output_length": 6}\n',
        ":2: .*no pause: -0.001 s",
    ),
    ("begin.jsonl", '{"session_id": "a", "input_length": 5, "output_length": 6}\n', ":1: "),
    ("calls.jsonl", '{"turns": [{"llm_calls": [{"timestamp": "x"}]}]}\n', ":1: .*its fields are"),
    ("list.jsonl", "[0, 5, 6]\n", ":1: .*its fields are other than"),
]


@pytest.mark.parametrize(
    ("name", "content", "says"), NO_TRACES, ids=[name for name, _, _ in NO_TRACES]
)
def test_a_trace_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
