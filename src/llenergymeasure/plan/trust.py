"""What a study makes a machine run, and what it sends away: said before it does."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.config.servers import is_loopback
from llenergymeasure.plan.model import Plan

_CODE = re.compile(
    r"trust_remote_code|custom_generate|allow_all_kernels|use_kernels|kernel_config"
    r"|module_path|import_path|middleware|plugin|hook"
    r"|sidecar|logits?_processor|weight_loader|_(cls|class|class_overrides|handler|loader|module|script)$",
    re.IGNORECASE,
)
"""Arguments of engines that name code to load, by how engines call them."""


def runs_or_sends(plan: Plan, notify: NotifyConfig | None) -> list[str]:
    """Return what a study runs apart from its engines and sends to whom, a line each."""
    found: dict[str, None] = {}
    for config in {run.experiment: run.config for run in plan.runs}.values():
        found |= dict.fromkeys((*_code(config), *_sent(config)))
    judge = plan.sections.get("quality", {}).get("command")
    if judge:
        found[f"runs the command {shlex.join(judge)} after each run (quality.command)"] = None
    if notify is not None:
        found |= dict.fromkeys(_news(notify))
    return ["This study:", *(f"  {each}" for each in found)] if found else []


def _code(config: Mapping[str, Any]) -> Iterator[str]:
    backend = str(config.get("backend"))
    command = (config.get("openai") or {}).get("command")
    if command:
        yield f"starts the server {shlex.join(command)} (openai.command)"
    for place in (backend, "passthrough_kwargs"):
        for key, value in leaves({place: config.get(place)}):
            if value not in (None, False, "auto", "") and _CODE.search(key.rpartition(".")[2]):
                what = "lets the model bring code" if value is True else "loads code"
                yield f"{what}: {key}: {value}"


def _sent(config: Mapping[str, Any]) -> Iterator[str]:
    server = config.get("openai") or {}
    if "base_url" not in server:
        return
    address = urlsplit(str(server["base_url"]))
    here = is_loopback(address.hostname or "")
    if server.get("api_key_env"):
        plainly = "" if address.scheme == "https" or here else ", unencrypted"
        key = server["api_key_env"]
        yield f"sends the variable {key} to {address.netloc}{plainly} (openai.api_key_env)"
    if not here:
        yield f"sends its prompts to {address.netloc} (openai.base_url)"


def _news(notify: NotifyConfig) -> Iterator[str]:
    where = f"the address in {notify.webhook_env}"
    if notify.webhook is not None:
        where = str(urlsplit(notify.webhook).hostname)
    if notify.webhook is not None or notify.webhook_env is not None:
        yield f"notifies {where} of its end (notify)"
    if notify.token_env is not None:
        yield f"sends the variable {notify.token_env} to {where} (notify.token_env)"
    if notify.command is not None:
        yield f"runs the command {shlex.join(notify.command)} at its end (notify.command)"
