"""The right bars of each exchange's day: half days, clocks that change, lunch, nights, and days without an end."""

import asyncio
from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np
import pandas as pd
import pytest

from marketdash.calendars import OVERNIGHT, REGULAR
from marketdash.clock import to_us
from marketdash.instruments import Instrument, Universe
from marketdash.pipeline import Graph
from marketdash.schema import SESSIONS, WIDTHS, conform

CALENDARS = ("XNYS", "XLON", "XHKG", "XBOM", "24/7", "CMES")
UNIVERSE = Universe(Instrument(i, name, calendar=name) for i, name in enumerate(CALENDARS))
STRETCHES = [
    ("2018-03-08", "2018-03-14"),  # New York's clocks go forward on the 11th
    ("2018-03-22", "2018-03-28"),  # London's on the 25th
    ("2018-11-02", "2018-11-10"),  # New York's go back on the 4th; Diwali in Bombay on the 7th and 8th
    ("2018-11-20", "2018-11-28"),  # Thanksgiving, and the half day after it
    ("2018-12-21", "2018-12-29"),  # Christmas
    ("2022-06-16", "2022-06-23"),  # Juneteenth is kept on the 20th
]
ZONES = {name: exchange_calendars.get_calendar(name).tz for name in CALENDARS}


def run(make: Any) -> Any:
    async def main() -> Any:
        return make()

    return asyncio.run(main())


@pytest.fixture(scope="module")
def graph() -> Graph:
    """One market of all these exchanges, with a trade of each in every minute, day and night."""
    minutes = np.concatenate([np.arange(to_us(first), to_us(last), 60_000_000) for first, last in STRETCHES])
    times = np.repeat(minutes + 30_000_000, len(CALENDARS))
    number = np.repeat(np.arange(len(minutes)), len(CALENDARS))
    batch = conform(
        "ticks",
        {
            "time": pd.to_datetime(times, unit="us", utc=True),
            "known_at": pd.to_datetime(times, unit="us", utc=True),
            "instrument_id": np.tile(np.arange(len(CALENDARS), dtype=np.int32), len(minutes)),
            "price": 1000.0 + number / 64,
            "size": np.ones(len(times)),
        },
    )

    def make() -> Graph:
        graph = Graph(UNIVERSE, finest="15min")
        for start in range(0, batch.num_rows, 10_000):
            graph.push("ticks", batch.slice(start, 10_000))
        return graph

    return run(make)


def bars(graph: Graph, name: str, width: str) -> pd.DataFrame:
    found = graph.store.bars(UNIVERSE.id(name), width)
    fields = ("time", "end", "open", "high", "low", "close", "volume", "count", "session", "day")
    return pd.DataFrame({field: getattr(found, field) for field in fields})


def local(us: int, name: str, form: str = "%H:%M") -> str:
    return pd.Timestamp(us, unit="us", tz="UTC").tz_convert(ZONES[name]).strftime(form)


