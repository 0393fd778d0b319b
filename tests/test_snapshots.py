"""A replay goes by snapshots: quickly, and to where playing from the start would have brought it, bit for bit."""

import asyncio
import errno
import gc
import math
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import marketdash.market.snapshots
import marketdash.pipeline.snapshots
from marketdash import conditions
from marketdash.clock import to_us
from marketdash.frames.bars import KNOWN, PLACES
from marketdash.indicators import INDICATORS, indicator
from marketdash.instruments import Instrument, Universe
from marketdash.log import SessionLog, open_session
from marketdash.market import Market
from marketdash.pipeline.snapshots import Chain
from marketdash.sources.replay import ReplaySource
from marketdash.sources.simulated import SimulatedSource
from marketdash.testing.clock import ManualWall, caught_up
from marketdash.testing.golden import (
    assert_same,
    golden,
    random_bars,
    random_quotes,
    random_ticks,
    write_log,
)

ROWS = 150
KINDS = ("ticks", "minutes", "all topics")
ROUGH = settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def near_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marketdash.market.snapshots, "SNAPSHOT_ROWS", ROWS)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SessionLog]:
    folder, names = tmp_path_factory.mktemp("logs"), ("A", "B", "C")
    universe = Universe(Instrument(i, name, mic="XNYS", calendar="XNYS") for i, name in enumerate(names))
    day = ("2018-11-23 16:40", "2018-11-23 18:40")
    rng = np.random.default_rng(7)
    ticks = random_ticks(universe, *day, rows=3_000, seed=1, late=0.2)
    masks = np.uint32(conditions.bit("odd lot")), np.uint32(0)
    ticks = ticks.assign(seq=np.arange(len(ticks)), conditions=np.where(rng.random(len(ticks)) < 0.3, *masks))
    absurd = ticks.iloc[5::50].assign(
        price=lambda rows: rows["price"] * 9, seq=lambda rows: rows["seq"] + 10_000
    )
    moved = ticks["known_at"] > pd.Timestamp("2018-11-23 17:30", tz="UTC")  # a jump that is real
    ticks.loc[moved & (ticks["instrument_id"] == 1), "price"] *= 2
    again, bad = ticks.iloc[::40], ticks.iloc[7::90].assign(price=-1.0, seq=99_000)
    later = pd.Timedelta(minutes=2)
    again = again.assign(known_at=again["known_at"] + later)
    ticks = pd.concat([ticks, absurd, bad, again]).sort_values("known_at", kind="stable", ignore_index=True)
    wrong = ticks[ticks["price"] > 0].iloc[3::25]
    delay = pd.to_timedelta(rng.exponential(600, len(wrong)), unit="s").round("us")
    corrections = pd.DataFrame(
        {
            "time": wrong["known_at"] + delay,
            "known_at": wrong["known_at"] + delay,
            "instrument_id": wrong["instrument_id"],
            "original_seq": wrong["seq"],
            "price": wrong["price"].where(rng.random(len(wrong)) < 0.5) + 1 / 64,
        }
    ).sort_values("known_at", kind="stable", ignore_index=True)
    quotes = random_quotes(universe, *day, rows=700, seed=2)
    quotes = quotes.assign(exchange=np.array([None, "N", "P", "Q"], object)[rng.integers(0, 4, len(quotes))])
    minutes = random_bars(universe, "1min", "2018-11-23 14:30", day[1], seed=3)
    told = minutes.iloc[::9].assign(known_at=lambda rows: rows["known_at"] + pd.Timedelta(minutes=30))
    minutes = pd.concat([minutes, told]).sort_values("known_at", kind="stable", ignore_index=True)
    days = random_bars(universe, "1d", "2018-11-12 12:00", "2018-11-23 20:00", seed=5)
    actions = pd.DataFrame(
        {
            "time": pd.to_datetime(["2018-11-22 14:30", "2018-11-23 17:00", "2018-11-23 18:00"], utc=True),
            "instrument_id": np.array([0, 1, 0], np.int32),
            "kind": ["split", "dividend", "split"],
            "value": [2.0, 0.5, math.nan],
        }
    )
    topics = {
        "ticks": {"ticks": ticks, "corrections": corrections},
        "minutes": {"bars": minutes},
        "all topics": {
            "ticks": ticks.iloc[::2], "quotes": quotes, "bars": pd.concat([minutes, days]), "actions": actions,
        },
    }  # fmt: skip
    return {kind: write_log(folder / kind.replace(" ", "-"), universe, rows) for kind, rows in topics.items()}


