"""Calendars: which session a moment belongs to."""

from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.calendars import DAY_US, FOREVER, calendar
from marketdash.clock import to_us
from marketdash.errors import UnknownNameError
from marketdash.schema import SESSIONS

NAMES = ("XNYS", "XHKG", "XLON", "XBOM", "24/7")
HOUR = 3_600_000_000
Part = tuple[str, str, str, str]


def parts(name: str, first: str, last: str) -> list[Part]:
    """The segments that begin within a stretch of local time: start, end, session, trading day."""
    exchange = calendar(name)
    since, until = to_us(first, exchange.tz), to_us(last, exchange.tz)
    segments = exchange.segments(since, until)
    chosen = np.flatnonzero((segments.start >= since) & (segments.start < until))
    return [
        (
            f"{pd.Timestamp(int(segments.start[i]), unit='us', tz='UTC').tz_convert(exchange.tz):%d %H:%M}",
            f"{pd.Timestamp(int(segments.end[i]), unit='us', tz='UTC').tz_convert(exchange.tz):%d %H:%M}",
            SESSIONS[segments.session[i]],
            f"{pd.Timestamp(int(segments.day[i]), unit='D'):%d}",
        )
        for i in chosen
    ]


class Day(NamedTuple):
    """One trading day as a slow reader of the exchange's schedule sees it."""

    number: int
    pre: int
    regular: tuple[tuple[int, int], ...]
    post: int


