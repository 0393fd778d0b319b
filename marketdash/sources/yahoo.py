"""Live or delayed prices from Yahoo Finance, by polling; for personal use."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from marketdash.calendars import DAY_US, POST, PRE, REGULAR, calendar
from marketdash.clock import Clock
from marketdash.errors import SourceError, UnknownNameError
from marketdash.instruments import Universe
from marketdash.providers.yahoo import RateLimited, YahooClient, YahooError
from marketdash.providers.yahoo_listings import Record, has_known_hours, instrument_of
from marketdash.providers.yahoo_universe import COMPANIES
from marketdash.schema import Event, conform
from marketdash.settings import Settings, load_settings
from marketdash.sources.base import Entitlement, PolledSource, source

log = logging.getLogger(__name__)

TERMS = "Yahoo's terms allow personal use; its data may not be shown to others."

PREFIXES = {PRE: "preMarket", REGULAR: "regularMarket", POST: "postMarket"}
"""Session → how the names of its price and time begin in a quote record."""

AUCTION_US = 3_600_000_000
"""How long after the close a regular print may be the closing auction's; London's comes after 5 minutes."""

UNREACHED = 3
"""Failures to reach Yahoo in a row after which the rest of the history is not asked for."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@source("yahoo")
class YahooSource(PolledSource):
    """`yahoo:AAPL,MSFT` polls these symbols; `yahoo` alone those of the settings, or 77 large US companies.

    Making one asks Yahoo once, to learn what the symbols are. Symbols that it does not know are left out
    and named in `warnings`; if it knows none of them that is an error.
    """

    name = "yahoo"

    def __init__(
        self,
        argument: str = "",
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        client: YahooClient | None = None,
    ) -> None:
        settings = settings or load_settings()
        self.client = client or YahooClient(base_url=settings.yahoo_url, clock=clock)
        self.warnings: list[str] = []
        records = self._records(_symbols(argument) or settings.yahoo_symbols or tuple(COMPANIES))
        universe = Universe(instrument_of(record, i) for i, record in enumerate(records))
        super().__init__(universe, clock=clock or self.client.clock)
        self.interval = self.cadence = settings.yahoo_interval
        self._changes = QuoteChanges(self.universe)
        self._seq, self._seq_lock = 0, threading.Lock()
        self._entitle(records)

    def fetch(self) -> list[Event]:
        """Poll once: ticks and quotes of the instruments that changed."""
        records = self.client.quotes(self.universe.symbols)
        known_us = self.clock.now_us()
        self._entitle(records)
        rows = {
            "ticks": self._changes.ticks(records, known_us),
            "quotes": self._changes.quotes(records, known_us),
        }
        return [self._event(topic, table) for topic, table in rows.items() if len(table)]

    async def batches(self) -> AsyncIterator[Event]:
        while True:
            for event in await asyncio.to_thread(self.fetch):
                yield event
            await asyncio.sleep(self.interval)

    def history(self) -> Iterator[Event]:
        """Daily bars of a year, then minute bars of five days, one batch for each instrument.

        It is one request for each batch, at the client's pace: take the batches while they come. An
        instrument that fails is named in `warnings` and passed over; when Yahoo asks for silence, or
        cannot be reached several times in a row, the rest is left out.
        """
        delay = pd.Timedelta(self.entitlement.delay)
        unreached = 0
        for width, instrument in product(("1d", "1min"), self.universe):
            try:
                bars = self.client.history(instrument, width, delay=delay)
            except SourceError as error:
                self._warn(str(error))
                unreached = 0 if isinstance(error, YahooError) else unreached + 1
                if isinstance(error, RateLimited) or unreached == UNREACHED:
                    return
                continue
            unreached = 0
            if len(bars):
                yield self._event("bars", bars)

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()

    def _records(self, symbols: Iterable[str]) -> list[Record]:
        wanted = tuple(dict.fromkeys(symbol.upper() for symbol in symbols))
        found = {str(record["symbol"]): record for record in self.client.quotes(wanted)}
        unknown = [symbol for symbol in wanted if symbol not in found]
        if not found:
            raise UnknownNameError("Yahoo symbol", ", ".join(unknown), COMPANIES)
        if unknown:
            self._warn(f"Yahoo does not know {', '.join(unknown)}: left out.")
        for record in found.values():
            if not has_known_hours(record):
                where = f"exchange {record.get('exchange')!r} of {record['symbol']}"
                self._warn(f"The hours of {where} are not known: taken as always open.")
        return [found[symbol] for symbol in wanted if symbol in found]

    def _entitle(self, records: Sequence[Record]) -> None:
        # A screen carries one word for the whole source, so the latest instrument decides.
        minutes = np.nan_to_num(_numbers(records, "exchangeDataDelayedBy")).max(initial=0.0)
        self.entitlement = Entitlement(timedelta(minutes=float(minutes)), redistributable=False, note=TERMS)
        self.mode = "delayed" if minutes > 0 else "live"

    def _event(self, topic: str, rows: pd.DataFrame) -> Event:
        with self._seq_lock:  # history and polls run in two threads
            first = self._seq
            self._seq += len(rows)
        days = pa.array(rows["trading_day"].to_numpy(np.int32)).cast(pa.date32())
        # What Yahoo does not tell is NaN here, and null from here on.
        columns = {str(name): pa.array(rows[name], from_pandas=True) for name in rows} | {
            "trading_day": days,
            "source": [self.name] * len(rows),
            "seq": np.arange(first, first + len(rows), dtype=np.int64),
        }
        return topic, conform(topic, columns, f"source {self.name}")

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        log.warning("%s", sentence)


