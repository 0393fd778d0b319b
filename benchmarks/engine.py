"""The engine: ticks a second through the whole graph, checked by reading the frames back."""

from __future__ import annotations

import asyncio
import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # the graph uses one thread, and so does its peer

import numpy as np
import pyarrow as pa

from benchmarks.report import Report, seconds
from marketdash.calendars import calendar
from marketdash.clock import to_us
from marketdash.instruments import Universe
from marketdash.log import SessionLibrary
from marketdash.pipeline import Graph
from marketdash.schema import WIDTHS, conform

INSTRUMENTS = 2_500
TICKS = 2_000_000


def run(report: Report) -> None:
    """Measure the graph and its peer on the same ticks."""
    ticks = session_ticks(INSTRUMENTS, TICKS)
    for rows in (100, 1_000, 10_000):
        part = ticks.slice(0, TICKS // 10 if rows == 100 else TICKS)
        rate, graph = asyncio.run(through_graph(part, rows))
        check(graph, part)
        what = f"{INSTRUMENTS:,} instruments: clean, seven widths, last prices, frames, through streamz"
        report.add(f"engine.ticks_per_s.batch_{rows}", rate, "ticks/s", what)
        if rows == 1_000:
            report.add(
                "engine.memory_mb", graph.store.nbytes / 1e6, "MB", "bars of seven widths, one session"
            )
            peer = TICKS / seconds(lambda: polars_bars(ticks), 3)
            report.add(
                "engine.polars_ticks_per_s", peer, "ticks/s", "the same widths, one-shot group_by, one thread"
            )
            report.add(
                "engine.vs_polars", rate / peer, "×", "incremental graph against polars' one-shot group_by"
            )
    seek(report)


def session_ticks(instruments: int, count: int) -> pa.RecordBatch:
    """One regular session of random trades, heavy-tailed over instruments, in order of time."""
    rng = np.random.default_rng(5)
    exchange = calendar("XNYS")
    opened, closed = exchange.regular(to_us("2024-03-12 12:00"), to_us("2024-03-12 21:00"))[0]
    times = np.sort(rng.integers(opened, closed, count))
    weight = rng.pareto(1.2, instruments) + 0.1
    ids = rng.choice(instruments, count, p=weight / weight.sum()).astype(np.int32)
    price = np.round(20 + 300 * rng.random(instruments)[ids] * np.exp(rng.normal(0, 0.01, count)), 2)
    session, day = exchange.stamp(times)
    stamp = pa.timestamp("us", "UTC")
    columns = {
        "time": pa.array(times, stamp),
        "known_at": pa.array(times, stamp),
        "seq": np.arange(count),
        "source": pa.array(["benchmark"]).cast(pa.utf8()).take(pa.array(np.zeros(count, np.int32))),
        "instrument_id": ids,
        "price": price,
        "size": rng.integers(1, 500, count).astype(np.float64),
        "session": session,
        "trading_day": pa.array(day, pa.int32()).cast(pa.date32()),
    }
    return conform("ticks", columns)


async def through_graph(ticks: pa.RecordBatch, rows: int) -> tuple[float, Graph]:
    """Ticks a second in batches of `rows`, median of three runs, and the last graph."""
    universe = Universe.of([f"S{i}" for i in range(INSTRUMENTS)], calendar="XNYS")
    batches = [ticks.slice(i, rows) for i in range(0, ticks.num_rows, rows)]
    graph = Graph(universe)

    def push() -> None:
        graph.reset()
        for batch in batches:
            graph.push("ticks", batch)

    push()  # compiles, and lets the rings grow
    return ticks.num_rows / seconds(push, 3), graph


def check(graph: Graph, ticks: pa.RecordBatch) -> None:
    """The newest bar of every instrument and width equals what numpy makes of the same ticks."""
    ids, price = ticks.column("instrument_id").to_numpy(), ticks.column("price").to_numpy()
    size, times = ticks.column("size").to_numpy(), ticks.column("time").view(pa.int64()).to_numpy()
    newest = np.full(INSTRUMENTS, -1)
    newest[ids] = np.arange(len(ids))
    assert (np.nan_to_num(graph.last.prices("last")) == np.where(newest >= 0, price[newest], 0)).all()
    for width in WIDTHS:
        ring = graph.store.ring(width)
        for instrument in (0, 7, int(ids[-1])):
            total = int(ring.total[instrument])
            if not total:
                continue
            bar = graph.store.bars(instrument, width, last=1)
            rows = (ids == instrument) & (times >= bar.time[0]) & (times < bar.end[0])
            assert bar.high[0] == price[rows].max()
            assert bar.low[0] == price[rows].min()
            assert bar.volume[0] == size[rows].sum()
            assert bar.count[0] == rows.sum()


def polars_bars(ticks: pa.RecordBatch) -> None:
    """The same widths by the peer, all rows at once."""
    import polars as pl

    frame = pl.from_arrow(pa.Table.from_batches([ticks.drop_columns(["source", "conditions"])]))
    assert isinstance(frame, pl.DataFrame)
    for width in WIDTHS.values():
        frame.group_by("instrument_id", pl.col("time").dt.truncate(f"{width}us")).agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.col("size").sum().alias("volume"),
            (pl.col("price") * pl.col("size")).sum().alias("turnover"),
            pl.len().alias("count"),
        )


def seek(report: Report) -> None:
    """A seek backwards over half a million ticks plays them all again."""
    from marketdash.market import open_market

    log = SessionLibrary().open("es-2013-09-ticks")
    with open_market("replay:es-2013-09-ticks", start=log.last) as market:
        market.clock.pause()
        times = []
        for fraction in (0.99, 0.5, 0.9, 0.1, 0.95):
            moment = market.clock.timeline.at(int(fraction * market.clock.timeline.length))
            times.append(seconds(lambda moment=moment: market.clock.seek(moment), 1))
            rows = log.rows_until(moment)["ticks"]
            known = market.graph.store.ring("1d")
            assert rows == 0 or known.total[0] >= 1
    report.add("clock.seek_ms.max", max(times) * 1e3, "ms", "seeks in 500,000 ticks, all widths rebuilt")
