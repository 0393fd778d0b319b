"""The market: on any loop, with any source, whatever goes wrong; and closed without a trace."""

import asyncio
import gc
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from serving import PATIENCE_S, eventually, until

from marketdash.errors import (
    ClockError,
    IndicatorError,
    MarketdashError,
    SchemaError,
    SourceError,
    UnknownNameError,
)
from marketdash.instruments import Instrument, Universe
from marketdash.market import STATES, Market, open_market
from marketdash.market.market import require_replay
from marketdash.market.state import Judge
from marketdash.schema import TOPICS, WIDTHS, conform
from marketdash.sources.base import BaseSource, PolledSource
from marketdash.sources.replay import ReplaySource
from marketdash.testing.clock import ManualClock, ManualWall, caught_up, wait_caught_up
from marketdash.testing.golden import few_instruments, golden, random_quotes, random_ticks

ALWAYS = few_instruments(3, ("24/7",))
NOON = pd.Timestamp("2018-11-23 17:00", tz="UTC")


def ticks(price: float = 1.0, *, instrument: int = 0, seconds: float = 0, **more: Any) -> dict[str, Any]:
    return {
        "time": [NOON + pd.Timedelta(seconds=seconds)],
        "instrument_id": [instrument],
        "price": [price],
        **more,
    }


class Scripted(BaseSource):
    """Does one thing after the other: yields what is an event, raises what is an error, calls what can be called.

    What was done is not done again after a restart. At the end it waits for ever, or ends if `ends`.
    """

    name = "scripted"
    slow_history = False
    stall_after = None

    def __init__(
        self, *script: Any, universe: Universe = ALWAYS, ends: bool = False, past: Iterable[Any] = ()
    ) -> None:
        super().__init__(universe, clock=ManualClock(NOON))
        self.script, self.ends, self.past = list(script), ends, past
        self.started = self.closed = 0

    def history(self) -> Iterable[Any]:
        return self.past

    async def batches(self) -> AsyncIterator[Any]:
        self.started += 1
        try:
            while self.script:
                item = self.script.pop(0)
                if isinstance(item, BaseException):
                    raise item
                if callable(item):
                    await item()
                else:
                    yield item
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