class QuoteChanges:
    """Remembers the last quote records and tells what is new in the next ones.

    A record names the last trade, not the trades between two polls, and the volume of the day so far. So
    one tick stands for all of them: its size is what the day's volume grew by, nothing at the
    first sight of an instrument and never below zero; a new trading day begins at zero. Records that
    went back in time, which Yahoo's servers now and then disagree about, are passed over. Size is null
    where Yahoo tells no such volume: before and after hours, and for crypto, whose volume is that of
    the last 24 hours.

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
        self._adds_up = np.array([item.asset_class != "crypto" for item in universe], np.bool_)
        self._calendars = np.array([item.calendar for item in universe])

    def ticks(self, records: Sequence[Record], known_us: int) -> pd.DataFrame:
        """Rows of the topic ticks, in order of time."""
        ids = self._ids(records)
        tables = [self._regular(records, ids), *(self._extended(records, ids, code) for code in (PRE, POST))]
        rows = pd.concat(tables, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)
        return rows.assign(known_at=known_us)

    def quotes(self, records: Sequence[Record], known_us: int) -> pd.DataFrame:
        """Rows of the topic quotes: best bid and ask where both are present and one of them or a size is new.

        Yahoo does not say when a quote was made, so it carries the time of the latest price.
        """
        ids = self._ids(records)
        names = ("bid", "ask", "bidSize", "askSize")
        book = np.column_stack([_numbers(records, name) for name in names])
        times = np.max([_microseconds(records, f"{prefix}Time") for prefix in PREFIXES.values()], axis=0)
        same = (book == self._book[ids]) | (np.isnan(book) & np.isnan(self._book[ids]))
        new = (book[:, :2] > 0).all(axis=1) & (times > 0) & ~same.all(axis=1)
        self._book[ids[new]] = book[new]
        rows = self._rows(ids[new], times[new])
        bid, ask, bid_size, ask_size = book[new].T
        rows = rows.assign(bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size, known_at=known_us)
        return rows.sort_values("time", kind="stable", ignore_index=True)

    def _regular(self, records: Sequence[Record], ids: Ints) -> pd.DataFrame:
        price, volume = _numbers(records, "regularMarketPrice"), _numbers(records, "regularMarketVolume")
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
        price = _numbers(records, f"{PREFIXES[code]}Price")
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
            {"time": times, "instrument_id": ids.astype(np.int32), "session": session, "trading_day": day}
        )

    def _by_calendar(self, ids: Ints) -> Iterator[tuple[str, Ints]]:
        names = self._calendars[ids]
        for name in np.unique(names):
            yield str(name), np.flatnonzero(names == name)

    def _ids(self, records: Sequence[Record]) -> Ints:
        return np.array([self.universe.id(str(record["symbol"])) for record in records], np.int64)


def _numbers(records: Sequence[Record], field: str) -> Floats:
    """One field of all records; NaN where it is absent or no number."""
    values: list[Any] = [record.get(field) for record in records]
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def _microseconds(records: Sequence[Record], field: str) -> Ints:
    """Yahoo's seconds as microseconds; 0 where they are absent or no time of our century."""
    seconds = np.nan_to_num(_numbers(records, field))
    return (np.where((seconds > 0) & (seconds < 4e9), seconds, 0) * 1e6).astype(np.int64)


def _symbols(argument: str) -> tuple[str, ...]:
    return tuple(symbol for symbol in re.split(r"[,\s]+", argument) if symbol)


__all__ = ["QuoteChanges", "YahooSource"]
