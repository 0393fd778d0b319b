"""When an exchange trades: its trading days, cut into pre, regular, post and overnight segments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.clock import to_timestamp, to_us
from marketdash.errors import UnknownNameError
from marketdash.schema import SESSIONS

DAY_US = 86_400_000_000
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


class Calendar:
    """One exchange's calendar, by its MIC (`XNYS`, `XLON`, `CMES` …) or `24/7`."""

    def __init__(self, name: str, tz: str, exchange: Any) -> None:
        self.name, self.tz, self._exchange = name, tz, exchange

    def __repr__(self) -> str:
        return f"<Calendar {self.name} {self.tz}>"

    @lru_cache(maxsize=8)  # noqa: B019 - calendars are few and live as long as the process
    def segments(self, first_us: int, last_us: int) -> Segments:
        """The segments from the trading day before `first_us` to the one after `last_us`.

        Beyond the last day that the exchange's calendar knows there are no segments; `last_day` says so.
        """
        first = pd.Timestamp(first_us, unit="us").normalize() - pd.Timedelta(days=7)
        last = pd.Timestamp(last_us, unit="us").normalize() + pd.Timedelta(days=7)
        schedule = self._exchange.schedule.loc[first:last]
        return _segments(self.name, self.tz, schedule)

    @property
    def last_day(self) -> pd.Timestamp:
        """The last trading day that this calendar knows."""
        return self._exchange.last_session  # type: ignore[no-any-return]

    def is_open(self, us: int) -> bool:
        """Whether the regular session is on at this moment."""
        return self.session(us) == "regular"

    def session(self, us: int) -> str:
        """The name of the session at this moment."""
        segments = self._around(us)
        i = int(segments.find(np.array([us]))[0])
        inside = segments.start[i] <= us < segments.end[i]
        return SESSIONS[int(segments.session[i])] if inside else "overnight"

    def trading_day(self, us: int) -> pd.Timestamp:
        """The trading day (a date) to which this moment belongs."""
        segments = self._around(us)
        return pd.Timestamp(int(segments.day[int(segments.find(np.array([us]))[0])]), unit="D")

    def next_open(self, us: int) -> int | None:
        """The next regular open after this moment, or None beyond what the calendar knows."""
        segments = self._around(us)
        opens = segments.start[segments.session == REGULAR]
        later = opens[opens > us]
        return int(later[0]) if len(later) else None

    def open_time(self, since_us: int, until_us: int) -> int:
        """Microseconds of regular session between two moments: the age that a price has in market time."""
        if until_us <= since_us:
            return 0
        segments = self._around(since_us) if until_us - since_us < DAY_US else self._range(since_us, until_us)
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


def _segments(name: str, tz: str, schedule: pd.DataFrame) -> Segments:
    extended = EXTENDED.get(name)
    rows: list[tuple[int, int, int, int, int, int]] = []
    previous_end: int | None = None
    for day, times in zip(schedule.index, schedule.itertuples(index=False), strict=True):
        opened, closed = to_us(times.open), to_us(times.close)
        number = to_us(day) // DAY_US
        pre, post = opened, closed
        if extended:
            pre, post = _extended(day, opened, closed, tz, extended)
        begin = previous_end if previous_end is not None else min(pre, opened)
        parts = [(begin, pre, OVERNIGHT), (pre, opened, PRE)]
        if pd.isna(times.break_start):
            parts.append((opened, closed, REGULAR))
        else:
            lunch, back = to_us(times.break_start), to_us(times.break_end)
            parts += [(opened, lunch, REGULAR), (lunch, back, OVERNIGHT), (back, closed, REGULAR)]
        parts.append((closed, post, POST))
        rows += [(start, end, code, number, opened, closed) for start, end, code in parts if start < end]
        previous_end = post
    start, end, code, number, day_open, day_close = np.array(rows, np.int64).reshape(-1, 6).T.copy()
    return Segments(start, end, code, number, day_open, day_close, _offsets(start, tz))


def _extended(
    day: pd.Timestamp, opened: int, closed: int, tz: str, hours: ExtendedHours
) -> tuple[int, int]:
    date = day.date()
    pre = to_us(pd.Timestamp.combine(date, hours.pre_open), tz)
    post = to_us(pd.Timestamp.combine(date, hours.post_close), tz)
    # The full day's post session lasts as long as a half day's or less, so a longer one means a half day.
    return min(pre, opened), max(closed, min(post, closed + hours.half_day_post_hours * 3_600_000_000))


def _offsets(start: Ints, tz: str) -> Ints:
    local = [to_timestamp(int(us), tz).utcoffset() for us in start]
    return np.array([int(offset.total_seconds() * 1e6) if offset else 0 for offset in local], np.int64)
