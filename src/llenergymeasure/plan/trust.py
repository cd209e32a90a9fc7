"""What a study makes a machine run, and what it sends away: said before it does."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.config.backends.openai import fill
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.config.servers import is_loopback
from llenergymeasure.plan.plan import Plan

_CODE = re.compile(
    r"trust_remote_code|custom_generate|allow_all_kernels|use_kernels|kernel_config"
    r"|module_path|import_path|middleware|plugin|hook|custom_tokenizer|executor_backend"
    r"|sidecar|logits?_processor|weight_loader|inductor_passes|log(ging)?_config|decrypted_.*config"
    r"|_(cls|class|class_overrides|handler|loader|module|script)\b",
    re.IGNORECASE,
)
"""Arguments of engines that name code to load, by how engines call them."""

_COMPILED = re.compile(r"inductor_passes\.|compilation_config\.(backend|cache_dir)$")
"""Likewise, by the section they are in."""

_ADDRESS = re.compile(r"(?<!ranges_)endpoints?$|_urls?$|_ip$|_port$|tool_server$")
"""Arguments of engines that name an address to open or to ask."""

_NO_CODE = (None, False, "auto", "", "mp", "ray", "uni", "external_launcher", "inductor", "eager")
"""Values of such arguments that name nothing to load."""


def trust_lines(plan: Plan, notify: NotifyConfig | None) -> list[str]:
    """Return what a study runs apart from its engines and sends to whom, a line each."""
    lines: dict[str, None] = {}
    for config in {run.experiment: run.config for run in plan.runs}.values():
        lines |= dict.fromkeys((*_code_lines(config), *_sent_lines(config)))
    judge = plan.sections.get("quality", {}).get("command")
    if judge:
        lines[f"runs the command {shlex.join(judge)} after each run (quality.command)"] = None
    if notify is not None:
        lines |= dict.fromkeys(_notify_lines(notify))
    return ["This study:", *(f"  {line}" for line in lines)] if lines else []


def _code_lines(config: Mapping[str, Any]) -> Iterator[str]:
    backend = str(config.get("backend"))
    server = config.get("openai") or {}
    if server.get("command"):
        variables = (f"{name}={text}" for name, text in (server.get("environment") or {}).items())
        texts = {k: v for k, v in (server.get("values") or {}).items() if isinstance(v, str)}
        words = [fill(word, texts) for word in (*variables, *server["command"])]
        yield f"starts the server {shlex.join(words)} (openai.command)"
    if backend == "openai":
        return
    for place in (backend, "passthrough_kwargs"):
        for key, value in leaves({place: config.get(place)}):
            yield from _argument_lines(key, value)


def _argument_lines(key: str, value: Any) -> Iterator[str]:
    if value in _NO_CODE or value in ([], "[]", "{}"):
        return
    path, value_text = key.replace("-", "_"), str(value)
    name = path.rpartition(".")[2]
    text = "" if ".sampling." in key else value_text  # there it is what a model writes
    code = "" if ".sampling." in key else _code_text(value)
    if _CODE.search(name) or _COMPILED.search(path) or _CODE.search(code):
        effect = "lets the model bring code" if value is True else "loads code"
        yield f"{effect}: {key}: {value_text}"
    elif _ADDRESS.search(name) or "://" in text:
        yield f"opens or asks an address: {key}: {value_text}"


def _code_text(value: Any) -> str:
    """Return where a value may name code: engines take an object as JSON too."""
    if isinstance(value, list):
        return " ".join(map(_code_text, value))
    if not isinstance(value, str) or value == "custom_class":  # by this name a class of one's own
        return str(value)
    try:
        return str(json.loads(value)) if "{" in value else ""
    except (ValueError, RecursionError):  # no object to an engine either, such as a template
        return ""


def _sent_lines(config: Mapping[str, Any]) -> Iterator[str]:
    server = config.get("openai") or {}
    if "base_url" not in server:
        return
    address = urlsplit(str(server["base_url"]))
    is_local = is_loopback(address.hostname or "")
    if server.get("api_key_env"):
        note = "" if address.scheme == "https" or is_local else ", unencrypted"
        key = server["api_key_env"]
        yield f"sends the variable {key} to {address.netloc}{note} (openai.api_key_env)"
    if not is_local:
        yield (
            f"sends its prompts to {address.netloc} (openai.base_url): only the energy of "
            "the machine that the run is on, the client, is measured"
        )


def _notify_lines(notify: NotifyConfig) -> Iterator[str]:
    where = f"the address in {notify.webhook_env}"
    if notify.webhook is not None:
        where = str(urlsplit(notify.webhook).hostname)
    if notify.webhook is not None or notify.webhook_env is not None:
        yield f"notifies {where} of its end (notify)"
    if notify.token_env is not None:
        yield f"sends the variable {notify.token_env} to {where} (notify.token_env)"
    if notify.command is not None:
        yield f"runs the command {shlex.join(notify.command)} at its end (notify.command)"
