"""Real servers for tests: started as a user would, ended by their process id; and patience with them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-c", "from marketdash.cli import main; main()"]
# What must come true is waited for this long: it costs nothing where it comes at once, and a machine whose
# cores are taken needs many times what a quiet one does.
PATIENCE_S = 60.0


class Served:
    """A running server: its address, its process, and what it printed."""

    def __init__(self, url: str, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.url, self.process, self.lines = url, process, lines

    def health(self) -> dict[str, Any]:
        return get_json(f"{self.url}/health")


@contextmanager
def marketdash_serve(*arguments: str, **env: str) -> Iterator[Served]:
    """`marketdash serve --port 0 …`"""
    with _running([*COMMAND, "serve", "--port", "0", *arguments], r"http://[\w.]+:\d+", env) as served:
        yield served


@contextmanager
def panel_serve(app: Path, *arguments: str, **env: str) -> Iterator[Served]:
    """`panel serve app --port … --address 127.0.0.1`"""
    port = str(free_port())
    command = [
        sys.executable,
        "-m",
        "panel",
        "serve",
        str(app),
        "--port",
        port,
        "--address",
        "127.0.0.1",
        *arguments,
    ]
    with _running(command, rf"http://[\w.]+:{port}/\w+", env) as served:
        served.url = served.url.rpartition("/")[0]
        yield served


@contextmanager
def _running(command: list[str], pattern: str, env: dict[str, str]) -> Iterator[Served]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    )
    lines: list[str] = []
    found: SimpleQueue[str | None] = SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if match := re.search(pattern, line):
                found.put(match.group())
        found.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        try:
            url = found.get(timeout=2 * PATIENCE_S)  # it imports and compiles before it listens
        except Empty:
            url = None
        if url is None:
            raise AssertionError("The server did not start:\n" + "".join(lines))
        yield Served(url, process, lines)
    finally:
        end(process)
        reader.join(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


def end(process: subprocess.Popen[Any]) -> None:
    """Ask a process to end, and see that it does: one that is left behind takes the time of the next test."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def get_json(url: str) -> dict[str, Any]:
    """The JSON that an address answers, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        return dict(json.load(error))


def eventually(check: Callable[[], Any], seconds: float = PATIENCE_S, what: str = "") -> Any:
    """Wait until `check()` is true and return what it gave; polled, since another process decides when.

    An assertion that fails in it is a "not yet" as well, and is what is told if it goes on to fail.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            if result := check():
                return result
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
        assert time.monotonic() < deadline, f"never came true: {what or check}"
        time.sleep(0.1)


async def until(check: Callable[[], Any], seconds: float = PATIENCE_S, what: str = "") -> Any:
    """As `eventually`, for what happens on the loop that waits."""
    deadline = time.monotonic() + seconds
    while not (result := check()):
        assert time.monotonic() < deadline, f"never came true: {what or check}"
        await asyncio.sleep(0.001)
    return result


def free_port() -> int:
    # Below the ports that systems hand out by themselves: between this look and the server's own bind, one of
    # those may go to any socket of another test.
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
