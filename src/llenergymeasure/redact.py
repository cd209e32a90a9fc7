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

_SHORTEST = 8
"""Characters of a variable's value below which it is too common a text to be struck out."""

_LONG = 512
"""Signs of a value above which letters and digits are looked for as they are: a pattern of every
form of each takes most of a second to make for a key of several kB."""

_BREAK = re.compile(r"[ \t]{0,8}\r?\n[ \t]{0,80}")
"""The end of a line, which a text in lines has within a secret."""

_ESCAPE = re.compile(r"[%\\]|&[#a-zA-Z]")
"""Is in a text in which signs are escaped, as in URLs, JSON or HTML."""

_NAMES = {"&": ["amp"], "<": ["lt"], ">": ["gt"], '"': ["quot"], "'": ["apos"]}
"""What HTML calls the signs that it escapes."""

_TYPED = {"\n": "n", "\r": "r", "\t": "t"}
"""How JSON and most languages write these signs behind a backslash."""

_ENCODED = ((base64.b64encode, 6, 3), (base64.urlsafe_b64encode, 6, 3), (base64.b32encode, 5, 5))
"""What bytes are written in, how many bits a sign has, and after how many bytes signs repeat."""

_FIELD = re.compile(r"[a-z_]+(?:\d{1,2}(?:_[a-z_]+)?)?")
"""Names of ours, which the value of a variable may happen to stand in."""

_BEFORE_CUT = 1 << 16
"""Signs of a long text that are looked at before it is cut."""

_SECRET_ARGUMENT = re.compile(
    r"^token$|(^|_)(api_key|(hf|auth|access)_token|password|passwd|secret|credentials?|proxies)$",
    re.IGNORECASE,
)


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret."""
    return any(each.search(name) for each in (_SECRET_NAME, _KEY_NAME, _PASS_NAME))


def secret_argument(value: Any, name: str = "") -> str | None:
    """Return the dotted name of the first argument that is given a secret; None if none is."""
    if isinstance(value, dict | Mapping):
        inner = (secret_argument(each, f"{name}.{key}".strip(".")) for key, each in value.items())
        return next((found for found in inner if found), None)
    if isinstance(value, list | tuple):
        options = ["", *(str(each).lstrip("-").replace("-", "_") for each in value)]
        pairs = zip(options, value, strict=False)
        found = (secret_argument(each, name) or secret_argument(each, key) for key, each in pairs)
        return name if any(found) else None
    plain = value.replace(KEY_PLACE, "") if isinstance(value, str) else ""
    is_secret = _SECRET_ARGUMENT.search(name.rpartition(".")[2]) or _SECRET_VALUE.search(plain)
    return name if plain and is_secret else None


def without_secrets(
    text: str, environ: Mapping[str, str] | None = None, also: Iterable[str | None] = ()
) -> str:
    """Return ``text`` with what looks like a password, key or token replaced.

    Args:
        text: what is to be written.
        environ: variables whose secrets are struck out literally; this process's if not given.
        also: further texts to strike out.
    """
    return _struck(text, _known(os.environ if environ is None else environ, also))


def without_secrets_in(value: Any) -> Any:
    """Return plain values, as JSON holds them, with the secrets in their texts replaced."""
    return _within(value, _known(os.environ))


def without_secret_arguments(command: Sequence[str]) -> list[str]:
    """Return the words of a command with its secrets replaced, also what stands after an option."""
    struck = []
    for before, word in zip(["", *command], command, strict=False):
        name, sign, value = word.partition("=")
        if _is_secret_option(before) and not word.startswith("--"):
            struck.append(REMOVED)
        elif sign and value and _is_secret_option(name):
            struck.append(f"{name}={REMOVED}")
        else:
            struck.append(without_secrets(word))
    return struck


def _is_secret_option(word: str) -> bool:
    name = word.lstrip("-").replace("-", "_")
    patterns = (_SECRET_ARGUMENT, _PASS_NAME)
    return word.startswith("-") and any(each.search(name) for each in patterns)


def excerpt(text: str, most: int) -> str:
    """Return the beginning of a text from outside; a secret is struck out before it is cut."""
    return text if len(text) <= most else without_secrets(text[:_BEFORE_CUT])[:most]


def make_key() -> str:
    """Return a new key for a run's own server, a secret from now on."""
    os.environ[KEY_VARIABLE] = secrets.token_hex(32)  # no "-" to begin with, for command lines
    keep_secret([KEY_VARIABLE])
    return os.environ[KEY_VARIABLE]