@pytest.fixture
def log(logs: dict[str, SessionLog]) -> SessionLog:
    """The log of ticks, which nobody else has snapshots of."""
    return logs["ticks"]


def replayed(log: SessionLog, *, snapshots_mb: int = 100, rows: int = 750, **options: object) -> Market:
    """A paused replay that keeps 250 bars of a width, fewer than there are seconds with a trade."""
    options = {"playing": False, "start": log.timeline.start} | options
    return Market(ReplaySource(log, **options), rows=rows, snapshots_mb=snapshots_mb).start()


def everything(market: Market) -> dict[str, pd.DataFrame]:
    """What can be read from a market, and what is only seen from inside."""
    graph = market.graph
    found = {
        topic: market.frame(topic) for topic in ("last", "ticks", "quotes", "actions", "readings", "rejected")
    }
    found["late"] = pd.DataFrame([part.late for part in graph._steps if hasattr(part, "late")])
    found["rejected rows"] = pd.DataFrame({name: clean.rejected for name, clean in graph.cleaners.items()})
    found["last arrays"] = pd.DataFrame(np.hstack([graph.last.floats, graph.last.ints]))
    for width in market.widths:
        found[f"bars {width}"] = pd.DataFrame(graph.store.rows(width, np.arange(len(market.universe))))
        ring = graph.store.ring(width)
        newest = np.hstack([graph.store.heads[:, PLACES[width]], ring.total[:, None]])
        found[f"newest {width}"] = pd.DataFrame(newest)
    return found


def moment_of(log: SessionLog, share: float) -> int:
    """When this share of a log's rows is known: in time alone most of a log may be empty."""
    known = np.sort(
        np.concatenate([rows.column("known_at").cast("int64").to_numpy() for rows in log.topics.values()])
    )
    return int(np.interp(share * (len(known) - 1), np.arange(len(known)), known))


def played(market: Market) -> int:
    """How many rows have gone through the graph."""
    stages = ("clean ticks", "clean quotes", "clean bars", "clean actions", "correct ticks")
    return sum(market.health.stage(name).rows for name in stages)


def chain_of(market: Market) -> Chain:
    assert market._snapshots is not None
    return market._snapshots._shared()


MOMENTS = st.lists(st.one_of(st.floats(0, 1), st.tuples(st.just("derive"), st.integers(0, 2))), max_size=5)
DERIVED = (("SMA(5)", "1min"), ("RSI(3)", "5min"), ("relative_strength(2)", "15min"))


@pytest.mark.parametrize("kind", KINDS)
@ROUGH
@given(moments=MOMENTS, first=st.sampled_from([0, 2, 3]))
def test_a_seek_ends_where_playing_from_the_start_does(
    kind: str, logs: dict[str, SessionLog], moments: list, first: int
):
    log = logs[kind]

    async def wander() -> None:
        with replayed(log) as quick, replayed(log, snapshots_mb=0) as slow:
            assert not slow.source.marks
            for market in (quick, slow):
                for spec, width in DERIVED[:first]:
                    market.derive(spec, width)
            for moment in [1.0, 0.6, *moments, 0.3]:
                for market in (quick, slow):
                    if isinstance(moment, tuple):
                        market.derive(*DERIVED[moment[1]])
                    else:
                        market.clock.seek(moment_of(log, moment))
                assert_same(everything(slow), everything(quick), f"{kind}, at {moment} of {moments}")
            assert not quick.health.failing

    asyncio.run(wander())


