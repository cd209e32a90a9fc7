"""A key is in no file and no message, however a server has written it back."""

import base64
import html
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.redact import (
    REMOVED,
    excerpt,
    is_secret_name,
    keep_secret,
    without_secret_arguments,
    without_secrets,
    without_secrets_in,
)
from llenergymeasure.workload.load_study import study_from_mapping
from support.cpu_time import cpu_s
from support.echoing_server import forms

KEY = "c4n4ry/+with signs=&<'%"

FORMS = {
    **forms(KEY),
    "url with slashes": quote(KEY),
    "url in url": quote(quote(KEY, safe=""), safe=""),
    "html by names": html.escape(KEY),
    "html in html": html.escape(html.escape(KEY)),
    "signs of text": "".join(f"\\x{ord(sign):02x}" for sign in KEY),
    "json in json": json.dumps(json.dumps(f'"{KEY}/"').replace("/", "\\/")),
    "bytes in octal": "".join(f"\\{ord(sign):03o}" for sign in KEY),
    **{
        f"base64 after {len(before)}": base64.b64encode(f"{before}{KEY} and more".encode()).decode()
        for before in ("", "k", "ke", "Bearer ", '{"key": "')
    },
    "base64 in lines": base64.encodebytes(bytes(42) + KEY.encode()).decode(),
    "base64 of UTF-16": base64.b64encode(f"a{KEY}".encode("utf-16")).decode(),
    **{
        f"base32 after {count}": base64.b32encode(bytes(count) + f"{KEY}!".encode()).decode()
        for count in range(6)
    },
    "UTF-16": KEY.encode("utf-16-le").decode(),
    "UTF-16, the other way": f"k={KEY}".encode("utf-16-be").decode(),
    "in lines": f"{KEY[:9]}\n  {KEY[9:]}",
    "base64url": base64.urlsafe_b64encode(f"x{KEY}".encode()).decode(),
}


@pytest.fixture(autouse=True)
def _in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER", KEY)
    monkeypatch.setenv("LLEM_IN_USE", "")
    keep_secret(["MY_SERVER", None])


@pytest.mark.parametrize("write", [str, repr, json.dumps, lambda text: text.replace("\n", "\r\n")])
def test_a_key_of_several_lines(write: Callable[[str], str]) -> None:
    key = "-----BEGIN KEY-----\nabcdefgh\tijkl\nmnopqrst\n-----END KEY-----"
    assert without_secrets(f"<{write(key)}>", {"DEPLOY_PRIVATE": key}).count(REMOVED) == 1
    assert "mnop" not in without_secrets(f"<{write(key)}>", {"DEPLOY_PRIVATE": key})


@pytest.mark.parametrize(
    "text",
    [
        "http://me:p@ss0rd1@proxy:8080/x",
        "http://me:p@ss@0rd1@proxy",
        "socks5h://p@ss0rd1:@proxy:1/a@b",
    ],
)
def test_a_password_with_the_sign_that_ends_it(text: str) -> None:
    safe_text = without_secrets(f"no answer of {text} yet", {})
    assert "rd1" not in safe_text
    assert f"{REMOVED}@proxy" in safe_text


@pytest.mark.parametrize(
    "name",
    [
        *("MYSQL_PWD", "SMTP_PW", "MY_PASSPHRASE", "CI_JOB_JWT", "SENTRY_DSN", "OPENAI_API_KEY"),
        *("MY_TOKEN", "HF_HUB_TOKEN_PATH", "LLEM_PASSWORD", "SGLANG_AUTH", "LLEM_SECRET"),
    ],
)
def test_what_variables_with_keys_are_called(name: str) -> None:
    assert without_secrets("said: v4lue/of+it", {name: "v4lue/of+it"}) == f"said: {REMOVED}"


@pytest.mark.parametrize(
    "name", ["OPENAI_KEY", "AZURE_OPENAI_KEY", "NGC_CLI_KEY", "KEY", "GITHUB_PAT", "DB_PASS"]
)
@pytest.mark.parametrize("key", ["v4lue.of+it-and-more", "A1b2/" * 8 + "x="])
def test_what_variables_are_called_that_hold_a_key_or_not(name: str, key: str) -> None:
    assert without_secrets(f"said: {key}", {name: key}) == f"said: {REMOVED}"


