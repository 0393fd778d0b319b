"""What is new between two polls of Yahoo's quotes, as rows of ticks and quotes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.calendars import DAY_US, POST, PRE, REGULAR, Calendar, calendar
from marketdash.clock import to_timestamp
from marketdash.instruments import Universe
from marketdash.providers.yahoo_chart import moments
from marketdash.providers.yahoo_listings import Record

PREFIXES = {PRE: "preMarket", REGULAR: "regularMarket", POST: "postMarket"}
"""Session → how the names of its price and time begin in a quote record."""

AUCTION_US = 3_600_000_000
"""How long after the close a regular print may be the closing auction's; London's comes after 5 minutes."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class QuoteChanges:
    """Remembers the last quote records and tells what is new in the next ones.

    A record names the last trade, not the trades between two polls, and the volume of the day so far. So
    one tick stands for all of them: its size is what the day's volume grew by, nothing at the
    first sight of an instrument and never below zero; a new trading day begins at zero. Records that
    went back in time, which Yahoo's servers now and then disagree about, are passed over. Size is null
    where Yahoo tells no such volume: before and after hours, and for crypto, whose volume is that of
    the last 24 hours.

    At the first sight of an instrument whose daily bars were not read (`has_days`), the previous close comes
    first, as a late print of the day before: without it nobody could tell the day's change.

    A regular print later than the close is the closing auction's: it is stamped with the last microsecond of
    the session, so that the day's bar ends with the official close.
    """

    def __init__(self, universe: Universe) -> None:
        count = len(universe)
        self.universe = universe
        self._times = np.zeros((len(PREFIXES), count), np.int64)
        self._volume = np.full(count, np.nan)
        self._volume_day = np.full(count, -1, np.int64)
        self._book = np.full((count, 4), np.nan)
        self.has_days = np.zeros(count, np.bool_)
        self._adds_up = np.array([item.asset_class != "crypto" for item in universe], np.bool_)
        self._calendars = np.array([item.calendar for item in universe])

    def ticks(self, records: Sequence[Record], known_us: int) -> pd.DataFrame:
        """Rows of the topic ticks, in order of time."""
        ids = self._ids(records)
        tables = [
            self._previous(records, ids),
            self._regular(records, ids),
            self._extended(records, ids, PRE),
            self._extended(records, ids, POST),
        ]
        rows = pd.concat(tables, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)
        return rows.assign(known_at=to_timestamp(known_us))

    def quotes(self, records: Sequence[Record], known_us: int) -> pd.DataFrame:
        """Rows of the topic quotes: best bid and ask where both are present and one of them or a size is new.

        Yahoo does not say when a quote was made, so it carries the time of the latest price.
        """
        ids = self._ids(records)
        names = ("bid", "ask", "bidSize", "askSize")
        book = np.column_stack([numbers(records, name) for name in names])
        times = np.max([_microseconds(records, f"{prefix}Time") for prefix in PREFIXES.values()], axis=0)
        same = (book == self._book[ids]) | (np.isnan(book) & np.isnan(self._book[ids]))
        new = (book[:, :2] > 0).all(axis=1) & (times > 0) & ~same.all(axis=1)
        self._book[ids[new]] = book[new]
        rows = self._rows(ids[new], times[new])
        bid, ask, bid_size, ask_size = book[new].T
        rows = rows.assign(
            bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size, known_at=to_timestamp(known_us)
        )
        return rows.sort_values("time", kind="stable", ignore_index=True)

    def _previous(self, records: Sequence[Record], ids: Ints) -> pd.DataFrame:
        price = numbers(records, "regularMarketPreviousClose")
        seen = _microseconds(records, "regularMarketTime")
        unseen = (self._times[REGULAR, ids] == 0) & ~self.has_days[ids]
        first = unseen & (price > 0) & (seen > 0)
        ids, seen = ids[first], seen[first]
        closed = np.zeros(len(ids), np.int64)
        days = self._rows(ids, self._inside(ids, seen))["trading_day"].to_numpy()
        for name, rows in self._by_calendar(ids):
            closed[rows] = _closes_before(calendar(name), days[rows], seen[rows])
        return self._rows(ids, closed - 1).assign(price=price[first], size=np.nan)

    def _regular(self, records: Sequence[Record], ids: Ints) -> pd.DataFrame:
        price, volume = numbers(records, "regularMarketPrice"), numbers(records, "regularMarketVolume")
        seen = _microseconds(records, "regularMarketTime")
        last = self._times[REGULAR, ids]
        with np.errstate(invalid="ignore"):
            more = volume > self._volume[ids]
        new = (price > 0) & (seen > 0) & ((seen > last) | ((seen == last) & more))
        ids, price, volume, seen = ids[new], price[new], volume[new], seen[new]
        self._times[REGULAR, ids] = seen
        rows = self._rows(ids, self._inside(ids, seen))
        return rows.assign(price=price, size=self._sizes(ids, volume, rows["trading_day"].to_numpy()))

    def _extended(self, records: Sequence[Record], ids: Ints, code: int) -> pd.DataFrame:
        price = numbers(records, f"{PREFIXES[code]}Price")
        seen = _microseconds(records, f"{PREFIXES[code]}Time")
        new = (price > 0) & (seen > self._times[code, ids])
        self._times[code, ids[new]] = seen[new]
        return self._rows(ids[new], seen[new]).assign(price=price[new], size=np.nan)

    def _sizes(self, ids: Ints, volume: Floats, day: Ints) -> Floats:
        before, day_before = self._volume[ids], self._volume_day[ids]
        fresh = day > day_before
        # The day's highest volume counts: a server that lags behind must not make shares trade twice.
        self._volume[ids] = np.where(fresh, volume, np.fmax(before, volume))
        self._volume_day[ids] = np.maximum(day, day_before)
        size = np.where(fresh, volume, np.maximum(volume - before, 0.0))
        return np.where((day_before < 0) | ~self._adds_up[ids], np.nan, size)

    def _inside(self, ids: Ints, times: Ints) -> Ints:
        """Times of regular prints, those of a closing auction moved into the session that they close."""
        moved = times.copy()
        for name, rows in self._by_calendar(ids):
            mine = times[rows]
            stretches = calendar(name).regular(int(mine.min()) - DAY_US, int(mine.max()) + DAY_US)
            if not stretches:
                continue
            opens, closes = np.array(stretches, np.int64).T
            i = np.searchsorted(opens, mine, side="right") - 1
            close = closes[np.maximum(i, 0)]
            after = (i >= 0) & (mine >= close) & (mine < close + AUCTION_US)
            moved[rows] = np.where(after, close - 1, mine)
        return moved

    def _rows(self, ids: Ints, times: Ints) -> pd.DataFrame:
        session, day = np.zeros(len(ids), np.int8), np.zeros(len(ids), np.int32)
        for name, rows in self._by_calendar(ids):
            session[rows], day[rows] = calendar(name).stamp(times[rows])
        return pd.DataFrame(
            {
                "time": moments(times),
                "instrument_id": ids.astype(np.int32),
                "session": session,
                "trading_day": day,
            }
        )

    def _by_calendar(self, ids: Ints) -> Iterator[tuple[str, Ints]]:
        names = self._calendars[ids]
        for name in np.unique(names):
            yield str(name), np.flatnonzero(names == name)

    def _ids(self, records: Sequence[Record]) -> Ints:
        return np.array([self.universe.id(str(record["symbol"])) for record in records], np.int64)


def numbers(records: Sequence[Record], field: str) -> Floats:
    """One field of all records; NaN where it is absent or no number."""
    values: list[Any] = [record.get(field) for record in records]
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def _microseconds(records: Sequence[Record], field: str) -> Ints:
    """Yahoo's seconds as microseconds; 0 where they are absent or no time of our century."""
    seconds = np.nan_to_num(numbers(records, field))
    return (np.where((seconds > 0) & (seconds < 4e9), seconds, 0) * 1e6).astype(np.int64)


def _closes_before(hours: Calendar, days: Ints, around: Ints) -> Ints:
    """When the trading day before each of these days closed."""
    segments = hours.segments(int(around.min()) - 30 * DAY_US, int(around.max()) + DAY_US)
    known, first = np.unique(segments.day, return_index=True)
    closes: Ints = segments.day_close[first]
    return closes[np.maximum(np.searchsorted(known, days) - 1, 0)]