@cache
def schedule(name: str) -> tuple[Day, ...]:
    """Two years of an exchange, straight from the library that knows its hours."""
    import exchange_calendars

    exchange = exchange_calendars.get_calendar(name, start="2017-12-01", end="2020-02-01")
    days = []
    for day, row in exchange.schedule.iterrows():
        opened, closed = to_us(row["open"]), to_us(row["close"])
        pre, post = opened, closed
        if name == "XNYS":
            pre = to_us(f"{day:%Y-%m-%d} 04:00", "America/New_York")
            post = min(to_us(f"{day:%Y-%m-%d} 20:00", "America/New_York"), closed + 4 * HOUR)
        regular = ((opened, closed),)
        if not pd.isna(row["break_start"]):
            regular = ((opened, to_us(row["break_start"])), (to_us(row["break_end"]), closed))
        days.append(Day(to_us(day) // DAY_US, pre, regular, post))
    return tuple(days)


def slow_stamp(name: str, us: int) -> tuple[str, int]:
    day = next(day for day in schedule(name) if us < day.post)
    opened, closed = day.regular[0][0], day.regular[-1][1]
    if any(start <= us < end for start, end in day.regular):
        session = "regular"
    elif day.pre <= us < opened:
        session = "pre"
    elif us >= closed:
        session = "post"
    else:
        session = "overnight"
    return session, day.number


def test_a_half_day_in_new_york_has_a_short_regular_and_a_short_post_session():
    assert parts("XNYS", "2018-11-21 16:00", "2018-11-24") == [
        ("21 16:00", "21 20:00", "post", "21"),
        ("21 20:00", "23 04:00", "overnight", "23"),
        ("23 04:00", "23 09:30", "pre", "23"),
        ("23 09:30", "23 13:00", "regular", "23"),
        ("23 13:00", "23 17:00", "post", "23"),
        ("23 17:00", "26 04:00", "overnight", "26"),
    ]


def test_hong_kong_has_no_session_over_lunch_and_the_day_stays_the_same():
    assert parts("XHKG", "2018-11-20", "2018-11-21") == [
        ("20 09:30", "20 12:00", "regular", "20"),
        ("20 12:00", "20 13:00", "overnight", "20"),
        ("20 13:00", "20 16:00", "regular", "20"),
        ("20 16:00", "21 09:30", "overnight", "21"),
    ]


def test_london_opens_at_eight_by_its_own_clock_before_and_after_the_change():
    assert parts("XLON", "2018-10-26", "2018-10-30") == [
        ("26 08:00", "26 16:30", "regular", "26"),
        ("26 16:30", "29 08:00", "overnight", "29"),
        ("29 08:00", "29 16:30", "regular", "29"),
        ("29 16:30", "30 08:00", "overnight", "30"),
    ]
    before, after = to_us("2018-10-26 09:00", "Europe/London"), to_us("2018-10-29 09:00", "Europe/London")
    segments = calendar("XLON").segments(before, after)
    assert segments.offset[segments.row(before)] == HOUR
    assert segments.offset[segments.row(after)] == 0
    # By the clocks on the wall the weekend has an hour less than in truth.
    assert segments.start[segments.row(after)] - segments.end[segments.row(before)] == 64.5 * HOUR


def test_bombay_keeps_its_half_hour():
    assert parts("XBOM", "2018-11-20", "2018-11-21") == [
        ("20 09:15", "20 15:30", "regular", "20"),
        ("20 15:30", "21 09:15", "overnight", "21"),
    ]
    segments = calendar("XBOM").segments(to_us("2018-11-20"), to_us("2018-11-21"))
    assert set(segments.offset.tolist()) == {int(5.5 * HOUR)}


def test_what_never_closes_has_one_regular_session_a_day():
    assert parts("24/7", "2018-11-24", "2018-11-26") == [
        ("24 00:00", "25 00:00", "regular", "24"),
        ("25 00:00", "26 00:00", "regular", "25"),
    ]
    assert calendar("24/7").is_open(to_us("2018-12-25 03:00"))


@pytest.mark.parametrize("name", NAMES)
def test_segments_have_no_holes_and_reach_from_before_all_time_to_after_it(name: str):
    segments = calendar(name).segments(to_us("2018-10-01"), to_us("2018-12-31"))
    assert (segments.start[1:] == segments.end[:-1]).all()
    assert (segments.start < segments.end).all()
    assert segments.start[0] == -FOREVER
    assert segments.end[-1] == FOREVER
    assert (np.diff(segments.day) >= 0).all()
    assert (segments.day_open < segments.day_close).all()
    regular = segments.session == SESSIONS.index("regular")
    assert (segments.start[regular] >= segments.day_open[regular]).all()
    assert (segments.end[regular] <= segments.day_close[regular]).all()
    everything = np.array([-FOREVER, 0, FOREVER - 1])
    assert segments.find(everything).tolist() == [segments.row(int(us)) for us in everything]


@st.composite
def moments(draw: st.DrawFn, name: str) -> int:
    """A moment of 2018 or 2019, as often as not within two microseconds of a bell."""
    if draw(st.booleans()):
        return draw(st.integers(to_us("2018-01-01"), to_us("2019-12-31")))
    day = draw(st.sampled_from([day for day in schedule(name) if 17_532 < day.number < 18_261]))
    bell = draw(st.sampled_from([day.pre, *(us for span in day.regular for us in span), day.post]))
    return bell + draw(st.integers(-2, 2))


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_stamps_are_what_a_slow_reader_of_the_schedule_finds(name: str, data: st.DataObject):
    exchange = calendar(name)
    drawn = data.draw(st.lists(moments(name), min_size=1, max_size=8))
    sessions, days = exchange.stamp(np.array(drawn, np.int64))
    assert (sessions.dtype, days.dtype) == (np.int8, np.int32)
    found = [(SESSIONS[code], int(day)) for code, day in zip(sessions, days, strict=True)]
    assert found == [slow_stamp(name, us) for us in drawn]
    assert found == [(exchange.session(us), exchange.trading_day(us).toordinal() - 719_163) for us in drawn]
    assert [exchange.is_open(us) for us in drawn] == [session == "regular" for session, _ in found]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_the_next_open_and_open_time_are_what_a_slow_reader_finds(name: str, data: st.DataObject):
    exchange = calendar(name)
    first, last = sorted((data.draw(moments(name)), data.draw(moments(name))))
    last = min(last, first + 60 * DAY_US)
    spans = [span for day in schedule(name) for span in day.regular]
    assert exchange.next_open(first) == min(start for start, _ in spans if start > first)
    assert exchange.open_time(first, last) == sum(
        max(0, min(end, last) - max(start, first)) for start, end in spans
    )
    assert exchange.open_time(last, first) == 0
    regular = exchange.regular(first, last)
    overlapping = [span for span in spans if span[1] > first and span[0] < last]
    assert sum(end - start for start, end in regular) == sum(end - start for start, end in overlapping)
    assert all(before < after for (_, before), (after, _) in pairwise(regular))


def test_no_moments_have_no_stamps():
    sessions, days = calendar("XNYS").stamp(np.empty(0, np.int64))
    assert (len(sessions), len(days)) == (0, 0)


@pytest.mark.parametrize(
    ("moment", "session", "day"),
    [
        ("2018-11-16 03:59:59.999999", "overnight", "2018-11-16"),
        ("2018-11-16 04:00", "pre", "2018-11-16"),
        ("2018-11-16 09:30", "regular", "2018-11-16"),
        ("2018-11-16 15:59:59.999999", "regular", "2018-11-16"),
        ("2018-11-16 16:00", "post", "2018-11-16"),
        ("2018-11-16 20:00", "overnight", "2018-11-19"),
        ("2018-11-17 12:00", "overnight", "2018-11-19"),
        ("2018-11-18 22:00", "overnight", "2018-11-19"),
        ("2018-11-22 12:00", "overnight", "2018-11-23"),
    ],
)
def test_a_night_and_a_weekend_belong_to_the_trading_day_that_comes(moment: str, session: str, day: str):
    new_york = calendar("XNYS")
    us = to_us(moment, new_york.tz)
    assert new_york.session(us) == session
    assert new_york.is_open(us) == (session == "regular")
    assert new_york.trading_day(us) == pd.Timestamp(day)


def test_the_next_open_skips_weekends_and_holidays_and_comes_after_lunch():
    new_york, hong_kong = calendar("XNYS"), calendar("XHKG")
    opened = to_us("2018-11-16 09:30", new_york.tz)
    assert new_york.next_open(opened - 1) == opened
    assert new_york.next_open(opened) == to_us("2018-11-19 09:30", new_york.tz)
    thanksgiving = to_us("2018-11-21 18:00", new_york.tz)
    assert new_york.next_open(thanksgiving) == to_us("2018-11-23 09:30", new_york.tz)
    lunch = to_us("2018-11-20 12:30", hong_kong.tz)
    assert hong_kong.next_open(lunch) == to_us("2018-11-20 13:00", hong_kong.tz)


def test_regular_sessions_that_touch_are_joined_and_others_kept_apart():
    start, end = to_us("2018-11-19"), to_us("2018-11-24")
    assert calendar("24/7").regular(start, end) == [(start, end)]
    new_york = calendar("XNYS").regular(start, end)
    assert [(end - start) / HOUR for start, end in new_york] == [6.5, 6.5, 6.5, 3.5]
    hong_kong = calendar("XHKG").regular(start, start + DAY_US)
    assert [(end - start) / HOUR for start, end in hong_kong] == [2.5, 3.0]


def test_a_price_does_not_age_while_the_exchange_sleeps():
    new_york = calendar("XNYS")
    friday, monday = to_us("2018-11-16 15:59", new_york.tz), to_us("2018-11-19 09:31", new_york.tz)
    assert new_york.open_time(friday, monday) == HOUR // 30


def test_beyond_what_an_exchange_knows_it_never_opens():
    bombay = calendar("XBOM")
    early, late = to_us("1990-06-01"), to_us("2090-06-01")
    assert bombay.session(early) == bombay.session(late) == "overnight"
    assert bombay.trading_day(early) == pd.Timestamp("1997-01-01")
    assert bombay.trading_day(late) == bombay.last_day
    assert bombay.next_open(late) is None
    assert bombay.regular(early, early + DAY_US) == []
    assert bombay.open_time(early, early + 30 * DAY_US) == 0


def test_history_longer_than_the_library_computes_unasked_has_its_sessions():
    new_york = calendar("XNYS")
    assert new_york.is_open(to_us("1987-10-19 10:00", new_york.tz))
    assert not new_york.is_open(to_us("1987-10-18 10:00", new_york.tz))


def test_a_calendar_is_made_once_and_says_what_it_is():
    assert calendar("XNYS") is calendar("XNYS")
    assert repr(calendar("XLON")) == "<Calendar XLON Europe/London>"


@pytest.mark.parametrize(
    ("name", "nearest"), [("XNYSE", "XNYS"), ("xnys", "XNYS"), ("LON", "XLON"), ("24/8", "24/7")]
)
def test_an_unknown_calendar_comes_with_the_nearest(name: str, nearest: str):
    with pytest.raises(UnknownNameError) as caught:
        calendar(name)
    assert caught.value.nearest[0] == nearest
    assert str(caught.value).startswith(f"Unknown calendar {name!r}. Did you mean {nearest}")
