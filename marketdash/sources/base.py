"""What a source is, and the three doors: poll one function, receive what is pushed, or yield batches yourself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from marketdash.clock import Clock, SystemClock
from marketdash.errors import UnknownNameError
from marketdash.inbox import QUOTES, Inbox
from marketdash.instruments import Universe
from marketdash.registry import Registry
from marketdash.schema import Event, conform

HORIZON_S = 366 * 86_400.0
"""So long that what is fed by hand without its known-at is hardly ever too late for its bars."""

SOURCES: Registry[Callable[..., Source]] = Registry("source", home="marketdash.sources")

S = TypeVar("S", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entitlement:
    """What may be done with a source's data: how late it is, and whether others may see it."""

    delay: timedelta = timedelta(0)
    redistributable: bool = True
    note: str = ""


@runtime_checkable
class Source(Protocol):
    """Writes events. `batches` runs on the market's loop until it is cancelled or has no more.

    What it raises is seen on screen and in `/health`, and it is started again after a back-off: a source
    keeps what it must remember on itself, not in the generator.
    """

    name: str
    mode: str
    """How its numbers are called while they are fresh: `live`, `delayed`, `replay` or `simulated`."""
    universe: Universe
    entitlement: Entitlement
    cadence: float
    """Seconds of trading time within which an instrument is expected to be heard of."""
    finest: str
    """The narrowest width of bars that can be built from its data."""
    slow_history: bool
    """Whether `history` takes so long that a notebook must not wait for it."""
    stall_after: float | None
    """Seconds of silence in open hours after which it is started again; None for never."""
    reason: str
    """Why this source was taken, when it was chosen for the user."""
    lateness: float
    """Seconds after the end of a bar within which its trades may still come; it is complete only then."""
    horizon: float
    """Seconds after it happened within which a trade may still revise bars."""
    clock: Clock

    def history(self) -> Iterable[Event]:
        """Rows of the past to start with, oldest first; called once, in a thread."""
        ...

    def batches(self) -> AsyncIterator[Event]:
        """Events as they come."""
        ...

    def complete_until(self, now_us: int) -> int:
        """The moment until which all that is known has been yielded, at most `now_us`."""
        ...


class BaseSource:
    """Sensible answers to everything that `Source` asks but `batches`."""

    name: str = "source"
    mode: str = "live"
    cadence: float = 60.0
    finest: str = "1s"
    slow_history: bool = True
    stall_after: float | None = 60.0
    reason: str = ""
    lateness: float = 0.0
    horizon: float = HORIZON_S
    entitlement: Entitlement = Entitlement()
    universe: Universe
    clock: Clock
    inbox: Inbox | None = None
    """Where events wait that are pushed; None for a source that makes them when asked."""

    def __init__(self, universe: Universe, *, clock: Clock | None = None) -> None:
        self.universe = universe
        self.clock = clock or SystemClock()

    def history(self) -> Iterable[Event]:
        return ()

    def complete_until(self, now_us: int) -> int:
        return now_us


class PolledSource(BaseSource, ABC):
    """Asks again and again: implement `fetch`.

    `fetch` runs in a thread and returns rows of `topic` (a DataFrame, a RecordBatch, a mapping of
    columns) or None when there is nothing new.
    """

    topic: ClassVar[str] = "ticks"
    interval: float = 15.0
    """Seconds between two polls."""
    _polled_us: int | None = None

    @abstractmethod
    def fetch(self) -> Any: ...

    def complete_until(self, now_us: int) -> int:
        """When it was asked last: what happened since is not known yet."""
        return now_us if self._polled_us is None else min(now_us, self._polled_us)

    async def batches(self) -> AsyncIterator[Event]:
        while True:
            asked_us = self.clock.now_us()
            rows = await asyncio.to_thread(self.fetch)
            if rows is not None:
                yield self.topic, conform(self.topic, rows, f"source {self.name}")
            self._polled_us = asked_us
            await asyncio.sleep(self.interval)


class StreamedSource(BaseSource, ABC):
    """Is told what happens: implement `listen`, and `decode` if what comes must be read.

    `listen` connects and hands every frame to `received`, or rows to `inbox.offer`, which may be called from any
    thread. A source of a socket is

        async def listen(self):
            async with websockets.connect(URL) as socket:
                async for frame in socket:
                    self.received(frame)

        def decode(self, frame):
            trade = json.loads(frame)
            yield "ticks", {"time": [moment(trade)], "instrument_id": [...], "price": [trade["p"]]}

    Columns that are lists are the cheapest for single messages: those that wait together are conformed at once.
    """

    inbox: Inbox

    def __init__(self, universe: Universe, *, clock: Clock | None = None, inbox: Inbox | None = None) -> None:
        super().__init__(universe, clock=clock)
        self.inbox = Inbox(quotes=max(QUOTES, 2 * len(universe))) if inbox is None else inbox

    @abstractmethod
    async def listen(self) -> None:
        """Receive until there is no more; what it raises is seen on screen, and it is called again after a back-off."""

    def decode(self, frame: Any) -> Iterable[tuple[str, Any]]:
        """Topics and rows (a batch, or a mapping of columns) of a frame."""
        raise NotImplementedError(f"{type(self).__name__} must decode what it receives.")

    def received(self, frame: Any) -> None:
        """Decode a frame and let its rows wait; one that cannot be decoded is counted and costs nothing else."""
        try:
            for topic, rows in self.decode(frame):
                self.inbox.offer(topic, rows)
        except Exception as error:
            self.inbox.refuse(error)

    def complete_until(self, now_us: int) -> int:
        return now_us - round(self.inbox.waited() * 1e6)

    async def batches(self) -> AsyncIterator[Event]:
        listening = asyncio.ensure_future(self.listen())
        listening.add_done_callback(lambda _: self.inbox.wake())
        try:
            async for event in self.inbox.events(until=listening):
                yield event
            await listening
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def source(name: str) -> Callable[[S], S]:
    """Register a class or function that makes a source: `@source("mine")` opens as `mine` or `mine:argument`.

    It is called with the text after the colon (empty if there is none) and the keyword arguments of
    `md.open`.
    """

    def register(make: S) -> S:
        SOURCES.add(name, make)
        return make

    return register


def make_source(spec: str, **options: Any) -> Source:
    """Make the source that `spec` names: `name` or `name:argument`."""
    name, _, argument = spec.partition(":")
    make = SOURCES.get(name)
    made = make(argument, **options)
    if not isinstance(made, Source):
        raise UnknownNameError(
            "source", spec, SOURCES, f"{name!r} made a {type(made).__name__}, not a Source."
        )
    return made


@dataclass
class Retry:
    """Back-off after failures: doubled each time up to a limit, reset by success."""

    first: float = 0.5
    limit: float = 60.0
    attempts: int = field(default=0, init=False)

    def failed(self) -> float:
        """Count a failure and return the seconds to wait."""
        self.attempts += 1
        return min(self.first * 2.0 ** (self.attempts - 1), self.limit)

    def succeeded(self) -> None:
        self.attempts = 0


__all__ = [
    "SOURCES",
    "BaseSource",
    "Entitlement",
    "PolledSource",
    "Retry",
    "Source",
    "StreamedSource",
    "make_source",
    "source",
]
