"""Splits, dividends and renames: kept as they are announced, put on bars when they are asked for, as of a date."""

import csv
import gzip
import io
import zipfile
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.calendars import DAY_US, calendar
from marketdash.errors import CapacityError, SchemaError, UnknownNameError
from marketdash.frames import adjust
from marketdash.frames.adjust import ADJUSTMENTS, ex_moments
from marketdash.instruments import Instrument, Universe
from marketdash.log import SessionLog
from marketdash.market import Market
from marketdash.market.adjusted import Adjuster
from marketdash.pipeline import Graph
from marketdash.schema import conform
from marketdash.sources.base import BaseSource
from marketdash.sources.replay import ReplaySource
from marketdash.testing.clock import ManualClock, ManualWall
from marketdash.testing.golden import assert_same, few_instruments, random_bars, snapshot, write_log

DAYS = np.array(["2018-11-19", "2018-11-20", "2018-11-21", "2018-11-23", "2018-11-26", "2018-11-27"], "M8[D]")
"""Trading days of New York around Thanksgiving."""
FIELDS = ("open", "high", "low", "close", "volume", "vwap")
PRICES = ("open", "high", "low", "close", "vwap")


def utc(us: Any) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(us, np.int64).astype("M8[us]"), tz="UTC")


def action(
    kind: str, value: float | None, ex: Any, *, instrument: int = 0, known: Any = None, **more: Any
) -> dict:
    """A row of actions; an ex-date stands for its first moment in New York."""
    time = pd.Timestamp(ex)
    time = utc(ex_moments("XNYS", [ex]))[0] if time.tzinfo is None else time
    known = time if known is None else pd.Timestamp(known, tz="America/New_York")
    return {
        "time": time,
        "known_at": known,
        "instrument_id": instrument,
        "kind": kind,
        "value": value,
        **more,
    }


def daily(closes: list[float], *, instrument: int = 0, days: np.ndarray = DAYS) -> pd.DataFrame:
    """Ready-made daily bars of New York, known at the close."""
    regular = calendar("XNYS").regular(
        int(days[0].astype(int)) * DAY_US, (int(days[-1].astype(int)) + 1) * DAY_US
    )
    opens, ends = np.array(regular).T[:, : len(closes)]
    close = np.array(closes, np.float64)
    rows = {"time": utc(opens), "known_at": utc(ends), "instrument_id": instrument, "width": "1d"}
    rows |= {"open": close - 0.5, "high": close + 1, "low": close - 1, "close": close, "volume": 1000.0}
    return pd.DataFrame(rows | {"vwap": close + 0.25})


CLOSES = [100.0, 102.0, 51.0, 50.0, 25.5, 26.0]
SPLIT = action("split", 2.0, "2018-11-21", known="2018-11-19 16:30")
DIVIDEND = action("dividend", 1.0, "2018-11-26", known="2018-11-20 08:00")
ONE = few_instruments(1)


class Still(BaseSource):
    """Says nothing; the test feeds the market."""

    name, slow_history, stall_after, finest = "still", False, None, "1min"

    def __init__(self, universe: Universe = ONE, now: object = "2018-11-27 22:00") -> None:
        super().__init__(universe, clock=ManualClock(now))

    async def batches(self):
        return
        yield


def fed(*actions: dict, bars: pd.DataFrame | None = None, universe: Universe = ONE, **options: Any) -> Market:
    market = Market(Still(universe, **options)).start()
    market.feed("bars", daily(CLOSES) if bars is None else bars)
    if actions:
        market.feed("actions", pd.DataFrame(list(actions)))
    return market


def closes(market: Market, adjustment: str, **options: Any) -> list[float]:
    return market.frame("bars", width="1d", adjustment=adjustment, **options)["close"].tolist()


# ---- what the adjustments are


def test_the_definitions_are_those_published():
    with fed(SPLIT, DIVIDEND) as market:
        assert closes(market, "raw") == CLOSES
        assert closes(market, "split") == [50.0, 51.0, *CLOSES[2:]]
        less = 1 - 1.0 / 50.0
        np.testing.assert_allclose(
            closes(market, "total"), [50 * less, 51 * less, 51 * less, 50 * less, 25.5, 26.0], rtol=1e-15
        )
        less = 25.5 / 26.5
        np.testing.assert_allclose(
            closes(market, "reinvested"), [50 * less, 51 * less, 51 * less, 50 * less, 25.5, 26.0], rtol=1e-15
        )


