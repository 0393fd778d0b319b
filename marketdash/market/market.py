"""The market: what a person, a view or a server holds in hand."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from streamz import Stream

from marketdash.bus import ALL, Handler, LocalBus
from marketdash.calendars import calendar
from marketdash.clock import ReplayClock, to_timestamp
from marketdash.errors import ClockError, MarketdashError, SchemaError, SourceError, UnknownNameError
from marketdash.frames import Bars
from marketdash.indicators.history import BarHistory
from marketdash.indicators.spec import Spec, parse
from marketdash.market import memory, tables
from marketdash.market.runner import Runner
from marketdash.market.state import Judge, Status, Values
from marketdash.pipeline import Graph, Health, columns
from marketdash.schema import Event, conform, width_us
from marketdash.sources.base import Retry, Source
from marketdash.sources.replay import ReplaySource

T = TypeVar("T")

_BEFORE_ALL = -(2**62)
FRAMES = ("bars", "last", "ticks", "quotes", "readings", "rejected")
STREAMS = ("bars", "ticks", "quotes", "readings")
PATIENCE_S = 30.0
BEAT_S = 0.1
"""How often bars that end without an event are looked for."""
LISTENER_PATIENCE_S = 1.0
"""How long the source waits for a listener that awaits something."""


class Market:
    """One clock, one source, one graph and its frames.

    Open one with `marketdash.open`. It runs on the event loop that is running (a notebook, a server) or,
    where there is none, on a thread of its own; its methods may be called from any thread. Close it with
    `close()` or a `with` block.
    """

    def __init__(
        self,
        source: Source,
        *,
        rows: int = 1_000_000,
        principal: str = "anonymous",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.source, self.principal = source, principal
        self.universe, self.clock = source.universe, source.clock
        calendars = [calendar(name) for name in self.universe.calendars]
        self.calendar = calendars[0] if calendars else calendar("24/7")
        self.tz = self.clock.tz if isinstance(self.clock, ReplayClock) else self.calendar.tz
        self.health = Health()
        self.status = Status()
        self.epoch = 0
        self.heard_us = 0
        self.restarts = 0
        self.bus = LocalBus(self._handler_failed)
        self._judge = Judge(self.universe)
        self._sleep, self._lock = sleep, threading.RLock()
        self._pending: list[asyncio.Task[Any]] = []
        self._numbers: Counter[str] = Counter()
        self._reached, self._busy = _BEFORE_ALL, False
        self._closed = False
        self._runner = Runner()
        self._ready = threading.Event()
        self._jumps: Callable[[], None] = lambda: None
        try:
            self.graph = self._runner.call(
                lambda: Graph(self.universe, finest=source.finest, rows=rows, health=self.health, tz=self.tz)
            )
        except BaseException:
            self._runner.stop()
            raise
        self.bus.subscribe(ALL, self._handle)

    def __repr__(self) -> str:
        return (
            f"<Market {self.source.name} {self.label}: {len(self.universe)} instruments, {self.status.state}>"
        )

    def __enter__(self) -> Market:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Running

    def start(self) -> Market:
        """Load the past, then follow the source. Without a running loop, returns when the past is there."""
        try:
            if isinstance(self.source, ReplaySource):
                self._jumps = self.source.clock.on_jump(self._jumped)
                self._runner.call(self._sync)
            elif not self.source.slow_history:
                self._runner.call(lambda: self._write(self.source.history(), live=False))
            self._runner.start(_follow(self), f"market {self.source.name}")
            self._runner.start(_beat(self), f"beat of {self.source.name}")
        except BaseException:
            self.close()
            raise
        if self._runner.owns_loop:
            self._ready.wait(PATIENCE_S)
        return self

    def close(self) -> None:
        """Stop following the source; what was read stays readable. Closing twice is fine."""
        if self._closed:
            return
        self._closed = self.graph.ending = True
        self._jumps()
        self._runner.stop(self.graph.close)
        memory.release()
        self.status = Status("closed", "This market was closed.")

    @property
    def closed(self) -> bool:
        return self._closed

    # Reading

    @property
    def now(self) -> pd.Timestamp:
        """The market's time, in the exchange's zone."""
        return to_timestamp(self.clock.now_us(), self.tz)

    @property
    def label(self) -> str:
        """What a screen must call the numbers: LIVE, DELAYED 15 MIN, REPLAY 2010-05-06, SIMULATED."""
        mode = self.source.mode
        if mode == "replay":
            return f"REPLAY {self.now:%Y-%m-%d}"
        if mode == "delayed" and (delay := self.source.entitlement.delay):
            return f"DELAYED {delay.total_seconds() / 60:.0f} MIN"
        return mode.upper()

    @property
    def widths(self) -> tuple[str, ...]:
        """The widths of bars that this market builds, narrowest first."""
        return self.graph.store.widths

    def frame(
        self,
        topic: str = "bars",
        *,
        width: str | None = None,
        symbols: Iterable[str] | None = None,
        last: int | None = None,
    ) -> pd.DataFrame:
        """The recent past of a topic as a DataFrame, now.

        `bars` are indexed by their start and have `symbol open high low close volume vwap count revision
        session trading_day closed`; without a width, the narrowest from one minute on. `last` is what each
        instrument is worth, indexed by symbol. `ticks`, `quotes` and `readings` are the last rows of those
        topics; `rejected` are the rows that cleaning has stopped, with the reason. `last` limits bars per
        instrument. `attrs` hold the source, its state and the market's time.
        """
        if topic not in FRAMES:
            raise UnknownNameError("frame", topic, FRAMES)
        ids = self.universe.ids(symbols)
        _check_last(last)
        with self._lock:
            now_us = self.clock.now_us()
            if topic == "bars":
                width = width or self.default_width
                table = tables.bars_table(self.graph.store, self.universe, width, ids, last, now_us, self.tz)
            elif topic == "last":
                table = tables.last_table(
                    self.graph.last, self.graph.store, self.universe, ids, self.values(), self.tz
                )
            elif topic == "rejected":
                rejects = [row for clean in self.graph.cleaners.values() for row in clean.rejects]
                table = tables.rejected_table(rejects, self.universe, self.tz)
            else:
                chosen = ids if symbols is not None else None
                table = tables.rolling_table(self.graph.frames[topic], self.universe, chosen, self.tz)
        table.attrs = {
            "source": self.source.name,
            "label": self.label,
            "status": self.status.state,
            "market_time": to_timestamp(now_us, self.tz).isoformat(),
        }
        return table

    @property
    def default_width(self) -> str:
        return next((w for w in self.widths if width_us(w) >= width_us("1min")), self.widths[-1])

    def bars(self, symbol: str, width: str | None = None, last: int | None = None) -> Bars:
        """The bars of one instrument as arrays: what views draw from."""
        _check_last(last)
        with self._lock:
            return self.graph.store.bars(self.universe.id(symbol), width or self.default_width, last)

    def history(
        self, width: str | None = None, symbols: Iterable[str] | None = None, last: int | None = None
    ) -> BarHistory:
        """Bars of several instruments aligned by time: what indicators are computed on."""
        width = width or self.default_width
        ids = self.universe.ids(symbols)
        _check_last(last)
        with self._lock:
            times, fields = self.graph.store.table(width, ids, last)
        turnover = fields.pop("turnover")
        with np.errstate(invalid="ignore", divide="ignore"):
            fields["vwap"] = np.where(fields["volume"] > 0, turnover / fields["volume"], np.nan)
        symbols = [self.universe.symbols[i] for i in ids]
        return BarHistory.from_arrays(times, symbols, width, tz=self.tz, copy=True, **fields)

    def day(self) -> dict[str, npt.NDArray[np.float64]]:
        """Open, high, low, volume and turnover of the current trading day, by instrument id."""
        with self._lock:
            return tables.day_columns(self.graph.store, self.graph.last)

    def values(self) -> Values:
        """Age and state of every last price."""
        with self._lock:
            return self._judge.values(
                self.graph.last,
                self.clock.now_us(),
                mode=self.source.mode,
                cadence=self.source.cadence,
                running=self.status.state in ("running", "ended"),
            )

    def touched(self, symbol: str) -> int:
        """A number that grows whenever bars of the instrument change, for a view to compare."""
        return int(self.graph.store.touched[self.universe.id(symbol)])

    @property
    def version(self) -> int:
        """A number that grows whenever any price or bar changes."""
        return self.graph.last.version + self.graph.store.version

    # Streams

    def stream(
        self, topic: str = "bars", *, width: str | None = None, complete: bool = False, arrow: bool = False
    ) -> Stream:
        """A streamz Stream of a topic from now on: `.map(…)`, `.sink(…)` and all other nodes.

        It carries DataFrames, or with `arrow` the record batches themselves. Bars of one width come
        whenever they change or, with `complete`, once each when they have ended. What is attached below
        costs only itself when it raises: see `health`. A seek backwards plays the log again from its start.
        """
        if topic not in STREAMS:
            raise UnknownNameError("stream", topic, STREAMS)
        if topic == "bars":
            width = width or self.default_width
            self.graph.store.ring(width)
        elif width is not None or complete:
            raise UnknownNameError("option", "width" if width else "complete", (), "Only bars have a width.")
        convert = None if arrow else lambda batch: tables.readable(batch, self.universe, self.tz)
        return self._call(lambda: self.graph.listen(topic, convert, width, complete, self._complete_until()))

    def derive(self, indicator: str | Spec, width: str | None = None) -> Market:
        """Compute an indicator on every bar that completes from now on: rows of the topic `readings`."""
        spec = parse(indicator) if isinstance(indicator, str) else indicator
        chosen = width or self.default_width
        self._call(lambda: self.graph.add_indicator(spec, chosen, self._complete_until()))
        return self

    def feed(self, topic: str, rows: Any) -> None:
        """Write rows into the market by hand, as a source would."""
        batch = conform(topic, rows, "market.feed")
        self._call(lambda: self._write([(topic, batch)], live=True))

    # Inside

    def _call(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise SourceError(self.source.name, "an open market", "one that was closed", "Open it again.")
        return self._runner.call(function)

    def _handle(self, topic: str, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._pending += self.graph.push(topic, batch)

    def _handler_failed(self, handler: Handler, error: Exception) -> None:
        self.health.stage(f"bus {getattr(handler, '__qualname__', handler)}").failed(error)

    def _write(self, events: Iterable[Event], *, live: bool) -> None:
        for topic, rows in events:
            self._publish(topic, self._conformed(topic, rows, live))
        self.advance()

    def _conformed(self, topic: str, rows: Any, live: bool) -> pa.RecordBatch:
        """Rows that fit their topic, with what a source has left out filled in."""
        batch = conform(topic, rows, f"source {self.source.name}")
        if isinstance(self.source, ReplaySource):
            return batch
        now_us, first_seq = self.clock.now_us(), self._numbers[topic]
        batch = columns.completed(batch, topic, now_us, self.source.name, first_seq, live=live)
        self._numbers[topic] += batch.num_rows
        return batch

    def _publish(self, topic: str, batch: pa.RecordBatch) -> None:
        # Handlers run inside; a handler that moves the clock must not find the batch half-way.
        outer, self._busy = self._busy, True
        try:
            self.bus.publish(topic, batch)
        finally:
            self._busy = outer

    def _complete_until(self) -> int:
        return self.source.complete_until(self.clock.now_us())

    def advance(self) -> None:
        """Read out the bars that are complete by the market's time."""
        outer, self._busy = self._busy, True
        try:
            with self._lock:
                until = self._complete_until()
                self._pending += self.graph.advance(until)
                self._reached = max(self._reached, until)
        finally:
            self._busy = outer

    def _jumped(self, before: int, after: int) -> None:
        if not self._closed:
            self._runner.call(self._jump)

    def _jump(self) -> None:
        if self._busy:  # called by a handler of the batch that is on its way
            self._runner.loop.call_soon(self._jump)
            return
        with self._lock:
            self._sync()
            self.epoch += 1

    def _sync(self) -> None:
        """Bring the graph to where the clock of the replay stands: forwards, or from the start anew."""
        assert isinstance(self.source, ReplaySource)
        until = self.clock.now_us()
        if until < self._reached or self.source.is_beyond(until):
            self.source.rewind()
            self.graph.reset()
        for topic, batch in self.source.take(until):
            if self._closed:
                return
            self._publish(topic, batch)
        with self._lock:
            self._pending += self.graph.advance(until)
        self._reached = until

    async def _settle(self) -> None:
        """Wait a while for listeners that await something, so that they set the pace of a fast replay."""
        pending, self._pending = self._pending, []
        if pending:
            await asyncio.wait(set(pending), timeout=LISTENER_PATIENCE_S)


