"""Bars are what a plain pandas computation of the same trades gives, row for row."""

from collections.abc import Iterable

import exchange_calendars
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.clock import to_us
from marketdash.frames import BarStore, LastPrices
from marketdash.frames.bars import FIRST_CAPACITY, RECORD
from marketdash.instruments import Universe
from marketdash.pipeline.bars import BuildBars, BuildTicks
from marketdash.pipeline.clean import Clean
from marketdash.pipeline.clean_ticks import CleanTicks
from marketdash.pipeline.last import UpdateLast
from marketdash.pipeline.sessions import SessionTable
from marketdash.schema import WIDTHS, conform
from marketdash.testing.golden import few_instruments, golden, random_bars, random_ticks

COLUMNS = ["open", "high", "low", "close", "volume", "vwap", "count"]


class Bench:
    """The steps from raw rows to bars and last prices, without the wiring."""

    def __init__(
        self, universe: Universe, widths: Iterable[str] = tuple(WIDTHS), limit: int | None = None
    ) -> None:
        self.universe, table = universe, SessionTable(universe)
        self.store, self.last = BarStore(len(universe), tuple(widths)), LastPrices(len(universe))
        if limit is not None:
            self.store.limits[self.store.limits > 0] = limit
            for ring in self.store.rings.values():
                ring.limit = limit
                ring.lie_in(np.empty((len(universe), 0, RECORD), np.int64))
            self.store._lay_out({width: min(FIRST_CAPACITY, limit) for width in self.store.widths})
        self.clean = {topic: Clean(table, topic, self.store.widths) for topic in ("quotes", "bars")}
        ticks = self.clean["ticks"] = CleanTicks(table)
        self.build = {"ticks": BuildTicks(self.store, self.last, ticks), "bars": BuildBars(table, self.store)}
        self.update = {topic: UpdateLast(table, self.last, topic) for topic in ("quotes", "bars")}

    def push(self, topic: str, rows: object, size: int = 1000) -> "Bench":
        batch = conform(topic, rows)
        for start in range(0, batch.num_rows, size):
            part = self.clean[topic](batch.slice(start, size))
            if part is not None and topic != "quotes":
                self.build[topic](part)
            if part is not None and topic in self.update:
                self.update[topic](part)
        return self

    def bars(self, symbol: str, width: str) -> pd.DataFrame:
        bars = self.store.bars(self.universe.id(symbol), width)
        columns = {
            name: getattr(bars, name) for name in [*COLUMNS, "end", "revision", "given", "day", "known"]
        }
        return pd.DataFrame(columns, index=pd.to_datetime(bars.time, unit="us", utc=True))


def plain(ticks: pd.DataFrame, calendar: str, width: str) -> pd.DataFrame:
    """Bars by pandas and the exchange's published schedule; what is late is put in its place first."""
    ticks = ticks.sort_values("time", kind="stable", ignore_index=True)
    exchange = exchange_calendars.get_calendar(calendar)
    schedule = exchange.schedule.loc["2010":"2026"]
    day = schedule["close"].searchsorted(ticks["time"], side="right")
    opened, _closed = (
        schedule["open"].iloc[day].reset_index(drop=True),
        schedule["close"].iloc[day].reset_index(drop=True),
    )
    if width == "1d":
        lunch, back = (
            schedule[name].iloc[day].reset_index(drop=True) for name in ("break_start", "break_end")
        )
        regular = (ticks["time"] >= opened) & ~((ticks["time"] >= lunch) & (ticks["time"] < back))
        ticks, start = ticks[regular], opened[regular]
    else:
        local = ticks["time"].dt.tz_convert(exchange.tz).dt.tz_localize(None)
        start = ticks["time"] - (local - local.dt.floor(width))
        # A bar does not reach back over the open, nor over the close before it.
        before = schedule["close"].iloc[day - 1].reset_index(drop=True)
        edges = [
            before,
            opened.where(opened <= ticks["time"]),
            *(
                schedule[name]
                .iloc[day]
                .reset_index(drop=True)
                .pipe(lambda edge: edge.where(edge <= ticks["time"]))
                for name in ("break_start", "break_end")
            ),
        ]
        start = pd.concat([start, *edges], axis=1).max(axis=1)
    groups = ticks.assign(turnover=ticks["price"] * ticks["size"]).groupby(
        pd.DatetimeIndex(start).as_unit("us").asi8
    )
    bars = groups.agg(
        open=("price", "first"), high=("price", "max"), low=("price", "min"), close=("price", "last"),
        volume=("size", "sum"), turnover=("turnover", "sum"), count=("price", "size"),
    )  # fmt: skip
    bars["vwap"] = (bars.pop("turnover") / bars["volume"]).where(bars["volume"] > 0)
    bars.index = pd.to_datetime(bars.index, unit="us", utc=True).as_unit("us")
    return bars[COLUMNS]


