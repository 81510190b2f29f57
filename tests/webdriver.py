"""A headless Chromium driven by chromedriver: the W3C WebDriver protocol as far as the tests need it, with the standard library alone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--window-size=1300,1000",
]


class Browser:
    """One session."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        options = {"args": FLAGS, "binary": CHROMIUM}
        session = self._ask(
            "POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}}
        )
        self.base += f"/session/{session['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def close(self) -> None:
        self._ask("DELETE", "")

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def js(self, script: str) -> Any:
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def until(self, script: str) -> Any:
        """What the script returns as soon as that is true; an AssertionError where it is not within 20 s."""
        end = time.monotonic() + 20
        while not (found := self.js(script)) and time.monotonic() < end:
            time.sleep(0.05)
        assert found, script
        return found

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse there, and click.  The pauses are a person's: plotly.js looks where the mouse is at most every 50 ms."""
        deeds: list[dict[str, Any]] = [{"type": "pointerMove", "duration": 0, "x": round(x) - 3, "y": round(y)}]
        deeds.append({"type": "pointerMove", "duration": 30, "x": round(x), "y": round(y)})
        if click:
            deeds += [{"type": "pause", "duration": 150}, {"type": "pointerDown", "button": 0}]
            deeds += [{"type": "pause", "duration": 100}, {"type": "pointerUp", "button": 0}]
        self._ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": deeds}]})

    def middle(self, script: str) -> tuple[float, float]:
        """Where the middle of an element (an expression) is in the window, after scrolling to it."""
        x, y = self.js(
            f"const e = {script}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]"
        )
        return x, y

    def cdp(self, command: str, **params: Any) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]


@contextmanager
def driven() -> Iterator[Browser]:
    """A browser for as long as the context lasts; its driver is ended with it."""
    assert CHROMEDRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with socket.socket() as there:
                    if there.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            found = Browser(port)
            try:
                yield found
            finally:
                found.close()
        finally:
            process.terminate()
