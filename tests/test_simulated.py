"""The simulated market: the same for everybody who names its seed, and plausible to the eye."""

import asyncio
import time
from contextlib import aclosing
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.calendars import calendar
from marketdash.clock import to_timestamp, to_us
from marketdash.errors import MarketdashError, SettingsError, UnknownNameError
from marketdash.schema import TOPICS, conform
from marketdash.sources._simulation import Model, State, advance
from marketdash.sources.base import Source, make_source
from marketdash.sources.simulated import SimulatedSource

ORIGIN = to_us("2024-03-01 14:30")
NIGHT = to_us("2024-03-01 03:00")
SECOND = 1_000_000
MINUTE = 60 * SECOND
SMALL = {"instruments": 12, "rate": 200.0, "minutes": 30, "days": 5}


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self, us: int = ORIGIN) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us

    def now(self) -> pd.Timestamp:
        return to_timestamp(self.us)


def small(origin: int = ORIGIN, **options) -> SimulatedSource:
    return SimulatedSource(origin=origin, **(SMALL | options))


def tables(events) -> dict[str, pa.Table]:
    """All rows by topic."""
    topics = {topic for topic, _ in events}
    return {
        name: pa.Table.from_batches([b for topic, b in events if topic == name]) for name in sorted(topics)
    }


def frames(events) -> dict[str, pd.DataFrame]:
    return {name: table.to_pandas() for name, table in tables(events).items()}


def bars_of(source: SimulatedSource, width: str) -> pd.DataFrame:
    bars = frames(source.history())["bars"]
    return bars[bars["width"] == width]


def wide(bars: pd.DataFrame, column: str = "close") -> pd.DataFrame:
    return bars.pivot(index="time", columns="instrument_id", values=column)