@pytest.mark.parametrize("name", ["DB_PASS", "SMTP_PASS", "SSHPASS", "DBPASS", "PASS"])
@pytest.mark.parametrize(
    "value",
    ["hunter2!", "Tr0ub4dor", "correct-horse", "73110542", "correcthorsebattery", "aB/cdEfG"],
)
def test_a_password_is_short(name: str, value: str) -> None:
    assert without_secrets(f"said: {value}", {name: value}) == f"said: {REMOVED}"
    assert is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TESTS_PASSED", "41 of 42"),
        ("COMPASS", "north-east"),
        ("PASS", "warmup"),
        ("SECOND_PASS", "INTERRUPTED"),
        ("FIRST_PASS", "/usr/bin"),
        ("MODEL_KEY", "meta-llama/Llama-3.1-8B-Instruct"),
        ("FIRST_PASS", "completed"),
        ("FIRST_PASS", "2026-11-28"),
        ("FUSION_PASS", "norm_quant_fusion"),
        ("CUSTOM_PASS", "my_package.passes.fuse_norm"),
        ("SORT_KEY", "energy_per_output_token_j"),
        ("SSH_PUBLIC_KEY", "AAAAC3NzaC1lZDI1NTE5"),
    ],
)
def test_what_is_called_a_key_and_is_none(name: str, value: str) -> None:
    """A variable of such a name struck the model, or "status": "completed", out of records."""
    assert without_secrets(f"<{value}>", {name: value}) == f"<{value}>"


@pytest.mark.parametrize(
    "text",
    [
        *("/models/xai-grok-2-instruct-fp8", "llama-r8_20240101T120000Z", "gsk_8b_instruct"),
        *("--eos-token=2", "--sort-key=len", "--pad-token=<pad>"),
        *("max_split_size_mb:128,expandable_segments:True", "/models/Llama-3.1-8B"),
        *("GPU-51b0cafe-0000-4000-8000-000000000000", "risk-assessment-of-something-long"),
    ],
)
def test_what_looks_a_little_like_a_key_stays(text: str) -> None:
    assert without_secrets(text, {}) == text


@pytest.mark.parametrize(
    "key",
    [
        *(f"{start}{'a1B2' * 13}" for start in ("xai-", "gsk_", "r8_")),
        *("hf_AbCdEfGhIjKlMnOpQrStUv", "ghp_0123456789abcdefABCD", "sk-proj-0123456789abcdef"),
        *("github_pat_11AAAAAAA0aaaaaaaaaaaa_bbb", "AKIAIOSFODNN7EXAMPLE"),
        "nvapi-0123456789abcdef-XY",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    ],
)
def test_keys_of_services(key: str) -> None:
    for text in ("no {}", "--api {} --x", "https://host/path?a=1&b={}"):
        assert without_secrets(text.format(key), {}) == text.format(REMOVED)


@pytest.mark.parametrize(
    ("text", "safe_text"),
    [
        ("https://me:pass@host/x", f"https://{REMOVED}@host/x"),
        ("https://host/x?token=abc123&n=2", f"https://host/x?token={REMOVED}&n=2"),
        ("Authorization: Bearer abcdefgh1234", f"Authorization: Bearer {REMOVED}"),
    ],
)
def test_keys_in_addresses_and_headers(text: str, safe_text: str) -> None:
    assert without_secrets(text, {}) == safe_text


def test_the_words_of_a_command() -> None:
    command = (
        "run token value --eos-token 2 --sort-key=len --hf-token abc --api-key=x --password -y"
    )
    command += " --db-pass hunter2 --pass=x"
    safe_words = without_secret_arguments(command.split())
    expected = (
        "run token value --eos-token 2 --sort-key=len --hf-token {0} --api-key={0} --password {0}"
        " --db-pass {0} --pass={0}"
    )
    assert " ".join(safe_words) == expected.format(REMOVED)


@pytest.mark.parametrize(
    "name", ["PATH", "PWD", "OLDPWD", "KEYBOARD", "NCCL_BYPASS", "VLLM_PASS_CONFIG", "MONKEY"]
)
def test_what_only_sounds_like_their_names(name: str) -> None:
    assert not is_secret_name(name)