def day_of(graph: Graph, name: str, width: str, day: str) -> list[str]:
    """The sessions of a trading day but the nights: first and last bar by the exchange's clock, and how many."""
    rows = bars(graph, name, width)
    rows = rows[(rows["day"] == to_us(day) // 86_400_000_000) & (rows["session"] != OVERNIGHT)]
    parts = []
    for _, part in rows.groupby((rows["session"].diff().fillna(0) != 0).cumsum()):
        first, last = part.iloc[0], part.iloc[-1]
        edges = [local(us, name) for us in (first["time"], first["end"], last["time"], last["end"])]
        session = SESSIONS[int(first["session"])]
        parts.append(f"{session} {edges[0]}-{edges[1]} … {edges[2]}-{edges[3]} {len(part)}")
    return parts


NEW_YORK = [
    "pre 04:00-05:00 … 09:00-09:30 6", "regular 09:30-10:00 … 15:00-16:00 7", "post 16:00-17:00 … 19:00-20:00 4",
]  # fmt: skip
LONDON, HONG_KONG = ["regular 08:00-09:00 … 16:00-16:30 9"], ["regular 09:30-10:00 … 15:00-16:00 6"]
COIN, CHICAGO = ["regular 00:00-01:00 … 23:00-00:00 24"], ["regular 17:00-18:00 … 16:00-17:00 24"]
HOURS = {
    ("XNYS", "2018-03-09"): NEW_YORK,
    ("XNYS", "2018-03-12"): NEW_YORK,
    ("XNYS", "2018-11-02"): NEW_YORK,
    ("XNYS", "2018-11-05"): NEW_YORK,
    ("XNYS", "2018-11-22"): [],
    ("XNYS", "2018-11-23"): [
        "pre 04:00-05:00 … 09:00-09:30 6", "regular 09:30-10:00 … 12:00-13:00 4",
        "post 13:00-14:00 … 16:00-17:00 4",
    ],
    ("XNYS", "2018-11-26"): NEW_YORK,
    ("XNYS", "2022-06-20"): [],
    ("XNYS", "2022-06-21"): NEW_YORK,
    ("XLON", "2018-03-12"): LONDON,
    ("XLON", "2018-03-23"): LONDON,
    ("XLON", "2018-03-26"): LONDON,
    ("XLON", "2018-12-24"): ["regular 08:00-09:00 … 12:00-12:30 5"],
    ("XLON", "2018-12-26"): [],
    ("XLON", "2018-12-27"): LONDON,
    ("XHKG", "2018-11-23"): HONG_KONG,
    ("XHKG", "2018-12-24"): ["regular 09:30-10:00 … 11:00-12:00 3"],
    ("XHKG", "2018-12-27"): HONG_KONG,
    ("XBOM", "2018-11-06"): ["regular 09:15-10:00 … 15:00-15:30 7"],
    ("XBOM", "2018-11-07"): [],
    ("24/7", "2018-03-11"): COIN,
    ("24/7", "2018-03-25"): COIN,
    ("24/7", "2018-11-04"): COIN,
    ("24/7", "2018-12-25"): COIN,
    ("CMES", "2018-03-12"): CHICAGO,
    ("CMES", "2018-11-05"): CHICAGO,
    ("CMES", "2018-11-22"): ["regular 17:00-18:00 … 11:00-12:00 19"],
    ("CMES", "2018-11-26"): CHICAGO,
}  # fmt: skip
QUARTERS = {
    ("XNYS", "2018-11-23"): [
        "pre 04:00-04:15 … 09:15-09:30 22", "regular 09:30-09:45 … 12:45-13:00 14",
        "post 13:00-13:15 … 16:45-17:00 16",
    ],
    ("XLON", "2018-03-26"): ["regular 08:00-08:15 … 16:15-16:30 34"],
    ("XHKG", "2018-11-23"): ["regular 09:30-09:45 … 15:45-16:00 22"],
    ("XBOM", "2018-11-09"): ["regular 09:15-09:30 … 15:15-15:30 25"],
    ("CMES", "2018-11-23"): ["regular 17:00-17:15 … 11:45-12:00 76"],
}  # fmt: skip
# By the clocks of Greenwich, where a change of the exchange's own is seen.
DAYS = {
    ("XNYS", "2018-03-09"): "09 14:30 … 09 21:00",
    ("XNYS", "2018-03-12"): "12 13:30 … 12 20:00",
    ("XLON", "2018-03-12"): "12 08:00 … 12 16:30",
    ("XLON", "2018-03-26"): "26 07:00 … 26 15:30",
    ("XNYS", "2018-11-02"): "02 13:30 … 02 20:00",
    ("XNYS", "2018-11-05"): "05 14:30 … 05 21:00",
    ("XNYS", "2018-11-23"): "23 14:30 … 23 18:00",
    ("XLON", "2018-12-24"): "24 08:00 … 24 12:30",
    ("XHKG", "2018-12-24"): "24 01:30 … 24 04:00",
    ("XBOM", "2018-11-09"): "09 03:45 … 09 10:00",
    ("24/7", "2018-11-04"): "04 00:00 … 05 00:00",
    ("CMES", "2018-03-09"): "08 23:00 … 09 23:00",
    ("CMES", "2018-03-12"): "11 22:00 … 12 22:00",
    ("CMES", "2018-11-23"): "22 23:00 … 23 18:00",
}


@pytest.mark.parametrize(("name", "day"), HOURS)
def test_a_day_has_the_hours_of_its_exchange_by_its_own_clock(graph: Graph, name: str, day: str):
    assert day_of(graph, name, "1h", day) == HOURS[name, day]


@pytest.mark.parametrize(("name", "day"), QUARTERS)
def test_a_day_has_the_quarters_of_an_hour_of_its_exchange(graph: Graph, name: str, day: str):
    assert day_of(graph, name, "15min", day) == QUARTERS[name, day]


@pytest.mark.parametrize(("name", "day"), DAYS)
def test_a_daily_bar_has_the_trades_of_its_exchanges_day_and_no_others(graph: Graph, name: str, day: str):
    rows = bars(graph, name, "1d")
    (row,) = rows[rows["day"] == to_us(day) // 86_400_000_000].to_dict("records")
    times = [pd.Timestamp(row[edge], unit="us") for edge in ("time", "end")]
    assert " … ".join(f"{time:%d %H:%M}" for time in times) == DAYS[name, day]
    minutes = (row["end"] - row["time"]) // 60_000_000
    lunch = 60 if name == "XHKG" and minutes > 200 else 0
    assert (row["count"], row["volume"]) == (minutes - lunch, minutes - lunch)
    assert row["close"] - row["open"] == (minutes - 1) / 64
    assert (row["low"], row["high"]) == (row["open"], row["close"])


@pytest.mark.parametrize("name", CALENDARS)
def test_an_exchange_has_a_daily_bar_for_each_of_its_days_and_none_else(graph: Graph, name: str):
    exchange, rows = exchange_calendars.get_calendar(name), bars(graph, name, "1d")
    expected = [
        day for first, last in STRETCHES for day in exchange.sessions_in_range(first, last)
        if to_us(first) <= to_us(exchange.session_close(day)) and to_us(exchange.session_open(day)) < to_us(last)
    ]  # fmt: skip
    assert [pd.Timestamp(day, unit="D") for day in rows["day"]] == expected
    assert (rows["session"] == REGULAR).all()


@pytest.mark.parametrize("name", CALENDARS)
@pytest.mark.parametrize("width", ["15min", "1h"])
def test_no_bar_straddles_a_session_and_no_minute_is_lost(graph: Graph, name: str, width: str):
    rows = bars(graph, name, width)
    starts, ends = rows["time"].to_numpy(), rows["end"].to_numpy()
    assert (ends - starts <= WIDTHS[width]).all()
    assert (starts[1:] >= ends[:-1]).all()
    # There is a trade in each minute of each stretch, which may begin within a bar.
    minutes = np.zeros(len(rows), np.int64)
    for first, last in STRETCHES:
        minutes += (
            np.maximum(np.minimum(ends, to_us(last)) - np.maximum(starts, to_us(first)), 0) // 60_000_000
        )
    assert (rows["count"] == minutes).all()
    schedule = exchange_calendars.get_calendar(name).schedule.loc["2018-03-01":"2022-07-01"]
    for edge in ("open", "break_start", "break_end", "close"):
        for moment in (to_us(time) for time in schedule[edge].dropna()):
            assert not ((starts < moment) & (moment < ends)).any(), f"{edge} at {moment}"


def test_an_hour_that_is_there_twice_has_two_bars_and_one_that_is_not_has_none(graph: Graph):
    """Half past one in the night of 4 November comes twice in Chicago; half past two on 11 March never."""
    for name in ("CMES", "XNYS"):
        rows = bars(graph, name, "1h")
        hours = [local(int(us), name, "%m-%d %H:%M") for us in rows["time"]]
        assert hours.count("11-04 01:00") == 2
        assert hours.count("03-11 02:00") == 0
        assert hours.count("03-11 03:00") == 1


def test_an_evening_that_the_calendar_does_not_know_is_a_night_of_no_daily_bar(graph: Graph):
    """The hour of muhurat trading on Diwali belongs to the day that follows, as an overnight session."""
    rows = bars(graph, "XBOM", "1h")
    evening = rows[(rows["time"] >= to_us("2018-11-07 12:00")) & (rows["time"] < to_us("2018-11-07 13:00"))]
    assert set(evening["session"]) == {OVERNIGHT}
    assert set(evening["day"]) == {to_us("2018-11-09") // 86_400_000_000}
    daily = bars(graph, "XBOM", "1d")
    friday = daily[daily["day"] == to_us("2018-11-09") // 86_400_000_000].iloc[0]
    assert friday["count"] == 375


# ---- real days


def folded(rows: pd.DataFrame, name: str, width: str) -> pd.DataFrame:
    """Ready-made bars folded by pandas and the exchange's schedule; `rows` are indexed by their start."""
    exchange = exchange_calendars.get_calendar(name)
    schedule = exchange.schedule.loc[str(rows.index[0].date()) : str(rows.index[-1].date())]
    edges = [schedule[edge].dropna() for edge in ("open", "break_start", "break_end", "close")]
    if name == "XNYS":
        days = schedule.index.tz_localize("America/New_York")
        edges += [pd.Series(days + pd.Timedelta(hours=hour)) for hour in (4, 20)]
    starts = pd.DatetimeIndex(sorted({time.tz_convert("UTC") for edge in edges for time in edge})).as_unit(
        "us"
    )
    if width == "1d":
        place = pd.DatetimeIndex(schedule["close"]).searchsorted(rows.index, side="right")
        place = np.minimum(place, len(schedule) - 1)
        opened = pd.DatetimeIndex(schedule["open"].iloc[place])
        inside = (rows.index >= opened) & (rows.index < pd.DatetimeIndex(schedule["close"].iloc[place]))
        rows, key = rows[inside], opened[inside]
    else:
        wall = rows.index.tz_convert(exchange.tz).tz_localize(None)
        floor = rows.index - (wall - wall.floor(width))
        last = starts[np.maximum(starts.searchsorted(rows.index, side="right") - 1, 0)]
        key = floor.where(last > rows.index, np.maximum(floor, last))
    return rows.groupby(pd.DatetimeIndex(key).as_unit("us").asi8).agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )


def assert_folded(rows: pd.DataFrame, name: str, given: str, tz: str = "UTC") -> dict[str, pd.DataFrame]:
    """Give the bars to a graph, in batches, and compare the wider ones; returns those."""
    length = pd.Timedelta(microseconds=WIDTHS[given])
    columns = rows.reset_index(names="time").assign(instrument_id=0, width=given)
    batch = conform("bars", columns.assign(known_at=columns["time"] + length))

    def make() -> Graph:
        graph = Graph(Universe([Instrument(0, name, calendar=name)]), finest=given)
        for start in range(0, batch.num_rows, 97):
            graph.push("bars", batch.slice(start, 97))
        return graph

    graph, shown = run(make), {}
    for width in ("15min", "1h", "1d"):
        found = graph.store.bars(0, width)
        fields = ("open", "high", "low", "close", "volume", "session", "end", "day")
        shown[width] = pd.DataFrame({field: getattr(found, field) for field in fields}, index=found.time)
        expected = folded(rows, name, width)
        np.testing.assert_array_equal(shown[width].index, expected.index, f"starts of {width} of {name}")
        np.testing.assert_array_equal(shown[width][expected.columns], expected, f"{width} of {name}")
    return shown


@pytest.mark.parametrize(("file", "name"), [("AZN.L_T5", "XLON"), ("9988.HK_T5", "XHKG")])
def test_five_minutes_of_london_and_hong_kong_fold_into_their_exchanges_hours(
    real_data: Path, file: str, name: str
):
    path = real_data / f"c_intraday_1min/market_prices_multi_exchange/{file}.csv.gz"
    rows = pd.read_csv(path, parse_dates=["date"], index_col="date")
    rows.index = pd.DatetimeIndex(rows.index).as_unit("us")
    assert rows.index.is_monotonic_increasing
    shown = assert_folded(rows, name, "5min")
    sessions = exchange_calendars.get_calendar(name).sessions_in_range("2022-04-19", "2022-06-15")
    assert len(shown["1d"]) == len(sessions)
    assert (shown["1h"]["session"] == REGULAR).all()


@pytest.mark.parametrize("symbol", ["NVDA", "AAPL", "INTC"])
def test_minutes_before_and_after_hours_fold_into_their_own_sessions(real_data: Path, symbol: str):
    path = real_data / f"c_intraday_1min/fl4bb0_us_tech_2025-01/{symbol}.csv.gz"
    rows = pd.read_csv(path, parse_dates=["timestamp"], index_col="timestamp")
    rows.index = pd.DatetimeIndex(rows.index).as_unit("us")
    shown = assert_folded(rows, "XNYS", "1min")
    hours = shown["1h"]
    assert set(hours["session"]) == {SESSIONS.index(name) for name in ("pre", "regular", "post")}
    wall = pd.to_datetime(hours.index, unit="us", utc=True).tz_convert("America/New_York")
    assert set(wall[hours["session"] == REGULAR].strftime("%H:%M")) == {
        "09:30", "10:00", "11:00", "12:00", "13:00", "14:00", "15:00"
    }  # fmt: skip
    assert [day for day in shown["1d"]["day"] if day == to_us("2025-01-09") // 86_400_000_000] == []
    assert len(shown["1d"]) == 20
    assert shown["1d"]["volume"].sum() < rows["volume"].sum()


def test_minutes_of_a_coin_fold_into_days_of_greenwich(real_data: Path):
    path = real_data / "d_ticks/lean/crypto_coinbase_minute/btcusd/20171217_trade.zip"
    rows = pd.read_csv(path, header=None, names=["ms", "open", "high", "low", "close", "volume"])
    rows.index = pd.DatetimeIndex(
        pd.Timestamp("2017-12-17", tz="UTC") + pd.to_timedelta(rows.pop("ms"), unit="ms")
    ).as_unit("us")
    # Fractions of a coin: a sum is the one that exact arithmetic gives, which pandas' own need not be.
    thousands = rows.assign(volume=(rows["volume"] * 2**20).round() / 2**20)
    shown = assert_folded(thousands, "24/7", "1min")
    assert [len(shown[width]) for width in ("15min", "1h", "1d")] == [96, 24, 1]
    assert shown["1d"]["end"].tolist() == [to_us("2017-12-18")]