@pytest.mark.parametrize("kind", KINDS)
async def test_only_the_rows_since_the_last_mark_are_played(kind: str, logs: dict[str, SessionLog]):
    log = logs[kind]
    with replayed(log) as market:
        market.clock.seek(log.last)
        marks, total = market.source.marks, played(market)
        assert len(chain_of(market)) == len(marks) >= 3
        for share in (0.9, 0.4, 0.7, 0.2, 1.0):
            before = played(market)
            market.clock.seek(moment_of(log, share))
            assert played(market) - before < total / 3, "snapshots were not used"


async def test_the_rings_of_a_test_wrap_and_its_rows_come_in_every_bad_way(log: SessionLog):
    with replayed(log) as market:
        market.clock.seek(log.last)
        ring, clean, build = (
            market.graph.store.ring("1s"),
            market.graph.cleaners["ticks"],
            market.graph._steps[1],
        )
        assert (ring.total > 2 * ring.limit).all()
        assert {"duplicate", "far from the last prices", "impossible price"} <= {
            reason for reason, count in clean.rejected.items() if count
        }
        assert build.late[0] > 100
        waiting = 0
        for mark in market.source.marks:
            market.clock.seek(mark)
            waiting += np.count_nonzero(market.graph.store.waiting[:, :, KNOWN])
        assert waiting > 10, "no trade waits for the bar that it belongs to"


async def test_a_bar_that_is_told_again_later_is_known_later_after_a_seek_too(logs: dict[str, SessionLog]):
    log = logs["minutes"]
    with replayed(log) as market:
        market.clock.seek(log.last)
        market.clock.seek(log.timeline.start)
        market.clock.seek(log.last)
        bars = market.bars("A", "1min")
        assert (bars.known > bars.end + 60_000_000).sum() > 5


async def test_a_new_market_begins_at_the_snapshots_of_another_one(log: SessionLog):
    with replayed(log) as first:
        first.clock.seek(log.last)
        with replayed(log) as second:
            assert chain_of(second) is chain_of(first)
            second.clock.seek(log.last)
            assert played(second) <= 2 * ROWS
            assert_same(everything(first), everything(second))
            second.derive("SMA(5)", "1min")
            assert chain_of(second) is not chain_of(first), "these have no readings"
        with replayed(log, rows=3_000) as third:
            assert chain_of(third) is not chain_of(first), "these have fewer bars"


async def test_readings_begin_where_they_were_asked_for_whatever_others_have_snapshots_of(log: SessionLog):
    with replayed(log) as early, replayed(log) as late, replayed(log, snapshots_mb=0) as slow:
        early.derive("SMA(5)", "1min")
        for moment in (log.last, log.timeline.start, log.last):
            early.clock.seek(moment)
        assert len(chain_of(early)) == len(early.source.marks)
        for market in (late, slow):
            market.clock.seek(moment_of(log, 1 / 2))
            market.derive("SMA(5)", "1min")
            market.clock.seek(log.last)
        assert_same(everything(slow), everything(late))
        assert 0 < len(late.frame("readings")) < len(early.frame("readings"))


async def test_an_indicator_that_was_made_anew_has_snapshots_of_its_own(log: SessionLog):
    def close(factor: float) -> None:
        @indicator("planted_close", warmup=1, reach=1)
        def planted(bars):
            return bars.close * factor

    with replayed(log) as first, replayed(log) as second:
        try:
            for market, factor in ((first, 1.0), (second, 2.0)):
                close(factor)
                market.derive("planted_close", "1min")
                market.clock.seek(log.last)
                market.clock.seek(log.timeline.start)
                market.clock.seek(log.last)
        finally:
            INDICATORS.remove("planted_close")
        values = [market.frame("readings")["value"] for market in (first, second)]
        np.testing.assert_array_equal(values[0] * 2, values[1])