class Naps:
    """Stands in for `asyncio.sleep` between attempts, and remembers how long was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.statuses: list[str] = []
        self.market: Market | None = None

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self.market is not None:
            self.statuses.append(f"{self.market.status.state}: {self.market.status.message}")
        await asyncio.sleep(0)


def follow(*script: Any, **options: Any) -> tuple[Market, Naps]:
    naps = Naps()
    market = Market(Scripted(*script, **options), sleep=naps)
    naps.market = market
    return market.start(), naps


# ---- sources that go wrong


async def test_a_source_that_raises_is_tried_again_with_back_off_and_recovers():
    market, naps = follow(
        ("ticks", ticks(1.0)),
        OSError("the line is dead"),
        ValueError("again"),
        TypeError("and again"),
        ("ticks", ticks(2.0)),
        OSError("later"),
    )
    with market:
        await until(lambda: market.restarts == 4)
        assert naps.seconds == [0.5, 1.0, 2.0, 0.5], "doubled by each failure, reset by success"
        assert naps.statuses[0] == "retrying: OSError: the line is dead. Trying again in 0.5 s."
        assert naps.statuses[2].endswith("TypeError: and again. Trying again in 2 s.")
        await until(lambda: market.status.state == "running")
        assert market.graph.last.prices("last")[0] == 2.0
        assert market.health.stage("source scripted").errors == 4
        assert market.source.closed == 4, "each attempt was cleaned up"


async def test_back_off_has_a_limit():
    market, naps = follow(*[OSError(str(i)) for i in range(12)])
    with market:
        await until(lambda: market.restarts == 12)
        assert naps.seconds == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


NONSENSE = {
    "wrong columns": (("ticks", {"time": [NOON], "instrument_id": [0], "colour": [1.0]}), "got colour"),
    "a missing column": (("ticks", {"time": [NOON], "instrument_id": [0]}), "no such column"),
    "wrong types": (("ticks", {"time": [NOON], "instrument_id": ["x"], "price": [1.0]}), "'instrument_id'"),
    "times without a zone": (
        ("ticks", {"time": pd.DatetimeIndex(["2018-11-23"]), "instrument_id": [0], "price": [1.0]}),
        "without a zone",
    ),
    "columns of two lengths": (
        ("ticks", {"time": [NOON], "instrument_id": [0, 1], "price": [1.0]}),
        "lengths",
    ),
    "an unknown topic": (("tick", ticks()), "Did you mean ticks"),
    "no rows at all": (("ticks", None), "NoneType"),
    "not an event": ("ticks", "ValueError"),
    "nothing": (None, "has no more"),
    "a number": (7, "TypeError"),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_a_source_that_sends_nonsense_is_seen_and_stops_nothing_else(what: str):
    event, words = NONSENSE[what]
    market, naps = follow(("ticks", ticks(1.0)), event, ("ticks", ticks(2.0)))
    with market:
        if what == "nothing":
            await until(lambda: market.status.state == "ended")
            assert words in market.status.message
            return
        await until(lambda: market.graph.last.prices("last")[0] == 2.0)
        assert market.restarts == 1
        assert words in naps.statuses[0]
        assert market.health.stage("source scripted").errors == 1
        assert market.status.state == "running"
        assert not market.health.failing


async def test_rows_that_cannot_be_true_are_stopped_and_kept_with_their_reason_while_the_good_go_on():
    rows = {
        "time": [NOON] * 6,
        "instrument_id": [0, 7, -1, 1, 2, 0],
        "price": [5.0, 1.0, 1.0, float("nan"), -3.0, 6.0],
        "size": [1.0, 1.0, 1.0, 1.0, 1.0, -1.0],
    }
    future = {"time": [NOON + pd.Timedelta(days=400)], "instrument_id": [1], "price": [1.0]}
    market, _ = follow(("ticks", rows), ("ticks", future), ("ticks", ticks(7.0, instrument=1)))
    with market:
        await until(lambda: market.graph.last.prices("last")[1] == 7.0)
        rejected = market.frame("rejected")
        assert rejected["reason"].tolist() == [
            "unknown instrument",
            "unknown instrument",
            "impossible price",
            "impossible price",
            "impossible size",
            "impossible time",
        ]
        assert rejected["symbol"].isna().tolist() == [True, True, False, False, False, False]
        assert rejected["topic"].unique().tolist() == ["ticks"]
        assert market.graph.last.prices("last").tolist()[0] == 5.0
        assert market.restarts == 0
        assert len(market.frame("ticks")) == 2


async def test_silence_in_open_hours_is_a_stall_and_in_closed_hours_is_peace():
    new_york = few_instruments(1, ("XNYS",))
    for moment, stalls in (("2018-11-23 17:00", True), ("2018-11-24 17:00", False)):
        market, naps = follow(("ticks", ticks()), universe=new_york)
        market.source.clock.set(moment)
        market.source.stall_after = 0.03
        with market:
            await (until(lambda market=market: market.restarts > 1) if stalls else asyncio.sleep(0.3))
            assert (market.restarts > 1) == stalls
            assert (market.status.state == "running") or stalls
            if stalls:
                assert (
                    "stalled: scripted: expected something within 0.03 s while XNYS is open, got silence"
                    in naps.statuses[0]
                )
                assert market.source.closed >= market.restarts


async def test_a_source_may_be_cancelled_from_inside_or_try_to_quit():
    market, _ = follow(asyncio.CancelledError(), SystemExit(3), ("ticks", ticks(2.0)))
    with market:
        await until(lambda: market.graph.last.prices("last")[0] == 2.0)
        assert market.restarts == 2


async def test_a_source_that_has_no_more_has_ended_and_its_last_bars_are_read():
    market, _ = follow(("ticks", ticks(3.0)), ends=True)
    with market:
        done: list[Any] = []
        market.stream("bars", width="1min", complete=True).sink(done.append)
        await until(lambda: market.status.state == "ended")
        assert market.status.message == "scripted has no more."
        market.clock.advance(61)
        await until(lambda: bool(done))
        assert done[0]["close"].tolist() == [3.0]


async def test_an_iterator_that_is_no_generator_will_do():
    class Plain(Scripted):
        def batches(self) -> Any:
            return self

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> Any:
            if not self.script:
                raise StopAsyncIteration
            return self.script.pop(0)

    for stall_after in (None, 5.0):
        source = Plain(("ticks", ticks(4.0)))
        source.stall_after = stall_after
        with Market(source).start() as market:
            await until(lambda: market.status.state == "ended")
            assert market.graph.last.prices("last")[0] == 4.0


class Polled(PolledSource):
    name, interval = "polled", 0.001

    def __init__(self, answers: Iterable[Any]) -> None:
        super().__init__(ALWAYS, clock=ManualClock(NOON))
        self.answers = iter(answers)

    def fetch(self) -> Any:
        answer = next(self.answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_polled_source_needs_one_function():
    answers = [ticks(1.0), None, pd.DataFrame(ticks(2.0)), OSError("no"), conform("ticks", ticks(3.0))]
    naps = Naps()
    with Market(Polled(answers), sleep=naps).start() as market:
        eventually(lambda: market.graph.last.prices("last")[0] == 3.0, what="the last answer")
        assert market.frame("ticks")["price"].tolist() == [1.0, 2.0, 3.0]
        assert naps.seconds == [0.5]


# ---- what a source leaves out


async def test_what_a_source_leaves_out_is_filled_in():
    bar = {"open": [1.0], "high": [2.0], "low": [1.0], "close": [2.0], "volume": [1.0], "instrument_id": [0]}
    old = {**bar, "time": [NOON - pd.Timedelta(hours=2)], "width": ["1min"]}
    forming = {**bar, "time": [NOON - pd.Timedelta(seconds=20)], "width": ["1min"]}
    early = ticks(1.0, seconds=-5, known_at=[NOON + pd.Timedelta(hours=3)])
    all_read = asyncio.Event()

    async def tell() -> None:  # a source is asked for more only after what it gave was read
        all_read.set()

    market, _ = follow(
        ("ticks", ticks(1.0, seconds=-10)),
        ("ticks", early),
        ("bars", old),
        ("bars", forming),
        tell,
        past=[("ticks", ticks(1.0, seconds=-3600))],
    )
    with market:
        await all_read.wait()
        rows = market.frame("ticks")
        assert rows["seq"].tolist() == [0, 1, 2]
        assert rows["source"].unique().tolist() == ["scripted"]
        seconds = (rows["known_at"] - NOON).dt.total_seconds()
        assert seconds.tolist() == [-3600, 0, 0], (
            "the past was known then; what is here is known now, not later"
        )
        known = market.bars("A0", "1min").known
        assert (known - NOON.value // 1000).tolist()[-1] == 0, "a bar that is forming is known now"
        assert -7140 * 10**6 in (known - NOON.value // 1000), "an old bar was known when it ended"


# ---- where it runs, and how it ends


async def test_on_a_running_loop_it_takes_no_thread():
    before = set(threading.enumerate())  # some of which may be about to end
    with Market(ReplaySource(golden("us-2018-11-minute"), playing=False)).start() as market:
        assert set(threading.enumerate()) <= before
        assert not market.frame("bars").empty
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert left == []


def test_without_a_loop_it_runs_on_a_thread_that_ends_with_it():
    market = Market(ReplaySource(golden("us-2018-11-minute"), pace=math.inf)).start()
    assert "marketdash" in {thread.name for thread in threading.enumerate()}
    wait_caught_up(market)
    market.close()
    market.close()
    gc.collect()
    assert "marketdash" not in {thread.name for thread in threading.enumerate()}
    assert market.closed
    assert market.status.state == "closed"
    assert len(market.frame("bars", width="1min")) == 21_309, "what was read stays readable"
    assert market.values().state.shape == (10,)


@pytest.mark.parametrize("seconds", [0, 0.001, 0.05])
def test_it_can_be_closed_at_any_moment(seconds: float, capfd: pytest.CaptureFixture[str]):
    for source in (
        ReplaySource(golden("es-2013-09-ticks"), pace=math.inf),
        Polled([ticks(1.0)] * 10_000),
        Scripted(*[("ticks", ticks(1.0))] * 2000, past=[("ticks", ticks(1.0))] * 100),
    ):
        market = Market(source).start()
        market.stream("ticks").sink(lambda _: asyncio.sleep(3600))
        time.sleep(seconds)
        market.close()
        gc.collect()
    assert "marketdash" not in {thread.name for thread in threading.enumerate()}
    assert capfd.readouterr().err == "", "a destroyed task complains on stderr"


def test_closing_interrupts_a_long_seek():
    log = golden("es-2013-09-ticks")
    market = (
        Market(ReplaySource(log, start=log.timeline.start, playing=False)).start().derive("SMA(20)", "1s")
    )
    failed: list[Exception] = []

    def seek() -> None:
        try:
            market.clock.seek(log.timeline.end)
        except MarketdashError as error:
            failed.append(error)

    read = market.health.stage("clean ticks")
    before = read.rows
    seeker = threading.Thread(target=seek)
    seeker.start()
    while read.rows == before and seeker.is_alive():  # looked at without a pause: it may be over soon
        time.sleep(0)
    market.close()
    seeker.join(timeout=PATIENCE_S)
    assert not seeker.is_alive()
    assert before < read.rows < log.topics["ticks"].num_rows, "it was under way, and did not go on to its end"
    assert "marketdash" not in {thread.name for thread in threading.enumerate()}


def test_a_market_can_be_closed_from_one_of_its_own_branches():
    market = Market(Scripted(("ticks", ticks()), ("ticks", ticks())))
    market.stream("ticks").sink(lambda _: market.close())
    market.start()
    eventually(lambda: market.closed, what="closed")
    eventually(
        lambda: "marketdash" not in {thread.name for thread in threading.enumerate()},
        what="its thread is gone",
    )


def test_a_market_is_closed_from_another_loop_than_its_own():
    market = Market(Scripted(("ticks", ticks()))).start()

    async def close() -> None:
        market.close()

    asyncio.run(close())
    assert "marketdash" not in {thread.name for thread in threading.enumerate()}


def test_after_the_loop_of_a_notebook_has_ended_a_market_says_so_and_can_be_closed():
    async def opened() -> Market:
        return Market(Scripted(("ticks", ticks()))).start()

    market = asyncio.run(opened())
    with pytest.raises(SourceError, match="loop on which it was opened is over"):
        market.feed("ticks", ticks())
    market.close()


def test_what_cannot_be_opened_leaves_no_thread():
    class Narrow(Scripted):
        finest = "3min"

    wrong = Universe([Instrument(0, "X", calendar="XNYSE")])
    for make in (
        lambda: Market(Narrow()),
        lambda: Market(Scripted(universe=wrong)),
        lambda: Market(Scripted(past=[("ticks", {"colour": [1]})])).start(),
    ):
        with pytest.raises(MarketdashError):
            make()
    assert "marketdash" not in {thread.name for thread in threading.enumerate()}


def test_a_closed_market_refuses_in_words():
    market = Market(Scripted()).start()
    market.close()
    for act in (
        lambda: market.feed("ticks", ticks()),
        lambda: market.stream("ticks"),
        lambda: market.derive("SMA(2)"),
    ):
        with pytest.raises(SourceError, match="expected an open market, got one that was closed"):
            act()


def test_many_markets_come_and_go_without_a_trace():
    log = golden("us-2018-11-minute")
    before = set(threading.enumerate())  # some of which may be about to end
    for _ in range(15):
        with Market(ReplaySource(log)).start() as market:
            market.stream("bars").sink(lambda _: None)
    assert set(threading.enumerate()) <= before


# ---- branches


async def test_a_branch_that_raises_costs_only_itself():
    market, _ = follow(("ticks", ticks(1.0)), ("ticks", ticks(2.0)))
    heard: list[float] = []

    async def late_failure(batch: pd.DataFrame) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("async no")

    with market:
        market.stream("ticks").sink(lambda batch: 1 / 0)
        market.stream("ticks").sink(late_failure)
        market.stream("ticks").sink(lambda batch: heard.extend(batch["price"]))
        market.feed("ticks", ticks(3.0))
        await until(lambda: len(heard) >= 3)
        assert 3.0 in heard
        assert market.restarts == 0
        stages = [market.health.stage(f"listeners of ticks: {name}") for name in ("<lambda>", "late_failure")]
        await until(lambda: all(stage.errors >= 2 for stage in stages))
        assert market.graph.last.prices("last")[0] == 2.0 or heard[-1] == 3.0


async def test_a_branch_that_hangs_does_not_stop_the_market(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("marketdash.market.market.LISTENER_PATIENCE_S", 0.02)
    market, _ = follow(*[("ticks", ticks(float(i + 1))) for i in range(5)])
    market.stream("ticks").sink(lambda _: asyncio.sleep(3600))
    with market:
        await until(lambda: market.graph.last.prices("last")[0] == 5.0)
    await asyncio.sleep(0)


async def test_an_async_branch_sets_the_pace_of_a_fast_replay(monkeypatch: pytest.MonkeyPatch):
    # A branch that is late because the cores are taken must not pass for one that hangs.
    monkeypatch.setattr("marketdash.market.market.LISTENER_PATIENCE_S", PATIENCE_S)
    log, wall, done = golden("us-2018-11-minute"), ManualWall(), []
    source = ReplaySource(log, start=log.timeline.start, pace=math.inf, rows=1000, wall=wall)
    with Market(source).start() as market:

        async def write(batch: Any) -> None:
            await asyncio.sleep(0.001)
            done.append(batch.num_rows)
            assert market.health.stage("clean bars").rows - sum(done) <= 1000, "the replay has run away"

        market.stream("bars", width="1min", arrow=True).sink(write)
        wall.advance(1)
        await caught_up(market)
        await until(lambda: sum(done) == 21_309)
        assert not market.health.failing


async def test_a_branch_may_move_the_clock():
    """A researcher stops at the first bar that is of interest, or jumps on."""
    log, wall = golden("us-2018-11-minute"), ManualWall()
    with Market(ReplaySource(log, start="2018-11-16 10:00", pace=math.inf, wall=wall)).start() as market:
        stops: list[pd.Timestamp] = []

        def stop(bars: pd.DataFrame) -> None:
            if not stops:
                stops.append(market.now)
                market.clock.seek("2018-11-13 10:00")
                market.clock.pause()

        market.stream("bars", width="1min").sink(stop)
        wall.advance(1)
        await until(lambda: bool(stops) and market.epoch == 1)
        assert f"{market.now:%m-%d %H:%M}" == "11-13 10:00"
        shown = market.frame("bars", width="1min")
    with Market(ReplaySource(log, start="2018-11-13 10:00", playing=False)).start() as market:
        pd.testing.assert_frame_equal(shown, market.frame("bars", width="1min"))


async def test_a_bus_handler_that_raises_is_counted():
    market, _ = follow(("ticks", ticks(1.0)))

    def broken(topic: str, batch: Any) -> None:
        raise KeyError(topic)

    with market:
        market.bus.subscribe("ticks", broken)
        market.feed("ticks", ticks(2.0))
        (stage,) = [stage for name, stage in market.health.stages.items() if "broken" in name]
        assert stage.errors >= 1
        assert market.graph.last.prices("last")[0] > 0


async def test_streams_carry_frames_or_batches_and_complete_bars_come_once_across_seeks():
    log = golden("us-2018-11-minute")
    with Market(ReplaySource(log, start="2018-11-16 10:00", playing=False)).start() as market:
        complete: list[pd.DataFrame] = []
        arrow: list[Any] = []
        market.stream("bars", width="5min", complete=True).sink(complete.append)
        market.stream("bars", width="5min", complete=True, arrow=True).sink(arrow.append)
        for moment in ("10:07", "10:31", "11:15"):
            market.clock.seek(f"2018-11-16 {moment}")
        seen = pd.concat(complete)
        assert not seen.reset_index().duplicated(["symbol", "time"]).any()
        assert seen.index.min() == pd.Timestamp("2018-11-16 10:00", tz=market.tz)
        assert seen.index.max() == pd.Timestamp("2018-11-16 11:10", tz=market.tz)
        kept = market.frame("bars", width="5min")
        expected = kept[(kept.index >= seen.index.min()) & kept["closed"]]
        assert len(seen) == len(expected)
        np.testing.assert_array_equal(
            seen.sort_values(["time", "symbol"])["close"], expected.sort_values(["time", "symbol"])["close"]
        )
        assert sum(batch.num_rows for batch in arrow) == len(seen)
        assert arrow[0].schema.equals(TOPICS["bars"].schema)
        # Backwards: the log is played again from its start.
        complete.clear()
        market.clock.seek("2018-11-16 10:30")
        again = pd.concat(complete)
        assert not again.reset_index().duplicated(["symbol", "time"]).any()
        assert len(again) == market.frame("bars", width="5min")["closed"].sum()


# ---- reading


@pytest.fixture(scope="module")
def rich() -> Iterable[Market]:
    """A market that has seen something of every topic."""
    universe = few_instruments(4, ("XNYS",))
    market = Market(Scripted(universe=universe)).start()
    span = ("2018-11-23 16:00", "2018-11-23 17:00")
    market.clock.set(span[0])
    market.derive("SMA(3)", "1min")
    market.clock.set(span[1])
    trades = random_ticks(universe, *span, 3000)
    market.feed("ticks", pd.concat([trades[trades["instrument_id"] < 3], trades.iloc[:5].assign(price=-1.0)]))
    market.feed("quotes", random_quotes(universe, *span, 500))
    yield market
    market.close()


TYPES = {
    "bars": {
        "symbol": "category",
        "open": "float64",
        "high": "float64",
        "low": "float64",
        "close": "float64",
        "volume": "float64",
        "vwap": "float64",
        "count": "Int64",
        "revision": "int64",
        "session": "category",
        "trading_day": "datetime64[s]",
        "closed": "bool",
    },
    "last": {
        "last": "float64",
        "change": "float64",
        "change_pct": "float64",
        "previous_close": "float64",
        "open": "float64",
        "high": "float64",
        "low": "float64",
        "volume": "float64",
        "turnover": "float64",
        "bid": "float64",
        "ask": "float64",
        "time": "datetime64[us, America/New_York]",
        "known_at": "datetime64[us, America/New_York]",
        "age": "timedelta64[us]",
        "state": "category",
        "sector": "str",
    },
    "ticks": {
        "symbol": "category",
        "known_at": "datetime64[us, America/New_York]",
        "seq": "int64",
        "source": "category",
        "price": "float64",
        "size": "float64",
        "conditions": "Int64",
        "session": "category",
        "trading_day": "datetime64[s]",
    },
    "quotes": {
        "symbol": "category",
        "known_at": "datetime64[us, America/New_York]",
        "seq": "int64",
        "source": "category",
        "bid": "float64",
        "ask": "float64",
        "bid_size": "float64",
        "ask_size": "float64",
        "exchange": "category",
        "conditions": "Int64",
        "session": "category",
        "trading_day": "datetime64[s]",
    },
    "readings": {
        "symbol": "category",
        "known_at": "datetime64[us, America/New_York]",
        "seq": "int64",
        "source": "category",
        "width": "category",
        "indicator": "category",
        "output": "category",
        "value": "float64",
    },
}


@pytest.mark.parametrize("topic", TYPES)
def test_a_frame_has_the_same_types_full_and_empty(topic: str, rich: Market):
    full = rich.frame(topic)
    with Market(Scripted(universe=rich.universe)).start() as market:
        empty = market.frame(topic)
    assert len(full) > 2
    for frame in (full, empty):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == TYPES[topic]
        if topic == "last":
            assert frame.index.tolist() == list(rich.universe.symbols)
        else:
            assert str(frame.index.dtype) == "datetime64[us, America/New_York]"
            assert frame.index.name == "time"
        own = {"adjustment": "raw", "as_of": None, "unadjusted": []} if topic == "bars" else {}
        assert frame.attrs.keys() == {"source", "label", "status", "market_time"} | own.keys()
    assert full.attrs == {
        "source": "scripted",
        "label": "LIVE",
        "status": "running",
        "market_time": "2018-11-23T12:00:00-05:00",
        **own,
    }


def test_rejected_rows_are_a_frame_too(rich: Market):
    rejected = rich.frame("rejected")
    assert rejected["reason"].tolist() == ["impossible price"] * 5
    assert str(rejected.index.dtype) == "datetime64[us, America/New_York]"
    with Market(Scripted()).start() as market:
        assert (
            market.frame("rejected")
            .dtypes.astype(str)
            .drop("known_at")
            .equals(rejected.dtypes.astype(str).drop("known_at"))
        )


def test_frames_are_those_of_some_symbols_and_the_last_bars(rich: Market):
    bars = rich.frame("bars", symbols=["C2", "a0"], last=3)
    assert set(bars["symbol"]) == {"A0", "C2"}
    assert bars["symbol"].cat.categories.tolist() == ["A0", "C2"]
    assert bars.groupby("symbol", observed=True).size().tolist() == [3, 3]
    assert bars.index.is_monotonic_increasing
    assert rich.frame("bars", symbols=iter(["A0"]), last=0).empty
    assert rich.frame("bars", symbols=[]).empty
    assert rich.frame("last", symbols=["B1", "A0"]).index.tolist() == ["B1", "A0"]
    assert set(rich.frame("ticks", symbols=["B1"])["symbol"]) == {"B1"}
    assert rich.frame("readings", symbols=["D3"]).empty
    assert rich.default_width == "1min"
    assert rich.widths == tuple(WIDTHS)


def test_a_frame_belongs_to_who_asked_for_it(rich: Market):
    for topic in ("bars", "last", "ticks", "readings"):
        frame = rich.frame(topic)
        name = frame.columns[frame.dtypes == "float64"][0]
        frame[name] = -1.0
        frame.attrs["label"] = "MINE"
        frame.index.name = "mine"
        assert not (rich.frame(topic)[name] == -1.0).any()
        assert rich.frame(topic).attrs["label"] == "LIVE"
        assert rich.frame(topic).index.name in ("time", "symbol")


def test_history_is_what_indicators_read(rich: Market):
    history = rich.history("1min", ["B1", "A0"], last=10)
    assert history.symbols == ("B1", "A0")
    assert history.shape == (10, 2)
    assert history.tz == "America/New_York"
    bars = rich.bars("A0", "1min")
    close = history.close["A0"].dropna()
    np.testing.assert_array_equal(close, bars.close[-len(close) :])
    np.testing.assert_array_equal(history.vwap["A0"].dropna(), bars.vwap[-len(close) :])


def test_the_day_is_that_of_the_daily_bar(rich: Market):
    day, bar = rich.day(), rich.bars("B1", "1d", last=1)
    for name in ("open", "high", "low", "volume", "turnover"):
        assert day[name][1] == getattr(bar, name)[0]
    assert np.isnan(day["open"][3])
    table = rich.frame("last")
    assert table["high"].tolist()[1] == day["high"][1]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: m.frame("bar"), "Unknown frame 'bar'. Did you mean bars"),
        (lambda m: m.frame("bars", width="5m"), "Unknown width '5m'. Widths: 1s"),
        (lambda m: m.frame("bars", symbols=["A1"]), "Unknown symbol 'A1'. Did you mean B1, A0?"),
        (lambda m: m.frame("bars", last=-1), "a number of bars, 0 or more, got -1"),
        (lambda m: m.frame("bars", last="3"), "a number of bars, 0 or more, got '3'"),
        (lambda m: m.bars("Z9"), "Unknown symbol 'Z9'"),
        (lambda m: m.bars("A0", "2min"), "Unknown width '2min'"),
        (lambda m: m.history("1y"), "Unknown width '1y'"),
        (lambda m: m.stream("bers"), "Unknown stream 'bers'. Did you mean bars"),
        (lambda m: m.stream("bars", width="7min"), "Unknown width '7min'"),
        (lambda m: m.stream("ticks", width="1min"), "Only bars have a width"),
        (lambda m: m.stream("ticks", complete=True), "Unknown option 'complete'"),
        (lambda m: m.derive("SMMA(3)"), "Unknown indicator 'SMMA'. Did you mean"),
        (lambda m: m.derive("SMA(3)", "9min"), "Unknown width '9min'"),
        (lambda m: m.derive("SMA(1,2,3,4)"), "at most"),
        (lambda m: m.feed("trades", ticks()), "Unknown topic 'trades'"),
        (lambda m: m.feed("ticks", {"price": [1.0]}), "market.feed of ticks, column 'time'"),
        (lambda m: m.touched("Z9"), "Unknown symbol 'Z9'"),
        (require_replay, "expected a replay, got live. A live market has no controls"),
        (
            lambda m: open_market("replay:us-2018"),
            "Unknown session 'us-2018'. Did you mean us-2018-11-minute",
        ),
        (lambda m: open_market("relpay:x"), "Unknown source 'relpay'. Did you mean replay"),
        (lambda m: open_market("simulated", start="2018-11-16"), "'simulated' with start: expected a replay"),
        (lambda m: open_market("replay:us-2018-11-minute", pace=0), "a number above 0"),
        (
            lambda m: open_market("replay:us-2018-11-minute", start="10:30"),
            "The start of replay:us-2018-11-minute",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_nearest_names(
    ask: Callable[[Market], Any], words: str, rich: Market
):
    with pytest.raises(MarketdashError) as caught:
        ask(rich)
    assert words in str(caught.value), str(caught.value)
    assert isinstance(caught.value, UnknownNameError | SchemaError | ClockError | IndicatorError)


def test_a_market_says_what_it_is(rich: Market):
    assert repr(rich) == "<Market scripted LIVE: 4 instruments, running>"
    with Market(
        ReplaySource(golden("us-2010-daily"), start="2010-05-06 17:00", playing=False)
    ).start() as market:
        assert market.label == "REPLAY 2010-05-06"


def test_touched_and_version_tell_a_view_when_to_draw():
    with Market(Scripted()).start() as market:
        before = (market.touched("A0"), market.touched("B1"), market.version)
        market.feed("ticks", ticks(1.0))
        assert market.touched("A0") > before[0]
        assert market.touched("B1") == before[1]
        assert market.version > before[2]
        middle = market.version
        market.feed("quotes", {"time": [NOON], "instrument_id": [0], "bid": [1.0], "ask": [2.0]})
        assert market.version > middle
        assert market.touched("A0") == before[0] + 1


def test_a_market_without_instruments_is_empty_and_does_no_harm():
    with Market(Scripted(universe=Universe([]))).start() as market:
        market.feed("ticks", ticks())
        assert all(market.frame(topic).empty for topic in ("bars", "last", "ticks", "quotes", "readings"))
        assert market.frame("rejected")["reason"].tolist() == ["unknown instrument"]
        assert len(market.values().state) == 0
        assert len(market.history().symbols) == 0


def test_frames_may_be_read_while_a_replay_runs_and_jumps():
    log = golden("us-2018-11-minute")
    with Market(ReplaySource(log, start=log.timeline.start, pace=50_000, rows=50)).start() as market:
        market.derive("SMA(3)", "1h")
        stop, failures = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                try:
                    bars = market.frame("bars", width="1min", symbols=["AAPL"])
                    assert bars.index.is_monotonic_increasing
                    assert bars.index.is_unique
                    assert (bars["low"] <= bars["high"]).all()
                    market.frame("last")
                    market.frame("readings")
                    market.values()
                except Exception as error:
                    failures.append(error)
                    return

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        rng = np.random.default_rng(0)
        for fraction in rng.uniform(0, 1, 6):
            market.clock.seek(log.timeline.at(int(fraction * log.timeline.length)))
            time.sleep(0.01)
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []


# ---- how far a number can be trusted


def states(market: Market) -> list[str]:
    return [STATES[code] for code in market.values().state]


def priced(mode: str, *, cadence: float = 30.0, calendars: tuple[str, ...] = ("XNYS",)) -> Market:
    """A market whose first two instruments have a price of Friday noon, the third none."""
    source = Scripted(universe=few_instruments(3, calendars))
    source.mode, source.cadence = mode, cadence
    market = Market(source).start()
    market.feed("ticks", ticks(1.0, instrument=0))
    market.feed("ticks", ticks(1.0, instrument=1))
    return market


@pytest.mark.parametrize(
    ("mode", "moment", "expected"),
    [
        ("live", "2018-11-23 17:00", "live"),
        ("live", "2018-11-23 17:01:30", "live"),
        ("live", "2018-11-23 17:01:31", "stale"),
        ("live", "2018-11-23 16:00", "live"),  # a clock that is behind
        ("delayed", "2018-11-23 17:01", "delayed"),
        ("delayed", "2018-11-23 17:02", "stale"),
        ("simulated", "2018-11-23 17:01", "simulated"),
        ("simulated", "2018-11-24 12:00", "stale"),
        ("replay", "2018-11-23 17:01", "replay"),
        ("replay", "2018-11-26 17:00", "stale"),
    ],
)
def test_a_price_is_fresh_for_three_cadences_of_open_hours(mode: str, moment: str, expected: str):
    with priced(mode) as market:
        market.clock.set(moment)
        assert states(market) == [expected, expected, "none"]


def test_at_the_weekend_a_price_of_the_last_minutes_is_a_closing_price():
    with priced("live") as market:
        market.clock.set("2018-11-23 18:00")
        market.feed("ticks", ticks(2.0, seconds=3600 - 10))  # ten seconds before the half day's close
        market.clock.set("2018-11-24 12:00")
        assert states(market) == ["closed", "stale", "none"]
        values = market.values()
        assert values.trading_age[0] == 10_000_000
        assert values.trading_age[1] == 3600_000_000
        assert values.age[0] == (19 * 3600 - 3590) * 10**6
        assert (values.age[2], values.trading_age[2]) == (-1, 0)
        market.clock.set("2018-11-26 14:31:00")  # Monday's open, and nothing heard
        assert states(market) == ["live", "stale", "none"]
        market.clock.set("2018-11-26 14:32:00")
        assert states(market) == ["stale", "stale", "none"]


def test_each_price_is_judged_by_its_own_exchange():
    with priced("live", calendars=("XNYS", "XHKG", "24/7")) as market:
        market.feed("ticks", ticks(1.0, instrument=2))
        market.clock.set("2018-11-23 17:01")
        assert states(market) == ["live", "closed", "live"], "it is the middle of the night in Hong Kong"
        market.clock.set("2018-11-25 12:00")
        assert states(market) == ["stale", "closed", "stale"]


def test_while_its_source_does_not_run_no_price_is_better_than_stale():
    with priced("live") as market:
        assert states(market)[0] == "live"
    assert states(market) == ["stale", "stale", "none"]


async def test_while_a_source_is_tried_again_its_prices_are_stale():
    napping = asyncio.Event()

    async def nap(seconds: float) -> None:
        napping.set()
        await asyncio.Event().wait()

    with Market(Scripted(("ticks", ticks(1.0)), OSError("no")), sleep=nap).start() as market:
        await napping.wait()
        assert states(market)[0] == "stale"
        assert market.status.state == "retrying"


def test_a_stock_that_is_traded_no_more_is_stale_in_a_replay():
    with Market(
        ReplaySource(golden("us-2010-daily"), start="2010-08-20 16:00", playing=False)
    ).start() as market:
        last = market.graph.last.times("time")
        gone = (last > 0) & (last < last.max() - 10 * 86_400_000_000)
        assert gone.any()
        found = np.array(states(market))
        assert set(found[gone]) == {"stale"}
        assert (found == "replay").sum() > 450
        assert market.frame("last")["state"].astype(str).tolist() == found.tolist()


def test_judging_thousands_of_prices_takes_no_time():
    universe = Universe.of([f"S{i}" for i in range(2500)], calendar="XNYS")
    with Market(Scripted(universe=universe)).start() as market:
        market.feed("ticks", random_ticks(universe, "2018-11-21 15:00", "2018-11-23 17:00", 20_000))
        market.clock.set("2018-11-23 17:00")

        def best(act: Callable[[], Any]) -> float:
            act()
            times = []
            for _ in range(15):
                began = time.thread_time()  # what others do on the same cores does not count
                act()
                times.append(time.thread_time() - began)
            return min(times)

        # About 0.15 and 1 ms on a quiet machine; the bounds leave room for a slow one.
        assert best(market.values) < 0.002
        assert best(lambda: market.frame("last")) < 0.02


def test_a_judge_follows_time_over_months():
    universe = few_instruments(1, ("XNYS",))
    judge = Judge(universe)
    with Market(Scripted(universe=universe)).start() as market:
        market.feed("ticks", ticks(1.0))
        for days in (0, 3, 40, 500, 100, 3):
            now = NOON.value // 1000 + days * 86_400_000_000
            age = judge.values(market.graph.last, now, mode="live", cadence=60.0, running=True).trading_age[0]
            expected = market.calendar.open_time(max(NOON.value // 1000, now - 400 * 86_400_000_000), now)
            assert age == expected
