"""Where a market's coroutines run: on the loop that is there, or on one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Runner:
    """Runs a market on the caller's running loop (a notebook, a server), else on a thread's (a script, a test)."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, name="marketdash", daemon=True)
            self._thread.start()

    @property
    def owns_loop(self) -> bool:
        return self._thread is not None

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    @property
    def _inside(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the loop and return its result; from the loop itself, directly."""
        if self._inside:
            return function()
        if self.loop.is_closed() or not self.loop.is_running():
            raise RuntimeError("the event loop of this market has ended")
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return done.result()

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        """Start a task; it is kept until it ends or the runner is stopped."""

        def create() -> None:
            task = self.loop.create_task(coroutine, name=name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.call(create)

    def stop(self) -> None:
        """Cancel all tasks; end the thread if there is one. Safe to call twice, and after the loop has ended."""
        if self.loop.is_closed():
            return
        if self._inside or not self.owns_loop:
            if self.loop.is_running() and not self._inside:
                self.loop.call_soon_threadsafe(self._cancel)
            else:
                self._cancel()
            return
        if self._thread is not None and self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._cancelled(), self.loop).result(timeout=10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=10)

    def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _cancelled(self) -> None:
        tasks = list(self._tasks)
        self._cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
