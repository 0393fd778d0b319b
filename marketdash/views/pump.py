"""The pump of one screen: lets views patch what changed, at the display rate, and never runs ahead of a browser."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import panel as pn
from panel.io.state import set_curdoc

log = logging.getLogger(__name__)


class Pumped(Protocol):
    """What a pump drives: a view, or any part of a page that changes with the market."""

    pump: Pump | None

    def tick(self) -> bool: ...


class Pump:
    """Ticks its views `hz` times a second, in one locked callback whose changes leave as one message.

    In a served document the next tick waits until the browser's socket has taken the last one: a slow
    reader skips (`skipped` counts), it never queues. A view that raises is counted in `errors` and tried
    again at the next tick; the others go on.
    """

    def __init__(self, views: Iterable[Pumped] = (), hz: float = 5.0) -> None:
        self.views: list[Pumped] = []
        self.period = 1.0 / hz
        self.ticks = self.skipped = self.errors = 0
        self.last_error = ""
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        for item in views:
            self.add(item)

    def add(self, item: Pumped) -> None:
        item.pump = self
        self.views.append(item)

    def remove(self, item: Pumped) -> None:
        item.pump = None
        self.views = [other for other in self.views if other is not item]

    def wake(self) -> None:
        """Tick now instead of at the next display tick."""
        self._wake.set()

    def start(self, doc: Any) -> None:
        """Run for a served document, on the loop that serves it, until `stop`."""
        self.run(lambda: self._schedule(doc))

    def run(self, each: Callable[[], None], after: Awaitable[Any] | None = None) -> None:
        """Call `each` at the display rate on the running loop, once `after` is done, until `stop`."""
        self._task = asyncio.ensure_future(self._run(each, after))

    def stop(self) -> None:
        """Stop and let go of all views."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for item in self.views:
            item.pump = None
        self.views = []

    def tick(self) -> bool:
        """Tick every view once; returns whether one of them changed something."""
        changed = False
        for item in list(self.views):
            try:
                changed = item.tick() or changed
            except Exception as error:
                self._failed(f"{type(item).__name__}: {type(error).__name__}: {error}", error)
        self.ticks += 1
        return changed

    def _failed(self, what: str, error: Exception) -> None:
        self.errors += 1
        # Many times a second the same is not worth a trace.
        log.warning("A view failed: %s", what, exc_info=error if what != self.last_error else None)
        self.last_error = what

    async def _run(self, each: Callable[[], None], after: Awaitable[Any] | None) -> None:
        if after is not None:
            await after
        while True:
            self._wake.clear()
            try:
                each()
            except Exception as error:
                self._failed(f"{type(error).__name__}: {error}", error)
            try:
                await asyncio.wait_for(self._wake.wait(), self.period)
            except TimeoutError:
                continue

    def _schedule(self, doc: Any) -> None:
        if self._busy:
            self.skipped += 1
            return
        self._busy = True

        def done() -> None:
            self._busy = False

        def apply() -> None:
            try:
                with set_curdoc(doc), _one_message():
                    self.tick()
            finally:
                # Runs only after the messages of this tick have left for the browser.
                doc.add_next_tick_callback(done)

        doc.add_next_tick_callback(apply)


def _one_message() -> AbstractContextManager[None]:
    # Panel's hold throws away what happens between the moment the browser is given the document and the moment
    # it says that all is drawn: only what is loaded may be held.
    return pn.io.hold() if pn.state.loaded else nullcontext()
