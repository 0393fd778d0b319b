"""Bad input: each kind has a treatment that is stated, counted and seen, and costs nobody else anything."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from serving import until

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.instruments import Instrument, Universe
from marketdash.market import Market
from marketdash.pipeline import Graph
from marketdash.schema import TOPICS, conform
from marketdash.sources.base import BaseSource
from marketdash.testing.clock import ManualClock

NOON = pd.Timestamp("2018-11-23 17:00", tz="UTC")
UNIVERSE = Universe(Instrument(i, symbol, calendar="XNYS") for i, symbol in enumerate("AB"))
WIDTHS = ("1s", "1min", "1h", "1d")
NUMBERS = ["open", "high", "low", "close", "volume", "count"]


class Told(BaseSource):
    """Says what it was given, then is silent."""

    name, slow_history, stall_after = "told", False, None

    def __init__(self, *events: Any, universe: Universe = UNIVERSE, clock: ManualClock | None = None) -> None:
        super().__init__(universe, clock=clock or ManualClock(NOON + pd.Timedelta("10min")))
        self.events, self.said = list(events), 0

    async def batches(self) -> AsyncIterator[Any]:
        while self.said < len(self.events):
            self.said += 1
            yield self.events[self.said - 1]
        await asyncio.Event().wait()


def at(seconds: float) -> pd.Timestamp:
    return NOON + pd.Timedelta(seconds=seconds)


def tick(seconds: float, instrument: int = 0, price: float = 100.0, **more: Any) -> dict[str, Any]:
    row = {"time": at(seconds), "instrument_id": instrument, "price": price, "size": 10.0}
    return row | {"known_at": at(max(seconds, 0)), "seq": None, "conditions": None} | more


def ticks(*rows: dict[str, Any]) -> pa.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("time", "known_at"):
        columns[name] = pa.array([_us(moment) for moment in columns[name]], pa.int64()).cast(
            TOPICS["ticks"].schema.field(name).type
        )
    return conform("ticks", columns)


def _us(moment: Any) -> Any:
    return moment.value // 1000 if isinstance(moment, pd.Timestamp) else moment


def good(rows: int = 120) -> list[dict[str, Any]]:
    """Trades of B, a second apart."""
    return [tick(i, 1, 50.0 + i % 7 / 4, seq=i) for i in range(rows)]


def mixed(bad: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Good trades of B, with what is bad among them."""
    rows = good()
    step = max(len(rows) // (len(bad) + 1), 1)
    for i, row in enumerate(bad):
        rows.insert(min((i + 1) * step + i, len(rows)), row)
    return rows


def frames_of(market: Market, symbol: str) -> dict[str, pd.DataFrame]:
    shown = {width: market.frame("bars", width=width, symbols=[symbol]) for width in WIDTHS}
    shown["last"] = market.frame("last", symbols=[symbol])
    return shown | {"ticks": market.frame("ticks", symbols=[symbol]).drop(columns="seq")}


def assert_frames(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    for name, frame in left.items():
        pd.testing.assert_frame_equal(frame, right[name], check_exact=True, obj=name)


def reasons(market: Market) -> dict[str, int]:
    return market.frame("rejected")["reason"].value_counts().to_dict()


async def assert_treated(
    topic: str, batch: pa.RecordBatch, alone: pa.RecordBatch, expected: dict[str, int]
) -> None:
    """Fed by hand and told by a source, whole and row by row: counted by reason, and B is as if it had been alone."""
    with Market(Told()).start() as market:
        market.feed(topic, alone)
        wanted = frames_of(market, "B")
    batches = [(topic, batch.slice(i, 1)) for i in range(batch.num_rows)]
    source = Told(*batches)
    with Market(Told()).start() as fed, Market(source).start() as told:
        fed.feed(topic, batch)
        await until(lambda: told.health.stage("source told").rows == batch.num_rows)
        for market in (fed, told):
            assert reasons(market) == expected
            counted, by_reason = market.health.stage(f"clean {topic}").counts()
            assert counted["quarantined"] == sum(expected.values())
            assert by_reason == expected
            assert not market.health.failing
            assert market.restarts == 0
            assert_frames(wanted, frames_of(market, "B"))


A_SECOND_US = NOON.value // 1000
IMPOSSIBLE = {
    "no number for a price": ({"price": float("nan")}, "impossible price"),
    "a price below zero": ({"price": -1.0}, "impossible price"),
    "a price of zero": ({"price": 0.0}, "impossible price"),
    "a price without end": ({"price": float("inf")}, "impossible price"),
    "a size below zero": ({"size": -1.0}, "impossible size"),
    "a size without end": ({"size": float("inf")}, "impossible size"),
    "tomorrow": ({"time": at(86_400)}, "impossible time"),
    "a quarter of an hour and a second ahead": ({"time": at(901), "known_at": at(0)}, "impossible time"),
    "the year 1900": ({"time": pd.Timestamp("1900-01-01", tz="UTC")}, "impossible time"),
    "the year 2200": ({"time": pd.Timestamp("2200-01-01", tz="UTC")}, "impossible time"),
    "seconds for microseconds": ({"time": A_SECOND_US // 1_000_000}, "impossible time"),
    "milliseconds for microseconds": ({"time": A_SECOND_US // 1_000}, "impossible time"),
    "nanoseconds for microseconds": ({"time": A_SECOND_US * 1_000}, "impossible time"),
    "all times in seconds": (
        {"time": A_SECOND_US // 1_000_000, "known_at": A_SECOND_US // 1_000_000}, "impossible time"
    ),
    "an instrument below zero": ({"instrument_id": -5}, "unknown instrument"),
    "an instrument that is not there": ({"instrument_id": 2}, "unknown instrument"),
    "an instrument far away": ({"instrument_id": 10**9}, "unknown instrument"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_what_cannot_be_true_is_stopped_counted_and_disturbs_nobody(name: str):
    change, reason = IMPOSSIBLE[name]
    bad = [tick(i, 0, seq=500 + i) | change for i in range(3)]
    await assert_treated("ticks", ticks(*mixed(bad)), ticks(*good()), {reason: 3})


async def test_a_trade_of_no_size_is_a_trade():
    rows = [tick(1, size=0.0), tick(2, size=float("nan")), tick(3, size=None), tick(4, 0, 101.0)]
    with Market(Told()).start() as market:
        market.feed("ticks", ticks(*rows))
        (bar,) = market.frame("bars", width="1min", symbols=["A"]).to_dict("records")
        assert [bar[name] for name in NUMBERS] == [100.0, 101.0, 100.0, 101.0, 10.0, 4]
        assert reasons(market) == {}


async def test_a_clock_that_is_ahead_by_minutes_is_believed():
    with Market(Told()).start() as market:
        market.feed("ticks", ticks(tick(899, known_at=at(0))))
        assert market.frame("last").loc["A", "last"] == 100.0


async def test_a_trade_of_years_ago_is_too_late_and_is_counted_as_late():
    """It may be true, so it is no reject; but what became of it is told on health, and no bar changes."""
    with Market(Told()).start() as market:
        market.feed("ticks", ticks(tick(0), tick(-20 * 365 * 86_400, price=1.0, known_at=at(1)), tick(2)))
        assert reasons(market) == {}
        assert market.health.stage("bars of ticks").counts()[0]["late"] == 1
        assert len(market.frame("bars", width="1d")) == 1
        assert market.frame("bars", width="1d")["low"].tolist() == [100.0]


async def test_a_trade_beyond_the_horizon_of_its_source_is_the_last_price_and_makes_no_bar():
    source = Told(clock=ManualClock("2018-11-25 15:00"))
    source.horizon = 86_400.0
    with Market(source).start() as market:
        market.feed("ticks", ticks(tick(0, price=101.0, known_at=None)))
        market.feed("ticks", ticks(tick(-60, price=99.0, known_at=None)))
        assert market.frame("last").loc["A", ["last", "time"]].tolist() == [101.0, at(0)]
        assert market.frame("bars", width="1d").empty
        assert market.health.stage("bars of ticks").counts()[0]["late"] == 2


async def test_thousands_of_unknown_instruments_leave_room_for_the_known_ones():
    rng = np.random.default_rng(0)
    ids = rng.choice(np.concatenate([np.arange(-3000, 0), np.arange(2, 100_000)]), 4000).tolist()
    bad = [tick(i / 40, n, seq=i) for i, n in enumerate(ids)]
    rows = sorted(good() + bad, key=lambda row: row["time"])
    with Market(Told()).start() as market, Market(Told()).start() as alone:
        market.feed("ticks", ticks(*rows))
        alone.feed("ticks", ticks(*good()))
        assert market.health.stage("clean ticks").counts()[1] == {"unknown instrument": 4000}
        kept = market.frame("rejected")
        assert len(kept) == 1000, "of what was stopped the last rows are kept"
        assert kept["symbol"].isna().all()
        assert kept["instrument_id"].tolist() == [row["instrument_id"] for row in bad[-1000:]]
        assert_frames(frames_of(alone, "B"), frames_of(market, "B"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bid": -1.0}, "impossible price"),
        ({"ask_size": float("inf")}, "impossible size"),
        ({"time": at(86_400)}, "impossible time"),
        ({"time": pd.Timestamp("1900-01-01", tz="UTC")}, "impossible time"),
        ({"instrument_id": 77}, "unknown instrument"),
    ],
)
async def test_a_quote_that_cannot_be_true_is_stopped_and_the_best_of_the_others_stands(
    change: dict[str, Any], reason: str
):
    quote = {"time": at(0), "known_at": at(1), "instrument_id": 0, "bid": 9.0, "ask": 10.0, "ask_size": 1.0}
    other = quote | {"instrument_id": 1, "bid": 5.0, "ask": 6.0}
    rows = pd.DataFrame([other, quote | change, other | {"time": at(1)}])
    with Market(Told()).start() as market:
        market.feed("quotes", rows)
        assert reasons(market) == {reason: 1}
        last = market.frame("last")
        assert last["bid"].tolist()[1:] == [5.0]
        assert np.isnan(last.loc["A", "bid"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": float("nan")}, "impossible price"),
        ({"low": 0.0}, "impossible price"),
        ({"high": 1.0, "low": 2.0}, "impossible bar"),
        ({"volume": -1.0}, "impossible size"),
        ({"time": pd.Timestamp("1900-01-01", tz="UTC")}, "impossible time"),
        ({"time": pd.Timestamp("1970-01-18", tz="UTC")}, "impossible time"),
        ({"width": "3min"}, "unknown width"),
        ({"instrument_id": 10**9}, "unknown instrument"),
    ],
)
async def test_a_bar_that_cannot_be_true_is_stopped_and_readings_go_on(change: dict[str, Any], reason: str):
    def bar(minute: int, instrument: int) -> dict[str, Any]:
        prices = dict.fromkeys(("open", "high", "low", "close"), 10.0 + minute)
        times = {"time": at(60 * minute), "known_at": at(60 * minute + 60)}
        return times | prices | {"instrument_id": instrument, "width": "1min", "volume": 5.0}

    good_bars = [bar(minute, 1) for minute in range(5)]
    bad = [bar(minute, 0) | change for minute in range(5)]
    rows = [row for pair in zip(good_bars, bad, strict=True) for row in pair]
    shown = []
    for fed in (good_bars, rows):
        with Market(Told(clock=ManualClock(NOON))).start() as market:
            market.derive("SMA(2)", "1min")
            market.feed("bars", pd.DataFrame(fed[:1]))
            market.clock.advance(900)
            market.feed("bars", pd.DataFrame(fed[1:]))
            shown.append(frames_of(market, "B") | {"readings": market.frame("readings", symbols=["B"])})
            assert reasons(market) == ({reason: 5} if fed is rows else {})
            assert len(shown[-1]["readings"]) == 4
            assert len(market.graph.sessions.segments) < 2000, (
                "a wrong time must not make calendars of decades"
            )
    for frames in shown:
        frames["last"] = frames["last"].drop(columns=["age"])
        frames["readings"] = frames["readings"].drop(columns=["seq"])
    assert_frames(*shown)


async def test_wrong_times_alone_make_no_calendar_of_decades():
    graph = Graph(UNIVERSE)
    graph.push("ticks", ticks(tick(0)))
    before = len(graph.sessions.segments)
    graph.push("ticks", ticks(tick(1, time=A_SECOND_US // 1_000_000), tick(1, time=-5)))
    assert len(graph.sessions.segments) == before
    assert graph.cleaners["ticks"].rejected == {"impossible time": 2}


# ---- time that goes back


async def test_a_clock_that_jumps_back_a_little_changes_no_bar():
    clock = ManualClock(at(0))
    with Market(Told(clock=clock)).start() as market, Market(Told()).start() as calm:
        for i in range(60):
            clock.set(at(i - 300 if 20 <= i < 40 else i))
            market.feed("ticks", ticks(tick(i, 0, 100.0 + i, seq=i, known_at=None)))
        calm.feed("ticks", ticks(*[tick(i, 0, 100.0 + i, seq=i) for i in range(60)]))
        assert reasons(market) == {}
        for width in WIDTHS:
            pd.testing.assert_frame_equal(
                market.frame("bars", width=width)[NUMBERS], calm.frame("bars", width=width)[NUMBERS]
            )
        known = market.frame("ticks")["known_at"]
        assert not known.is_monotonic_increasing, "what was known when is what the clock said"


async def test_a_clock_that_jumps_back_an_hour_refuses_the_future_until_it_is_right_again():
    clock = ManualClock(at(0))
    with Market(Told(clock=clock)).start() as market:
        market.derive("SMA(2)", "1min")
        for i in range(0, 600, 10):
            clock.set(at(i - 3600 if 200 <= i < 400 else i))
            market.feed("ticks", ticks(tick(i, known_at=None)))
        assert reasons(market) == {"impossible time": 20}
        clock.set(at(900))
        market.advance()
        assert market.frame("bars", width="1h")["count"].tolist() == [40]
        readings = market.frame("readings")
        assert readings.index.is_unique
        assert len(readings) == 7, "of the eight minutes in which a trade was taken"
        assert not market.health.failing


async def test_known_at_that_goes_back_between_rows_and_batches_changes_no_number():
    rng = np.random.default_rng(3)
    rows = [
        tick(i, 0, 100.0 + i % 5, seq=i, known_at=at(600 + int(rng.integers(-300, 300)))) for i in range(300)
    ]
    with Market(Told(clock=ManualClock(at(0)))).start() as market, Market(Told()).start() as calm:
        market.derive("SMA(2)", "1min")
        market.clock.set(at(1200))
        for begin in range(0, 300, 7):
            market.feed("ticks", ticks(*rows[begin : begin + 7]))
        calm.feed("ticks", ticks(*[row | {"known_at": at(1000)} for row in rows]))
        for width in WIDTHS:
            pd.testing.assert_frame_equal(
                market.frame("bars", width=width)[NUMBERS], calm.frame("bars", width=width)[NUMBERS]
            )
        market.clock.advance(3600)
        market.advance()
        readings = market.frame("readings")
        assert readings.index.is_unique
        assert readings.index.is_monotonic_increasing
        assert len(readings) == 4


# ---- numbers that come again, and prices that jump


async def test_a_row_that_comes_again_is_dropped_and_a_number_with_other_values_is_another_trade():
    first = [tick(i, 0, 100.0 + i / 4, seq=i) for i in range(10)]
    silent = tick(10, size=None, seq=10)
    again = [first[3], first[9], silent, first[3] | {"known_at": at(40)}]
    others = [
        first[3] | {"price": 100.5},
        first[4] | {"size": 11.0},
        first[5] | {"time": at(5.5)},
        tick(3, 1, seq=3),
    ]
    for cut in (1, 100):
        with Market(Told()).start() as market:
            batch = ticks(*first, silent, *again, *others)
            for begin in range(0, batch.num_rows, cut):
                market.feed("ticks", batch.slice(begin, cut))
            assert reasons(market) == {"duplicate": 4}
            assert market.frame("bars", width="1d")["count"].tolist() == [14, 1]


async def test_without_numbers_nothing_is_a_duplicate():
    with Market(Told()).start() as market:
        market.feed("ticks", ticks(*[tick(1)] * 5))
        assert reasons(market) == {}
        assert market.frame("bars", width="1d")["volume"].tolist() == [50.0]


async def test_an_absurd_print_that_is_sent_again_does_not_agree_with_itself():
    rows = [tick(i, seq=i) for i in range(30)]
    absurd = tick(30, price=200.0, seq=30)
    with Market(Told()).start() as market:
        market.feed("ticks", ticks(*rows, absurd))
        for _ in range(5):
            market.feed("ticks", ticks(absurd))
        assert reasons(market) == {"far from the last prices": 1, "duplicate": 5}
        assert market.frame("bars", width="1d")["high"].tolist() == [100.0]


async def test_a_split_in_mid_session_holds_two_prints_until_a_third_agrees_and_loses_none():
    rows = [tick(i, 0, 100.0, seq=i) for i in range(60)]
    rows += [tick(60 + i, 0, 25.0 + i / 64, seq=60 + i) for i in range(60)]
    action = {"time": at(60), "known_at": at(0), "instrument_id": 0, "kind": "split", "value": 4.0}
    with Market(Told()).start() as market:
        market.feed("actions", pd.DataFrame([action]))
        market.feed("ticks", ticks(*rows[:62], *good()))
        assert reasons(market) == {"far from the last prices": 2}
        market.feed("ticks", ticks(*rows[62:]))
        assert reasons(market) == {}
        (day,) = market.frame("bars", width="1d", symbols=["A"]).to_dict("records")
        assert [day[name] for name in NUMBERS] == [100.0, 100.0, 25.0, 25.0 + 59 / 64, 1200.0, 120]


# ---- batches


@pytest.mark.parametrize("topic", ["ticks", "quotes", "bars", "actions", "corrections"])
async def test_an_empty_batch_is_no_event(topic: str):
    with Market(Told((topic, TOPICS[topic].schema.empty_table()))).start() as market:
        market.feed("ticks", ticks(tick(0)))
        version = market.version
        market.feed(topic, TOPICS[topic].schema.empty_table())
        await asyncio.sleep(0)
        assert market.version == version
        assert not market.health.failing


def test_a_million_rows_in_the_wrong_order_are_as_quick_and_give_the_bars_of_the_right_order():
    rows, rng = 1_000_000, np.random.default_rng(0)
    start = pd.Timestamp("2018-11-23 14:30", tz="UTC").value // 1000
    columns = {
        "time": pd.to_datetime(start + np.sort(rng.integers(0, 10_800, rows)) * 1_000_000, unit="us", utc=True),
        "known_at": pd.to_datetime(np.full(rows, start + 4 * 3_600_000_000), unit="us", utc=True),
        "instrument_id": rng.integers(0, 2, rows).astype(np.int32),
        "price": 100.0 + rng.integers(-8, 9, rows) / 8,
        "size": rng.integers(0, 100, rows).astype(float),
        "seq": np.arange(rows),
    }  # fmt: skip
    batch = conform("ticks", columns)

    async def shown(batch: pa.RecordBatch) -> dict[str, Any]:
        graph = Graph(UNIVERSE, finest="1min")
        graph.push("ticks", batch)
        assert not graph.cleaners["ticks"].rejected
        fields = ("time", "open", "high", "low", "close", "volume", "turnover", "count")
        found = {(n, width): graph.store.bars(n, width) for n in (0, 1) for width in graph.store.widths}
        return {key: [getattr(bars, name).tobytes() for name in fields] for key, bars in found.items()}

    right = asyncio.run(shown(batch))
    assert asyncio.run(shown(batch.take(pa.array(np.arange(rows)[::-1].copy())))) == right
    shuffled = batch.take(pa.array(np.concatenate([rng.permutation(200_000), np.arange(200_000, rows)])))
    assert asyncio.run(shown(shuffled)) == right


async def test_columns_without_values_are_taken_where_they_may_be_and_refused_where_not():
    only = {"time": [at(0), at(1)], "instrument_id": [0, 1], "price": [5.0, 6.0]}
    with Market(Told()).start() as market:
        market.feed("ticks", only | {"seq": [7, None], "size": [None, 1.0], "conditions": [None, 1]})
        market.feed("ticks", only)
        assert market.frame("ticks")["seq"].notna().all()
        assert market.frame("bars", width="1d")["count"].tolist() == [2, 2]
        before = market.version
        for column in ("time", "instrument_id", "price"):
            with pytest.raises(SchemaError, match=f"column '{column}': expected a value in every row"):
                market.feed("ticks", only | {column: [only[column][0], None]})
        assert market.version == before


WRONG = {
    "a column too many": {"time": [at(0)], "instrument_id": [0], "price": [1.0], "colour": ["red"]},
    "a column too few": {"time": [at(0)], "price": [1.0]},
    "a text for a price": {"time": [at(0)], "instrument_id": [0], "price": ["dear"]},
    "a time without a zone": {"time": [pd.Timestamp("2018-11-23")], "instrument_id": [0], "price": [1.0]},
    "a number for a time": {"time": [1_542_000_000], "instrument_id": [0], "price": [1.0]},
    "an instrument that no number holds": {"time": [at(0)], "instrument_id": [2**40], "price": [1.0]},
}


@pytest.mark.parametrize("name", WRONG)
async def test_rows_that_do_not_fit_are_refused_and_the_next_ones_are_taken(name: str):
    async def no_pause(seconds: float) -> None:
        await asyncio.sleep(0)

    source = Told(("ticks", ticks(*good(5))), ("ticks", WRONG[name]), ("ticks", ticks(tick(9, 1, 51.0))))
    with Market(source, sleep=no_pause).start() as market:
        await until(lambda: market.frame("last").loc["B", "last"] == 51.0)
        assert market.restarts == 1
        assert market.health.stage("source told").errors == 1
        assert "SchemaError" in market.health.stage("source told").last_error
        with pytest.raises(SchemaError):
            market.feed("ticks", WRONG[name])
        assert market.frame("bars", width="1d", symbols=["B"])["count"].tolist() == [6]


# ---- universes


async def test_a_market_of_no_instruments_refuses_every_row_and_lives():
    with Market(Told(universe=Universe([]))).start() as market:
        market.feed("ticks", ticks(*good(7)))
        assert reasons(market) == {"unknown instrument": 7}
        assert market.frame("bars").empty
        assert market.frame("last").empty
        assert not market.health.failing


async def test_a_market_of_one_instrument_is_a_market():
    with Market(Told(universe=Universe.of(["ONE"]))).start() as market:
        market.feed("ticks", ticks(tick(0), tick(1, 1), tick(2, 0, 101.0)))
        assert reasons(market) == {"unknown instrument": 1}
        assert market.frame("last")["last"].tolist() == [101.0]


async def test_thousands_of_symbols_may_be_asked_for_and_one_that_is_unknown_is_named():
    universe = Universe.of([f"S{i}" for i in range(3000)])
    source = Told(universe=universe)
    source.finest = "1h"
    with Market(source).start() as market:
        batch = ticks(*[tick(i / 10, i, 1.0 + i) for i in range(3000)])
        market.feed("ticks", batch)
        symbols = [f"s{i}" for i in range(2999, -1, -1)]
        last = market.frame("last", symbols=symbols)
        assert last["last"].tolist() == [1.0 + i for i in range(2999, -1, -1)]
        assert len(market.frame("bars", width="1d", symbols=symbols * 2)) == 6000
        with pytest.raises(UnknownNameError, match="S3000"):
            market.frame("bars", symbols=[*symbols, "S3000"])