def test_words_that_are_no_keys_leave_the_names_of_fields_alone() -> None:
    """A variable AUTH_MODE=requests took names out of what was measured: no run had a result."""
    keep_secret(["MY_MODE"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MY_MODE", "requests")
        document = {"requests": 4, "requests_p95_s": [{"failed_requests": "no requests"}]}
        assert without_secrets_in(document) == {
            "requests": 4,
            "requests_p95_s": [{"failed_requests": f"no {REMOVED}"}],
        }


def test_a_sign_by_its_name_in_capitals() -> None:
    safe_text = without_secrets("401: in&AMP;use-by-us", {"MY_TOKEN": "in&use-by-us"})
    assert safe_text == f"401: {REMOVED}"


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_a_server_echoes(form: str) -> None:
    message = f"401: {FORMS[form]} is not allowed"
    safe_text = without_secrets(message)
    assert REMOVED in safe_text
    core = base64.b64encode(KEY.encode()[3:-3])[2:-4].decode()
    for part in (KEY, KEY[4:], quote(KEY, safe=""), KEY.encode().hex(), core):
        assert part.lower() not in safe_text.lower()
    document = {"models": [{message: message}], "n": 1, "none": None}
    assert FORMS[form] not in json.dumps(without_secrets_in(document))
    assert without_secrets_in(document)["n"] == 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("max_chars", [20, 40, 300])
def test_a_text_is_cut_through_no_key(form: str, max_chars: int) -> None:
    for before in range(max_chars - 12, max_chars):
        cut = excerpt("-" * before + f"{FORMS[form]} " * 3, max_chars)
        assert len(cut) <= max_chars
        for name, part in forms(KEY[:4]).items():
            assert name in ("header", "base64", "base64 within") or part not in cut


def _key_file(lines: int) -> tuple[str, str]:
    line = base64.b64encode(os.urandom(48)).decode()
    key = "-----BEGIN PRIVATE KEY-----\n" + f"{line}\n" * lines + "-----END PRIVATE KEY-----"
    return key, line[5:60]


def _strike(lines: int) -> None:
    key, part = _key_file(lines)  # another each time: what was made for a key is kept
    assert part not in without_secrets(f"<{json.dumps(key)}>", {"DEPLOY_PRIVATE": key})


def test_a_long_key_is_struck_out_however_it_is_written() -> None:
    key, part = _key_file(50)
    for write in (str, repr, json.dumps, quote, lambda text: quote(text, safe="")):
        assert part not in without_secrets(f"<{write(key)}>", {"DEPLOY_PRIVATE": key})


def test_a_long_key_costs_a_process_little() -> None:
    assert cpu_s(lambda: _strike(50)) < 4 * cpu_s(lambda: _strike(5))


def test_many_blanks_cost_no_more_than_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER", "ab  cd1234x")
    short, long = (f"ab{' ' * size}" for size in (1 << 11, 1 << 14))
    assert cpu_s(lambda: without_secrets(long)) < 32 * cpu_s(lambda: without_secrets(short))


def test_only_ends_of_lines_stand_within_a_key() -> None:
    environ = {"MY_TOKEN": "12345678"}
    assert without_secrets("1 2 3 4 5 6 7 8", environ) == "1 2 3 4 5 6 7 8"
    assert without_secrets("a 123\r\n\t45 \n678, b", environ) == f"a {REMOVED}, b"


def test_other_values_stay() -> None:
    document = {"argv": ["--model", "/models/Llama-3.1-8B"], "rate": 1.5, "ok": True}
    assert without_secrets_in(document) == document


def test_what_is_too_short_to_be_a_key_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVER", "EMPTY")
    assert without_secrets("EMPTY") == "EMPTY"


@pytest.mark.parametrize(
    "settings",
    [
        {"passthrough_kwargs": {"token": "anything"}},
        {"passthrough_kwargs": {"hub": {"api_key": "anything"}}},
        {"passthrough_kwargs": {"headers": ["Bearer abcdefgh12345"]}},
        {"passthrough_kwargs": {"x": "hf_AbCdEfGhIjKlMnOpQrSt"}},
        {"backend": "vllm", "vllm": {"engine": {"tokenizer": "https://me:word@host/x"}}},
        {
            "backend": "openai",
            "openai": {"base_url": "http://127.0.0.1:1", "body": {"user": "sk-0123456789abcdefg"}},
        },
        {"backend": "openai", "openai": {"base_url": "http://127.0.0.1:1/?api_key=abcdef"}},
    ],
)
def test_a_study_that_holds_one_is_refused_and_it_is_not_repeated(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="by the environment") as refused:
        study_from_mapping({"model": "tiny-llama", **settings})
    for secret in ("anything", "abcdefgh12345", "AbCdEf", "word@", "0123456789", "abcdef"):
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [{"pad_token": "<pad>"}, {"token": True}, {"tokenizer_mode": "slow"}, {"token": None}],
)
def test_what_only_sounds_like_one_is_taken(settings: dict[str, Any]) -> None:
    study_from_mapping({"model": "tiny-llama", "passthrough_kwargs": settings})


@pytest.mark.parametrize(
    "server",
    [
        {"base_url": "http://127.0.0.1:1/\r\nX: y"},
        {"base_url": "http://127.0.0.1:1/a b"},
        {"base_url": "http://127.0.0.1:1", "metrics_path": "/metrics\r\nX: y"},
        {"base_url": "http://127.0.0.1:1", "metrics_path": "/metrics HTTP/1.1"},
    ],
)
def test_an_address_has_one_line(server: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="openai"):
        study_from_mapping({"model": "tiny-llama", "backend": "openai", "openai": server})


@pytest.mark.parametrize(
    "piece",
    [
        *("-eyJ", "eyJaaaaaaaa.", "://a", "key=", "bearer ", "\\", "&#", "sk-"),
        *("\\u0063", "%63", "&#0", "c4n4ry/", "c4n4ry\\"),
    ],
)
def test_no_text_takes_longer_than_its_length(piece: str) -> None:
    """A server's error of 64 KiB once took half a minute, between the time stamps of others."""
    short, long = (piece * (size // len(piece)) for size in (1 << 11, 1 << 14))
    assert cpu_s(lambda: without_secrets(long)) < 32 * cpu_s(lambda: without_secrets(short))
    assert len(excerpt(long * 10, 300)) <= 300