def correlations(returns: pd.DataFrame, sector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs within a sector, and of pairs across two."""
    matrix = returns.corr().to_numpy()
    above = np.triu(np.ones_like(matrix, bool), 1)
    same = sector[:, None] == sector[None, :]
    return matrix[above & same], matrix[above & ~same]


@pytest.fixture(scope="module")
def market() -> SimulatedSource:
    return SimulatedSource(origin=NIGHT)


@pytest.fixture(scope="module")
def history(market: SimulatedSource) -> pd.DataFrame:
    return frames(market.history())["bars"]


@pytest.fixture(scope="module")
def minute_of_market() -> dict[str, pd.DataFrame]:
    source = SimulatedSource(origin=NIGHT)
    return frames(source.events(NIGHT + MINUTE - 1))


WHOLE = tables(small().events(ORIGIN + 4 * SECOND))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(ORIGIN - SECOND, ORIGIN + 4 * SECOND), max_size=12).map(sorted))
def test_the_stream_does_not_depend_on_how_it_is_cut(cuts):
    source = small()
    events = [event for until in [*cuts, ORIGIN + 4 * SECOND] for event in source.events(until)]
    assert tables(events) == WHOLE
    assert source.events(ORIGIN + 4 * SECOND) == []


def test_nothing_is_told_before_it_is_known():
    source = small(rate=50_000.0)
    for until in range(ORIGIN, ORIGIN + 3 * SECOND, 70_000):
        for _, batch in source.events(until):
            known = batch.column("known_at").view(pa.int64()).to_numpy()
            assert known.max() <= until
            assert known.min() > until - 70_000


def test_the_same_seed_and_origin_give_the_same_market():
    one, two = small(), small()
    assert repr(list(one.universe)) == repr(list(two.universe)), "a NaN is not equal to itself, its text is"
    assert tables(one.history()) == tables(two.history())
    assert tables(one.history()) == tables(one.history()), "the past must not depend on who asks first"
    assert tables(one.events(ORIGIN + SECOND)) == tables(two.events(ORIGIN + SECOND))


@pytest.mark.parametrize("other", [{"seed": 8}, {"origin": ORIGIN + SECOND}])
def test_another_seed_or_origin_gives_another_stream(other):
    rows = tables(small(**other).events(ORIGIN + 3 * SECOND))["ticks"]
    for column in ("instrument_id", "price", "size", "time"):
        assert rows[column].slice(0, 50).to_pylist() != WHOLE["ticks"][column].slice(0, 50).to_pylist(), (
            column
        )


def test_another_seed_lists_other_companies(market):
    other = SimulatedSource(seed=8, origin=NIGHT, minutes=0, days=0)
    assert len(set(market.universe.symbols) & set(other.universe.symbols)) < 100


def test_who_comes_back_tomorrow_finds_the_same_days():
    today = wide(bars_of(small(), "1d"))
    tomorrow = wide(bars_of(small(ORIGIN + 86_400 * SECOND), "1d"))
    assert len(tomorrow.index.intersection(today.index)) == SMALL["days"] - 1
    pd.testing.assert_frame_equal(today.iloc[1:], tomorrow.iloc[:-1], check_freq=False)


def test_the_universe_is_plausible(market):
    universe = market.universe
    assert len(universe) == 330
    assert len(universe.sectors) == 11
    assert len({item.name for item in universe}) == 330
    assert {len(symbol) for symbol in universe.symbols} == {3, 4}
    assert {(i.calendar, i.mic, i.currency, i.asset_class) for i in universe} == {
        ("24/7", "XSIM", "USD", "equity")
    }
    assert market.weights.sum() == pytest.approx(1)
    assert market.weights[:33].sum() > 0.3, "a tenth of the companies should hold much of the market"


def test_symbols_stay_unique_in_a_large_market():
    universe = Model.draw(3, 5000, 1.0).universe  # a universe refuses a symbol that comes twice
    assert len({item.name for item in universe}) == 5000


def test_batches_fit_their_topics_as_they_are(market):
    events = [*market.history(), *small().events(ORIGIN + SECOND)]
    assert {topic for topic, _ in events} == {"bars", "ticks", "quotes"}
    for topic, batch in events:
        batch.validate(full=True)
        assert conform(topic, batch) is batch
        for name in set(batch.schema.names) - {"conditions", "exchange"}:
            assert batch.column(name).null_count == 0, f"{topic}.{name}"
        assert batch.schema.metadata == TOPICS[topic].schema.metadata


def test_rows_are_ordered_by_known_at_and_seq_across_topics_and_from_past_to_present():
    source = small(NIGHT)
    bars = pd.concat([batch.to_pandas() for _, batch in source.history()])
    assert bars["known_at"].is_monotonic_increasing
    assert bars["seq"].tolist() == list(range(len(bars)))
    live = frames(source.events(NIGHT + 3 * SECOND))
    rows = pd.concat([live["ticks"], live["quotes"]]).sort_values("seq")
    assert rows["seq"].tolist() == list(range(len(bars), len(bars) + len(rows)))
    assert rows["known_at"].is_monotonic_increasing
    assert bars["known_at"].iloc[-1] <= rows["known_at"].iloc[0]
    assert live["ticks"]["seq"].is_monotonic_increasing


def test_sessions_and_trading_days_are_those_of_the_calendar(history):
    midnight = to_us("2024-03-02")
    source = small(midnight - SECOND)
    rows = pd.concat(frames(source.events(midnight + SECOND)).values())
    assert rows["trading_day"].nunique() == 2
    for table in (rows, history):
        session, day = calendar("24/7").stamp(table["time"].astype("int64").to_numpy())
        np.testing.assert_array_equal(table["session"], session)
        midnights = pd.to_datetime(table["trading_day"]).to_numpy().astype("M8[D]")
        np.testing.assert_array_equal(midnights, day.astype("M8[D]"))


def test_prices_lie_on_the_grid_and_a_bid_below_its_ask(minute_of_market):
    ticks, quotes = minute_of_market["ticks"], minute_of_market["quotes"]
    assert (quotes["bid"] < quotes["ask"]).all()
    for price in (ticks["price"], quotes["bid"], quotes["ask"]):
        assert price.min() >= 0.01
        np.testing.assert_array_equal(price, price.round(2))
    for size in (ticks["size"], quotes["bid_size"], quotes["ask_size"]):
        assert size.min() >= 100
        assert (size % 100 == 0).all()


def test_trades_happen_at_the_bid_or_the_ask(minute_of_market):
    # Prices move ten times a second; within such a move a quote and a trade see the same book.
    ticks, quotes = (
        rows.assign(move=rows["time"].dt.floor("100ms"))
        for rows in (minute_of_market["ticks"], minute_of_market["quotes"])
    )
    ticks = ticks.merge(quotes[["move", "instrument_id", "bid", "ask"]], on=["move", "instrument_id"])
    assert len(ticks) > 1000
    assert ((ticks["price"] == ticks["bid"]) | (ticks["price"] == ticks["ask"])).all()


@pytest.mark.parametrize(
    ("instruments", "rate", "seconds"), [(330, 2500.0, 20), (50, 40.0, 600), (500, 20_000.0, 3)]
)
def test_messages_come_at_the_rate_that_was_asked_for(instruments, rate, seconds):
    source = SimulatedSource(instruments=instruments, rate=rate, origin=ORIGIN, minutes=0, days=0)
    rows = {name: len(table) for name, table in tables(source.events(ORIGIN + seconds * SECOND - 1)).items()}
    assert sum(rows.values()) / seconds == pytest.approx(rate, rel=0.05)
    assert rows["ticks"] / sum(rows.values()) == pytest.approx(1 / 3, rel=0.05)


def test_few_names_have_most_of_the_messages_and_none_is_silent_for_long(market):
    source = SimulatedSource(origin=NIGHT, minutes=0, days=0)
    ticks = frames(source.events(NIGHT + int(source.cadence * SECOND)))["ticks"]
    counts = ticks["instrument_id"].value_counts()
    assert len(counts) == len(source.universe), "each name should trade within the cadence"
    assert counts.iloc[:33].sum() > 0.25 * counts.sum()


def test_names_of_one_sector_move_together_in_the_past(market, history):
    returns = np.log(wide(history[history["width"] == "1min"])).diff().dropna()
    within, across = correlations(returns, market.model.sector)
    assert across.mean() > 0.1, "there should be a market factor"
    assert within.mean() > across.mean() + 0.1
    assert (within.mean() - across.mean()) > 10 * np.hypot(
        within.std() / len(within) ** 0.5, across.std() / len(across) ** 0.5
    )


def test_names_of_one_sector_move_together_live():
    source = SimulatedSource(instruments=60, rate=600.0, origin=ORIGIN, minutes=0, days=0)
    quotes = frames(source.events(ORIGIN + 20 * MINUTE))["quotes"]
    mid = quotes.assign(mid=quotes["bid"] + quotes["ask"], time=quotes["time"].dt.floor("20s"))
    mid = (
        mid.pivot_table(index="time", columns="instrument_id", values="mid", aggfunc="last").ffill().dropna()
    )
    within, across = correlations(np.log(mid).diff().dropna(), source.model.sector)
    assert within.mean() > across.mean() + 0.1


def test_volatility_comes_in_clusters(history):
    moves = np.log(wide(history[history["width"] == "1min"])).diff().dropna().abs()
    shuffled = moves.sample(frac=1, random_state=1)
    assert moves.apply(lambda column: column.autocorr(1)).mean() > 0.03
    assert abs(shuffled.apply(lambda column: column.autocorr(1)).mean()) < 0.02


def test_prices_stay_plausible_over_a_quarter_of_a_day():
    # Few messages, since only the prices matter here.
    model = Model.draw(5, 40, 1.0)
    zero = np.zeros(len(model.volatility))
    state, levels = State(k=ORIGIN // SECOND, level=zero, log_volatility=zero, rows=0), []
    for _ in range(86_400 // 4):
        state, _ = advance(model, state)
        levels.append(model.prices(state.level) - model.base)
    moved = np.array(levels)
    assert np.isfinite(moved).all()
    assert np.abs(moved).max() < 0.25, "a quarter of a day should not change a price by a quarter"
    assert 0.004 < moved[-1].std() < 0.04
    assert np.abs(state.log_volatility / model.cluster).max() < 8


def test_years_of_days_stay_between_plausible_prices():
    closes = wide(bars_of(SimulatedSource(origin=ORIGIN, instruments=100, minutes=0, days=2500), "1d"))
    assert len(closes) == 2500
    assert closes.min().min() > 2
    assert closes.max().max() < 2000
    assert 0.01 < np.log(closes).diff().std().median() < 0.04


def test_history_fills_the_first_screen(market, history):
    counts = history["width"].value_counts()
    assert counts["1min"] == 1440 * 330
    assert counts["1d"] == 250 * 330
    assert len(list(market.history())) <= 4
    lengths = history["width"].astype(str).map({"1min": "60s", "1d": "1D"})
    assert (history["known_at"] == history["time"] + pd.to_timedelta(lengths)).all()
    assert history["known_at"].max() == to_timestamp(NIGHT)
    days = history.loc[history["width"] == "1d", "time"]
    assert days.max() == to_timestamp(NIGHT).normalize() - pd.Timedelta("1D"), "today is not a closed bar"
    first = history[history["width"] == "1d"].groupby("instrument_id")["open"].first()
    assert 5 <= first.min() < 15
    assert 200 < first.max() <= 800


def test_bars_are_consistent(history):
    top, bottom = history[["open", "close"]].max(axis=1), history[["open", "close"]].min(axis=1)
    assert (history["high"] >= top).all()
    assert (history["low"] <= bottom).all()
    assert history["vwap"].between(history["low"], history["high"]).all()
    assert (history["volume"] >= 100 * history["count"]).all()
    assert (history["count"] >= 1).all()
    for _, bars in history.groupby("width", observed=True):
        assert (wide(bars, "open").iloc[1:].to_numpy() == wide(bars).iloc[:-1].to_numpy()).all()


def test_a_day_holds_its_minutes_and_closes_with_the_last_one(history):
    midnight = to_timestamp(NIGHT).normalize()
    minutes = history[(history["width"] == "1min") & (history["time"] < midnight)].groupby("instrument_id")
    day = history[(history["width"] == "1d") & (history["known_at"] == midnight)].set_index("instrument_id")
    assert minutes.size().eq(21 * 60).all()
    np.testing.assert_array_equal(day["close"], minutes["close"].last())
    assert (day["high"] >= minutes["high"].max()).all()
    assert (day["low"] <= minutes["low"].min()).all()
    assert (day["volume"] >= minutes["volume"].sum()).all()
    after = history[(history["width"] == "1min") & (history["time"] == midnight)].set_index("instrument_id")
    np.testing.assert_array_equal(day["close"], after["open"])


def test_the_present_goes_on_where_the_past_ends(history, minute_of_market):
    last = history[history["width"] == "1min"].groupby("instrument_id")[["close", "volume"]].last()
    ticks = minute_of_market["ticks"].groupby("instrument_id")
    gap = (ticks["price"].first() / last["close"] - 1).abs()
    assert gap.max() < 0.02
    assert gap.median() < 0.002
    assert ticks["size"].sum().sum() == pytest.approx(last["volume"].sum(), rel=0.3)


@pytest.mark.parametrize(
    "origin", ["2024-03-01 00:00", "2024-03-01 00:01", "2024-02-29 23:59:30", "1969-12-31 12:00"]
)
def test_any_origin_has_a_past(origin):
    source = small(to_us(origin), minutes=1600)
    bars = pd.concat([batch.to_pandas() for _, batch in source.history()])
    assert bars["known_at"].is_monotonic_increasing
    assert bars["known_at"].max() == to_timestamp(to_us(origin)).floor("min")
    assert len(bars) == 12 * (1600 + 5)
    events = frames(source.events(source.origin_us + SECOND))
    assert events["ticks"]["time"].min() >= to_timestamp(to_us(origin))


@pytest.mark.parametrize(("minutes", "days"), [(0, 0), (0, 3), (3, 0)])
def test_a_past_may_be_left_out(minutes, days):
    bars = [batch.num_rows for _, batch in small(minutes=minutes, days=days).history()]
    assert bars == [12 * count for count in (days, minutes) if count]


def test_a_market_opened_now_starts_with_the_minute_that_is_under_way():
    source = SimulatedSource(clock=ManualClock(ORIGIN + 17_345_678), **SMALL)
    assert source.origin_us == ORIGIN
    assert tables(source.events(ORIGIN + 4 * SECOND)) == WHOLE


def test_text_chooses_the_market_and_wins_over_keywords():
    assert make_source("simulated:3", origin=ORIGIN, **SMALL).model.seed == 3
    source = make_source("simulated:instruments=20, rate=12.5,seed=4", instruments=99, origin=ORIGIN)
    assert isinstance(source, Source)
    assert (len(source.universe), source.model.seed) == (20, 4)
    assert source.model.rate.sum() == pytest.approx(12.5)


def test_it_says_that_it_is_simulated():
    source = make_source("simulated", origin=ORIGIN, **SMALL)
    assert (source.name, source.mode) == ("simulated", "simulated")
    assert source.entitlement.redistributable
    assert source.entitlement.note == "Simulated: no real market"
    assert "12 instruments" in repr(source)
    assert SimulatedSource(rate=25.0, origin=ORIGIN).cadence > SimulatedSource(origin=ORIGIN).cadence


@pytest.mark.parametrize(
    ("argument", "kind", "words"),
    [
        ("seven", SettingsError, ["'seed'", "whole number", "'seven'"]),
        ("-1", SettingsError, ["'seed'", "-1"]),
        ("instruments=0", SettingsError, ["'instruments'", "from 1 to 5,000", "'0'"]),
        ("instruments=2.5", SettingsError, ["'instruments'", "whole number"]),
        ("rate=nan", SettingsError, ["'rate'", "'nan'"]),
        ("rate=inf", SettingsError, ["'rate'", "'inf'"]),
        ("rate=-3", SettingsError, ["'rate'", "from 0.01"]),
        ("rate=5,seed", SettingsError, ["simulated:rate=5,seed", "name=value", "'seed'", "Write simulated:"]),
        ("rate=5,", SettingsError, ["name=value", "''"]),
        ("instrument=5", UnknownNameError, ["'instrument'", "Did you mean instruments"]),
    ],
)
def test_text_that_cannot_be_used_is_refused_with_a_reason(argument, kind, words):
    with pytest.raises(kind) as caught:
        SimulatedSource(argument, origin=ORIGIN)
    assert isinstance(caught.value, MarketdashError)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


@pytest.mark.parametrize(
    "options", [{"instruments": 2.5}, {"rate": None}, {"seed": "x"}, {"days": -1}, {"minutes": 10**9}]
)
def test_keywords_that_cannot_be_used_are_refused(options):
    with pytest.raises(SettingsError, match=f"'{next(iter(options))}'"):
        SimulatedSource(origin=ORIGIN, **options)


def rows_of(batches) -> int:
    return sum(batch.num_rows for batch in batches)


async def take(stream, seconds: float, rows: int = 0):
    """What the stream yields until it has been quiet for `seconds`; the stream can be read on afterwards.

    It counts as quiet once `rows` have come: before that it may be late because the cores are taken.
    """
    events = []
    pending = asyncio.ensure_future(anext(stream))

    def patience() -> float:
        return seconds if rows_of(batch for _, batch in events) >= rows else 60.0

    while (await asyncio.wait({pending}, timeout=patience()))[0]:
        events.append(pending.result())
        pending = asyncio.ensure_future(anext(stream))
    pending.cancel()
    await asyncio.wait({pending})
    return events


async def test_batches_follow_the_clock():
    clock = ManualClock()
    source = SimulatedSource(clock=clock, **SMALL)
    async with aclosing(source.batches()) as stream:
        assert await take(stream, 0.25) == [], "nothing may come while the clock stands still"
    clock.us += 4 * SECOND
    async with aclosing(source.batches()) as stream:
        events = await take(stream, 0.25, rows_of(WHOLE.values()))
    assert tables(events) == WHOLE


async def test_a_stall_is_caught_up_whole_in_bounded_batches_while_others_get_their_turn():
    clock = ManualClock()
    source = SimulatedSource(clock=clock, **SMALL)
    clock.us += 30 * SECOND
    turns, events = 0, []

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        busy = group.create_task(others())
        async for event in source.batches():
            events.append(event)
            if event[1].column("known_at")[-1].value > clock.us - SECOND // 10 and event[0] == "quotes":
                break
        busy.cancel()
    assert tables(events) == tables(small().events(clock.us))
    assert turns >= 29
    spans = [batch.column("time").view(pa.int64()).to_numpy() for _, batch in events]
    assert max(span[-1] - span[0] for span in spans) < SECOND


async def test_what_a_failing_reader_leaves_behind_comes_after_the_restart():
    clock = ManualClock()
    source = SimulatedSource(clock=clock, **SMALL)
    clock.us += 4 * SECOND
    events = []
    async with aclosing(source.batches()) as stream:
        events.append(await anext(stream))
    async with aclosing(source.batches()) as stream:
        events += await take(stream, 0.25, rows_of(WHOLE.values()) - events[0][1].num_rows)
    assert tables(events) == WHOLE


async def test_the_stream_keeps_pace_with_the_system_clock():
    source = SimulatedSource(rate=1000.0, instruments=50, minutes=0, days=0, origin=time.time_ns() // 1000)

    async def typical_gap() -> float:
        """Between what comes within a second."""
        arrivals, end = [], time.monotonic() + 1.0
        async with aclosing(source.batches()) as stream:
            async for _, batch in stream:
                arrivals.append(time.monotonic())
                assert batch.column("known_at")[-1].value <= source.clock.now_us()
                if arrivals[-1] > end:
                    break
        gaps = [after - before for before, after in pairwise(arrivals)]
        return float(np.median([gap for gap in gaps if gap > 0.01] or [1.0]))

    # A second in which others had the cores says nothing about the source; one out of several is its own.
    for _ in range(20):
        if (gap := await typical_gap()) < 0.2:
            break
    assert gap < 0.2, "a screen should see it move smoothly"


def test_a_full_session_costs_less_than_three_percent_of_a_core():
    source = SimulatedSource(origin=ORIGIN)
    source.events(ORIGIN)
    started = time.thread_time()  # what other threads do does not count
    for until in range(ORIGIN, ORIGIN + MINUTE, 100_000):
        source.events(until)
    assert time.thread_time() - started < 0.03 * 60


def test_the_past_is_made_quickly(market):
    started = time.thread_time()
    list(market.history())
    # 0.15 s on a desk; the bound leaves room for a slow machine.
    assert time.thread_time() - started < 1.0
