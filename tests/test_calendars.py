"""When exchanges trade: days, halves of days, lunch breaks, and what belongs to which day."""

import numpy as np
import pandas as pd
import pytest

from marketdash.calendars import DAY_US, calendar
from marketdash.clock import to_us
from marketdash.errors import UnknownNameError

HOUR = 3_600_000_000


def at(time: str, tz: str = "America/New_York") -> int:
    return to_us(time, tz)


@pytest.mark.parametrize(
    ("name", "time", "session", "day"),
    [
        ("XNYS", "2018-11-21 03:59", "overnight", "2018-11-21"),
        ("XNYS", "2018-11-21 04:00", "pre", "2018-11-21"),
        ("XNYS", "2018-11-21 09:30", "regular", "2018-11-21"),
        ("XNYS", "2018-11-21 15:59:59", "regular", "2018-11-21"),
        ("XNYS", "2018-11-21 16:00", "post", "2018-11-21"),
        ("XNYS", "2018-11-21 20:00", "overnight", "2018-11-23"),  # Thanksgiving lies between
        ("XNYS", "2018-11-23 13:00", "post", "2018-11-23"),  # a half day, and half an evening
        ("XNYS", "2018-11-23 17:00", "overnight", "2018-11-26"),
        ("XNYS", "2018-11-24 12:00", "overnight", "2018-11-26"),
        ("XNAS", "2018-11-21 10:00", "regular", "2018-11-21"),
        ("XLON", "2018-11-21 08:00", "regular", "2018-11-21"),
        ("XLON", "2018-11-21 16:30", "overnight", "2018-11-22"),
        ("XHKG", "2018-11-21 11:59", "regular", "2018-11-21"),
        ("XHKG", "2018-11-21 12:30", "overnight", "2018-11-21"),
        ("XHKG", "2018-11-21 13:00", "regular", "2018-11-21"),
        ("CMES", "2018-11-20 18:00", "regular", "2018-11-21"),
        ("24/7", "2018-11-24 23:59", "regular", "2018-11-24"),
        ("24/7", "2018-11-25 00:00", "regular", "2018-11-25"),
    ],
)
def test_a_moment_has_a_session_and_a_trading_day(name: str, time: str, session: str, day: str):
    exchange = calendar(name)
    moment = at(time, exchange.tz)
    assert exchange.session(moment) == session
    assert exchange.trading_day(moment) == pd.Timestamp(day)
    assert exchange.is_open(moment) == (session == "regular")
    codes, days = exchange.stamp(np.array([moment, moment]))
    assert ["pre", "regular", "post", "overnight"][codes[1]] == session
    assert pd.Timestamp(int(days[1]), unit="D") == pd.Timestamp(day)


@pytest.mark.parametrize("name", ["XNYS", "XLON", "XHKG", "XBOM", "CMES", "24/7"])
def test_segments_leave_no_hole_and_overlap_nowhere(name: str):
    segments = calendar(name).segments(to_us("2018-10-01"), to_us("2018-12-01"))
    assert (segments.start[1:] == segments.end[:-1]).all()
    assert segments.start[0] < 0
    assert segments.end[-1] > to_us("2200-01-01")
    assert (np.diff(segments.day) >= 0).all()


def test_bars_of_a_zone_know_what_it_adds_before_and_after_clocks_change():
    exchange = calendar("XLON")
    segments = exchange.segments(to_us("2018-10-20"), to_us("2018-11-10"))
    before, after = (
        segments.offset[segments.row(to_us(day))] for day in ("2018-10-26 10:00", "2018-10-29 10:00")
    )
    assert (before, after) == (HOUR, 0)


def test_open_time_counts_regular_hours_only():
    exchange = calendar("XNYS")
    assert exchange.open_time(at("2018-11-21 15:00"), at("2018-11-21 18:00")) == HOUR
    assert exchange.open_time(at("2018-11-21 15:00"), at("2018-11-23 10:00")) == 1.5 * HOUR
    assert exchange.open_time(at("2018-11-21 15:00"), at("2018-11-21 14:00")) == 0
    # Two weeks of 2018: ten days, of them one holiday and one half day.
    assert exchange.open_time(at("2018-11-12 00:00"), at("2018-11-24 00:00")) == (8 * 6.5 + 3.5) * HOUR


def test_the_regular_sessions_of_a_stretch_of_time():
    sessions = calendar("XNYS").regular(at("2018-11-21 12:00"), at("2018-11-24 00:00"))
    shown = [
        tuple(pd.Timestamp(us, unit="us", tz="UTC").strftime("%d %H:%M") for us in pair) for pair in sessions
    ]
    assert shown == [("21 14:30", "21 21:00"), ("23 14:30", "23 18:00")]
    (always,) = calendar("24/7").regular(at("2018-11-21"), at("2018-11-24"))
    assert always[1] - always[0] >= 3 * DAY_US, "days that touch are one stretch"


def test_the_next_open_comes_after_weekends_and_long_holidays():
    exchange = calendar("XNYS")
    assert exchange.next_open(at("2018-11-23 13:00")) == at("2018-11-26 09:30")
    assert exchange.next_open(at("2018-11-26 09:29")) == at("2018-11-26 09:30")
    assert exchange.next_open(at("2018-11-26 09:30")) == at("2018-11-27 09:30")
    # The end of a month of thirty days, counted from 1970, is where tables are cut.
    edge = to_us("2018-11-20") // (30 * DAY_US) * 30 * DAY_US
    for day in range(-3, 4):
        assert exchange.next_open(edge + day * DAY_US) - (edge + day * DAY_US) < 5 * DAY_US


def test_years_that_the_calendar_does_not_hold_unasked_are_fetched():
    exchange = calendar("XNYS")
    assert exchange.session(at("1987-10-19 10:00")) == "regular"
    assert exchange.session(at("2030-11-20 10:00")) == "regular"


def test_beyond_what_a_calendar_knows_it_is_night_for_ever():
    exchange = calendar("XBOM")
    later = to_us(exchange.last_day) + 90 * DAY_US
    assert exchange.session(later) == "overnight"
    assert exchange.trading_day(later) == exchange.last_day
    assert exchange.next_open(later) is None
    assert exchange.open_time(later, later + 10 * DAY_US) == 0
    assert exchange.session(to_us("1980-03-03 10:00", exchange.tz)) == "overnight"


def test_an_unknown_calendar_gives_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean XNYS"):
        calendar("XNYSE")
