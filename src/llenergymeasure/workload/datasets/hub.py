"""Prompts from a data set on the Hugging Face hub."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from llenergymeasure.errors import BackendError, ConfigurationError, Problem
from llenergymeasure.installation import install_command
from llenergymeasure.workload.datasets.record import Dataset, Rows

ALIASES: Mapping[str, str] = MappingProxyType({"aienergyscore": "AIEnergyScore/text_generation"})
"""Short names: ``aienergyscore`` is AI Energy Score's set of 1,000 prompts for text generation."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_SPLITS = ("train", "test", "validation")
_ALTERNATIVES = (
    "use dataset: synthetic, or the path of a local .json, .jsonl, .csv, .parquet or .txt file"
)


def read_hub(name: str) -> Dataset:
    """Return the prompts of a data set on the hub, or of a folder of its kind, in its order.

    The split is ``train`` if there is one, else ``test``, ``validation``, or the first. A colon
    names one of its configurations: ``owner/name:configuration``.

    Raises:
        ConfigurationError: the ``datasets`` package is missing, or rows are malformed.
        BackendError: the data set cannot be fetched.
    """
    try:
        from datasets import load_dataset, utils
    except ImportError as error:
        raise ConfigurationError(
            Problem(
                "data sets on the hub need the extra datasets: "
                f"{install_command('datasets')}; or {_ALTERNATIVES}",
                key="dataset",
                found=name,
            )
        ) from error
    utils.logging.disable_progress_bar()
    path, _, configuration = ALIASES.get(name, name).partition(":")
    try:
        splits = load_dataset(path, configuration or None)
    except Exception as error:
        # The library raises its own, the hub's, the transport's and pyarrow's errors here.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise BackendError(
            f"dataset {name} cannot be fetched from the hub ({type(error).__name__}: {reason[0]}); "
            f"{_ALTERNATIVES}"
        ) from error
    split = next((split for split in _SPLITS if split in splits), next(iter(splits)))
    rows = Rows(None, f"dataset {name}")
    for number, values in enumerate(splits[split], start=1):
        rows.add(number, values)
    return rows.dataset()


def is_hub_name(name: str) -> bool:
    """Whether a data set's name is one of the short names, or looks like an id on the hub."""
    return name in ALIASES or _ID.fullmatch(name) is not None