def test_the_example_that_yahoo_publishes_comes_out():
    # https://help.yahoo.com/kb/SLN28256.html: a split 2:1 on the 18th, 0.08 on the 21st.
    closing = [46.99, 48.30, 24.96, 24.91, 24.95, 24.53]
    split, paid = action("split", 2.0, DAYS[2]), action("dividend", 0.08, DAYS[5])
    with fed(split, paid, bars=daily(closing)) as market:
        shown = np.round(closes(market, "total"), 2).tolist()
        assert shown == [23.42, 24.07, 24.88, 24.83, 24.87, 24.53]


amounts = st.integers(1, 900).map(lambda cents: cents / 100)
ratios = st.sampled_from([2.0, 3.0, 0.5, 0.1, 1.5, 7.0])
walks = st.lists(st.integers(1000, 20000).map(lambda cents: cents / 100), min_size=6, max_size=6)
changes = st.dictionaries(st.integers(1, 5), st.tuples(ratios | st.none(), amounts | st.none()), max_size=5)


def rows_of(plan: dict[int, tuple[float | None, float | None]]) -> list[dict]:
    found = [action("split", ratio, DAYS[day]) for day, (ratio, _) in plan.items() if ratio]
    return found + [action("dividend", paid, DAYS[day]) for day, (_, paid) in plan.items() if paid]