def test_markets_in_many_threads_share_snapshots_safely(log: SessionLog):
    markets = [replayed(log) for _ in range(3)]
    try:
        errors = []

        def wander(market: Market, seed: int) -> None:
            try:
                rng = np.random.default_rng(seed)
                for share in (1.0, *rng.random(12)):
                    market.clock.seek(moment_of(log, share))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=wander, args=item) for item in zip(markets, range(3), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        chains = {id(chain_of(market)) for market in markets}
        assert len(chains) == 1
        assert len(chain_of(markets[0])) == len(markets[0].source.marks)
        with replayed(log, snapshots_mb=0) as slow:
            for market in markets:
                slow.clock.seek(market.clock.now_us())
                assert_same(everything(slow), everything(market))
    finally:
        for market in markets:
            market.close()


async def test_playing_leaves_snapshots_as_seeking_does(log: SessionLog):
    wall = ManualWall()
    with replayed(log, wall=wall, pace=math.inf, playing=True) as market:
        wall.advance(1)
        await caught_up(market)
        market.clock.pause()
        assert len(chain_of(market)) == len(market.source.marks)
        before, moment = played(market), moment_of(log, 1 / 2)
        market.clock.seek(moment)
        assert played(market) - before <= 2 * ROWS
        with replayed(log, snapshots_mb=0) as slow:
            slow.clock.seek(moment)
            assert_same(everything(slow), everything(market))


async def test_who_listens_hears_all_rows_again_after_a_seek_back(log: SessionLog):
    with replayed(log) as market:
        market.clock.seek(log.last)
        heard: list[int] = []
        market.stream("ticks", arrow=True).sink(lambda batch: heard.append(batch.num_rows))
        market.clock.seek(moment_of(log, 1 / 2))
        assert sum(heard) == len(market.frame("ticks")) > 1_000
        half = sum(heard)
        market.clock.seek(log.last)
        assert sum(heard) == len(market.frame("ticks")) > 2 * half * 0.8


async def test_a_handler_of_the_bus_hears_all_rows_again_after_a_seek_back(log: SessionLog, tmp_path: Path):
    with replayed(log) as market:
        market.clock.seek(log.last)
        with market.record(tmp_path) as recording:
            before = played(market)
            market.clock.seek(moment_of(log, 1 / 2))
            assert played(market) - before > 1_000
            recording.flush()
            assert recording.status.rows == played(market) - before


@pytest.mark.parametrize("share", [0.1, 0.5])
async def test_what_is_fed_by_hand_is_in_nobodys_snapshots(log: SessionLog, share: float):
    with replayed(log) as market, replayed(log, snapshots_mb=0) as slow:
        market.clock.seek(moment := moment_of(log, share))
        before, price = len(chain_of(market)), market.graph.last.prices("last")[0]
        rows = {
            "time": [pd.Timestamp(moment, unit="us", tz="UTC")],
            "instrument_id": [0],
            "price": [price],
            "size": [5e6],
        }
        market.feed("ticks", rows | {"known_at": rows["time"], "seq": [-1]})
        market.clock.seek(log.last)
        assert market.day()["volume"][0] > 5e6
        assert len(chain_of(market)) == before
        market.clock.seek(moment)  # which takes it back, and the log alone counts again
        market.clock.seek(log.last)
        slow.clock.seek(log.last)
        assert_same(everything(slow), everything(market))
        assert len(chain_of(market)) == len(market.source.marks)


async def test_a_graph_in_which_a_stage_has_failed_takes_no_snapshots(log: SessionLog):
    with replayed(log) as market:
        clean = market.graph.cleaners["ticks"]
        market.clock.seek(moment_of(log, 1 / 3))
        before, sound = len(chain_of(market)), clean.sessions
        clean.sessions = None
        market.clock.seek(moment_of(log, 1 / 2))
        clean.sessions = sound
        market.clock.seek(log.last)
        assert market.health.stage("clean ticks").errors > 0
        assert len(chain_of(market)) == before > 0


async def test_without_room_for_more_snapshots_seeks_are_right_all_the_same(log: SessionLog):
    with replayed(log, snapshots_mb=1) as market, replayed(log, snapshots_mb=0) as slow:
        for share in (1.0, 0.3, 0.9, 0.1):
            for one in (market, slow):
                one.clock.seek(moment_of(log, share))
            assert_same(everything(slow), everything(market))
        assert 0 < len(chain_of(market)) < len(market.source.marks)
        assert chain_of(market).nbytes <= 1_000_000


class FullDisk:
    """A file on a disk that is full after a while."""

    def __init__(self, room: int, **options: object) -> None:
        self.file, self.room = tempfile.TemporaryFile(**options), room  # noqa: SIM115  # closed by its owner
        self.fileno, self.seek, self.close = self.file.fileno, self.file.seek, self.file.close

    def write(self, values: memoryview) -> int:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(values[:9_999])  # a disk need not take all at once
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 200_000])
async def test_when_the_disk_fails_seeks_are_right_all_the_same(
    log: SessionLog, monkeypatch: pytest.MonkeyPatch, room: int
):
    class Tempfile:
        TemporaryFile = staticmethod(lambda **options: FullDisk(room, **options))

    monkeypatch.setattr(marketdash.pipeline.snapshots, "tempfile", Tempfile)
    with replayed(log) as market, replayed(log, snapshots_mb=0) as slow:
        for share in (1.0, 0.3, 0.9, 0.1):
            for one in (market, slow):
                one.clock.seek(moment_of(log, share))
            assert_same(everything(slow), everything(market))
        assert (len(chain_of(market)) > 0) == (room > 0)
        assert len(chain_of(market)) < len(market.source.marks)


