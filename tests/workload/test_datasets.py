import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.datasets.files import read_file
from llenergymeasure.workload.datasets.record import Record

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00")).filter(str.strip)
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows to a file of the kind its name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@quick
@given(st.lists(TEXT, min_size=1, max_size=8), st.sampled_from([".jsonl", ".csv", ".parquet"]))
@example(['a,"b"\nc', " x "], ".csv")
def test_every_kind_of_file_gives_back_its_texts(
    tmp_path: Path, texts: list[str], kind: str
) -> None:
    path = write(tmp_path / f"data{kind}", [{"prompt": text, "id": "1"} for text in texts])
    assert [record.text for record in read_file(path)] == texts


@quick
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".csv", ".parquet"]))
@example(b"\xff\xfe", ".jsonl")
@example(b'prompt\n"open', ".csv")
@example(b"[" * 100_000, ".jsonl")
@example(b"PAR1PAR1", ".parquet")
def test_whatever_a_file_holds_is_read_or_refused(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    path = tmp_path / f"data{kind}"
    path.write_bytes(content)
    with suppress(ConfigurationError):
        assert all(record.text.strip() or record.messages for record in read_file(path))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "p", "text": "t"}, "p"),
        ({"text": "t", "question": "q"}, "t"),
        ({"instruction": "Add.", "input": "1 and 2"}, "Add.\n\n1 and 2"),
        ({"instruction": "Add.", "input": ""}, "Add."),
        ({"input": "i"}, "i"),
        ({"question": "q", "answer": "a"}, "q"),
        ({"prompt": None, "text": "t"}, "t"),
    ],
)
def test_columns(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    (record,) = read_file(write(tmp_path / "data.jsonl", [row]))
    assert record.text == text


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_chats_end_before_the_answer(tmp_path: Path, kind: str) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    (record,) = read_file(write(tmp_path / f"data{kind}", [{"messages": chat}]))
    assert record == Record(1, "", messages=tuple(chat[:2]))


def test_sharegpt_names_of_roles(tmp_path: Path) -> None:
    chat = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (record,) = read_file(write(tmp_path / "data.jsonl", [{"conversations": chat}]))
    assert record.messages == ({"role": "user", "content": "Hi"},)


@pytest.mark.parametrize("answering", ["gpt", "chatgpt", "bing", "bard", "model", "Assistant"])
def test_whoever_answers_the_answer_is_no_part_of_the_prompt(
    tmp_path: Path, answering: str
) -> None:
    chat = [{"from": "Human", "value": "2 + 2?"}, {"from": answering, "value": "4"}]
    (record,) = read_file(write(tmp_path / "data.jsonl", [{"conversation": chat}]))
    assert record.messages == ({"role": "user", "content": "2 + 2?"},)


def test_chats_that_ask_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    question = {"conversations": [{"from": "human", "value": "Hi"}]}
    rows: list[Any] = [
        {"conversations": []},
        question,
        {"conversations": []},
        {"conversations": [{"from": "gpt", "value": "Hello"}]},
        {"conversations": [{"from": "human", "value": " "}]},
    ]
    path = tmp_path / "ShareGPT_V3.json"
    path.write_text(json.dumps(rows))
    data = read_file(path)
    assert [record.row for record in data] == [2]
    assert data.notes == (
        "2 rows of ShareGPT_V3.json are left out: conversations is empty",
        "1 rows of ShareGPT_V3.json are left out: conversations asks nothing",
        "1 rows of ShareGPT_V3.json are left out: conversations ends with an empty question",
    )
    path.write_text(json.dumps([{"conversations": []}]))
    with pytest.raises(ConfigurationError, match="holds no prompts; 1 rows of"):
        read_file(path)


def test_lines_of_text_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("first\n\nsecond \n")
    assert [record.text for record in read_file(path)] == ["first", "second "]


def test_half_characters_are_replaced_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "bad \\ud83d half"}\n{"prompt": "\\ud83d\\ude00"}\n')
    data = read_file(path)
    assert [record.text for record in data] == ["bad \ufffd half", "\U0001f600"]
    assert data.notes[0].startswith("1 rows of data.jsonl hold halves of characters")


def test_a_line_of_provenance_is_no_prompt_and_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        '{"_provenance": "owner/prompts", "_commit": "0123abc", "_license": "apache-2.0"}\n'
        '{"prompt": "first"}\n{"prompt": "second"}\n'
    )
    read = read_file(path)
    assert [record.text for record in read] == ["first", "second"]
    assert [record.row for record in read] == [2, 3]
    (note,) = read.notes
    assert "provenance owner/prompts, commit 0123abc" in note


def test_sources_are_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "source": "x"}, {"prompt": "b", "source": "y"}]
    for kind in (".jsonl", ".csv", ".parquet"):
        records = read_file(write(tmp_path / f"data{kind}", rows))
        assert [record.source for record in records] == ["x", "y"]


@pytest.mark.parametrize(
    ("bad_row", "why"),
    [
        ('{"prompt": "x"', "is not JSON"),
        ("[1]", "should be a mapping, not list"),
        ('{"prompt": 3}', "prompt should be text, not int"),
        ('{"prompt": "  "}', "prompt is empty"),
        ('{"answer": "x"}', "a row needs one of prompt"),
        ("{}", "a row needs one of prompt"),
        ('{"messages": "hi"}', "should be a list of messages"),
        ('{"messages": [{"role": "narrator", "content": "x"}]}', "role 'narrator'; known are"),
        ('{"messages": [3]}', "should be a mapping, not int"),
        ('{"messages": [{"role": "user"}]}', "needs a role and a content"),
        ('{"instruction": "a", "input": 3}', "input should be text, not int"),
    ],
)
def test_a_bad_row_is_named_by_its_number(tmp_path: Path, bad_row: str, why: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n\n{bad_row}\n{{"prompt": "fine"}}\n')
    with pytest.raises(ConfigurationError, match="row 3") as caught:
        read_file(path)
    (problem,) = caught.value.problems
    assert problem.file == path
    assert problem.line == 3
    assert why in problem.message


def test_all_bad_rows_are_told_at_once_up_to_ten(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": ""}\n' * 3)
    with pytest.raises(ConfigurationError) as caught:
        read_file(path)
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]
    path.write_text('{"prompt": ""}\n' * 1000)
    with pytest.raises(ConfigurationError) as caught:
        read_file(path)
    assert len(caught.value.problems) == 10


def test_csv_with_an_unquoted_comma(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("prompt,source\nfine,x\nnot, so, fine\n")
    with pytest.raises(ConfigurationError, match="row 3: has more fields than the header"):
        read_file(path)


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_a_table_without_a_prompt_column_names_its_columns(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"data{kind}", [{"title": "x", "body": "y"}])
    with pytest.raises(ConfigurationError, match="its columns: title, body"):
        read_file(path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        read_file(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ConfigurationError, match="holds no prompts"):
        read_file(tmp_path / "empty.jsonl")
    (tmp_path / "data.docx").write_text("")
    with pytest.raises(ConfigurationError, match=r"\.jsonl, \.json, \.csv, \.parquet, \.txt"):
        read_file(tmp_path / "data.docx")


def test_a_field_longer_than_the_csv_modules_default(tmp_path: Path) -> None:
    text = "word " * 100_000
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["prompt"], [text]])
    path = tmp_path / "data.csv"
    path.write_text(buffer.getvalue())
    assert read_file(path)[0].text == text
