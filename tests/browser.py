"""Chromium without a screen, driven over a pipe: for tests of what only a browser can say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,800", "--remote-debugging-pipe"]


class Page:
    """One page.

    Attributes:
        own: what may be asked for, by how addresses begin: files, and the computer that a page came from.
        problems: what the browser has complained about, and what it has asked others for.
    """

    def __init__(self, commands: BinaryIO, answers: Any):
        self.commands, self.answers = commands, answers
        self.waiting: bytes = b""
        self.number = 0
        self.session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """One of Chromium's commands, and its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params, **self.session}
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def read(self) -> dict[str, Any]:
        """The next message."""
        while b"\0" not in self.waiting:
            part = self.answers.read1(1 << 20)
            assert part, "the browser has ended"
            self.waiting += part
        message, _, self.waiting = self.waiting.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, address: str) -> None:
        """Load a page, to its end."""
        self.events.clear()
        self.own = "{0.scheme}://{0.netloc}/".format(urlsplit(address))
        self("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def run(self, program: str) -> Any:
        """The value of an expression, which may be a promise."""
        found = self("Runtime.evaluate", expression=program, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    @property
    def problems(self) -> list[str]:
        found = []
        for event in self.events:
            params, method = event.get("params", {}), event.get("method")
            if method == "Log.entryAdded":
                found.append(params["entry"]["text"])
            elif method == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(self.own):
                found.append(params["request"]["url"])
        return found


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a page, its files in a folder; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no {', '.join(NAMES)} on PATH")
    folder.mkdir()
    commands, answers = folder / "commands", folder / "answers"
    for pipe in (commands, answers):
        os.mkfifo(pipe)
    process = subprocess.Popen(  # which expects its pipes as numbers 3 and 4
        ["sh", "-c", 'exec "$@" 3<"$0/commands" 4>"$0/answers"', folder, program, *FLAGS, f"--user-data-dir={folder}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with commands.open("wb") as to, answers.open("rb") as back:  # in the shell's order: each waits for the other
            yield Page(to, back)
    finally:
        process.terminate()
        process.wait(20)