def factors_of(rows: list[dict], closing: list[float], adjustment: str) -> adjust.Factors:
    """The factors without a market: pure functions over arrays."""
    ids = np.array([row["instrument_id"] for row in rows], np.int64)
    ex = np.array([row["time"].value // 1000 for row in rows], np.int64)
    is_split = np.array([row["kind"] == "split" for row in rows], np.bool_)
    actions = adjust.combine(ids, ex, is_split, np.array([row["value"] for row in rows], np.float64))
    before, after = adjust.closes_around(
        actions, np.zeros(len(closing), np.int64), starts(), np.array(closing)
    )
    return adjust.factors(actions, adjustment, before, after)


def starts() -> np.ndarray:
    """Bars that start with the first moment of their day, which belongs to it."""
    return ex_moments("XNYS", DAYS)


@settings(deadline=None, max_examples=60)
@given(closing=walks, plan=changes)
def test_returns_of_adjusted_closes_are_those_of_who_held_the_share(closing: list[float], plan: dict):
    held = np.array(closing)
    split = np.array([plan.get(day, (None, None))[0] or 1.0 for day in range(6)])
    paid = np.array([plan.get(day, (None, None))[1] or 0.0 for day in range(6)])
    whole = held[1:] * split[1:]
    wanted = {
        "split": whole / held[:-1],
        "total": whole / (held[:-1] - paid[1:]),
        "reinvested": (whole + paid[1:]) / held[:-1],
    }
    for adjustment, returns in wanted.items():
        found = factors_of(rows_of(plan), closing, adjustment)
        price, _ = found.at(np.zeros(6, np.int64), starts())
        shown = price * held
        np.testing.assert_allclose(shown[1:] / shown[:-1], returns, rtol=1e-12)
        assert shown[-1] == held[-1]


@settings(deadline=None, max_examples=60)
@given(closing=walks, plan=changes, order=st.randoms(use_true_random=False))
def test_the_order_in_which_actions_came_and_repetitions_change_nothing(
    closing: list, plan: dict, order: Any
):
    rows = rows_of(plan)
    with fed(*rows, bars=daily(closing)) as market:
        again = rows * 2
        order.shuffle(again)
        with fed(*again, bars=daily(closing)) as other:
            for adjustment in ADJUSTMENTS:
                one, two = (m.frame("bars", width="1d", adjustment=adjustment) for m in (market, other))
                pd.testing.assert_frame_equal(one, two, check_exact=True)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_without_actions_nothing_changes(adjustment: str):
    with fed() as market:
        one, two = (market.frame("bars", width="1d", adjustment=name) for name in (adjustment, "raw"))
        pd.testing.assert_frame_equal(one, two, check_exact=True)
        for one, two in zip(
            market.bars("A0", "1d", adjustment=adjustment), market.bars("A0", "1d"), strict=True
        ):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_a_split_and_its_reverse_leave_everything_as_it_was(adjustment: str):
    back = action("split", 0.5, "2018-11-26")
    with fed(SPLIT, back) as market:
        shown = market.frame("bars", width="1d", adjustment=adjustment)
        raw = market.frame("bars", width="1d")
        between, outside = [2, 3], [0, 1, 4, 5]
        for name in FIELDS:
            np.testing.assert_array_equal(shown[name].iloc[outside], raw[name].iloc[outside])
        scale = 1.0 if adjustment == "raw" else 2.0
        np.testing.assert_array_equal(shown["close"].iloc[between], raw["close"].iloc[between] * scale)
        np.testing.assert_array_equal(shown["volume"].iloc[between], raw["volume"].iloc[between] / scale)


def test_volume_knows_splits_alone_and_turnover_stays_vwap_times_volume():
    with fed(SPLIT, DIVIDEND) as market:
        raw = market.bars("A0", "1d")
        for adjustment in ADJUSTMENTS[1:]:
            bars = market.bars("A0", "1d", adjustment=adjustment)
            assert bars.volume.tolist() == [2000.0, 2000.0, 1000.0, 1000.0, 1000.0, 1000.0]
            factor = bars.close / raw.close
            for name in PRICES:
                np.testing.assert_allclose(getattr(bars, name), getattr(raw, name) * factor, rtol=1e-14)
            np.testing.assert_allclose(bars.turnover, bars.vwap * bars.volume, rtol=1e-14)
            untouched = ("time", "end", "known", "count", "revision", "session", "day", "given")
            assert all((getattr(bars, name) == getattr(raw, name)).all() for name in untouched)
        assert market.bars("A0", "1d", adjustment="split").turnover.tolist() == raw.turnover.tolist()


def test_two_instruments_of_two_calendars_are_adjusted_each_by_its_own():
    universe = Universe([Instrument(0, "NY", calendar="XNYS"), Instrument(1, "TK", calendar="XTKS")])
    tokyo = ex_moments("XTKS", ["2018-11-21"])
    split = action("split", 10.0, utc(tokyo)[0], instrument=1)
    bars = pd.DataFrame(
        {
            "time": utc(np.repeat(tokyo[0] + 3_600_000_000 * np.array([-12, -1, 10, 34]), 2)),
            "instrument_id": [0, 1] * 4,
            "width": "1min",
            **dict.fromkeys(("open", "high", "low", "close"), 100.0),
            "volume": 1.0,
        }
    )
    with fed(split, SPLIT, universe=universe, bars=bars) as market:
        shown = market.frame("bars", width="1min", adjustment="split")
        day = pd.Timestamp("2018-11-21")
        for symbol, ratio in (("NY", 2.0), ("TK", 10.0)):
            mine = shown[shown["symbol"] == symbol]
            assert 0 < (mine["trading_day"] < day).sum() < len(mine)
            np.testing.assert_array_equal(
                mine["close"], np.where(mine["trading_day"] < day, 100.0 / ratio, 100.0)
            )
        table = market.history("1min", adjustment="split")
        by_time = shown.pivot(columns="symbol", values="close")
        np.testing.assert_array_equal(table.array("close"), by_time[["NY", "TK"]].to_numpy())


# ---- as of a date, and what is known when


def test_as_of_a_date_only_what_had_happened_by_then_counts():
    with fed(SPLIT, DIVIDEND) as market:
        assert closes(market, "total", as_of="2018-11-20") == CLOSES
        split = [50.0, 51.0, *CLOSES[2:]]
        assert closes(market, "total", as_of="2018-11-21") == split
        assert closes(market, "total", as_of=date(2018, 11, 25)) == split
        now = closes(market, "total")
        assert closes(market, "total", as_of="2018-11-26") == now != split
        assert closes(market, "total", as_of=pd.Timestamp("2018-11-26 23:59", tz=market.tz)) == now
        assert closes(market, "total", as_of="2031-01-01") == now, "what lies ahead has not happened"
        attrs = market.frame("bars", adjustment="total", as_of="2018-11-21").attrs
        assert (attrs["adjustment"], attrs["as_of"], attrs["unadjusted"]) == ("total", "2018-11-21", [])
        assert market.frame("bars", adjustment="split").attrs["as_of"] == "2018-11-27"
        assert market.frame("bars", adjustment="split", as_of="2031-01-01").attrs["as_of"] == "2018-11-27"
        assert market.frame("bars").attrs["adjustment"] == "raw"
        assert market.frame("bars").attrs["as_of"] is None


def test_a_split_ahead_is_known_but_not_in_effect():
    with fed(SPLIT, bars=daily(CLOSES[:2]), now="2018-11-20 22:00") as market:
        assert market.frame("actions")["kind"].tolist() == ["split"]
        assert closes(market, "split") == CLOSES[:2]
        market.clock.set("2018-11-21 14:00")
        assert closes(market, "split") == [50.0, 51.0]


def test_a_new_amount_replaces_the_old_one_and_none_takes_it_back():
    with fed(DIVIDEND) as market:
        first = closes(market, "total")
        market.feed("actions", pd.DataFrame([DIVIDEND | {"value": 2.0}]))
        assert closes(market, "total")[3] == 50.0 * (1 - 2.0 / 50.0) < first[3]
        market.feed("actions", pd.DataFrame([DIVIDEND | {"value": 0.0}]))
        assert closes(market, "total") == CLOSES


def test_an_action_that_came_late_counts_from_then_on():
    with fed() as market:
        assert closes(market, "split") == CLOSES
        market.feed("actions", pd.DataFrame([SPLIT | {"known_at": None}]))
        assert market.frame("actions")["known_at"].iloc[0] == market.now
        assert closes(market, "split") == [50.0, 51.0, *CLOSES[2:]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> SessionLog:
    """A year's announcements with three days of minutes and days: most were made before the first bar."""
    universe = few_instruments(3)
    span = ("2018-11-19 14:00", "2018-11-23 20:00")
    bars = pd.concat([random_bars(universe, width, *span, seed=1, missing=0.0) for width in ("1min", "1d")])
    early = [
        action("dividend", 0.5, day, instrument=2, known="2018-01-02") for day in ("2018-03-05", "2018-11-20")
    ]
    rows = [
        *early,
        action("split", 2.0, "2018-11-21", known="2018-11-19 12:00"),
        action("dividend", 1.0, "2018-11-23", instrument=1, known="2018-11-21 18:00"),
        action("dividend", 2.0, "2018-11-21", instrument=1, known="2018-11-21 11:00"),  # told too late
    ]
    folder = tmp_path_factory.mktemp("logs") / "actions"
    return write_log(folder, universe, {"bars": bars, "actions": pd.DataFrame(rows)})


def paused(log: SessionLog, start: object) -> Market:
    return Market(ReplaySource(log, start=start, playing=False, wall=ManualWall())).start()


def test_a_replay_applies_an_action_when_it_was_known_and_a_seek_back_takes_it_off(log: SessionLog):
    def moved(market: Market) -> list[bool]:
        shown, raw = (market.frame("bars", width="1min", adjustment=a) for a in ("total", "raw"))
        different = shown[shown["close"].to_numpy() != raw["close"].to_numpy()]
        return [symbol in set(different["symbol"]) for symbol in market.universe.symbols]

    with paused(log, "2018-11-19 15:00") as market:
        seen = {}
        for moment in (
            "2018-11-19 15:00",
            "2018-11-20 10:00",
            "2018-11-21 10:59",
            "2018-11-21 11:00",
            "2018-11-23 10:00",
        ):
            market.clock.seek(moment)
            seen[moment] = (moved(market), len(market.frame("actions")), snapshot(market))
        assert [found for found, _, _ in seen.values()] == [
            [False, False, False],
            [False, False, True],
            [True, False, True],
            [True, True, True],
            [True, True, True],
        ]
        assert [count for _, count, _ in seen.values()] == [3, 3, 3, 4, 5]
        for moment in reversed(seen):
            market.clock.seek(moment)
            assert moved(market) == seen[moment][0]
            assert_same(snapshot(market), seen[moment][2], moment)


def test_what_is_fed_ahead_of_its_announcement_waits_for_it(log: SessionLog):
    with paused(log, "2018-11-20 12:00") as market:
        before = market.frame("bars", adjustment="split")["close"].iloc[0]
        ahead = action("split", 4.0, "2018-11-20", instrument=0, known="2018-11-20 13:00")
        market.feed("actions", pd.DataFrame([ahead]))
        assert market.frame("bars", adjustment="split")["close"].iloc[0] == before
        market.clock.seek("2018-11-20 13:00")
        assert market.frame("bars", adjustment="split")["close"].iloc[0] == before / 4


def test_announcements_are_not_played_for(log: SessionLog, tmp_path: Path):
    without = write_log(tmp_path / "without", log.universe, {"bars": log.topics["bars"]})
    assert log.first == pd.Timestamp("2018-01-02", tz="America/New_York").value // 1000 < without.first
    for name in ("opens", "closes"):
        assert getattr(log.timeline, name).tolist() == getattr(without.timeline, name).tolist()
    assert log.timeline.start == pd.Timestamp("2018-11-19 09:30", tz="America/New_York").value // 1000
    assert ReplaySource(log).finest == "1min"


def test_minutes_are_adjusted_as_the_days_they_belong_to(log: SessionLog):
    with paused(log, "2018-11-23 13:00") as market:
        for adjustment in ADJUSTMENTS[1:]:
            scale = {}
            for width in ("1min", "5min", "1h", "1d"):
                shown, raw = (market.frame("bars", width=width, adjustment=a) for a in (adjustment, "raw"))
                factor = (shown["close"] / raw["close"]).round(12).to_numpy()
                frame = pd.DataFrame(
                    {"symbol": raw["symbol"].astype(str), "day": raw["trading_day"], "factor": factor}
                )
                assert (frame.groupby(["symbol", "day"])["factor"].nunique() == 1).all()
                scale[width] = frame.groupby(["symbol", "day"])["factor"].first()
                assert (scale[width] != 1).any()
                table = market.history(width, adjustment=adjustment)
                for name in FIELDS:
                    wide = shown.pivot(columns="symbol", values=name)[list(table.symbols)]
                    np.testing.assert_allclose(table.array(name), wide.to_numpy(), rtol=1e-14)
                for symbol in market.universe.symbols:
                    bars = market.bars(symbol, width, adjustment=adjustment)
                    np.testing.assert_array_equal(bars.close, shown.loc[shown["symbol"] == symbol, "close"])
            for width in ("1min", "5min", "1h"):
                pd.testing.assert_series_equal(scale[width], scale["1d"])


# ---- in the middle of a session


def test_a_split_in_mid_session_scales_the_days_before_from_then_on_and_no_bar_of_its_day():
    noon = pd.Timestamp("2018-11-21 12:00", tz="America/New_York")
    split = action("split", 2.0, noon)
    with fed(bars=daily(CLOSES[:2])) as market:
        market.clock.set(noon - pd.Timedelta(minutes=1))
        for minute, price in ((-60, 102.0), (-1, 101.0), (0, 50.5), (1, 51.0), (2, 50.75)):
            time = noon + pd.Timedelta(minutes=minute)
            market.clock.set(time)
            market.feed("ticks", {"time": [time], "instrument_id": [0], "price": [price], "size": [1.0]})
            if minute == -1:
                market.feed("actions", pd.DataFrame([split]))
                assert closes(market, "split") == [100.0, 102.0, 101.0]
        shown = market.frame("bars", width="1min", adjustment="split")
        assert shown["close"].tolist() == [102.0, 101.0, 50.5, 51.0, 50.75], (
            "the morning is what the tape said"
        )
        assert closes(market, "split") == [50.0, 51.0, 50.75]
        assert market.frame("bars", width="1d", adjustment="split")["high"].iloc[-1] == 102.0


def test_a_rename_in_mid_session_changes_no_id_no_bar_and_no_symbol():
    time = pd.Timestamp("2018-11-26 15:30:10", tz="UTC")

    def tick(seconds: int, price: float) -> dict:
        return {
            "time": [time + pd.Timedelta(seconds=seconds)],
            "instrument_id": [0],
            "price": [price],
            "size": [1.0],
        }

    with fed(bars=daily(CLOSES[:4]), now="2018-11-26 15:31") as market:
        market.feed("ticks", tick(0, 25.0))
        market.feed(
            "actions", pd.DataFrame([action("rename", None, time + pd.Timedelta(seconds=5), text="B0")])
        )
        market.feed("ticks", tick(10, 26.0))
        bars = market.frame("bars", width="1min")
        assert bars[["symbol", "open", "close", "volume"]].to_numpy().tolist() == [["A0", 25.0, 26.0, 2.0]]
        renamed = market.frame("actions")
        assert renamed[["symbol", "kind", "text"]].to_numpy().tolist() == [["A0", "rename", "B0"]]
        assert np.isnan(renamed["value"].iloc[0])
        for adjustment in ADJUSTMENTS:
            assert closes(market, adjustment) == [*CLOSES[:4], 26.0]


# ---- bad input


BAD = {
    "a ratio of zero": (action("split", 0.0, "2018-11-21"), "impossible action"),
    "a ratio below zero": (action("split", -2.0, "2018-11-21"), "impossible action"),
    "a ratio that is none": (action("split", float("nan"), "2018-11-21"), "impossible action"),
    "no ratio": (action("split", None, "2018-11-21"), "impossible action"),
    "an endless ratio": (action("split", float("inf"), "2018-11-21"), "impossible action"),
    "a dividend below zero": (action("dividend", -0.1, "2018-11-21"), "impossible action"),
    "a dividend that is none": (action("dividend", float("nan"), "2018-11-21"), "impossible action"),
    "a rename without a name": (action("rename", None, "2018-11-21", text=""), "impossible action"),
    "an unknown kind": (action("spinoff", 1.0, "2018-11-21"), "impossible action"),
    "an unknown instrument": (action("split", 2.0, "2018-11-21", instrument=7), "unknown instrument"),
    "one below all": (action("split", 2.0, "2018-11-21", instrument=-1), "unknown instrument"),
    "a time in a wrong unit": (action("split", 2.0, utc([2**55])[0], known="2018-11-20"), "impossible time"),
    "a time before all": (action("split", 2.0, utc([-5])[0], known="2018-11-20"), "impossible time"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_true_is_stopped_with_the_reason_and_the_rest_goes_on(name: str):
    row, reason = BAD[name]
    with fed(row, DIVIDEND) as market:
        stopped = market.frame("rejected")
        assert stopped[["topic", "reason", "kind"]].to_numpy().tolist() == [["actions", reason, row["kind"]]]
        assert market.frame("actions")["kind"].tolist() == ["dividend"]
        assert closes(market, "split") == CLOSES
        assert not market.health.failing


@pytest.mark.parametrize("adjustment", ["total", "reinvested"])
@pytest.mark.parametrize("amount", [50.0, 51.0])
def test_a_dividend_not_smaller_than_the_price_makes_no_price_of_what_was_before(
    adjustment: str, amount: float
):
    with fed(SPLIT, DIVIDEND | {"value": amount}) as market:
        shown = market.frame("bars", width="1d", adjustment=adjustment)
        assert np.isnan(shown[list(PRICES)].to_numpy()[:4]).all()
        assert shown["close"].tolist()[4:] == CLOSES[4:]
        assert shown["volume"].tolist() == [2000.0, 2000.0, *[1000.0] * 4]
        assert shown.attrs["unadjusted"] == ["A0"]
        assert closes(market, "split") == [50.0, 51.0, *CLOSES[2:]], "splits need no price"
        assert market.frame("bars", width="1d", adjustment="split").attrs["unadjusted"] == []


def test_a_dividend_whose_close_before_is_not_there_says_so():
    # Before the first regular session there are bars, but no daily close to measure the dividend by.
    premarket = pd.DataFrame(
        {
            "time": [pd.Timestamp("2018-11-23 12:00", tz="UTC"), pd.Timestamp("2018-11-26 15:00", tz="UTC")],
            "instrument_id": 0, "width": "1min", "open": 9.0, "high": 9.0, "low": 9.0, "close": 9.0, "volume": 1.0,
        }
    )  # fmt: skip
    with fed(DIVIDEND, bars=premarket) as market:
        shown = market.frame("bars", width="1min", adjustment="total")
        assert np.isnan(shown["close"].iloc[0])
        assert shown["close"].iloc[1] == 9.0
        assert shown.attrs["unadjusted"] == ["A0"]


def test_what_was_paid_before_the_first_bar_needs_no_close():
    old = action("dividend", 500.0, "2010-03-05")
    with fed(old, DIVIDEND) as market, fed(DIVIDEND) as other:
        for adjustment in ADJUSTMENTS:
            assert closes(market, adjustment) == closes(other, adjustment)
            assert market.frame("bars", adjustment=adjustment).attrs["unadjusted"] == []


def test_a_dividend_is_reinvested_when_there_is_a_close_to_buy_at():
    with fed(DIVIDEND, bars=daily(CLOSES[:4]), now="2018-11-26 14:00") as market:
        assert closes(market, "reinvested") == CLOSES[:4]
        assert closes(market, "total")[3] == 49.0, "what Yahoo takes off is known before the open"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"adjustment": "splits"}, UnknownNameError, "Did you mean split"),
        ({"adjustment": None}, UnknownNameError, "Known: raw"),
        ({"as_of": "2018-11-20"}, UnknownNameError, "ask for adjustment='split'"),
        ({"adjustment": "split", "as_of": "soon"}, SchemaError, "as_of.*expected a date"),
        ({"adjustment": "split", "as_of": True}, SchemaError, "as_of.*expected a date"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_hint(options: dict, error: type, words: str):
    with fed(SPLIT) as market:
        for read in (market.frame, market.history, lambda **more: market.bars("A0", **more)):
            with pytest.raises(error, match=words):
                read(**options)
        with pytest.raises(UnknownNameError, match="Only bars can be adjusted"):
            market.frame("ticks", adjustment="split")


def test_an_ex_date_must_be_a_trading_day():
    with pytest.raises(SchemaError, match=r"expected a trading day of XNYS, got 2018-11-22"):
        ex_moments("XNYS", ["2018-11-21", "2018-11-22"])
    days, first = adjust.trading_days("XNYS", ex_moments("XNYS", DAYS))
    assert (days == DAYS.astype(int)).all()
    before, _ = adjust.trading_days("XNYS", first - 1)
    assert (before < days).all()


async def test_many_instruments_with_many_actions_are_adjusted_at_once():
    universe = few_instruments(500)
    graph = Graph(universe, finest="1d")
    rng = np.random.default_rng(0)
    days = pd.date_range("1999-01-04", "2018-11-27", freq="QS")
    regular = calendar("XNYS").regular(0, 1_543_400_000_000_000)
    ex = adjust.trading_days("XNYS", days.as_unit("us").astype(np.int64).to_numpy())[1]
    rows = {
        "time": utc(np.tile(ex, 500)), "instrument_id": np.repeat(np.arange(500), len(ex)), "kind": "dividend",
        "value": rng.uniform(0.1, 0.5, 500 * len(ex)),
    }  # fmt: skip
    graph.push("actions", conform("actions", pd.DataFrame(rows)))
    opens = np.array(regular)[-250:, 0]
    close = rng.uniform(50, 60, (500, 250))
    bars = {"time": utc(np.tile(opens, 500)), "instrument_id": np.repeat(np.arange(500), 250), "width": "1d"}
    bars |= dict.fromkeys(("open", "high", "low", "close"), close.ravel()) | {"volume": 1.0}
    graph.push("bars", conform("bars", pd.DataFrame(bars)))
    adjuster = Adjuster(universe, graph.store, graph.frames["actions"])
    view = adjuster.view(np.arange(500), "total", None, 1_543_400_000_000_000, 0)
    shown = view.rows(graph.store.rows("1d", np.arange(500)))["close"].reshape(500, 250)
    # The same, one instrument and one dividend after the other.
    for i in range(0, 500, 83):
        wanted = close[i].copy()
        for moment, paid in zip(ex, rows["value"].reshape(500, -1)[i], strict=True):
            before = opens < moment
            if before.any():
                wanted[before] *= 1 - paid / close[i][before][-1]
        np.testing.assert_allclose(shown[i], wanted, rtol=1e-12)


def test_where_actions_may_have_been_forgotten_nothing_is_adjusted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("marketdash.pipeline.graph.ACTIONS_KEPT", 2)
    with fed(DIVIDEND) as market:
        assert closes(market, "total") != CLOSES
        market.feed("actions", pd.DataFrame([SPLIT, SPLIT]))
        assert len(market.frame("actions")) == 2
        with pytest.raises(CapacityError, match="actions: expected fewer than 2 rows"):
            market.frame("bars", adjustment="total")
        assert closes(market, "raw") == CLOSES


# ---- against what others have computed


class Daily(NamedTuple):
    """Raw daily closes of one share, its actions by ex-date, and dates as days since 1970."""

    day: np.ndarray
    close: np.ndarray
    split: np.ndarray
    dividend: np.ndarray


def adjusted_closes(share: Daily, adjustment: str, as_of: np.datetime64) -> np.ndarray:
    """Closes up to a date, adjusted as of that date by the functions that the market uses."""
    upto = share.day <= as_of
    day, close, split, dividend = (column[upto] for column in share)
    ex = day.astype(np.int64) * DAY_US
    acting = (split != 1) | (dividend != 0)
    where = np.concatenate([np.flatnonzero(acting)] * 2)
    is_split = np.repeat([True, False], len(where) // 2)
    value = np.where(is_split, split[where], dividend[where])
    actions = adjust.combine(np.zeros(len(where), np.int64), ex[where], is_split, value)
    around = adjust.closes_around(actions, np.zeros(len(ex), np.int64), ex, close)
    price, _ = adjust.factors(actions, adjustment, *around).at(np.zeros(len(ex), np.int64), ex)
    return price * close


# Dividends that the files give with four digits. The adjusted closes were made from the whole amounts: they are
# eighths and sixteenths of older days, or shares of another company. All other rows agree as they stand.
ROUNDED = {
    ("GE", 0.1367): 0.41 / 3,
    ("GE", 0.4203): 0.420281,  # Wabtec's shares, 2019-02-26: the amount is what the adjusted closes imply
    ("HD", 0.2362): 0.23625,
    ("HON", 0.2062): 0.20625,
    ("HON", 0.2269): 0.226875,
    ("MCD", 0.0488): 0.04875,
    ("MCD", 0.4688): 0.46875,
    ("T", 0.2437): 0.24375,
    ("T", 0.2537): 0.25375,
    ("T", 0.2562): 0.25625,
    ("TXN", 0.0213): 0.02125,
}


def vendor(path: Path) -> tuple[Daily, np.ndarray]:
    with gzip.open(path, "rt") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["timestamp"])
    symbol = path.name.split("-")[1]
    names = ("close", "split_coefficient", "dividend_amount", "adjusted_close")
    close, split, paid, adjusted = (np.array([float(row[name]) for row in rows]) for name in names)
    paid = np.array([ROUNDED.get((symbol, amount), amount) for amount in paid.tolist()])
    # The vendor means cash per new share. It matters once: Southern's shares in Mirant, 2001-04-03, stand both as
    # a split and as a dividend.
    return Daily(np.array([row["timestamp"] for row in rows], "M8[D]"), close, split, paid * split), adjusted


def test_adjusted_closes_of_72_stocks_equal_the_vendors(real_data: Path):
    paths = sorted((real_data / "b_daily" / "pooksoft_av_adjusted").glob("*.csv.gz"))
    assert len(paths) == 72
    dividends = splits = 0
    for path in paths:
        share, adjusted = vendor(path)
        dividends, splits = (
            dividends + np.count_nonzero(share.dividend),
            splits + np.count_nonzero(share.split != 1),
        )
        for as_of in np.array(["2021-04-21", "2015-06-30", "2008-12-31", "2001-04-03"], "M8[D]"):
            upto = share.day <= as_of
            if upto.any():
                # The file is as of its last day; divided by its own factor of an earlier day it is as of that one.
                wanted = adjusted[upto] * share.close[upto][-1] / adjusted[upto][-1]
                shown = adjusted_closes(share, "reinvested", as_of)
                np.testing.assert_allclose(shown, wanted, rtol=1e-6, err_msg=f"{path.name} as of {as_of}")
    assert (dividends, splits) == (4450, 64)


def days_of(texts: list[str]) -> np.ndarray:
    return np.array([f"{text[:4]}-{text[4:6]}-{text[6:8]}" for text in texts], "M8[D]")


def lean(real_data: Path, symbol: str) -> tuple[Daily, np.ndarray]:
    """Raw closes and actions, and the closes that LEAN's factor file makes of them.

    A row of the file holds the factors of price and split up to and on its day, which is the one before an ex-date,
    and the raw close of that day. Dividends are read off the factors, to a hundredth of a cent, unless another vendor
    tells them; ratios are read off too. Where LEAN gives no raw bars the closes are the other vendor's, but those of
    the file's own days.
    """
    folder = real_data / "i_corporate_actions_dq"
    rows = [line.split(",") for line in (folder / "lean_factor_files" / f"{symbol}.csv").read_text().split()]
    row_day = days_of([row[0] for row in rows])
    price, split, reference = np.array([row[1:] for row in rows], np.float64).T
    # The one factor that the file gives with too few digits: Apple's from June 2000 to February 2005, 2.4e-6 off.
    split = np.where(split == 0.0178571, 1 / 56, split)
    told = real_data / "b_daily" / "pooksoft_av_adjusted" / f"DA-{symbol.upper()}-T-2021-04-21.csv.gz"
    other = vendor(told)[0] if told.exists() else None
    if (raw := folder / "lean_daily_raw" / f"{symbol}.zip").exists():
        with zipfile.ZipFile(raw) as archive:
            bars = list(csv.reader(io.StringIO(archive.read(archive.namelist()[0]).decode())))
        day, close = days_of([bar[0] for bar in bars]), np.array([float(bar[4]) for bar in bars]) / 10_000
    else:
        assert other is not None
        day, close = other.day, other.close.copy()
        inside = np.isin(row_day[1:-1], day)
        close[np.searchsorted(day, row_day[1:-1][inside])] = reference[1:-1][inside]
    ex = np.searchsorted(day, row_day[:-1], side="right")
    inside = (ex > 0) & (ex < len(day)) & (row_day[:-1] >= day[0])
    ratio, paid, change = np.ones(len(day)), np.zeros(len(day)), split[1:] / split[:-1]
    near = np.abs(change - np.round(change)) < 1e-5
    ratio[ex[inside]] = np.where(near, np.round(change), change)[inside]
    paid[ex[inside]] = np.round(reference[:-1] * (1 - price[:-1] / price[1:]), 4)[inside]
    if other is not None:
        both = np.flatnonzero((paid > 0) & (day > other.day[0]))
        paid[both] = other.dividend[np.searchsorted(other.day, day[both])]
    row = np.searchsorted(row_day, day)
    return Daily(day, close, ratio, paid), close * price[row] * split[row]


LEAN = {"aapl": (35, 4), "spy": (94, 0), "ibm": (86, 0), "goog": (0, 1), "fb": (0, 0)}
"""Dividends and splits of each file."""


@pytest.mark.parametrize("symbol", LEAN)
def test_adjusted_closes_equal_those_of_leans_factor_files(real_data: Path, symbol: str):
    share, adjusted = lean(real_data, symbol)
    for as_of in np.array(["2021-03-31", "2020-08-28", "2015-06-30", "2012-08-09", "2001-01-02"], "M8[D]"):
        upto = share.day <= as_of
        if upto.any():
            wanted = adjusted[upto] * share.close[upto][-1] / adjusted[upto][-1]
            shown = adjusted_closes(share, "total", as_of)
            np.testing.assert_allclose(shown, wanted, rtol=1e-6, err_msg=f"{symbol} as of {as_of}")
    assert (np.count_nonzero(share.dividend), np.count_nonzero(share.split != 1)) == LEAN[symbol]
