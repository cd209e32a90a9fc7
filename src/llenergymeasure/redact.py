"""Secrets taken out of text before it reaches a file (standard library only)."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

REMOVED = "[removed]"

_SECRET_VALUE = re.compile(
    r"""
    (?<=://)[^/\s@]+(?=@)                                # user and password in an address
    | \b(?:hf|api_org)_[A-Za-z0-9]{16,}                  # Hugging Face
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{16,}
    | \bglpat-[\w-]{16,}
    | \b(?:sk|pk|rk)-[\w-]{16,}                          # OpenAI and others
    | \bxox[abprs]-[\w-]{8,}                             # Slack
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                      # AWS
    | \bAIza[\w-]{30,}                                   # Google
    | \bnvapi-[\w-]{16,}                                 # NVIDIA
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*                  # JSON Web Token (RFC 7519)
    | (?i:(?<=bearer\ )|(?<=basic\ ))[\w.~+/=-]{8,}
    | (?i:(?<=token=)|(?<=key=)|(?<=secret=)|(?<=password=)|(?<=passwd=)|(?<=sig=)
        |(?<=signature=)|(?<=credential=))[^&\s"',;]+
    """,
    re.VERBOSE,
)

_SECRET_NAME = re.compile(
    r"TOKEN(?!IZER|S?_PER|S$)|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE|AUTH"
    r"|COOKIE|SESSION|WEBHOOK",
    re.IGNORECASE,
)

_SHORTEST = 8
"""Characters of a variable's value below which it is too common a text to be struck out."""


def is_secret_name(name: str) -> bool:
    """Return whether a variable of this name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def without_secrets(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return ``text`` with what looks like a password, key or token replaced.

    Args:
        text: what is to be written.
        environ: variables whose secrets are struck out literally; this process's if not given.
    """
    known = {
        value
        for name, value in (os.environ if environ is None else environ).items()
        if len(value) >= _SHORTEST and is_secret_name(name) and not Path(value).exists()
    }
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, REMOVED)
    return _SECRET_VALUE.sub(REMOVED, text)
