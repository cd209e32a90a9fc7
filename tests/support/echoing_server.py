"""A server that writes the key that it is asked with wherever a server can write anything.

    python echoing_server.py PORT HEARD

HEARD gets each key. Three answers in four are whole, the others fail in a new way each time.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import quote

TOKENS = 4


def forms(key: str) -> dict[str, str]:
    """The ways in which a text may hold a key."""
    content = key.encode()
    return {
        "plain": key,
        "header": f"Bearer {key}",
        "base64": base64.b64encode(content).decode(),
        "base64 within": base64.b64encode(b"Bearer " + content + b"!").decode(),
        "url": quote(key, safe=""),
        "every sign in a url": "".join(f"%{byte:02x}" for byte in content),
        "hex": content.hex(),
        "HEX": content.hex().upper(),
        "json": json.dumps(key).strip('"').replace("/", "\\/").replace("+", "\\u002B"),
        "every sign in json": "".join(f"\\u{ord(char):04x}" for char in key),
        "html": "".join(f"&#{ord(char)};" for char in key),
    }


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    heard: Path
    numbers = count()

    def _all(self) -> list[str]:
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.heard.open("a") as stream:
            stream.write(f"{key}\n")
        return list(forms(key).values()) if key else ["no key"]

    def _page(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status, "x")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        secrets = self._all()
        if self.path == "/metrics":
            lines = [f'{"sim:running"}{{key="{secret}"}} 0' for secret in secrets]
            self._page(200, "\n".join([*lines, "sim:requests 0", ""]))
        else:
            models = [
                {"id": secret, secret: secret, "raw": json.dumps(secret)} for secret in secrets
            ]
            self._page(200, json.dumps({"data": models, "said": " ".join(secrets)}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        secrets, number = self._all(), next(self.numbers)
        print("asked with", *secrets, flush=True)
        secret, way_number = secrets[number // 4 % len(secrets)], number // (4 * len(secrets))
        if number % 4 == 3:
            self._fail(way_number % 5, secret, secrets)
            return
        part = {"choices": [{"index": 0, "text": secret}], "model": secret}
        prompt = request["prompt"]
        usage = {
            "prompt_tokens": len(prompt.split() if isinstance(prompt, str) else prompt),
            "completion_tokens": request["max_tokens"],
            secret: secret,
        }
        end = {"choices": [{"index": 0, "text": "", "finish_reason": secret}], "usage": usage}
        self._stream([part] * request["max_tokens"] + [end])

    def _fail(self, way: int, secret: str, secrets: list[str]) -> None:
        if way == 0:
            self._page(401, "x" * (number_of(secret) % 290) + secret)  # cut anywhere
        elif way == 1:
            self._stream([{"error": {"message": f"no such key: {secret}", "all": secrets}}])
        elif way == 2:
            self._page(200, f"data: {secret} is no JSON\n\ndata: [DONE]\n\n")
        elif way == 3:
            self._stream([{"choices": [], "usage": {secret: 1, "x" * 60 + secret: 2}}])
        else:
            self._stream([{"choices": [], "usage": {"prompt_tokens": secret}}])

    def _stream(self, events: list[object]) -> None:
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self._page(200, "".join([*lines, "data: [DONE]\n\n"]))

    def log_message(self, *_: object) -> None:
        pass


def number_of(text: str) -> int:
    return sum(text.encode())


if __name__ == "__main__":
    Echo.heard = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