@pytest.fixture
def open_files() -> set[str]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("Only Linux lists the files of a process")
    gc.collect()
    return _snapshot_files()


def _snapshot_files() -> set[str]:
    found = {f"{number} {_target(number)}" for number in os.listdir("/proc/self/fd")}
    return {file for file in found if "/marketdash-" in file or "/#" in file}


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""


def test_the_file_goes_away_with_the_last_market_and_no_other_is_left(log: SessionLog, open_files: set[str]):
    names = set(os.listdir(tempfile.gettempdir()))
    first, second = replayed(log), replayed(log)
    for market in (first, second):
        market.clock.seek(log.last)
    assert len(_snapshot_files() - open_files) in (1, 2), "a file, and perhaps the map's own number for it"
    assert not [
        name for name in set(os.listdir(tempfile.gettempdir())) - names if name.startswith("marketdash-")
    ]
    first.close()
    assert _snapshot_files() - open_files
    second.close()
    assert not _snapshot_files() - open_files, (
        "markets that are closed need no snapshots, though their frames are read"
    )


def test_a_log_goes_away_although_it_had_snapshots(tmp_path: Path, log: SessionLog):
    folder = shutil.copytree(log.folder, tmp_path / "copy")
    copy = SessionLog(folder, log.manifest, log.universe, dict(log.topics))
    with replayed(copy) as market:
        market.clock.seek(copy.last)
        assert len(chain_of(market)) > 0
    gone = weakref.ref(copy)
    del market, copy
    gc.collect()
    assert gone() is None


async def test_short_logs_and_live_markets_have_nothing_to_do_with_snapshots(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marketdash.market.snapshots, "SNAPSHOT_ROWS", 1_000_000)
    with Market(ReplaySource(golden("es-2013-09-ticks"), playing=False)).start() as replay:
        assert not replay.source.marks
        assert replay.graph.store.tell_past is None
    live = Market(SimulatedSource())
    assert live._snapshots is None
    assert live.graph.store.tell_past is None
    live.close()


def test_marks_lie_where_each_so_many_rows_more_are_known(logs: dict[str, SessionLog]):
    log = logs["all topics"]
    source = ReplaySource(log)
    with Market(source, snapshots_mb=100):
        rows = [sum(log.rows_until(mark).values()) for mark in source.marks]
        before = [sum(log.rows_until(mark - 1).values()) for mark in source.marks]
    assert len(rows) > 4
    # Where many rows are known at one moment, a mark comes late, and may stand for several.
    assert all(any(b < k * ROWS <= r for k in range(1, 100)) for b, r in zip(before, rows, strict=True))
    assert max(np.diff(rows)) < 3 * ROWS
    assert open_session(log.folder) is log
    assert to_us(log.manifest.last) == log.last
