"""Secrets taken out of text before it reaches a file (standard library only)."""

import base64
import functools
import os
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

REMOVED = "[removed]"

KEY_PLACE = "{api_key}"
"""Stands where a server gets the key that its run makes for it."""

KEY_FILE_PLACE = "{key_file}"
"""Stands where a server gets the path of a file with that key."""

KEY_VARIABLE = "LLEM_SERVER_KEY"
"""Holds the key of a run's own server, in all processes of the run."""

IN_USE_VARIABLE = "LLEM_IN_USE"
"""Names the variables that hold what a study sends as a key, whatever they are called."""

_SECRET_VALUE = re.compile(
    r"""
    (?<=://)[^/\s@]+(?:@[^/\s@"'<>,;]+)*(?=@)           # user and password in an address
    | \b(?:hf|api_org)_[A-Za-z0-9]{16,}                  # Hugging Face
    | \bgsk_[A-Za-z0-9]{40,} | \br8_[A-Za-z0-9]{37,}     # Groq, Replicate
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{16,}
    | \bglpat-[\w-]{16,}
    | \b(?:sk|pk|rk)-[\w-]{16,}                          # OpenAI and others
    | \bxai-[A-Za-z0-9]{40,}                            # xAI
    | \bxox[abprs]-[\w-]{8,}                             # Slack
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                      # AWS
    | \bAIza[\w-]{30,}                                   # Google
    | \bnvapi-[\w-]{16,}                                 # NVIDIA
    | \beyJ[\w-]{8,500}\.[\w-]{8,}\.[\w-]*              # JSON Web Token (RFC 7519)
    | (?i:(?<=bearer\ )|(?<=basic\ ))[\w.~+/=-]{8,}
    | (?i:(?<=api_key=)|(?<=secret=)|(?<=password=)|(?<=passwd=)|(?<=sig=)|(?<=signature=)
        |(?<=credential=)|(?<=[?&]token=)|(?<=[?&]key=)|(?<=access_token=))[^&\s"',;]+
    | (?i:(?<=token=)|(?<=key=))[^&\s"',;]{8,}           # shorter ones are --eos-token=2
    """,
    re.VERBOSE,
)

_SECRET_NAME = re.compile(
    r"TOKEN(?!IZER|S?_PER|S$)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|AUTH"
    r"|COOKIE|SESSION|WEBHOOK|JWT|(^|_)(PASSPHRASE|DSN)$|_PWD?$",
    re.IGNORECASE,
)

_KEY_NAME = re.compile(r"(^|_)(?<!PUBLIC_)(KEY|PAT)$", re.IGNORECASE)
_KEY_VALUE = re.compile(
    r"(?=.*[0-9])(?=.*[A-Za-z])(?:[^/\s]{16,}|[A-Za-z0-9+][A-Za-z0-9+/]{39,}=*)"
)
"""Names of keys and of other things, such as a model, and which of their values are keys."""

