"""The engine: ticks a second through the whole graph, its memory and its peers, checked by reading the frames back."""

from __future__ import annotations

import asyncio
import gc
import time
from statistics import median

import numpy as np
import psutil
import pyarrow as pa

from benchmarks import peers
from benchmarks.day import INSTRUMENTS, trading_day, with_conditions
from benchmarks.expected import Expected, check, expected
from benchmarks.indicators import indicators
from benchmarks.latency import latency
from benchmarks.report import Report
from marketdash.instruments import Universe
from marketdash.pipeline import Graph

TICKS = 10_000_000
"""So many that the rings of one-second bars are full, and that no cache holds what a tick needs."""
RUNS = 3
SESSIONS = ("2024-03-12", "2024-03-13", "2024-03-14")
SESSION_TICKS = 2_000_000
WHAT = f"{INSTRUMENTS:,} instruments, {TICKS / 1e6:g} M ticks of a day: clean with the band, last prices, "
WHAT += "seven widths, frames, through streamz"


def run(report: Report) -> None:
    """Measure the graph and its peers on the same ticks, then memory, latency and indicators."""
    ticks = trading_day(TICKS)
    wanted = expected(ticks)
    rates = {}
    for rows, bar in ((100, 1.5e6), (1_000, 8e6), (10_000, None)):
        rates[rows] = throughput(report, f"engine.ticks_per_s.batch_{rows}", ticks, rows, wanted, bar)
    against_peers(report, ticks, rates[1_000], wanted)
    del wanted
    odd = with_conditions(ticks)
    what = "the same with their sale conditions: odd lots make no price"
    throughput(report, "engine.ticks_per_s.batch_1000.conditions", odd, 1_000, expected(odd, "A"), None, what)
    del ticks, odd
    memory(report)
    latency(report)
    indicators(report)


def throughput(
    report: Report,
    key: str,
    ticks: pa.RecordBatch,
    rows: int,
    wanted: Expected,
    bar: float | None,
    what: str = WHAT,
) -> float:
    """Ticks a second of CPU time in batches of `rows`, the bars of the last run checked."""
    mic = "XNYS" if wanted.tape == "A" else ""
    cpu, wall = asyncio.run(through_graph(ticks, rows, mic, wanted))
    report.add(
        key,
        cpu,
        "ticks/s",
        f"{what}; CPU time of one thread ({wall / 1e6:.3g} M/s by the wall)",
        at_least=bar,
    )
    return cpu


def universe(mic: str = "") -> Universe:
    return Universe.of([f"S{i}" for i in range(INSTRUMENTS)], calendar="XNYS", mic=mic)


async def through_graph(ticks: pa.RecordBatch, rows: int, mic: str, wanted: Expected) -> tuple[float, float]:
    """Ticks a second of CPU and of wall time: the medians of some runs after one that compiles and lets rings grow."""
    batches = [ticks.slice(i, rows) for i in range(0, ticks.num_rows, rows)]
    graph = Graph(universe(mic))
    times = []
    for _ in range(1 + RUNS):
        graph.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            graph.push("ticks", batch)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    check(graph, ticks, wanted)
    cpu, wall = (ticks.num_rows / median(column) for column in zip(*times[1:], strict=True))
    return cpu, wall


def against_peers(report: Report, ticks: pa.RecordBatch, rate: float, wanted: Expected) -> None:
    """The graph's ticks a second against those of others, which do less."""
    peer = peers.polars_ticks_per_s(ticks, wanted)
    what = "the same seven widths by one-shot group_bys of all rows, CPU time of one thread"
    report.add("engine.polars_ticks_per_s", peer, "ticks/s", what)
    what = "the incremental graph against polars' one-shot group_by, seven widths, one thread each"
    report.add("engine.vs_polars", rate / peer, "×", what, at_least=2)
    peer, cores, version = peers.perspective_ticks_per_s(ticks)
    what = f"against Perspective {version}: ONE width (1min), a Table fed {peers.TICKS:,} of these ticks by 1,000, a "
    what += "View by instrument × minute of first, high, low, last, sum, counted after each batch"
    report.add("engine.vs_perspective", rate / peer, "×", f"{what}; CPU time ({cores:.2g} cores busy)")
    peer = peers.streamz_ticks_per_s(ticks)
    what = f"against streamz.dataframe window('300s').groupby('instrument').price.mean(): ONE mean, {peers.TICKS:,} of "
    report.add("engine.vs_streamz_window", rate / peer, "×", f"{what}these ticks by 1,000; CPU time")


def memory(report: Report) -> None:
    """What three sessions of all widths take; the third adds nearly nothing."""
    days = [trading_day(SESSION_TICKS, date=date) for date in SESSIONS]
    batches = [[day.slice(i, 1_000) for i in range(0, day.num_rows, 1_000)] for day in days]
    grown, stores = asyncio.run(three_sessions(batches))
    what = f"growth of the process (RSS) over three sessions of {SESSION_TICKS / 1e6:g} M ticks, all seven widths of "
    what += f"{INSTRUMENTS:,} instruments; after each: " + ", ".join(f"{size / 1e6:,.0f}" for size in grown)
    report.add("engine.memory_mb", grown[-1] / 1e6, "MB", f"{what}; the bars' rings {stores[-1] / 1e6:,.0f}")
    assert stores[2] <= 1.1 * stores[1], stores
    assert grown[2] <= 1.1 * grown[1], grown


async def three_sessions(days: list[list[pa.RecordBatch]]) -> tuple[list[int], list[int]]:
    """After each day, by how many bytes the process has grown, and how many of them are the store's."""
    process, grown, stores = psutil.Process(), [], []
    before = resident(process)
    graph = Graph(universe())
    for day in days:
        for batch in day:
            graph.push("ticks", batch)
        grown.append(resident(process) - before)
        stores.append(graph.store.nbytes)
    assert (graph.store.ring("1d").total <= len(days)).all()
    assert int(np.max(graph.store.ring("1d").total)) == len(days)
    return grown, stores


def resident(process: psutil.Process) -> int:
    gc.collect()
    pa.default_memory_pool().release_unused()
    return int(process.memory_info().rss)
