"""The Hugging Face hub: what is there, and why something is not to be had."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llenergymeasure.config.nearest import did_you_mean
from llenergymeasure.errors import BackendError
from llenergymeasure.installation import install_command
from llenergymeasure.workload.models.known import closest_known

REACH_LIMIT_S = 2.0

_CONFIG = "config.json"
_TRUE_VALUES = frozenset({"1", "ON", "YES", "TRUE"})


def offline() -> bool:
    """Whether the hub must not be asked (``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``)."""
    switches = (os.environ.get("HF_HUB_OFFLINE"), os.environ.get("TRANSFORMERS_OFFLINE"))
    return any(value is not None and value.upper() in _TRUE_VALUES for value in switches)


def unreachable_reason() -> str | None:
    """Return why the hub cannot be asked, found within two seconds; None if it seems to answer."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    proxy = getproxies().get(address.scheme)
    uses_proxy = bool(proxy) and not proxy_bypass(str(address.hostname))
    if proxy and uses_proxy:
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        port = address.port or {"http": 80, "https": 443}.get(address.scheme, 1080)
    except ValueError:  # no number: whoever uses it says so
        return None
    if address.hostname is None:  # likewise
        return None
    host_and_port = address.hostname, port
    answers: list[bool] = []

    def connect() -> None:
        with suppress(OSError), socket.create_connection(host_and_port, REACH_LIMIT_S):
            answers.append(True)

    thread = threading.Thread(target=connect, daemon=True)  # names are looked up without a limit
    thread.start()
    thread.join(REACH_LIMIT_S)
    if answers:
        return None
    return f"{'the proxy ' if uses_proxy else ''}{address.hostname} cannot be reached"


def fetch_config(model: str, revision: str | None) -> Path:
    """Return the local path of a model's ``config.json``, downloaded if need be.

    Raises:
        BackendError: it cannot be fetched; the message distinguishes offline, missing and gated.
    """
    cached = cached_file(model, _CONFIG, revision)
    if cached is not None:
        return cached
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise BackendError(
            f"model {model} needs the huggingface_hub package to be fetched: "
            f"{install_command('pytorch')}"
        ) from error
    if offline():
        raise BackendError(
            f"model {model}: it {_describe_cache(model)} and HF_HUB_OFFLINE forbids to fetch it"
            f"{built_in_suggestion(model)}"
        )
    try:
        return Path(hf_hub_download(model, _CONFIG, revision=revision))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        unreachable = (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError)
        reasons: dict[type[Exception] | tuple[type[Exception], ...], str] = {
            errors.GatedRepoError: "is gated: accept its terms on its page, then log in with "
            "`hf auth login` or set HF_TOKEN",
            errors.RepositoryNotFoundError: "is not on the hub, or is private and no valid "
            "HF_TOKEN is set",
            errors.RevisionNotFoundError: f"has no revision {revision}",
            errors.RemoteEntryNotFoundError: f"on the hub has no {_CONFIG}",
            unreachable: f"{_describe_cache(model)} and the hub cannot be reached "
            f"({type(error).__name__}); connect, or name a local folder, tiny-llama, or an "
            "architecture with weights: random",
            ValueError: f"cannot be asked for: {error}",
        }
        reason = next(text for kind, text in reasons.items() if isinstance(error, kind))
        raise BackendError(f"model {model} {reason}{built_in_suggestion(model)}") from error


def _describe_cache(model: str) -> str:
    """Return in words what the local cache has of a model that it has not as it is asked for."""
    cache, revisions = hub_cache(), []
    if cache is not None:
        snapshots = cache / f"models--{model.replace('/', '--')}" / "snapshots"
        revisions = sorted(path.parent.name for path in snapshots.glob(f"*/{_CONFIG}"))
    if not revisions:
        return "is not in the local cache of the hub"
    return (
        f"is in the local cache of the hub in other revisions alone, {', '.join(revisions)} "
        "(give one as the engine's revision, as in pytorch.revision),"
    )


def built_in_suggestion(model: str) -> str:
    """Return the end of a message that asks whether a built-in model was meant; empty for none."""
    closest = None if "/" in model else closest_known(model)
    return did_you_mean([closest] if closest else [])


def cached_file(model: str, filename: str, revision: str | None) -> Path | None:
    """Return a file's path in the local cache of the hub, without asking the hub."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        path = try_to_load_from_cache(model, filename, revision=revision)
    except HFValidationError:
        return None
    return Path(path) if isinstance(path, str) else None


def hub_cache() -> Path | None:
    """Return the folder of the hub's local cache; None without the package that knows it."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE)
