"""The name of a study, which is also the name of its folder."""

import re

MAX_BYTES = 120


def study_name(given: str) -> str:
    """Return ``given`` as a folder's name: letters, digits, ``.``, ``-`` and ``_``.

    Raises:
        ValueError: it is empty, too long, or holds what could lead to another folder.
    """
    if not given.strip():
        raise ValueError("must not be empty")
    if any(not char.isprintable() for char in given):
        raise ValueError("must not hold line breaks or control characters")
    if "/" in given or "\\" in given:
        raise ValueError("must be a plain name, not a path: remove / and \\; output_dir says where")
    if given.strip().startswith("."):
        raise ValueError("must not start with a dot")
    name = re.sub(r"[^\w.-]+", "-", given.strip()).strip("-")
    if not re.search(r"\w", name):
        raise ValueError("must hold a letter or digit")
    if len(name.encode()) > MAX_BYTES:
        raise ValueError(f"must be no longer than {MAX_BYTES} bytes")
    return name
