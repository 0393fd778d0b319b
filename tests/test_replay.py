"""A replay shows nothing before it was known, and can be moved at will."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import until

from marketdash.clock import to_us
from marketdash.errors import ClockError
from marketdash.log import SessionLog
from marketdash.market import Market
from marketdash.sources.replay import ReplaySource
from marketdash.testing.clock import ManualWall, caught_up
from marketdash.testing.golden import (
    few_instruments,
    golden,
    random_bars,
    random_quotes,
    random_ticks,
    write_log,
)


def paused(log: SessionLog, start: object = None) -> Market:
    return Market(ReplaySource(log, start=start, playing=False, wall=ManualWall())).start()


# ---- what was known when


def test_the_flash_crash_is_shown_as_it_was_printed_and_not_before_the_close():
    with paused(golden("us-2010-daily"), "2010-05-06 15:59:59") as market:
        before = market.frame("bars", width="1d", symbols=["PM", "CNP", "PG"])
        assert str(before["trading_day"].max().date()) == "2010-05-05"
        assert market.frame("last")["time"].max() < pd.Timestamp("2010-05-06", tz=market.tz)
        market.clock.seek("2010-05-06 16:00")
        after = market.frame("bars", width="1d", symbols=["PM", "CNP", "PG"], last=1).set_index("symbol")
        assert after["low"].to_dict() == {"PM": 2.00, "CNP": 1.00, "PG": 39.37}
        assert (after["trading_day"] == pd.Timestamp("2010-05-06")).all()
        assert after["closed"].all()
        assert market.day()["low"][market.universe.id("PM")] == 2.00
        last = market.frame("last", symbols=["PG"])
        assert last["time"].iloc[0] == pd.Timestamp("2010-05-06 16:00", tz=market.tz)
        assert last["previous_close"].iloc[0] == before[before["symbol"] == "PG"]["close"].iloc[-1]
        market.clock.seek("2010-05-06 15:59")
        again = market.frame("bars", width="1d", symbols=["PM", "CNP", "PG"])
        pd.testing.assert_frame_equal(again, before)


def test_a_minute_bar_appears_when_the_minute_is_over():
    with paused(golden("us-2018-11-minute"), "2018-11-16 09:30:59") as market:
        today = pd.Timestamp("2018-11-16")
        bars = market.frame("bars", width="1min", symbols=["NVDA"])
        assert not (bars["trading_day"] == today).any()
        market.clock.seek("2018-11-16 09:31")
        bars = market.frame("bars", width="1min", symbols=["NVDA"])
        assert bars.index[-1] == pd.Timestamp("2018-11-16 09:30", tz=market.tz)
        assert bars["closed"].iloc[-1]
        five = market.frame("bars", width="5min", symbols=["NVDA"]).iloc[-1]
        assert (five.name, five["closed"]) == (pd.Timestamp("2018-11-16 09:30", tz=market.tz), False)


def test_known_at_rules_and_not_the_time_of_the_event(tmp_path: Path):
    universe = few_instruments(1, ("24/7",))
    times = pd.to_datetime(["2018-11-24 10:00:00", "2018-11-24 10:00:01", "2018-11-24 10:00:02"], utc=True)
    known = pd.to_datetime(["2018-11-24 10:00:00", "2018-11-24 10:05:00", "2018-11-24 10:00:03"], utc=True)
    ticks = pd.DataFrame({"time": times, "known_at": known, "instrument_id": 0, "price": [1.0, 9.0, 2.0]})
    log = write_log(tmp_path / "late", universe, {"ticks": ticks})
    with paused(log, "2018-11-24 10:04:59") as market:
        assert market.bars("A0", "1min").high.tolist() == [2.0]
        market.clock.seek("2018-11-24 10:05")
        bars = market.bars("A0", "1min")
        assert bars.high.tolist() == [9.0]
        assert bars.revision.tolist() == [1]
        assert market.graph.last.prices("last").tolist() == [2.0]


# ---- the order of a log


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> SessionLog:
    universe = few_instruments(3, ("24/7",))
    span = ("2018-11-24 10:00", "2018-11-24 10:40")
    topics = {
        "bars": random_bars(universe, "1min", *span, seed=1),
        "quotes": random_quotes(universe, *span, rows=200, seed=2),
        "ticks": random_ticks(universe, *span, rows=400, seed=3).assign(
            known_at=lambda t: t["known_at"].dt.floor("30s")
        ),
    }
    return write_log(tmp_path_factory.mktemp("mixed") / "mixed", universe, topics)


@settings(deadline=None, max_examples=40)
@given(moments=st.lists(st.floats(0, 1), max_size=8).map(sorted), rows=st.sampled_from([1, 3, 50, 10_000]))
def test_ticks_and_bars_come_in_the_order_of_the_log_however_they_are_asked_for(
    mixed: SessionLog, moments: list[float], rows: int
):
    def key(name: str, batch: object) -> list[tuple]:
        table = batch.to_pydict()
        return [
            (known, seq, name == "bars", name)
            for known, seq in zip(table["known_at"], table["seq"], strict=True)
        ]

    source = ReplaySource(mixed)
    events = []
    for moment in [*(mixed.first + int(m * (mixed.last - mixed.first)) for m in moments), mixed.last]:
        for name, batch in source.take(moment, rows):
            assert batch.num_rows <= rows
            events += [(name, item) for item in key(name, batch)]
        assert source.complete_until(moment) == moment
        assert not source.is_beyond(moment)
    ordered = [item for name, item in events if name != "quotes"]
    assert ordered == sorted(ordered)
    assert len(events) == sum(batch.num_rows for batch in mixed.topics.values())
    quotes = [item for name, item in events if name == "quotes"]
    assert quotes == sorted(quotes)


def test_a_position_may_be_left_and_taken_up_anywhere(mixed: SessionLog):
    whole, parts = ReplaySource(mixed), ReplaySource(mixed)
    expected = [row for _, batch in whole.take(mixed.last) for row in batch.to_pylist()]
    got = []
    while (event := next(parts.take(mixed.last, 7), None)) is not None:
        got += event[1].to_pylist()
        if len(got) == 7:
            assert parts.is_beyond(mixed.first - 1)
            assert parts.complete_until(mixed.last) < mixed.last

    def ordered(rows: list[dict]) -> list[dict]:
        return sorted(rows, key=lambda row: (row["known_at"], row["seq"], len(row)))

    assert repr(ordered(got)) == repr(ordered(expected))
    parts.rewind()
    assert next(parts.take(mixed.last, 1))[1].num_rows == 1


# ---- the clock of a replay


def test_a_replay_starts_where_its_manifest_or_its_caller_says():
    log = golden("us-2018-11-minute")
    assert ReplaySource(log).clock.now().isoformat().startswith("2018-11-16T09:30:00")
    assert ReplaySource(log).clock.pace == log.manifest.pace
    assert ReplaySource(log, start="2018-11-19 10:00", pace=math.inf, playing=False).clock.now().hour == 10
    assert ReplaySource(log, start="1999-01-01", playing=False).clock.now_us() == log.timeline.start
    with pytest.raises(ClockError, match=r"The start of replay:us-2018-11-minute: expected a date.*'soon'"):
        ReplaySource(log, start="soon")
    for pace in (0, -1):
        with pytest.raises(ClockError, match="a number above 0"):
            ReplaySource(log, pace=pace)


def test_a_replay_builds_the_widths_that_its_rows_allow(mixed: SessionLog):
    assert ReplaySource(golden("us-2018-11-minute")).finest == "1min"
    assert ReplaySource(golden("us-2010-daily")).finest == "1d"
    assert ReplaySource(golden("es-2013-09-ticks")).finest == "1s"
    assert ReplaySource(mixed).finest == "1s"
    with paused(golden("us-2010-daily")) as market:
        assert market.widths == ("1d",)
        assert market.default_width == "1d"


@pytest.mark.parametrize(
    ("by", "moments"),
    [("bar", ["09:31", "09:32", "09:33"]), ("event", ["09:31", "09:32", "09:33"]), ("session", ["16:00"])],
)
def test_a_step_shows_what_it_steps_to(by: str, moments: list[str]):
    with paused(golden("us-2018-11-minute"), "2018-11-16 09:30") as market:
        for moment in moments:
            market.clock.step(by)
            assert f"{market.now:%H:%M:%S}" == f"{moment}:00"
            newest = market.frame("bars", width="1min", symbols=["AAPL"]).iloc[-1]
            assert newest.name + pd.Timedelta(minutes=1) == market.now
            assert newest["closed"]


async def test_nights_and_weekends_are_skipped():
    log, wall = golden("us-2018-11-minute"), ManualWall()
    with Market(ReplaySource(log, start="2018-11-16 15:59", pace=60, wall=wall)).start() as market:
        wall.advance(2)
        await caught_up(market)
        assert market.now == pd.Timestamp("2018-11-19 09:31", tz=market.tz), (
            "Friday's close, then Monday's open"
        )
        assert market.frame("bars", width="1min", symbols=["AAPL"]).index[-1] == pd.Timestamp(
            "2018-11-19 09:30", tz=market.tz
        )


async def test_at_the_end_a_replay_waits_and_can_be_played_again():
    log, wall = golden("us-2018-11-minute"), ManualWall()
    with Market(ReplaySource(log, start="2018-11-21 15:50", pace=60, wall=wall)).start() as market:
        wall.advance(100)
        await caught_up(market)
        assert market.clock.finished
        assert market.status.state == "running"
        rows = len(market.frame("bars", width="1min"))
        assert rows == log.topics["bars"].num_rows
        market.clock.play()
        assert f"{market.now:%Y-%m-%d %H:%M}" == "2018-11-21 15:50"
        await caught_up(market)
        assert len(market.frame("bars", width="1min")) < rows
        wall.advance(100)
        await caught_up(market)
        assert len(market.frame("bars", width="1min")) == rows


async def test_a_replay_goes_on_by_itself_in_real_time():
    with Market(
        ReplaySource(golden("us-2018-11-minute"), start="2018-11-16 10:00", pace=3600)
    ).start() as market:
        for _ in range(4):
            seen = market.graph.last.version
            await until(lambda seen=seen: market.graph.last.version > seen, what="newer prices")


def test_a_log_of_one_row_can_be_played(tmp_path: Path):
    tick = {"time": pd.to_datetime(["2018-11-24 10:00"], utc=True), "instrument_id": [0], "price": [1.0]}
    log = write_log(tmp_path / "one", few_instruments(1, ("24/7",)), {"ticks": tick})
    with paused(log) as market:
        assert market.clock.finished
        assert market.graph.last.prices("last").tolist() == [1.0]
        market.clock.play()
        market.clock.step()
        assert market.graph.last.prices("last").tolist() == [1.0]


def test_markets_live_side_by_side_and_share_a_log():
    log = golden("us-2018-11-minute")
    with paused(log, "2018-11-16 10:00") as one, paused(log, "2018-11-20 10:00") as other:
        one.clock.seek("2018-11-19 12:00")
        assert other.now.day == 20
        assert one.bars("AAPL").number + len(one.bars("AAPL")) < other.bars("AAPL").number + len(
            other.bars("AAPL")
        )
        np.testing.assert_array_equal(one.bars("AAPL").close[:100], other.bars("AAPL").close[:100])


@pytest.mark.parametrize("when", ["never", None, "10:30"])
def test_a_seek_to_what_is_no_time_changes_nothing(when: object):
    with paused(golden("us-2018-11-minute"), "2018-11-16 10:00") as market:
        before, epoch = market.clock.now_us(), market.epoch
        with pytest.raises(ClockError, match="a date, '2018-11-16 10:30' or a Timestamp"):
            market.clock.seek(when)
        assert (market.clock.now_us(), market.epoch) == (before, epoch)


def test_every_jump_begins_a_new_epoch():
    with paused(golden("us-2018-11-minute"), "2018-11-16 10:00") as market:
        for i, when in enumerate(["2018-11-16 10:05", "2018-11-16 10:01", "2018-11-16 10:01"], start=1):
            market.clock.seek(when)
            assert market.epoch == i
        assert market.clock.now_us() == to_us("2018-11-16 10:01", market.tz)
