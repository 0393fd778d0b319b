"""Ten times what the graph can take, for a minute: memory is flat, every trade is accounted for, and it recovers."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pytest

from marketdash.clock import to_us
from marketdash.inbox import Inbox
from marketdash.market import Market
from marketdash.market.memory import release
from marketdash.pipeline.nodes import guard
from marketdash.schema import conform
from marketdash.sources.base import StreamedSource
from marketdash.testing.clock import ManualClock
from marketdash.testing.golden import few_instruments, random_quotes, random_ticks

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = min(60.0, float(os.environ.get("SOAK_SECONDS", "600")) / 4)
CAPACITY = 20_000
"""Trades a second: a slow handler sees to it, since nobody can offer ten times as much as the graph itself takes."""
ROOM = CAPACITY // 5
"""What waits when the overload ends must be handled within the second: the usual 100,000 rows are, at usual speed."""
OVERLOAD = 10
ROWS = 200
BURST_S = 0.01
ALLOWED_MB = 40.0
UNIVERSE = few_instruments(50, ("24/7",))
START, STOP = "2018-11-23 17:00", "2018-11-23 17:10"


class Flood(StreamedSource):
    """Offers trades and quotes from a thread, `rate` rows a second of either half; counts what it offered."""

    name, slow_history = "flood", False

    def __init__(self) -> None:
        super().__init__(UNIVERSE, clock=ManualClock(STOP), inbox=Inbox(rows=ROOM, quotes=ROOM))
        self.rate, self.trades, self.over = 0.0, 0, threading.Event()
        ticks = conform("ticks", random_ticks(UNIVERSE, START, STOP, 50 * ROWS))
        price = ticks.column("price").to_numpy().copy()
        price[::100] = np.nan  # one in a hundred cannot be true
        place = ticks.schema.get_field_index("price")
        self.ticks = ticks.set_column(place, ticks.schema.field(place), pa.array(price, from_pandas=False))
        self.quotes = conform("quotes", random_quotes(UNIVERSE, START, STOP, 10 * ROWS))

    def _next(self, rows: pa.RecordBatch, rng: np.random.Generator) -> pa.RecordBatch:
        """Some of these rows, each with a time of its own, and in order."""
        batch = rows.take(pa.array(rng.integers(0, rows.num_rows, ROWS)))
        times = pa.array(to_us(START + "+00:00") + self.trades + np.arange(ROWS)).view(
            batch.column("time").type
        )
        for name in ("time", "known_at"):
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, batch.schema.field(place), times)
        return batch

    async def listen(self) -> None:
        try:
            await asyncio.to_thread(self._push)
        finally:
            self.over.set()

    def _push(self) -> None:
        rng, due = np.random.default_rng(1), 0.0
        began = time.monotonic()
        while not self.over.wait(max(0.0, began + BURST_S - time.monotonic())):
            began, spent = time.monotonic(), time.monotonic() - began
            due += self.rate * spent / 2
            while due >= ROWS and self.rate and not self.over.is_set():
                # Copies, so that what waits takes the room that it would.
                self.trades += ROWS
                for topic, rows in (("ticks", self.ticks), ("quotes", self.quotes)):
                    self.inbox.offer(topic, self._next(rows, rng))
                due -= ROWS
            due = min(due, 100.0 * ROWS) if self.rate else 0.0


def resident_mb() -> float:
    gc.collect()
    release()
    return psutil.Process().memory_info().rss / 1e6


def test_ten_times_what_the_graph_can_take_is_survived_and_every_trade_accounted_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "BACKLOG", 2 * ROOM)  # which a slow listener fills within a second
    source = Flood()
    with Market(source) as market:
        market.bus.subscribe("ticks", lambda topic, batch: time.sleep(batch.num_rows / CAPACITY))
        market.stream("ticks", arrow=True).sink(lambda batch: asyncio.sleep(batch.num_rows * 10 / CAPACITY))
        market.start()
        source.rate = 2.0 * OVERLOAD * CAPACITY
        levels: list[float] = []
        begin = time.monotonic()
        while time.monotonic() - begin < SECONDS:
            time.sleep(SECONDS / 40)
            levels.append(resident_mb())
            assert source.inbox.waiting <= 2 * ROOM + ROWS, "a batch may be under way"
            assert market.health.stage("listeners of ticks: <lambda>").counts()[0]["queue"] <= 2 * ROOM
        offered, elapsed = source.trades, time.monotonic() - begin
        taken = market.health.stage("clean ticks").rows
        source.rate = 0.0
        recovered = recovery(market, source)
        growth = median(levels[-10:]) - median(levels[10:20])
        assert growth < ALLOWED_MB, f"memory grew by {growth:.0f} MB: {levels}"
        assert offered > 0.8 * OVERLOAD * taken, (
            f"{offered:,} trades, {taken:,} handled: this was no overload"
        )
        assert recovered < 1.0, f"it took {recovered:.1f} s to recover"
        calm(market, source)
        source.over.set()
        deadline = time.monotonic() + 30
        while market.status.state != "ended":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        account(market, source)
        print(
            f"{source.trades:,} trades in {elapsed:.0f} s, {source.inbox.dropped:,} dropped, "
            f"{source.inbox.counts()['conflated']:,} quotes conflated, memory {growth:+.1f} MB, "
            f"recovered in {recovered:.2f} s"
        )


def recovery(market: Market, source: Flood) -> float:
    """Seconds from the end of the overload until nothing waits at the door, and all is handled."""
    begin, handled = time.monotonic(), market.health.stage("source flood")
    while source.inbox.waiting or handled.rows < source.inbox.taken:
        assert time.monotonic() - begin < 30, f"{source.inbox.waiting:,} rows still wait"
        time.sleep(0.005)
    return time.monotonic() - begin


def calm(market: Market, source: Flood) -> None:
    """What comes after the overload is handled as soon as it would have been without."""
    stage = market.health.stage("frame of ticks")
    time.sleep(0.2)
    stage.lag.clear()
    source.rate = CAPACITY / 10.0
    time.sleep(0.8)
    source.rate = 0.0
    lag = stage.lag.percentile(0.99)
    assert lag is not None
    assert lag < 250.0, f"{lag:.0f} ms"


def account(market: Market, source: Flood) -> None:
    """Offered = in the bars + stopped for what they are + dropped for want of room."""
    counts = source.inbox.counts()
    dropped = {
        reason: rows for reason, rows in counts["dropped"].items() if reason.startswith("ticks: more than")
    }
    assert sum(counts["dropped"].values()) == sum(dropped.values()), "quotes are conflated, never dropped"
    kept = sum(
        int(bars.count.sum()) for i in range(len(UNIVERSE)) for bars in [market.graph.store.bars(i, "1d")]
    )
    summary = market.health.summary()
    quarantined = summary["clean ticks"]["quarantined"]
    assert quarantined > 0
    assert kept + quarantined + sum(dropped.values()) == source.trades
    assert counts["conflated"] > 0
    listener = summary["listeners of ticks: <lambda>"]
    assert listener["dropped"] > 0
    assert listener["queue"] + listener["dropped"] + listener["rows"] <= kept
    assert summary["inbox of flood"]["dropped"] == sum(dropped.values())
    assert "Dropped so far" in market.status.message or market.status.state == "ended"