def assert_bars(actual: pd.DataFrame, expected: pd.DataFrame, where: str = "") -> None:
    pd.testing.assert_frame_equal(
        actual[COLUMNS], expected, check_exact=True, check_names=False, check_freq=False, obj=f"bars {where}"
    )


def test_all_widths_of_half_a_million_futures_trades_equal_a_plain_computation():
    log = golden("es-2013-09-ticks")
    ticks = log.topics["ticks"].to_pandas()
    expected = {width: plain(ticks, "CMES", width) for width in WIDTHS}
    for size in (1000, 100_000):
        bench = Bench(log.universe, limit=200_000).push("ticks", log.topics["ticks"], size)
        for width in WIDTHS:
            bars = bench.bars("ES", width)
            assert_bars(bars, expected[width], width)
            assert (bars["revision"] == 0).all()
    assert bench.bars("ES", "1d")["volume"].sum() == ticks["size"].sum()
    assert len(bench.bars("ES", "1s")) > 20_000


CALENDARS = {
    "XNYS": "2018-11-23",  # a half day, with trading before and after
    "XLON": "2018-10-26",  # the Friday before clocks change, and the Monday after
    "XHKG": "2018-11-23",  # a lunch break
    "XBOM": "2018-11-22",  # half an hour off; the 23rd is a holiday
    "24/7": "2018-11-24",
    "CMES": "2018-11-22",  # Thanksgiving
}


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("seed", range(2))
def test_random_trades_late_ones_included_give_the_bars_of_the_sorted_trades(calendar: str, seed: int):
    start = pd.Timestamp(CALENDARS[calendar], tz="UTC")
    universe = few_instruments(2, (calendar,))
    ticks = random_ticks(universe, start, start + pd.Timedelta(days=4), 20_000, seed)
    if calendar == "XNYS":  # its sessions before and after hours are ours, not the schedule's
        keep = exchange_calendars.get_calendar("XNYS").schedule.loc["2018-11-20":"2018-11-30"]
        inside = [((ticks["time"] >= day.open) & (ticks["time"] < day.close)) for day in keep.itertuples()]
        ticks = ticks[np.logical_or.reduce(inside)].reset_index(drop=True)
    bench = Bench(universe, limit=50_000).push("ticks", ticks, 313)
    for width in WIDTHS:
        for i, symbol in enumerate(universe.symbols):
            mine = ticks[ticks["instrument_id"] == i]
            assert_bars(bench.bars(symbol, width), plain(mine, calendar, width), f"{width} on {calendar}")
    assert bench.build["ticks"].late[0] > 100, "no late trade came"
    assert bench.build["ticks"].late[1] == 0


PRINTS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=120
)