def keep_secret(names: Iterable[str | None]) -> None:
    """Let the values of these variables be secrets, for this process and its children."""
    known = os.environ.get(IN_USE_VARIABLE, "").split()
    os.environ[IN_USE_VARIABLE] = " ".join(sorted({*known, *filter(None, names)}))


_Known = tuple[re.Pattern[str], re.Pattern[str]]
"""What finds an environment's secrets, and what finds them where signs are escaped."""


def _known(environ: Mapping[str, str], also: Iterable[str | None] = ()) -> _Known | None:
    """Return what finds the secrets of an environment, in all forms that text may have them in."""
    in_use = environ.get(IN_USE_VARIABLE, "").split()
    values = [
        value.strip()
        for name, value in environ.items()
        if name in in_use
        or (_is_secret(name, value.strip()) and not os.path.exists(value))  # noqa: PTH110
        or (_KEY_NAME.search(name) and _KEY_VALUE.fullmatch(value.strip()))
    ]
    values = [value for value in values if len(value) >= _SHORTEST]
    values += [value.strip() for value in also if value and value.strip()]
    return _patterns(tuple(sorted(values, key=len, reverse=True)))


def _is_secret(name: str, value: str) -> bool:
    named = _SECRET_NAME.search(name) is not None
    return named or bool(_PASS_NAME.search(name) and not _PLAIN_WORD.fullmatch(value))


@functools.lru_cache(maxsize=8)
def _patterns(values: tuple[str, ...]) -> _Known | None:
    """Return what finds these secrets; made once, as many texts are looked through for them."""
    forms = {form for value in values for form in _forms(value)}
    if not forms:
        return None
    whole = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    escaped = "|".join(
        "".join(sign if len(value) > _LONG and sign.isalnum() else _escaped(sign) for sign in value)
        for value in values
    )
    return re.compile(whole), re.compile(escaped)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and in hexadecimal and within base64 or base32 of a longer text."""
    yield secret
    yield secret.replace("\n", "\r\n")
    yield "\0".join(secret)  # UTF-16 that was read as if it were UTF-8
    wide = secret.encode("utf-16-le", errors="surrogatepass")
    for content, ways in (
        (secret.encode(errors="surrogateescape"), _ENCODED),
        (wide, _ENCODED[:1]),
    ):
        yield content.hex()
        yield content.hex().upper()
        for encode, bits, places in ways:
            for before in range(places):
                first, end = -(-8 * before // bits), 8 * (before + len(content)) // bits
                yield encode(bytes(before) + content).decode()[first:end]


def _escaped(sign: str) -> str:
    """Return the pattern of a sign as it is, or escaped as in a URL, JSON or HTML."""
    code = ord(sign)
    # Escaped once or several times over, as in an address within an address.
    url = "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in sign.encode(errors="surrogateescape"))
    names = [f"\\#0{{0,4}}{code}", f"\\#x0{{0,4}}{code:x}", *_NAMES.get(sign, ())]
    html = rf"&(?:amp;){{0,4}}(?:{'|'.join(names)});"
    letters = "|".join([f"u{code:04x}", f"x{code:02x}", f"{code:03o}", *_TYPED.get(sign, "")])
    text = rf"\\{{1,8}}(?:{letters})"
    return rf"(?:(?i:{url}|{text}|{html})|\\{{0,8}}{re.escape(sign)})"


def _struck(text: str, known: _Known | None) -> str:
    if known is not None:
        whole, escaped = known
        text = _over_lines(whole.sub(REMOVED, text), whole)
        if _ESCAPE.search(text):
            text = escaped.sub(REMOVED, text)
    return _SECRET_VALUE.sub(REMOVED, text)


def _over_lines(text: str, whole: re.Pattern[str]) -> str:
    """Return ``text`` without the secrets that are broken over its lines."""
    starts, taken = [0], [0]
    for found in _BREAK.finditer(text):
        starts.append(found.start() - taken[-1])
        taken.append(taken[-1] + len(found[0]))
    parts, after = [], 0
    for found in whole.finditer(_BREAK.sub("", text)) if len(starts) > 1 else ():
        begin = found.start() + taken[bisect_right(starts, found.start()) - 1]
        parts += [text[after:begin], REMOVED]
        after = found.end() + taken[bisect_left(starts, found.end()) - 1]
    return "".join([*parts, text[after:]])


def _within(value: Any, known: _Known | None) -> Any:
    if isinstance(value, str):
        return _struck(value, known)
    if isinstance(value, Mapping):
        return {_name(key, known): _within(each, known) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_within(each, known) for each in value]
    return value


def _name(key: Any, known: _Known | None) -> Any:
    return key if isinstance(key, str) and _FIELD.fullmatch(key) else _within(key, known)
