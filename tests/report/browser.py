"""A page in a real headless Chromium: how wide it gets, what it fetches, what it looks like.

``python tests/report/browser.py REPORT.html FOLDER`` makes the pictures of the documentation.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

WIDTHS = {"desktop": 1280, "phone": 390}
TALLEST = 4000


class Browser:
    """A Chromium, spoken to through its debugging pipe (Chrome DevTools Protocol)."""

    def __init__(self) -> None:
        name = next((path for path in ("chromium", "google-chrome") if shutil.which(path)), None)
        if name is None:
            raise FileNotFoundError("no chromium: apt install chromium")
        self._profile = tempfile.mkdtemp(prefix="llem-chromium-")
        ours, theirs = os.pipe(), os.pipe()
        self._out, self._in = ours[1], theirs[0]
        # The protocol wants its ends at 3 and 4: a shell puts them there.
        place = f'exec "$@" 3<&{ours[0]} 4>&{theirs[1]}'
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={self._profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", place, "bash", name, *options, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(ours[0], theirs[1]),
        )
        os.close(ours[0])
        os.close(theirs[1])
        self._buffer, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []

    def __enter__(self) -> "Browser":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Network.enable")
        self.call("Page.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 20)
            if not part:
                raise RuntimeError("chromium ended")
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        """Show a page at a width, and wait until it is drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.absolute().as_uri())
        while self.value("document.readyState") != "complete":
            continue

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of the promise that it is."""
        response = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return response["result"].get("value")

    def picture(self, selector: str = "html") -> bytes:
        """Return an element, or the page's upper part, as PNG."""
        rectangle = f"document.querySelector('{selector}').getBoundingClientRect()"
        x, y, width, height = self.value(f"(at => [at.x, at.y, at.width, at.height])({rectangle})")
        clip = {"x": x, "y": y, "width": width, "height": min(TALLEST, height), "scale": 1}
        screenshot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(screenshot["data"])


def main() -> None:
    """Write the pictures of a report."""
    page, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for name, width in WIDTHS.items():
            browser.open(page, width)
            (folder / f"report-{name}.png").write_bytes(browser.picture())
        browser.open(page, WIDTHS["desktop"])
        table = browser.picture('[aria-labelledby="experiments"]')
        (folder / "report-table.png").write_bytes(table)


if __name__ == "__main__":
    main()