@settings(deadline=None, max_examples=60)
@given(prints=PRINTS, limit=st.sampled_from([3, 7, 1000]), size=st.sampled_from([1, 5, 1000]))
def test_a_full_ring_keeps_exactly_the_last_bars(prints: list[tuple[int, int, int]], limit: int, size: int):
    """In whatever order trades come: what a ring has no room for any more is as if it had never come."""
    universe = few_instruments(1, ("24/7",))
    start = to_us("2018-11-24 10:00")
    ticks = pd.DataFrame(prints, columns=["second", "price", "size"]).astype(float)
    ticks["time"] = pd.to_datetime(
        start + ticks.pop("second").astype("int64") * 1_000_000, unit="us", utc=True
    )
    ticks["instrument_id"], ticks["known_at"] = 0, ticks["time"].max()
    bench = Bench(universe, ("1s", "1min"), limit=limit).push("ticks", ticks, size)
    model: dict[int, list[tuple[int, int]]] = {}
    for order, (second, price, quantity) in enumerate(prints):
        if second not in model and len(model) == limit and second < min(model):
            continue
        model.setdefault(second, []).append((order, price, quantity))
        if len(model) > limit:
            del model[min(model)]
    bars = bench.bars("A0", "1s")
    assert [(us.value // 1000 - start) // 1_000_000 for us in bars.index] == sorted(model)
    for (_, bar), second in zip(bars.iterrows(), sorted(model), strict=True):
        prices = [price for _, price, _ in model[second]]
        assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (
            prices[0],
            max(prices),
            min(prices),
            prices[-1],
        )
        assert bar["volume"] == sum(quantity for *_, quantity in model[second])


def test_rings_grow_to_their_limit_and_then_wrap():
    universe = few_instruments(3, ("24/7",))
    seconds = np.arange(700)
    time = pd.to_datetime(to_us("2018-11-24 10:00") + seconds * 1_000_000, unit="us", utc=True)
    bench = Bench(universe, ("1s", "5s"), limit=256)
    for i in (0, 2):  # one of three stays empty
        bench.push(
            "ticks",
            {"time": time, "instrument_id": np.full(700, i), "price": seconds + 1.0, "size": np.ones(700)},
            50,
        )
    ring = bench.store.ring("1s")
    assert ring.capacity == 256
    assert ring.total.tolist() == [700, 0, 700]
    bars = bench.store.bars(0, "1s")
    assert bars.number == 444
    assert bars.close.tolist() == (seconds[-256:] + 1.0).tolist()
    assert bench.store.bars(0, "5s").volume.tolist() == [5.0] * 140
    assert not len(bench.store.bars(1, "1s"))
    assert bench.build["ticks"].late.tolist() == [0, 0]


def test_a_late_bar_is_inserted_and_one_that_is_too_late_is_counted():
    universe = few_instruments(1, ("24/7",))
    bench = Bench(universe, ("1min",), limit=4)

    def tick(minute: int) -> None:
        bench.push(
            "ticks",
            {"time": [stamp(minute)], "known_at": [stamp(60)], "instrument_id": [0], "price": [1.0 + minute]},
        )

    def minutes() -> list[int]:
        return [time.minute for time in bench.bars("A0", "1min").index]

    for minute in (10, 12, 14):
        tick(minute)
    tick(13)
    assert minutes() == [10, 12, 13, 14]
    tick(11)  # the ring is full: the oldest makes room, even for one that is not the newest
    assert minutes() == [11, 12, 13, 14]
    tick(10)
    assert minutes() == [11, 12, 13, 14]
    assert bench.build["ticks"].late.tolist() == [0, 1]


def test_a_trade_is_too_late_only_if_no_width_has_its_bar_any_more():
    bench = Bench(few_instruments(1, ("24/7",)), ("1s", "1h"), limit=3)
    rows = [(stamp(0, second), stamp(0, second)) for second in range(5)] + [(stamp(0, 0.5), stamp(1))]
    time, known = zip(*rows, strict=True)
    bench.push("ticks", {"time": time, "known_at": known, "instrument_id": [0] * 6, "price": [1.0] * 6})
    assert bench.bars("A0", "1h")["count"].tolist() == [6]
    assert bench.bars("A0", "1s")["count"].tolist() == [1, 1, 1]
    assert bench.build["ticks"].late[1] == 0


def stamp(minute: int, second: float = 0) -> pd.Timestamp:
    return pd.Timestamp("2018-11-24 10:00", tz="UTC") + pd.Timedelta(minutes=minute, seconds=second)


def test_a_late_trade_revises_its_bar_and_takes_its_place_in_the_wider_ones():
    bench = Bench(few_instruments(1, ("24/7",)))
    rows = [  # happened, known, price
        (stamp(0, 30), stamp(0, 30), 10.0),
        (stamp(1, 10), stamp(1, 10), 11.0),
        (stamp(0, 50), stamp(1, 20), 20.0),  # late, and higher: the close of its minute
        (stamp(0, 5), stamp(1, 30), 5.0),  # later still, and lower: its open
    ]
    time, known, price = zip(*rows, strict=True)
    bench.push(
        "ticks",
        {"time": time, "known_at": known, "instrument_id": [0] * 4, "price": price, "size": [1.0] * 4},
    )
    first, second = bench.bars("A0", "1min").to_dict("records")
    assert [first[name] for name in ("open", "high", "low", "close", "count", "revision")] == [
        5,
        20,
        5,
        20,
        3,
        2,
    ]
    assert (second["close"], second["revision"]) == (11.0, 0)
    (wide,) = bench.bars("A0", "1d").to_dict("records")
    assert [wide[name] for name in ("open", "high", "low", "close", "revision")] == [5, 20, 5, 11, 0]
    assert bench.last.prices("last").tolist() == [11.0], "an older trade must not move the last price"
    assert bench.build["ticks"].late.tolist() == [2, 0]


def test_a_trade_that_is_known_after_the_newest_bar_has_ended_revises_that_bar():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min", "1h"))
    for known in (stamp(0, 30), stamp(2)):
        bench.push(
            "ticks", {"time": [stamp(0, 30)], "known_at": [known], "instrument_id": [0], "price": [1.0]}
        )
    assert bench.bars("A0", "1min")["revision"].tolist() == [1]
    assert bench.bars("A0", "1h")["revision"].tolist() == [0]


def test_a_trade_without_a_size_counts_as_a_trade_of_no_size():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min",))
    bench.push(
        "ticks",
        {
            "time": [stamp(0)] * 3,
            "instrument_id": [0] * 3,
            "price": [1.0, 2.0, 3.0],
            "size": [None, 5.0, None],
        },
    )
    (bar,) = bench.bars("A0", "1min").to_dict("records")
    assert (bar["volume"], bar["vwap"], bar["count"]) == (5.0, 2.0, 3)


# ---- sessions


@pytest.mark.parametrize(
    ("calendar", "times", "width", "expected"),
    [
        # A half day: the bar before the close ends there, and what follows is another session.
        ("XNYS", ["2018-11-23 17:55", "2018-11-23 18:05"], "1h", [("12:00", "13:00"), ("13:00", "14:00")]),
        # From 9:00 on it is pre-market; the regular session begins at 9:30 with a bar of half an hour.
        ("XNYS", ["2018-11-21 14:10", "2018-11-21 14:40"], "1h", [("09:00", "09:30"), ("09:30", "10:00")]),
        ("XNYS", ["2018-11-21 20:59", "2018-11-21 21:01"], "1d", [("09:30", "16:00")]),
        ("XHKG", ["2018-11-23 03:50", "2018-11-23 05:10"], "1h", [("11:00", "12:00"), ("13:00", "14:00")]),
        ("XHKG", ["2018-11-23 03:50", "2018-11-23 04:30", "2018-11-23 05:10"], "1d", [("09:30", "16:00")]),
        # Local hours, five and a half ahead of Greenwich.
        ("XBOM", ["2018-11-22 04:31", "2018-11-22 05:01"], "1h", [("10:00", "11:00")]),
        ("XLON", ["2018-10-26 15:20", "2018-10-29 16:20"], "1h", [("16:00", "16:30"), ("16:00", "16:30")]),
        ("24/7", ["2018-11-24 23:59", "2018-11-25 00:01"], "1d", [("00:00", "00:00"), ("00:00", "00:00")]),
        # The Chicago day begins at 17:00 of the evening before.
        ("CMES", ["2018-11-20 22:30", "2018-11-20 23:30", "2018-11-21 21:59"], "1d", [("17:00", "17:00")] * 2),
    ],
)  # fmt: skip
def test_a_bar_never_straddles_the_end_of_a_session(calendar: str, times: list, width: str, expected: list):
    universe = few_instruments(1, (calendar,))
    bench = Bench(universe)
    ticks = pd.DataFrame({"time": pd.to_datetime(times, utc=True), "instrument_id": 0, "price": 1.0})
    bars = bench.push("ticks", ticks).bars("A0", width)
    tz = exchange_calendars.get_calendar(calendar).tz
    ends = pd.to_datetime(bars["end"], unit="us", utc=True)
    shown = [
        (f"{start.tz_convert(tz):%H:%M}", f"{end.tz_convert(tz):%H:%M}")
        for start, end in zip(bars.index, ends, strict=True)
    ]
    assert shown == expected


def test_trades_before_and_after_hours_are_in_no_daily_bar():
    ticks = pd.DataFrame(
        {
            "time": pd.to_datetime(
                ["2018-11-21 13:00", "2018-11-21 15:00", "2018-11-21 22:00", "2018-11-22 02:00"], utc=True
            ),
            "instrument_id": 0,
            "price": [1.0, 2.0, 3.0, 4.0],
            "size": 1.0,
        }
    )
    bench = Bench(few_instruments(1, ("XNYS",))).push("ticks", ticks)
    assert bench.bars("A0", "1d")["close"].tolist() == [2.0]
    assert bench.bars("A0", "1h")["close"].tolist() == [1.0, 2.0, 3.0, 4.0]


# ---- ready-made bars


def bar(
    minute: int,
    price: float,
    *,
    width: str = "1min",
    volume: float = 10.0,
    known: float | None = None,
    **more: object,
) -> dict:
    length = pd.Timedelta(microseconds=WIDTHS[width])
    row = {
        "time": stamp(minute),
        "known_at": stamp(known) if known is not None else stamp(minute) + length,
        "instrument_id": 0, "width": width, "open": price, "high": price + 1, "low": price - 0.5,
        "close": price + 0.25, "volume": volume, "vwap": price, "count": 2,
    }  # fmt: skip
    return row | more


def test_ready_made_bars_fold_into_the_wider_widths():
    universe = few_instruments(3, ("XNYS", "XHKG"))
    bars = random_bars(universe, "1min", "2018-11-21 00:00", "2018-11-23 23:00", seed=7, missing=0.3)
    bars = bars.drop_duplicates(["instrument_id", "time"]).sort_values("known_at")
    bench = Bench(universe, limit=5000).push("bars", bars, 777)
    for i, item in enumerate(universe):
        mine = bars[bars["instrument_id"] == i].set_index("time").sort_index()
        for width in ("5min", "15min", "1h", "1d"):
            shown = bench.bars(item.symbol, width)
            start = bench.store.bars(i, width).time
            key = start[np.searchsorted(start, mine.index.as_unit("us").asi8, side="right") - 1]
            groups = mine.assign(turnover=mine["vwap"] * mine["volume"]).groupby(key)
            expected = groups.agg(
                open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last"),
                volume=("volume", "sum"), turnover=("turnover", "sum"),
            )  # fmt: skip
            expected["vwap"] = (expected.pop("turnover") / expected["volume"]).where(expected["volume"] > 0)
            np.testing.assert_array_equal(shown[COLUMNS[:-1]], expected)
            assert (shown["count"] == -1).all()


@pytest.mark.parametrize("seed", range(4))
def test_revised_ready_made_bars_rebuild_the_wider_ones(seed: int):
    """As if the last version of each bar had been the only one."""
    universe = few_instruments(2, ("XNYS",))
    bars = random_bars(universe, "1min", "2018-11-23 14:00", "2018-11-23 19:00", seed, missing=0.1)
    final = bars.drop_duplicates(["instrument_id", "time"], keep="last")
    bench, expected = (
        Bench(universe).push("bars", bars, 100),
        Bench(universe).push("bars", final.sort_values("time")),
    )
    assert len(final) < len(bars)
    for width in ("1min", "5min", "15min", "1h", "1d"):
        for symbol in universe.symbols:
            assert_bars(bench.bars(symbol, width), expected.bars(symbol, width)[COLUMNS], width)
    assert bench.build["bars"].late[0] > 0


def test_a_wider_bar_is_corrected_when_not_all_of_its_narrower_bars_are_kept():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min", "1h"), limit=5)
    bench.push("bars", [bar(minute, 100.0 + minute) for minute in range(9)] | to_columns)
    bench.push("bars", [bar(6, 200.0, volume=15.0, known=10)] | to_columns)
    hour = bench.bars("A0", "1h").iloc[0]
    assert (hour["open"], hour["high"], hour["close"]) == (100.0, 201.0, 108.25)
    assert (hour["volume"], hour["count"]) == (95.0, 18)


class _Columns:
    """`rows | to_columns` turns a list of rows into columns."""

    def __ror__(self, rows: list[dict]) -> pd.DataFrame:
        return pd.DataFrame(rows)


to_columns = _Columns()


def test_a_ready_made_wider_bar_is_never_changed_by_narrower_ones():
    bench = Bench(few_instruments(1, ("24/7",)))
    bench.push("bars", [bar(0, 50.0, width="5min", volume=7.0)] | to_columns)
    bench.push("bars", [bar(minute, 100.0 + minute) for minute in range(6)] | to_columns)
    fives = bench.bars("A0", "5min")
    assert fives["volume"].tolist() == [7.0, 10.0]
    assert fives["given"].tolist() == [1, 0]
    # What the five-minute bar tells is in the hour already, once.
    assert bench.bars("A0", "1h")["volume"].tolist() == [17.0]
    bench.push("bars", [bar(2, 300.0, known=20)] | to_columns)
    assert bench.bars("A0", "5min")["high"].tolist() == [51.0, 106.0]
    assert bench.bars("A0", "1h")["high"].tolist() == [106.0]


def test_a_ready_made_wider_bar_takes_the_place_of_what_was_folded():
    bench = Bench(few_instruments(1, ("24/7",)))
    bench.push("bars", [bar(minute, 100.0 + minute) for minute in range(6)] | to_columns)
    bench.push("bars", [bar(0, 50.0, width="5min", volume=7.0, known=6)] | to_columns)
    assert bench.bars("A0", "5min")["volume"].tolist() == [7.0, 10.0]
    hour = bench.bars("A0", "1h").iloc[0]
    assert (hour["volume"], hour["open"], hour["high"]) == (17.0, 50.0, 106.0)


def test_a_ready_made_bar_takes_the_place_of_one_built_from_trades_and_counts_only_once():
    bench = Bench(few_instruments(1, ("24/7",)))
    times = [stamp(0, second) for second in range(0, 120, 10)]
    bench.push("ticks", {"time": times, "instrument_id": [0] * 12, "price": [100.0] * 12, "size": [1.0] * 12})
    bench.push("bars", [bar(0, 90.0, volume=50.0)] | to_columns)
    assert bench.bars("A0", "1min")["volume"].tolist() == [50.0, 6.0]
    assert bench.bars("A0", "5min")["volume"].tolist() == [56.0]
    late = {
        "time": [stamp(0, 30)],
        "known_at": [stamp(3)],
        "instrument_id": [0],
        "price": [500.0],
        "size": [1.0],
    }
    bench.push("ticks", late)
    assert bench.bars("A0", "1min")["high"].tolist() == [91.0, 100.0], "what the source has told stands"
    assert bench.bars("A0", "5min")["volume"].tolist() == [56.0]
    assert bench.bars("A0", "1s")["high"].max() == 500.0, "its second was not told"


def test_what_the_newest_ready_made_bar_tells_is_not_added_to_the_wider_ones_again():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min", "5min", "1d"))
    bench.push("bars", [bar(0, 90.0, volume=50.0)] | to_columns)
    late = {
        "time": [stamp(0, 30)],
        "known_at": [stamp(2)],
        "instrument_id": [0],
        "price": [500.0],
        "size": [1.0],
    }
    bench.push("ticks", late)
    for width in ("1min", "5min", "1d"):
        assert bench.bars("A0", width)[["high", "volume"]].to_numpy().tolist() == [[91.0, 50.0]]


def test_prints_of_the_lunch_break_stay_out_of_the_day_when_it_is_made_anew():
    bench = Bench(few_instruments(1, ("XHKG",)))
    start = pd.Timestamp("2018-11-23 03:30", tz="UTC")  # half an hour before lunch in Hong Kong
    rows = [
        bar(0, price)
        | {"time": start + pd.Timedelta(minutes=minute), "known_at": start + pd.Timedelta(minutes=known)}
        for minute, known, price in ((0, 1, 10.0), (45, 46, 99.0), (100, 101, 12.0), (0, 102, 11.0))
    ]
    bench.push("bars", rows | to_columns)
    day = bench.bars("A0", "1d").iloc[0]
    assert (day["open"], day["high"], day["close"], day["volume"]) == (11.0, 13.0, 12.25, 20.0)


def test_a_ready_made_bar_that_is_still_forming_goes_on_with_trades_after_it_was_known():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min", "1h", "1d"))
    bench.push("bars", [bar(0, 90.0, width="1h", volume=50.0, known=30)] | to_columns)
    rows = {
        "time": [stamp(20), stamp(40)],
        "known_at": [stamp(41)] * 2,
        "instrument_id": [0, 0],
        "price": [500.0, 95.0],
        "size": [1.0, 1.0],
    }
    bench.push("ticks", rows)
    hour = bench.bars("A0", "1h").iloc[0]
    assert (hour["volume"], hour["high"], hour["close"], hour["count"]) == (51.0, 95.0, 95.0, 3)


def test_a_ready_made_bar_told_again_is_no_revision_but_a_changed_one_is():
    bench = Bench(few_instruments(1, ("24/7",)), ("1min", "5min"))
    for price in (100.0, 100.0, 101.0):
        bench.push("bars", [bar(0, price)] | to_columns)
    assert bench.bars("A0", "1min")["revision"].tolist() == [1]
    assert bench.bars("A0", "5min")["open"].tolist() == [101.0]
    forming = [bar(1, 100.0 + known, known=1 + known) for known in (0.25, 0.5, 0.75)]
    bench.push("bars", forming | to_columns)
    assert bench.bars("A0", "1min")["revision"].tolist() == [1, 0], "a bar that grows is not revised"


@pytest.mark.parametrize("time", ["2018-11-21 14:30", "2018-11-21 05:00", "2018-11-21 20:59"])
def test_a_daily_bar_belongs_to_its_trading_day_at_whatever_hour_it_is_stamped(time: str):
    bench = Bench(few_instruments(1, ("XNYS",)))
    ticks = {
        "time": pd.to_datetime(["2018-11-21 15:00", "2018-11-23 15:00"], utc=True),
        "instrument_id": [0, 0],
        "price": [1.0, 2.0],
    }
    bench.push("ticks", ticks)
    daily = bar(0, 50.0, width="1d") | {
        "time": pd.Timestamp(time, tz="UTC"),
        "known_at": pd.Timestamp("2018-11-21 21:00", tz="UTC"),
    }
    bench.push("bars", [daily] | to_columns)
    days = bench.bars("A0", "1d")
    assert days["open"].tolist() == [50.0, 2.0]
    assert [str(day.date()) for day in days.index.tz_convert("America/New_York")] == [
        "2018-11-21",
        "2018-11-23",
    ]
    assert bench.last.prices("previous_close").tolist() == [50.25]


def test_bars_that_do_not_lie_on_our_grid_are_kept_as_the_source_has_them():
    bench = Bench(few_instruments(1, ("XNYS",)))
    start = pd.Timestamp("2018-11-21 14:30", tz="UTC")
    rows = [
        bar(0, 10.0 + i, width="1h")
        | {"time": start + pd.Timedelta(hours=i), "known_at": start + pd.Timedelta(hours=i + 1)}
        for i in range(2)
    ]
    bench.push("bars", rows | to_columns)
    bench.push("ticks", {"time": [start + pd.Timedelta(minutes=140)], "instrument_id": [0], "price": [9.0]})
    hours = bench.bars("A0", "1h")
    assert [f"{time:%H:%M}" for time in hours.index] == ["14:30", "15:30", "16:30"]
    assert [f"{pd.Timestamp(end, unit='us'):%H:%M}" for end in hours["end"]] == ["15:30", "16:30", "17:00"]


# ---- last prices


def test_the_previous_close_is_the_last_regular_price_of_the_day_before_in_whatever_order_it_comes():
    rows = [
        ("2018-11-20 20:00", 9.0),
        ("2018-11-20 20:59", 10.0),
        ("2018-11-20 22:00", 11.0),  # after hours
        ("2018-11-21 13:00", 12.0),  # before hours
        ("2018-11-21 15:00", 13.0),
    ]
    ticks = pd.DataFrame(
        {
            "time": pd.to_datetime([time for time, _ in rows], utc=True),
            "instrument_id": 0,
            "price": [p for _, p in rows],
        }
    )
    ticks["known_at"] = ticks["time"].max()
    rng = np.random.default_rng(0)
    for _ in range(20):
        last = Bench(few_instruments(1, ("XNYS",))).push("ticks", ticks.iloc[rng.permutation(5)]).last
        assert (last.prices("last")[0], last.prices("previous_close")[0]) == (13.0, 10.0)


def test_a_day_without_a_regular_trade_keeps_the_close_before_it():
    ticks = {
        "time": pd.to_datetime(["2018-11-20 15:00", "2018-11-21 22:00", "2018-11-23 15:00"], utc=True),
        "instrument_id": [0, 0, 0],
        "price": [10.0, 11.0, 12.0],
    }
    assert Bench(few_instruments(1, ("XNYS",))).push("ticks", ticks).last.prices(
        "previous_close"
    ).tolist() == [10.0]


def test_an_older_quote_changes_nothing():
    quotes = {
        "time": [stamp(1), stamp(0)],
        "known_at": [stamp(2)] * 2,
        "instrument_id": [0, 0],
        "bid": [1.0, 5.0],
        "ask": [2.0, 6.0],
    }
    last = Bench(few_instruments(1, ("24/7",))).push("quotes", quotes).last
    assert (last.prices("bid")[0], last.prices("ask")[0]) == (1.0, 2.0)


# ---- clean


@pytest.mark.parametrize(
    ("topic", "row", "reason"),
    [
        ("ticks", {"instrument_id": 2}, "unknown instrument"),
        ("ticks", {"instrument_id": -1}, "unknown instrument"),
        ("ticks", {"price": 0.0}, "impossible price"),
        ("ticks", {"price": float("nan")}, "impossible price"),
        ("ticks", {"price": float("inf")}, "impossible price"),
        ("ticks", {"size": -1.0}, "impossible size"),
        ("ticks", {"size": float("inf")}, "impossible size"),
        ("ticks", {"time": stamp(0) + pd.Timedelta(hours=1)}, "impossible time"),
        ("ticks", {"time": pd.Timestamp(0, tz="UTC")}, "impossible time"),
        ("quotes", {"bid": -1.0}, "impossible price"),
        ("quotes", {"ask": float("inf")}, "impossible price"),
        ("quotes", {"ask_size": -1.0}, "impossible size"),
        ("bars", {"close": float("nan")}, "impossible price"),
        ("bars", {"high": float("inf")}, "impossible price"),
        ("bars", {"low": -1.0}, "impossible price"),
        ("bars", {"high": 1.0, "low": 1.5}, "impossible bar"),
        ("bars", {"volume": -1.0}, "impossible size"),
        ("bars", {"width": "2min"}, "unknown width"),
        ("bars", {"width": "1s"}, "unknown width"),
    ],
)
def test_an_impossible_row_is_stopped_and_kept_with_its_reason(topic: str, row: dict, reason: str):
    good = {
        "ticks": {"time": stamp(0), "instrument_id": 0, "price": 1.0, "size": 1.0},
        "quotes": {
            "time": stamp(0),
            "instrument_id": 0,
            "bid": 1.0,
            "ask": 2.0,
            "bid_size": 1.0,
            "ask_size": 1.0,
        },
        "bars": bar(0, 1.0),
    }[topic] | {"known_at": stamp(1)}
    bench = Bench(few_instruments(2, ("24/7",)), ("1min", "1h"))
    bench.push(topic, pd.DataFrame([good, good | row, good]))
    assert bench.clean[topic].rejected == {reason: 1}
    (kept,) = bench.clean[topic].rejects
    assert (kept["topic"], kept["reason"]) == (topic, reason)
    name = next(iter(row))
    if name != "time":
        np.testing.assert_equal(kept[name], row[name])


def test_what_real_tapes_contain_passes():
    rows = [bar(0, 10.0) | {"low": 10.1, "open": 10.0}, bar(1, 10.0) | {"volume": float("nan")}]
    bench = Bench(few_instruments(1, ("24/7",))).push("bars", pd.DataFrame(rows))
    bench.push(
        "quotes",
        {
            "time": [stamp(0)] * 2,
            "instrument_id": [0, 0],
            "bid": [float("nan"), 0.0],
            "ask": [float("nan"), 1.0],
        },
    )
    assert not bench.clean["bars"].rejected
    assert not bench.clean["quotes"].rejected
    assert bench.bars("A0", "1h")["volume"].tolist() == [10.0]


def test_thousands_of_unknown_instruments_cost_nothing_and_the_last_are_kept():
    bench = Bench(few_instruments(1, ("24/7",)))
    ids = np.arange(5000)
    ticks = {"time": [stamp(0)] * 5000, "instrument_id": ids, "price": np.ones(5000)}
    bench.push("ticks", ticks, 300)
    assert bench.clean["ticks"].rejected == {"unknown instrument": 4999}
    assert [row["instrument_id"] for row in bench.clean["ticks"].rejects] == ids[-1000:].tolist()
    assert bench.bars("A0", "1d")["count"].tolist() == [1]


def test_moments_far_outside_of_all_calendars_do_no_harm():
    bench = Bench(few_instruments(2, ("XNYS", "XBOM")))
    for time in ("1987-10-19 15:00", "2031-03-04 15:00"):
        moment = pd.Timestamp(time, tz="UTC")
        bench.push("ticks", {"time": [moment] * 2, "instrument_id": [0, 1], "price": [1.0, 2.0]})
    assert len(bench.bars("A0", "1d")) == len(bench.bars("A0", "1h")) == 2
    assert len(bench.bars("B1", "1h")) == 2, "no day is known to this calendar then, but there are hours"
    assert len(bench.bars("B1", "1d")) == 0
    assert not bench.clean["ticks"].rejected
