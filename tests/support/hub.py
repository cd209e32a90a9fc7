"""A hub cache with a model in it, as a download would leave it, and a hub to download from."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llenergymeasure.workload.models.tiny import tiny_llama_folder
from support import web

COMMIT = "0" * 40


def offer_model(hub: Path, repository: str) -> None:
    """Put the tiny model into a hub cache under a repository's name."""
    base = hub / f"models--{repository.replace('/', '--')}"
    shutil.copytree(tiny_llama_folder(), base / "snapshots" / COMMIT)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(COMMIT)


@contextmanager
def serving_repository(repository: str, folder: Path) -> Iterator[str]:
    """Serve a folder's files as a hub serves a repository's; give the endpoint.

    Weights are large files: listed by their SHA-256, and redirected to another host.
    """
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    pages = {
        f"/api/models/{repository}/revision/main": {"id": repository, "sha": COMMIT},
        f"/api/models/{repository}/tree/{COMMIT}": [_entry(path) for path in files.values()],
    }

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            address = unquote(urlsplit(self.path).path)
            prefix, _, name = address.rpartition("/")
            if address in pages:
                self.answer(200, {}, json.dumps(pages[address]).encode())
            elif prefix == "/large" and name in files:
                self.answer(200, {}, files[name].read_bytes())
            elif prefix == f"/{repository}/resolve/{COMMIT}" and name in files:
                self.file(files[name])
            else:
                self.answer(404, {"X-Error-Code": "EntryNotFound"}, b"")

        def file(self, path: Path) -> None:
            entry = _entry(path)
            headers = {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": COMMIT}
            if "lfs" not in entry:
                self.answer(200, headers, path.read_bytes())
                return
            linked = {"X-Linked-ETag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": entry["size"]}
            elsewhere = f"http://localhost:{self.headers['Host'].rpartition(':')[2]}"
            linked["Location"] = f"{elsewhere}/large/{path.name}"
            self.answer(302, {**headers, **linked}, b"")

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for header, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(header, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with web.serving(Hub) as port:
        yield f"http://127.0.0.1:{port}"


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry = {"type": "file", "path": path.name, "size": len(content), "oid": blob}
    if path.suffix == ".safetensors":
        entry["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 134,
        }
    return entry
