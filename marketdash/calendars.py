"""When an exchange trades: its trading days, cut into pre, regular, post and overnight segments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.errors import UnknownNameError
from marketdash.schema import SESSIONS

DAY_US = 86_400_000_000
FOREVER = 2**62
"""Later than any moment, and far enough from where a 64-bit number ends to be added to."""
FAR = 200 * 366 * DAY_US
EARLIEST, LATEST = pd.Timestamp(1970, 1, 1), pd.Timestamp(2100, 1, 1)
PRE, REGULAR, POST, OVERNIGHT = range(len(SESSIONS))

Ints = npt.NDArray[np.int64]


class ExtendedHours(NamedTuple):
    """Trading outside the regular session, as local times; a half day's post session is shorter."""

    pre_open: time
    post_close: time
    half_day_post_hours: int


EXTENDED: Mapping[str, ExtendedHours] = {
    # exchange_calendars knows regular hours only. NYSE and Nasdaq: https://www.nyse.com/markets/hours-calendars
    "XNYS": ExtendedHours(time(4), time(20), 4),
}


class Segments(NamedTuple):
    """Consecutive stretches of time without holes, as columns; moments in microseconds (UTC).

    The first one begins before all time and the last one ends after it, so that every moment has its row.
    A trading day owns all that follows the end of the trading day before, so that what is printed at
    night belongs to the day that comes. `day` counts days since 1970-01-01; `day_open` is the regular
    open of that day; `offset` is what the zone adds to UTC at the segment's start.
    """

    start: Ints
    end: Ints
    session: Ints
    day: Ints
    day_open: Ints
    day_close: Ints
    offset: Ints

    def find(self, us: Ints) -> Ints:
        """Row of the segment that holds each moment; the first or last one for moments outside."""
        return np.clip(np.searchsorted(self.start, us, side="right") - 1, 0, len(self.start) - 1)

    def row(self, us: int) -> int:
        """Row of the segment that holds one moment."""
        return int(np.searchsorted(self.start, us, side="right")) - 1


