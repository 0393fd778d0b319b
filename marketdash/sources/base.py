"""What a source is, and the two doors: poll one function, or yield batches yourself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from marketdash.clock import Clock, SystemClock
from marketdash.errors import UnknownNameError
from marketdash.instruments import Universe
from marketdash.registry import Registry
from marketdash.schema import Event, conform

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
    entitlement: Entitlement = Entitlement()
    universe: Universe
    clock: Clock

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

    @abstractmethod
    def fetch(self) -> Any: ...

    async def batches(self) -> AsyncIterator[Event]:
        while True:
            rows = await asyncio.to_thread(self.fetch)
            if rows is not None:
                yield self.topic, conform(self.topic, rows, f"source {self.name}")
            await asyncio.sleep(self.interval)


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


__all__ = ["SOURCES", "BaseSource", "Entitlement", "PolledSource", "Retry", "Source", "make_source", "source"]