_PASS_NAME = re.compile(r"(^|_|SSH|DB)PASS$", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[A-Z]?[a-z_]{1,15}|[A-Z_]{1,16}|[a-z]+(?:[_.][a-z]+)+|\d{4}-\d\d-\d\d")
"""Names of passwords and of passes over something, and which of their values are no password."""

_MIN_SECRET_CHARS = 8
"""Characters of a variable's value below which it is too common a text to be struck out."""

_LONG_SECRET_CHARS = 512
"""Above this length letters and digits are looked for as they are: a pattern of every form of each
takes most of a second to make for a key of several kB."""

_LINE_BREAK = re.compile(r"[ \t]{0,8}\r?\n[ \t]{0,80}")
"""The end of a line, which a text in lines has within a secret."""

_ESCAPE = re.compile(r"[%\\]|&[#a-zA-Z]")
"""Is in a text in which characters are escaped, as in URLs, JSON or HTML."""

_HTML_NAMES = {"&": ["amp"], "<": ["lt"], ">": ["gt"], '"': ["quot"], "'": ["apos"]}
"""What HTML calls the characters that it escapes."""

_BACKSLASH_CODES = {"\n": "n", "\r": "r", "\t": "t"}
"""How JSON and most languages write these characters behind a backslash."""

_ENCODINGS = ((base64.b64encode, 6, 3), (base64.urlsafe_b64encode, 6, 3), (base64.b32encode, 5, 5))
"""What bytes are written in, bits per character, and after how many bytes they repeat."""

_FIELD_NAME = re.compile(r"[a-z_]+(?:\d{1,2}(?:_[a-z_]+)?)?")
"""Names of ours, which the value of a variable may happen to stand in."""

_EXCERPT_SCAN_CHARS = 1 << 16
"""Characters of a long text that are looked at before it is cut."""

_SECRET_ARGUMENT = re.compile(
    r"^token$|(^|_)(api_key|(hf|auth|access)_token|password|passwd|secret|credentials?|proxies)$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret."""
    return any(pattern.search(name) for pattern in (_SECRET_NAME, _KEY_NAME, _PASS_NAME))


def secret_argument(value: Any, name: str = "") -> str | None:
    """Return the dotted name of the first argument that is given a secret; None if none is."""
    if isinstance(value, dict | Mapping):
        for key, item in value.items():
            if secret_name := secret_argument(item, f"{name}.{key}".strip(".")):
                return secret_name
        return None
    if isinstance(value, list | tuple):
        for option, item in zip(["", *map(_option_name, value)], value, strict=False):
            if secret_argument(item, name) or secret_argument(item, option):
                return name
        return None
    plain = value.replace(KEY_PLACE, "") if isinstance(value, str) else ""
    is_secret = _SECRET_ARGUMENT.search(name.rpartition(".")[2]) or _SECRET_VALUE.search(plain)
    return name if plain and is_secret else None


def without_secrets(
    text: str, environ: Mapping[str, str] | None = None, extra_secrets: Iterable[str | None] = ()
) -> str:
    """Return ``text`` with what looks like a password, key or token replaced.

    Args:
        text: what is to be written.
        environ: variables whose secrets are struck out literally; this process's if not given.
        extra_secrets: further texts to strike out.
    """
    return _redact(text, _patterns(os.environ if environ is None else environ, extra_secrets))


def without_secrets_in(value: Any) -> Any:
    """Return plain values, as JSON holds them, with the secrets in their texts replaced."""
    return _redact_value(value, _patterns(os.environ))


def without_secret_arguments(command: Sequence[str]) -> list[str]:
    """Return the words of a command with its secrets replaced, also what stands after an option."""
    safe_words = []
    for previous, word in zip(["", *command], command, strict=False):
        name, equals, value = word.partition("=")
        if _is_secret_option(previous) and not word.startswith("--"):
            safe_words.append(REMOVED)
        elif equals and value and _is_secret_option(name):
            safe_words.append(f"{name}={REMOVED}")
        else:
            safe_words.append(without_secrets(word))
    return safe_words


def _option_name(word: Any) -> str:
    return str(word).lstrip("-").replace("-", "_")


def _is_secret_option(word: str) -> bool:
    name = _option_name(word)
    is_secret = _SECRET_ARGUMENT.search(name) or _PASS_NAME.search(name)
    return word.startswith("-") and is_secret is not None


def excerpt(text: str, max_chars: int) -> str:
    """Return the beginning of a text from outside; a secret is struck out before it is cut."""
    if len(text) <= max_chars:
        return text
    return without_secrets(text[:_EXCERPT_SCAN_CHARS])[:max_chars]


def make_key() -> str:
    """Return a new key for a run's own server, a secret from now on."""
    os.environ[KEY_VARIABLE] = secrets.token_hex(32)  # no "-" to begin with, for command lines
    keep_secret([KEY_VARIABLE])
    return os.environ[KEY_VARIABLE]


def keep_secret(names: Iterable[str | None]) -> None:
    """Let the values of these variables be secrets, for this process and its children."""
    secret_names = os.environ.get(IN_USE_VARIABLE, "").split()
    os.environ[IN_USE_VARIABLE] = " ".join(sorted({*secret_names, *filter(None, names)}))


_Patterns = tuple[re.Pattern[str], re.Pattern[str]]
"""What finds an environment's secrets, and what finds them where characters are escaped."""


def _patterns(environ: Mapping[str, str], also: Iterable[str | None] = ()) -> _Patterns | None:
    """Return what finds the secrets of an environment, in all forms that text may have them in."""
    in_use = environ.get(IN_USE_VARIABLE, "").split()
    values = [
        value.strip()
        for name, value in environ.items()
        if name in in_use
        or (_is_secret(name, value.strip()) and not os.path.exists(value))  # noqa: PTH110
        or (_KEY_NAME.search(name) and _KEY_VALUE.fullmatch(value.strip()))
    ]
    values = [value for value in values if len(value) >= _MIN_SECRET_CHARS]
    values += [value.strip() for value in also if value and value.strip()]
    return _compile_patterns(tuple(sorted(values, key=len, reverse=True)))


def _is_secret(name: str, value: str) -> bool:
    has_secret_name = _SECRET_NAME.search(name) is not None
    return has_secret_name or bool(_PASS_NAME.search(name) and not _PLAIN_WORD.fullmatch(value))


@functools.lru_cache(maxsize=8)
def _compile_patterns(values: tuple[str, ...]) -> _Patterns | None:
    """Return what finds these secrets; made once, as many texts are looked through for them."""
    forms = {form for value in values for form in _encoded_forms(value)}
    if not forms:
        return None
    literal = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return re.compile(literal), re.compile("|".join(map(_escaped_secret, values)))


def _encoded_forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and in hexadecimal and within base64 or base32 of a longer text."""
    yield secret
    yield secret.replace("\n", "\r\n")
    yield "\0".join(secret)  # UTF-16 that was read as if it were UTF-8
    utf8 = secret.encode(errors="surrogateescape")
    utf16 = secret.encode("utf-16-le", errors="surrogatepass")
    for content, encodings in ((utf8, _ENCODINGS), (utf16, _ENCODINGS[:1])):
        yield content.hex()
        yield content.hex().upper()
        for encode, bits, offsets in encodings:
            for offset in range(offsets):
                first, end = -(-8 * offset // bits), 8 * (offset + len(content)) // bits
                yield encode(bytes(offset) + content).decode()[first:end]


def _escaped_secret(secret: str) -> str:
    """Return the pattern of a secret whose characters may be escaped."""
    keep_alnum = len(secret) > _LONG_SECRET_CHARS
    return "".join(char if keep_alnum and char.isalnum() else _char_forms(char) for char in secret)


def _char_forms(char: str) -> str:
    """Return the pattern of a character as it is, or escaped as in a URL, JSON or HTML."""
    code = ord(char)
    # Escaped once or several times over, as in an address within an address.
    url = "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in char.encode(errors="surrogateescape"))
    names = [f"\\#0{{0,4}}{code}", f"\\#x0{{0,4}}{code:x}", *_HTML_NAMES.get(char, ())]
    html = rf"&(?:amp;){{0,4}}(?:{'|'.join(names)});"
    codes = [f"u{code:04x}", f"x{code:02x}", f"{code:03o}", *_BACKSLASH_CODES.get(char, "")]
    backslash = rf"\\{{1,8}}(?:{'|'.join(codes)})"
    return rf"(?:(?i:{url}|{backslash}|{html})|\\{{0,8}}{re.escape(char)})"


def _redact(text: str, patterns: _Patterns | None) -> str:
    if patterns is not None:
        literal, escaped = patterns
        text = _redact_across_lines(literal.sub(REMOVED, text), literal)
        if _ESCAPE.search(text):
            text = escaped.sub(REMOVED, text)
    return _SECRET_VALUE.sub(REMOVED, text)


def _redact_across_lines(text: str, literal: re.Pattern[str]) -> str:
    """Return ``text`` without the secrets that are broken over its lines."""
    break_starts, removed_lengths = [0], [0]
    for match in _LINE_BREAK.finditer(text):
        break_starts.append(match.start() - removed_lengths[-1])
        removed_lengths.append(removed_lengths[-1] + len(match[0]))
    if len(break_starts) == 1:
        return text
    parts, end = [], 0
    for match in literal.finditer(_LINE_BREAK.sub("", text)):
        begin = match.start() + removed_lengths[bisect_right(break_starts, match.start()) - 1]
        parts += [text[end:begin], REMOVED]
        end = match.end() + removed_lengths[bisect_left(break_starts, match.end()) - 1]
    return "".join([*parts, text[end:]])


def _redact_value(value: Any, patterns: _Patterns | None) -> Any:
    if isinstance(value, str):
        return _redact(value, patterns)
    if isinstance(value, Mapping):
        return {_redact_key(k, patterns): _redact_value(v, patterns) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(item, patterns) for item in value]
    return value


def _redact_key(key: Any, patterns: _Patterns | None) -> Any:
    is_field = isinstance(key, str) and _FIELD_NAME.fullmatch(key)
    return key if is_field else _redact_value(key, patterns)