class Calendar:
    """One exchange's calendar, by its MIC (`XNYS`, `XLON`, `CMES` …) or `24/7`."""

    def __init__(self, name: str, tz: str, exchange: Any) -> None:
        self.name, self.tz, self._exchange = name, tz, exchange
        self._kept: dict[tuple[int, int], Segments] = {}

    def __repr__(self) -> str:
        return f"<Calendar {self.name} {self.tz}>"

    def segments(self, first_us: int, last_us: int) -> Segments:
        """The segments from the trading day before `first_us` to the one after `last_us`.

        Before the first and after the last day that the exchange's calendar can tell (India's begins in 1997
        and ends with this year) all is one overnight segment, whose trading day is the nearest known one.
        """
        found = self._kept.get((first_us, last_us))
        if found is None:
            found = _segments(self.name, self.tz, self._schedule(first_us, last_us))
            if len(self._kept) >= 32:  # a moving "now" asks for a new stretch each month
                self._kept.pop(next(iter(self._kept)))
            self._kept[first_us, last_us] = found
        return found

    def _schedule(self, first_us: int, last_us: int) -> pd.DataFrame:
        margin = 7 * DAY_US
        days = (np.clip(us, 0, FAR) // DAY_US for us in (first_us - margin, last_us + margin))
        first, last = (pd.Timestamp(int(day), unit="D") for day in days)
        known = self._exchange
        if first < known.first_session or last > known.last_session:
            # Twenty years back and one ahead are what exchange_calendars computes unasked.
            self._exchange = known = _reaching(known, first, last)
        schedule: pd.DataFrame = known.schedule.loc[first:last]
        if schedule.empty:
            schedule = known.schedule.iloc[:1] if last < known.first_session else known.schedule.iloc[-1:]
        return schedule

    @property
    def last_day(self) -> pd.Timestamp:
        """The last trading day that this calendar knows so far."""
        return self._exchange.last_session  # type: ignore[no-any-return]

    def is_open(self, us: int) -> bool:
        """Whether the regular session is on at this moment."""
        return self.session(us) == "regular"

    def session(self, us: int) -> str:
        """The name of the session at this moment."""
        segments = self._around(us)
        return SESSIONS[int(segments.session[segments.row(us)])]

    def trading_day(self, us: int) -> pd.Timestamp:
        """The trading day (a date) to which this moment belongs."""
        segments = self._around(us)
        return pd.Timestamp(int(segments.day[segments.row(us)]), unit="D")

    def next_open(self, us: int) -> int | None:
        """The next regular open after this moment, or None beyond what the calendar knows."""
        # The longest holiday that exchanges keep is China's new year: eleven days.
        segments = self._range(us, us + 30 * DAY_US)
        opens = segments.start[segments.session == REGULAR]
        later = opens[opens > us]
        return int(later[0]) if len(later) else None

    def open_time(self, since_us: int, until_us: int) -> int:
        """Microseconds of regular session between two moments: the age that a price has in market time."""
        if until_us <= since_us:
            return 0
        segments = self._range(since_us, until_us)
        regular = segments.session == REGULAR
        start = np.maximum(segments.start[regular], since_us)
        end = np.minimum(segments.end[regular], until_us)
        return int(np.maximum(end - start, 0).sum())

    def regular(self, first_us: int, last_us: int) -> list[tuple[int, int]]:
        """The regular sessions that overlap a stretch of time, touching ones joined."""
        segments = self._range(first_us, last_us)
        rows = (segments.session == REGULAR) & (segments.end > first_us) & (segments.start < last_us)
        joined: list[tuple[int, int]] = []
        for start, end in zip(segments.start[rows].tolist(), segments.end[rows].tolist(), strict=True):
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    def stamp(self, us: Ints) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
        """Session code and trading day (days since 1970) of each moment."""
        if len(us) == 0:
            return np.empty(0, np.int8), np.empty(0, np.int32)
        segments = self._range(int(us.min()), int(us.max()))
        rows = segments.find(us)
        return segments.session[rows].astype(np.int8), segments.day[rows].astype(np.int32)

    def _around(self, us: int) -> Segments:
        return self._range(us, us)

    def _range(self, first_us: int, last_us: int) -> Segments:
        # Rounded to months, so that a moving "now" asks for the same stretch again.
        month = 30 * DAY_US
        return self.segments(first_us // month * month, -(-last_us // month) * month)


@lru_cache(maxsize=64)
def calendar(name: str) -> Calendar:
    """The calendar called `name`, or an error with the nearest names."""
    import exchange_calendars  # 1.3 s to import: only where a calendar is needed
    from exchange_calendars.errors import InvalidCalendarName

    try:
        exchange = exchange_calendars.get_calendar(name)
    except InvalidCalendarName:
        known = exchange_calendars.get_calendar_names(include_aliases=False)
        raise UnknownNameError("calendar", name, known) from None
    return Calendar(exchange.name, str(exchange.tz), exchange)


def _reaching(exchange: Any, first: pd.Timestamp, last: pd.Timestamp) -> Any:
    """The same calendar over a longer time, as far as its makers know it."""
    import exchange_calendars

    earliest, latest = exchange.bound_min() or EARLIEST, exchange.bound_max() or LATEST
    # Whole decades and a year more, so that a growing history asks seldom.
    start = max(pd.Timestamp(min(first, exchange.first_session).year // 10 * 10, 1, 1), EARLIEST, earliest)
    end = min(max(last + pd.Timedelta(days=366), exchange.last_session), LATEST, latest)
    a_week = pd.Timedelta(days=7)
    if start > exchange.first_session - a_week and end < exchange.last_session + a_week:
        return exchange
    return exchange_calendars.get_calendar(exchange.name, start=start, end=max(end, exchange.last_session))


def _segments(name: str, tz: str, schedule: pd.DataFrame) -> Segments:
    opened, closed = _us(schedule["open"]), _us(schedule["close"])
    days = _us(schedule.index) // DAY_US
    whole = schedule["break_start"].isna().to_numpy()
    lunch, back = (np.where(whole, closed, _us(schedule[edge])) for edge in ("break_start", "break_end"))
    pre, post = _extended(name, tz, pd.DatetimeIndex(schedule.index), opened, closed)
    before = np.concatenate([[-FOREVER], post[:-1]])
    edges = np.stack([before, pre, opened, lunch, back, closed, post], axis=1)
    codes = np.tile([OVERNIGHT, PRE, REGULAR, OVERNIGHT, REGULAR, POST], (len(days), 1))
    rows = np.stack(
        [edges[:, :-1], edges[:, 1:], codes, *(np.tile(day[:, None], 6) for day in (days, opened, closed))],
        axis=2,
    ).reshape(-1, 6)
    rows = rows[rows[:, 0] < rows[:, 1]]
    after = [post[-1], FOREVER, OVERNIGHT, days[-1], opened[-1], closed[-1]]
    columns = list(np.vstack([rows, after]).T.copy())
    columns.append(_offsets(np.maximum(columns[0], 0), tz))
    return Segments(*columns)


def _extended(name: str, tz: str, days: pd.DatetimeIndex, opened: Ints, closed: Ints) -> tuple[Ints, Ints]:
    """When trading begins before the open and ends after the close, of each day."""
    hours = EXTENDED.get(name)
    if hours is None:
        return opened, closed
    pre, post = (
        _us((days + pd.Timedelta(hours=at.hour, minutes=at.minute)).tz_localize(tz))
        for at in (hours.pre_open, hours.post_close)
    )
    # The full day's post session lasts as long as a half day's or less, so a longer one means a half day.
    half_day = closed + hours.half_day_post_hours * 3_600_000_000
    return np.minimum(pre, opened), np.maximum(closed, np.minimum(post, half_day))


def _us(times: Any) -> Ints:
    return pd.DatetimeIndex(times).as_unit("us").asi8


def _offsets(start: Ints, tz: str) -> Ints:
    times = pd.DatetimeIndex(start.astype("M8[us]")).tz_localize("UTC")
    return _us(times.tz_convert(tz).tz_localize(None)) - start
