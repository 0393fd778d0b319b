"""The clock: random seeks in a day of 20 million ticks and in a shipped session, each checked against the log."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.day import INSTRUMENTS, trading_day
from benchmarks.report import Report
from marketdash.frames import Bars
from marketdash.instruments import Universe
from marketdash.log import SessionLibrary, SessionLog, open_session, write_session
from marketdash.market import Market
from marketdash.market.snapshots import SNAPSHOT_ROWS
from marketdash.sources.replay import ReplaySource

TICKS = 20_000_000
SEEKS = 150
PLAYED = 10
"""Seeks that are also made by playing from the start, which takes as long as all others together."""


def run(report: Report) -> None:
    """Seek at random, look at what is shown, and play to some of the same moments."""
    compile_kernels()
    log = day_log(TICKS)
    with Market(ReplaySource(log, playing=False)).start() as market:
        first = timed_seek(market, log.last)
        report.add(
            "clock.first_play_s", first, "s", f"{TICKS:,} ticks, seek to the end before any snapshot is there"
        )
        chain = market._snapshots._shared()
        report.add(
            "clock.snapshot_mb", chain.nbytes / 1e6, "MB", f"on disk: {len(chain)} snapshots of that day"
        )
        figures(report, log, market, "")
    log = SessionLibrary().open("es-2013-09-ticks")
    with Market(ReplaySource(log, playing=False)).start() as market:
        market.clock.seek(log.last)
        figures(report, log, market, ".es")


def figures(report: Report, log: SessionLog, market: Market, suffix: str) -> None:
    """Time the seeks of one log, and the same ones where there are no snapshots."""
    rng, check = np.random.default_rng(11), Check(log)
    moments = [log.timeline.at(int(share * log.timeline.length)) for share in rng.random(SEEKS)]
    taken = []
    for number, moment in enumerate(moments):
        taken.append(timed_seek(market, moment))
        check(market, moment, number)
    what = f"{SEEKS} random seeks in {sum(batch.num_rows for batch in log.topics.values()):,} ticks, each checked"
    for name, value in (("p50", np.median(taken)), ("p99", np.percentile(taken, 99)), ("max", max(taken))):
        report.add(f"clock.seek_ms.{name}{suffix}", float(value) * 1e3, "ms", what)
    with Market(ReplaySource(log, playing=False), snapshots_mb=0).start() as slow:
        slow.clock.seek(log.last)
        played = sum(timed_seek(slow, moment) for moment in sorted(moments[:PLAYED], reverse=True))
        for moment in moments[: PLAYED // 3]:
            market.clock.seek(moment)
            slow.clock.seek(moment)
            assert_same(market, slow)
    what = f"playing from the start to {PLAYED} of these moments, by the time of the seeks"
    report.add(f"clock.vs_playing{suffix}", played / sum(taken[:PLAYED]), "×", what)


def compile_kernels() -> None:
    """Go back once in a log that is just long enough for a snapshot."""
    log = day_log(SNAPSHOT_ROWS + 10_000)
    with Market(ReplaySource(log, playing=False)).start() as market:
        for moment in (log.last, log.last - 1):
            market.clock.seek(moment)


def timed_seek(market: Market, moment: int) -> float:
    """Seconds until a seek has brought all frames to where it goes."""
    begin = time.perf_counter()
    market.clock.seek(moment)
    return time.perf_counter() - begin


def day_log(count: int) -> SessionLog:
    """A trading day as a log that was never on disk, but for its manifest."""
    ticks, universe = trading_day(count), Universe.of([f"S{i}" for i in range(INSTRUMENTS)], calendar="XNYS")
    ends = pa.concat_batches([ticks.slice(0, 1), ticks.slice(count - 1)])
    with tempfile.TemporaryDirectory() as folder:
        write_session(Path(folder) / "day", universe, {"ticks": ends}, calendar="XNYS", tz="America/New_York")
        manifest = open_session(Path(folder) / "day").manifest
    return SessionLog(Path(folder), manifest, universe, {"ticks": ticks})


class Check:
    """Compares what a market shows with what numpy makes of the log's rows until then.

    Of all instruments the last price and the day's volume, of some of them every kept bar of all widths.
    """

    def __init__(self, log: SessionLog) -> None:
        ticks = log.topics["ticks"]
        self.ids, self.price, self.size = (
            ticks.column(name).to_numpy() for name in ("instrument_id", "price", "size")
        )
        self.times, self.known = (
            ticks.column(name).view(pa.int64()).to_numpy() for name in ("time", "known_at")
        )
        assert (self.times == self.known).all()
        order = np.argsort(self.ids, kind="stable")
        self.order, self.starts = order, np.searchsorted(self.ids[order], np.arange(len(log.universe) + 1))

    def __call__(self, market: Market, moment: int, number: int) -> None:
        stop = int(np.searchsorted(self.known, moment, side="right"))
        newest = np.full(len(market.universe), -1)
        newest[self.ids[:stop]] = np.arange(stop)
        traded = newest >= 0
        last = market.graph.last.prices("last")
        assert (last[traded] == self.price[newest[traded]]).all()
        assert np.isnan(last[~traded]).all()
        if len(market.universe) > 1:  # one day, and nothing outside of its session
            volume = np.bincount(self.ids[:stop], self.size[:stop], len(market.universe))
            assert (np.nan_to_num(market.day()["volume"]) == volume).all()
        for instrument in {number % len(market.universe), int(self.ids[max(stop - 1, 0)])}:
            rows = self.order[self.starts[instrument] : self.starts[instrument + 1]]
            rows = rows[: np.searchsorted(rows, stop)]
            for width in market.widths:
                self.check_bars(market.graph.store.bars(instrument, width), width, rows)

    def check_bars(self, bars: Bars, width: str, rows: npt.NDArray[np.int64]) -> None:
        times, price, size = self.times[rows], self.price[rows], self.size[rows]
        begin, end = (np.searchsorted(times, edge) for edge in (bars.time, bars.end))
        if len(bars) == 0 or width == "1d":
            assert len(bars) or not len(rows) or width == "1d"
            return
        assert (begin < end).all()
        assert end[-1] == len(rows), f"the newest bar of {width} ends before the last trade"
        assert (begin[1:] == end[:-1]).all(), f"a trade between two bars of {width}"
        assert (bars.open == price[begin]).all()
        assert (bars.close == price[end - 1]).all()
        assert (bars.count == end - begin).all()
        assert (bars.high == np.maximum.reduceat(price, begin)).all()
        assert (bars.low == np.minimum.reduceat(price, begin)).all()
        assert (bars.volume == np.add.reduceat(size, begin)).all()


def assert_same(left: Market, right: Market) -> None:
    """All kept bars, last prices and late rows of two markets, bit for bit."""
    ids = np.arange(len(left.universe))
    for width in left.widths:
        found, expected = (market.graph.store.rows(width, ids) for market in (left, right))
        for name, column in expected.items():
            np.testing.assert_array_equal(found[name], column, f"{name} of {width}")
    np.testing.assert_array_equal(left.graph.last.floats, right.graph.last.floats)
    np.testing.assert_array_equal(left.graph.last.ints, right.graph.last.ints)
    assert left.graph.frames["ticks"].table().equals(right.graph.frames["ticks"].table())
