"""A headless Chromium driven over the DevTools protocol as far as the tests need it: the standard library and the browser alone.

With `--remote-debugging-pipe` Chromium reads commands on file descriptor 3 and writes answers and events on 4, each a JSON text ended by a NUL.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--window-size=1300,1000",
]
PATIENCE_S = 60.0


class Browser:
    """One page of one browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.rest, self.number, self.session = b"", 0, ""
        self.seen: list[dict[str, Any]] = []  # events, oldest first
        target = self.cdp("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.cdp("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.cdp(domain + ".enable")

    def cdp(self, command: str, **params: Any) -> Any:
        """Send a command; its result.  AssertionError where the browser refuses it."""
        self.number += 1
        message = {"id": self.number, "method": command, "params": params, **({"sessionId": self.session} if self.session else {})}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.commands, data) :]
        while True:
            found = self._next()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]
            self.seen.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select([self.answers], [], [], PATIENCE_S)[0], "the browser does not answer"
            data = os.read(self.answers, 1 << 20)
            assert data, "the browser has ended"
            self.rest += data
        text, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def open(self, url: str) -> None:
        """Go to a page; returns once it has loaded.  What former pages said is forgotten."""
        self.seen.clear()
        self.cdp("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.seen):
            self.seen.append(self._next())

    def js(self, script: str) -> Any:
        """What a function body returns."""
        found = self.cdp("Runtime.evaluate", expression=f"(() => {{ {script} }})()", returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, script: str) -> Any:
        """What the script returns as soon as that is true; an AssertionError where it is not within 20 s."""
        end = time.monotonic() + 20
        while not (found := self.js(script)) and time.monotonic() < end:
            time.sleep(0.05)
        assert found, script
        return found

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse there, and click.  The pauses are a person's: plotly.js looks where the mouse is at most every 50 ms."""
        self._mouse("mouseMoved", round(x) - 3, round(y))
        time.sleep(0.03)
        self._mouse("mouseMoved", round(x), round(y))
        if click:
            time.sleep(0.15)
            self._mouse("mousePressed", round(x), round(y), button="left", clickCount=1)
            time.sleep(0.1)
            self._mouse("mouseReleased", round(x), round(y), button="left", clickCount=1)

    def _mouse(self, kind: str, x: int, y: int, **more: Any) -> None:
        self.cdp("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def middle(self, script: str) -> tuple[float, float]:
        """Where the middle of an element (an expression) is in the window, after scrolling to it."""
        x, y = self.js(
            f"const e = {script}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]"
        )
        return x, y

    def errors(self) -> list[str]:
        """What the page's console got as errors, uncaught exceptions among them."""
        thrown = [event["params"]["exceptionDetails"]["text"] for event in self.seen if event.get("method") == "Runtime.exceptionThrown"]
        logged = [event["params"]["entry"] for event in self.seen if event.get("method") == "Log.entryAdded"]
        return thrown + [entry["text"] for entry in logged if entry["level"] == "error"]

    def screenshot(self, path: str | Path, x: float, y: float, width: float, height: float) -> None:
        """A part of the page (in its own pixels, however far down) as a PNG."""
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        Path(path).write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]))


@contextmanager
def driven(*flags: str) -> Iterator[Browser]:
    """A browser for as long as the context lasts."""
    assert CHROMIUM is not None
    (theirs, commands), (answers, their_answers) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        shell = f'exec "$0" "$@" 3<&{theirs} 4>&{their_answers}'
        call = ["bash", "-c", shell, CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs, their_answers)) as process:
            os.close(theirs)
            os.close(their_answers)
            try:
                yield Browser(commands, answers)
            finally:
                process.terminate()
                os.close(commands)
                os.close(answers)
