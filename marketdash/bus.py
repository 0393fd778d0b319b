"""Who hears what: events go to handlers by topic, in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

Handler = Callable[[str, pa.RecordBatch], Any]

ALL = "*"
"""Subscribe to this to hear every topic."""


class Bus(Protocol):
    """Carries batches from those who write events to those who handle them."""

    def publish(self, topic: str, batch: pa.RecordBatch) -> None: ...
    def subscribe(self, topic: str, handler: Handler) -> Callable[[], None]: ...


class LocalBus:
    """Calls each handler at once, in the caller's thread: first those of the topic, then those of all topics.

    A handler that raises costs only itself: `on_error(handler, error)` hears of it and the others go on.
    """

    def __init__(self, on_error: Callable[[Handler, Exception], None]) -> None:
        self._handlers: dict[str, list[_Subscription]] = {}
        self._on_error = on_error

    def publish(self, topic: str, batch: pa.RecordBatch) -> None:
        for name in (topic, ALL):
            for subscription in self._handlers.get(name, ()):
                try:
                    subscription.handler(topic, batch)
                except Exception as error:
                    self._on_error(subscription.handler, error)

    def __len__(self) -> int:
        """How many handlers there are."""
        return sum(len(handlers) for handlers in self._handlers.values())

    def subscribe(self, topic: str, handler: Handler) -> Callable[[], None]:
        """Call `handler(topic, batch)` for each batch of the topic until the returned function is called."""
        subscription = _Subscription(handler)
        # A new list each time: a batch that is on its way goes to those who were there when it set out.
        self._handlers[topic] = [*self._handlers.get(topic, ()), subscription]

        def unsubscribe() -> None:
            self._handlers[topic] = [item for item in self._handlers[topic] if item is not subscription]

        return unsubscribe


class _Subscription:
    """One of perhaps several subscriptions of the same handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
