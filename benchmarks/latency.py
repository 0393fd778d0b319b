"""Latency: from a decoded row to the frame, and what it costs, at 2,500 messages a second one by one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.report import Report
from marketdash.instruments import Universe
from marketdash.market import Market
from marketdash.pipeline import Graph
from marketdash.schema import conform
from marketdash.sources.base import StreamedSource

INSTRUMENTS = 2_500
RATE = 2_500
SECONDS = 12.0
WARM_UP_S = 2.0


def latency(report: Report) -> None:
    """Measure 2,500 trades a second, each offered alone from a thread, through a market's inbox and graph."""
    delays, cpu, source, market = asyncio.run(_measured(Pushed(RATE, SECONDS)))
    _check(source, market)
    what = f"{RATE:,} trades/s one by one, {INSTRUMENTS:,} instruments: offered → readable in the frame, gathered for "
    what += f"{source.inbox.window_s * 1e3:g} ms"
    report.add("engine.latency_ms.p50", float(np.percentile(delays, 50)) * 1e3, "ms", what)
    report.add("engine.latency_ms.p99", float(np.percentile(delays, 99)) * 1e3, "ms", what, at_most=15)
    report.add(
        "engine.latency_cpu_pct", cpu * 100, "% of a core",
        "CPU time of the process without the generator's own (its thread's time outside of `offer`)", at_most=10,
    )  # fmt: skip


class Pushed(StreamedSource):
    """A thread that offers one trade after the other at a steady rate, each with its number as the size."""

    name, slow_history = "pushed", False

    def __init__(self, rate: float, seconds: float) -> None:
        super().__init__(Universe.of([f"S{i}" for i in range(INSTRUMENTS)], calendar="24/7"))
        self.rate, self.count = rate, int(rate * seconds)
        self.offered_at = np.zeros(self.count)
        self.own_cpu = 0.0
        rng = np.random.default_rng(3)
        ids = rng.integers(0, INSTRUMENTS, self.count)
        prices = rng.uniform(20, 300, INSTRUMENTS)[ids] * np.exp(rng.normal(0, 5e-4, self.count))
        self.ids, self.prices = ids.tolist(), np.round(prices, 2).tolist()

    async def listen(self) -> None:
        await asyncio.to_thread(self._push)

    def _push(self) -> None:
        begin, spent, started = time.perf_counter(), 0.0, time.thread_time()
        for i in range(self.count):
            if (wait := begin + i / self.rate - time.perf_counter()) > 0:
                time.sleep(wait)
            row = {
                "time": [datetime.now(UTC)],
                "instrument_id": [self.ids[i]],
                "price": [self.prices[i]],
                "size": [float(i)],
            }
            before = time.thread_time()
            self.offered_at[i] = time.perf_counter()
            self.inbox.offer("ticks", row)
            spent += time.thread_time() - before
            self.own_cpu = time.thread_time() - started - spent


async def _measured(source: Pushed) -> tuple[Any, float, Pushed, Market]:
    seen = np.zeros(source.count)
    compiles = {"time": [datetime.now(UTC)], "instrument_id": [0], "price": [1.0], "size": [1.0]}
    Graph(source.universe).push("ticks", conform("ticks", compiles))
    market = Market(source)
    with market:
        keep = _last_step(market)
        market.start()
        while not source.offered_at[int(WARM_UP_S * RATE)]:
            await asyncio.sleep(0.01)
        wall, used = time.perf_counter(), time.process_time() - source.own_cpu
        before = keep.call

        def noted(batch: Any) -> Any:
            kept = before(batch)
            seen[batch.column("size").to_numpy().astype(np.int64)] = time.perf_counter()
            return kept

        keep.call = noted
        while market.status.state != "ended":
            await asyncio.sleep(0.05)
        wall, used = time.perf_counter() - wall, time.process_time() - source.own_cpu - used
    found = seen > 0
    return (seen - source.offered_at)[found], used / wall, source, market


def _last_step(market: Market) -> Any:
    """The node that writes ticks into their frame: behind it they can be read."""
    return market.graph.outputs["ticks"]


def _check(source: Pushed, market: Market) -> None:
    """Every trade that was offered is in the frame, in order, and the newest of each instrument is its last price."""
    assert source.inbox.taken == source.inbox.offered == source.count
    newest = dict(zip(source.ids, source.prices, strict=True))
    last = market.graph.last.prices("last")
    assert all(last[i] == price for i, price in newest.items())
    kept = market.graph.frames["ticks"].table()
    assert kept.num_rows == source.count
    assert (np.diff(kept["size"].to_numpy()) == 1).all()


if __name__ == "__main__":
    latency(Report())
