"""A page in headless Chromium, driven over the pipe of its DevTools protocol: nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""The browser reads commands from descriptor 3 and answers on 4."""


def installed() -> str | None:
    """The path of the browser, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page. errors: what the console, the scripts and the loading of the page complained of."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._buffer, self._last = b"", 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.errors: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command. Raises RuntimeError where the browser refuses it."""
        self._last += 1
        said: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            said["sessionId"] = self._session
        os.write(self._writes, json.dumps(said).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._hear(answer)

    def _message(self, wait_s: float = 60) -> dict[str, Any]:
        end = time.monotonic() + wait_s
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reads], [], [], max(end - time.monotonic(), 0))
            data = os.read(self._reads, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("the browser said nothing" if not ready else "the browser has ended")
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(message))

    def _hear(self, event: dict[str, Any]) -> None:
        params, name = event.get("params", {}), event.get("method")
        self._events.append(event)
        if name == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("text")))
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif name == "Network.loadingFailed":
            self.errors.append(params["errorText"])

    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        sent = [e["params"] for e in self._events if e.get("method") == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file at this size (CSS pixels) and scheme of colours, and wait until it has loaded."""
        self._events.clear()
        self.errors.clear()
        self.media(dark=dark)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=page.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self._events):
            self._hear(self._message())

    def media(self, *, dark: bool = False, medium: str = "") -> None:
        """What the page is told of its reader: dark or light, screen or print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=medium, features=[scheme])

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page. Raises RuntimeError where it throws."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """One key, as a keyboard sends it."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path, *, clip: dict[str, float] | None = None) -> None:
        """The whole page, or the rectangle clip (x, y, width, height), as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        area = clip or {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip={**area, "scale": 1})
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        return base64.b64decode(self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])


@contextmanager
def tab() -> Iterator[Tab]:
    """A browser with one page; it is ended afterwards."""
    program = installed()
    if program is None:
        raise RuntimeError(f"no browser: none of {', '.join(NAMES)} is installed")
    ends = [end for _ in range(2) for end in os.pipe()]
    commands, writes, reads, answers = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        start = [sys.executable, "-S", "-c", START, str(commands), str(answers)]
        process = subprocess.Popen(
            [*start, program, *FLAGS, f"--user-data-dir={home}"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        try:
            yield Tab(reads, writes)
        finally:
            os.close(writes)
            os.close(reads)
            process.terminate()
            process.wait(20)
