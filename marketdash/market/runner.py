"""Where a market's coroutines run: on the loop that is there, or on one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from marketdash.errors import SourceError

T = TypeVar("T")

PATIENCE_S = 10.0
"""How long a source that does not let itself be cancelled may hold up closing."""


class Runner:
    """Runs a market on the caller's running loop (a notebook, a server), else on a thread's (a script)."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock, self._stopping = threading.Lock(), False
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = asyncio.new_event_loop()
            started = threading.Event()
            self.loop.call_soon(started.set)
            self._thread = threading.Thread(target=self._run, name="marketdash", daemon=True)
            self._thread.start()
            started.wait()

    @property
    def owns_loop(self) -> bool:
        return self._thread is not None

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(_cancelled(asyncio.all_tasks(self.loop)))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    @property
    def inside(self) -> bool:
        """Whether the caller runs on the market's loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the loop and return its result; from the loop itself, directly."""
        if self.inside:
            return function()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        # Under the lock, so that what is given to the loop comes before its end.
        with self._lock:
            if self._stopping or not self.loop.is_running():
                hint = "The market was closed, or the loop on which it was opened is over: open another one."
                raise SourceError(
                    "The event loop of this market", "a loop that runs", "one that has ended", hint
                )
            self.loop.call_soon_threadsafe(run)
        while True:
            try:
                return done.result(timeout=1.0)
            except TimeoutError:
                if done.done():
                    return done.result()
                if not self.loop.is_running():  # a loop of somebody else's, which he has stopped
                    raise SourceError("The event loop of this market", "an answer", "its end") from None

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Start a task; it is kept until it ends or the runner is stopped."""

        def create() -> None:
            task = self.loop.create_task(coroutine, name=name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        try:
            self.call(create)
        except BaseException:
            coroutine.close()
            raise

    def stop(self, last: Callable[[], None] = lambda: None) -> None:
        """Run `last` on the loop, cancel all tasks, and end the thread if there is one.

        Safe to call twice, from any thread, and after the loop has ended.
        """

        def finish() -> None:
            last()
            for task in list(self._tasks):
                task.cancel()
            if self.owns_loop:
                self.loop.stop()

        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            waiting = not self.inside and self.loop.is_running()
            if waiting:
                self.loop.call_soon_threadsafe(finish)
        if not waiting:
            finish() if self.inside else last()
        elif self._thread is not None:
            self._thread.join(timeout=PATIENCE_S)


async def _cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE_S / 2)
