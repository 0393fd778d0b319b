"""The market: what a person, a view or a server holds in hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
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
from marketdash.frames import Bars, adjust
from marketdash.indicators.history import BarHistory
from marketdash.indicators.spec import Spec, parse
from marketdash.market import memory, tables
from marketdash.market.adjusted import Adjuster, View, as_of_day
from marketdash.market.recording import Recording
from marketdash.market.runner import Runner
from marketdash.market.snapshots import Snapshots
from marketdash.market.state import Judge, Status, Values
from marketdash.pipeline import Graph, Health, columns
from marketdash.schema import Event, conform, width_us
from marketdash.sources.base import Retry, Source
from marketdash.sources.replay import ReplaySource

T = TypeVar("T")

_BEFORE_ALL = -(2**62)
FRAMES = ("bars", "last", "ticks", "corrections", "quotes", "actions", "readings", "rejected")
STREAMS = ("bars", "ticks", "corrections", "quotes", "actions", "readings")
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
        snapshots_mb: int = 4_000,
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
        self._pending: set[asyncio.Task[Any]] = set()
        self._numbers: Counter[str] = Counter()
        self._reached, self._busy = _BEFORE_ALL, False
        self._inbox, self._lost = getattr(source, "inbox", None), 0
        if self._inbox is not None:
            self.health.stage(f"inbox of {source.name}").reads(self._inbox)
        self._closed = False
        self.recordings: list[Recording] = []
        self._runner = Runner()
        self._ready = threading.Event()
        self._jumps: Callable[[], None] = lambda: None
        try:
            self.graph = self._runner.call(
                lambda: Graph(
                    self.universe,
                    finest=source.finest,
                    rows=rows,
                    health=self.health,
                    tz=self.tz,
                    lateness_us=round(source.lateness * 1e6),
                    horizon_us=round(source.horizon * 1e6),
                )
            )
        except BaseException:
            self._runner.stop()
            raise
        self._snapshots: Snapshots | None = None
        if isinstance(source, ReplaySource):
            self._snapshots = Snapshots(source, self.graph, self.bus, snapshots_mb * 1_000_000)
        self._adjuster = Adjuster(self.universe, self.graph.store, self.graph.frames["actions"])
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
        if self._snapshots is not None:
            self._snapshots.close()
        for recording in list(self.recordings):
            recording.stop(wait=not _on_a_loop())
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
        adjustment: str = "raw",
        as_of: object = None,
    ) -> pd.DataFrame:
        """The recent past of a topic as a DataFrame, now.

        `bars` are indexed by their start and have `symbol open high low close volume vwap count revision
        session trading_day closed`; without a width, the narrowest from one minute on. `last` is what each
        instrument is worth, indexed by symbol. `ticks`, `corrections`, `quotes` and `readings` are the last
        rows of those topics as they came (a correction changes bars and prices, not ticks); `rejected` are the
        rows that cleaning has stopped, with the reason; `actions` the splits, dividends and renames that are
        known. `last` limits bars per instrument. `attrs` hold the source, its
        state and the market's time.

        Bars are as traded unless an `adjustment` is asked for: `split`, `total` or `reinvested`, as
        `frames.adjust.factors` defines them. Only actions known by now and in effect change them, with `as_of`
        those up to that date; bars after it stay as traded, and a date ahead of the market's is as good as today.
        `attrs["unadjusted"]` names the symbols some of whose prices are NaN since a dividend could not be taken
        off. A renamed instrument keeps its id, its rows and the symbol that the universe gives it.
        """
        if topic not in FRAMES:
            raise UnknownNameError("frame", topic, FRAMES)
        if topic != "bars" and (adjustment != "raw" or as_of is not None):
            raise UnknownNameError("option", "adjustment", (), "Only bars can be adjusted.")
        ids = self.universe.ids(symbols)
        _check_last(last)
        attrs: dict[Any, Any] = {}
        # The writer waits only while rows are copied, not while they become a DataFrame.
        with self._lock:
            now_us = self.clock.now_us()
            if topic == "bars":
                rows = self.graph.store.rows(width or self.default_width, ids, last)
                complete_us = self._complete_until() - self.graph.lateness_us
                view = self._adjusted(ids, adjustment, as_of, now_us)
                if view is not None:
                    rows = view.rows(rows)
            elif topic == "last":
                table = tables.last_table(
                    self.graph.last, self.graph.store, self.universe, ids, self.values(), self.tz
                )
            elif topic == "rejected":
                rejects = [row for clean in self.graph.cleaners.values() for row in clean.rejects]
            else:
                kept = self.graph.frames[topic].table()
        if topic == "bars":
            table = tables.bars_table(rows, self.universe, complete_us, self.tz)
            attrs = {"adjustment": adjustment} | tables.adjustment_attrs(view, self.universe)
        elif topic == "rejected":
            table = tables.rejected_table(rejects, self.universe, self.tz)
        elif topic != "last":
            table = tables.readable(kept, self.universe, self.tz, ids if symbols is not None else None)
        table.attrs = {
            "source": self.source.name,
            "label": self.label,
            "status": self.status.state,
            "market_time": to_timestamp(now_us, self.tz).isoformat(),
            **attrs,
        }
        return table

    @property
    def default_width(self) -> str:
        return next((w for w in self.widths if width_us(w) >= width_us("1min")), self.widths[-1])

    def bars(
        self,
        symbol: str,
        width: str | None = None,
        last: int | None = None,
        *,
        adjustment: str = "raw",
        as_of: object = None,
    ) -> Bars:
        """The bars of one instrument as arrays: what views draw from; adjusted as those of `frame`."""
        _check_last(last)
        with self._lock:
            instrument = self.universe.id(symbol)
            view = self._adjusted(np.array([instrument]), adjustment, as_of, self.clock.now_us())
            bars = self.graph.store.bars(instrument, width or self.default_width, last)
        return bars if view is None else view.bars(instrument, bars)

    def history(
        self,
        width: str | None = None,
        symbols: Iterable[str] | None = None,
        last: int | None = None,
        *,
        adjustment: str = "raw",
        as_of: object = None,
    ) -> BarHistory:
        """Bars of several instruments aligned by time: what indicators are computed on.

        They are adjusted as those of `frame`.
        """
        width = width or self.default_width
        ids = self.universe.ids(symbols)
        _check_last(last)
        with self._lock:
            view = self._adjusted(ids, adjustment, as_of, self.clock.now_us())
            times, fields = self.graph.store.table(width, ids, last)
        if view is not None:
            fields = view.table(times, ids, fields)
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
        costs only itself when it raises: see `health`. While somebody listens, a seek backwards plays the log again
        from its start, and a seek ahead all that lies between; else both begin at the nearest snapshot.
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

    def record(self, path: Path | str | None = None, *, name: str = "") -> Recording:
        """Record what the source writes from now on: a session log per trading day, in the folder `path`.

        Without a path, in the user's folder of sessions, from where `replay:NAME` opens it. `name` is the
        source's unless given. The rows are on the disk within a second or so; a log is made of them when the
        trading day ends, with `recording.stop()`, and when the market is closed (which waits for that unless
        it is closed on an event loop). Each recording has a stage `record` in `health`.
        """
        recording = self._call(lambda: Recording(self, path, name))
        self.recordings.append(recording)
        return recording

    def feed(self, topic: str, rows: Any) -> None:
        """Write rows into the market by hand, as a source would."""
        batch = conform(topic, rows, "market.feed")
        if self._snapshots is not None:
            self._call(self._snapshots.spoil)
        self._call(lambda: self._write([(topic, batch)], live=True))

    # Inside

    def wait_for(self, task: asyncio.Task[Any]) -> None:
        """Let a source that has events without end wait a while for a task before its next one."""
        self._pending.add(task)

    def _adjusted(self, ids: npt.NDArray[Any], adjustment: str, as_of: object, now_us: int) -> View | None:
        if adjust.checked(adjustment) == "raw" and as_of is None:
            return None
        day = as_of_day(as_of, adjustment, self.tz)
        today = int(self.calendar.trading_day(now_us).to_datetime64().astype("M8[D]").astype(np.int64))
        return self._adjuster.view(ids, adjustment, day, now_us, today)

    def _call(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise SourceError(self.source.name, "an open market", "one that was closed", "Open it again.")
        return self._runner.call(function)

    def _handle(self, topic: str, batch: pa.RecordBatch) -> None:
        with self._lock:
            self._pending.update(self.graph.push(topic, batch))

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

    def _publish(self, topic: str, batch: pa.RecordBatch, arrived: float | None = None) -> None:
        # Handlers run inside; a handler that moves the clock must not find the batch half-way.
        outer, self._busy = self._busy, True
        self.health.arrival.at = arrived or time.perf_counter()
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
                self._pending.update(self.graph.advance(until))
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
        """Bring the graph to where the clock of the replay stands: forwards, or from a snapshot or the start anew."""
        assert isinstance(self.source, ReplaySource)
        assert self._snapshots is not None
        until = self.clock.now_us()
        back = until < self._reached or self.source.is_beyond(until)
        self._snapshots.approach(until, back=back)
        for topic, batch in self.source.take(until):
            if self._closed:
                return
            self._publish(topic, batch)
            self._snapshots.look()
        with self._lock:
            self._pending.update(self.graph.advance(until))
        self._reached = until

    async def _settle(self) -> None:
        """Wait a while for listeners that await something, so that they set the pace of a fast replay.

        What is pushed does not wait for them: they fall behind alone.
        """
        pending, self._pending = {task for task in self._pending if not task.done()}, set()
        if pending:
            await asyncio.wait(pending, timeout=LISTENER_PATIENCE_S if self._inbox is None else 0.0)

    def _tell_losses(self) -> None:
        """Say on `health`, in the status and once in the log that rows are dropped at the door."""
        if (inbox := self._inbox) is None:
            return
        stage, lost, self._lost = self.health.stage(f"inbox of {self.source.name}"), self._lost, inbox.dropped
        if self._lost == lost:
            if stage.consecutive_errors and not inbox.waiting:
                stage.consecutive_errors = 0
            return
        told = "; ".join(f"{rows:,} of {reason}" for reason, rows in stage.counts()[1].items())
        if not stage.consecutive_errors:
            got = f"more: dropped {told}"
            stage.failed(SourceError(stage.name, "room for all rows", got, str(inbox.error or "")))
        if self.status.state == "running":
            self.status = Status("running", f"Dropped so far: {told}.")


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _beat(market: Market) -> None:
    """Read out bars that end while no event comes."""
    while True:
        await asyncio.sleep(BEAT_S)
        market.health.arrival.at = time.perf_counter()
        try:
            market.advance()
            market._tell_losses()
        except Exception as error:
            market.health.stage("beat").failed(error)
        # Nobody waits for listeners while there are no events; those that are done need no memory.
        market._pending = {task for task in market._pending if not task.done()}


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
                    inbox = market._inbox
                    market._publish(topic, batch, None if inbox is None else inbox.arrived)
                    if market._snapshots is not None:
                        market._snapshots.look()
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
    # Awaited directly, an event goes from the generator into the graph without a turn of the loop in
    # between, in which a seek could rewind the one and reset the other. A task of its own would also cost more
    # than what a round of a few rows does.
    if (patience := market.source.stall_after) is None:
        return await anext(batches, None)
    waiting, loop, stalled = asyncio.current_task(), asyncio.get_running_loop(), False
    assert waiting is not None
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal stalled, timer
        if market.calendar.is_open(market.clock.now_us()):
            stalled = waiting.cancel()
        else:
            timer = loop.call_later(patience, look)

    timer = loop.call_later(patience, look)
    try:
        return await anext(batches, None)
    except asyncio.CancelledError:
        if not stalled or waiting.cancelling() > 1:  # by somebody else: the source, or who closes the market
            raise
        expected = f"something within {patience:g} s while {market.calendar.name} is open"
        raise _StalledError(market.source.name, expected, "silence") from None
    finally:
        timer.cancel()
        if stalled:
            waiting.uncancel()


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