async def _beat(market: Market) -> None:
    """Read out bars that end while no event comes."""
    while True:
        await asyncio.sleep(BEAT_S)
        try:
            market.advance()
        except Exception as error:
            market.health.stage("beat").failed(error)
        # Nobody waits for listeners while there are no events; those that are done need no memory.
        market._pending = [task for task in market._pending if not task.done()]


async def _follow(market: Market) -> None:
    """Follow the source until the market is closed: retry with back-off, restart what stalls."""
    retry = Retry()
    source = market.source
    stage = market.health.stage(f"source {source.name}")
    history_due = source.slow_history and not isinstance(source, ReplaySource)
    if not history_due:
        market._ready.set()
    while True:
        try:
            if history_due:
                market._write(await asyncio.to_thread(lambda: list(source.history())), live=False)
                history_due = False
                market._ready.set()
            market.status = Status("running")
            async with AsyncExitStack() as stack:
                batches = aiter(source.batches())
                if hasattr(batches, "aclose"):  # an iterator need not be a generator
                    stack.push_async_callback(batches.aclose)
                while (event := await _next(market, batches)) is not None:
                    topic, rows = event
                    batch = market._conformed(topic, rows, live=True)
                    market._publish(topic, batch)
                    market.advance()
                    stage.worked(batch.num_rows, 0.0)
                    market.heard_us = market.clock.now_us()
                    retry.succeeded()
                    if market.status.state != "running":
                        market.status = Status("running")
                    await market._settle()
            market.status = Status("ended", f"{source.name} has no more.")
            return
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the market is being closed; any other cancellation is a source's own
            stage.failed(error)
            market.restarts += 1
            wait = retry.failed()
            state = "stalled" if isinstance(error, _StalledError) else "retrying"
            text = str(error) if isinstance(error, MarketdashError) else f"{type(error).__name__}: {error}"
            market.status = Status(state, f"{text.rstrip('.')}. Trying again in {wait:g} s.")
            market._ready.set()
            await market._sleep(wait)


class _StalledError(SourceError):
    """A source that is silent while its exchange is open."""


async def _next(market: Market, batches: Any) -> Event | None:
    """The source's next event, None when it has no more; too long a silence in open hours is an error."""
    if market.source.stall_after is None:
        # Awaited directly, an event goes from the generator into the graph without a turn of the loop in
        # between, in which a seek could rewind the one and reset the other.
        return await anext(batches, None)
    task = asyncio.ensure_future(anext(batches, None))
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=market.source.stall_after)
            if done:
                return task.result()
            if market.calendar.is_open(market.clock.now_us()):
                raise _StalledError(
                    f"{market.source.name}",
                    f"something within {market.source.stall_after:g} s while {market.calendar.name} is open",
                    "silence",
                )
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _check_last(last: int | None) -> None:
    if last is not None and (isinstance(last, bool) or not isinstance(last, int | np.integer) or last < 0):
        raise SchemaError("The argument `last`", "a number of bars, 0 or more", repr(last))


def require_replay(market: Market) -> ReplayClock:
    """The clock of a replay, or an error: a live market has no controls."""
    if not isinstance(market.clock, ReplayClock):
        raise ClockError(
            f"{market.source.name}", "a replay", market.source.mode, "A live market has no controls."
        )
    return market.clock
