"""Live or delayed prices from Yahoo Finance, by polling; for personal use."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa

from marketdash.clock import Clock
from marketdash.errors import SourceError, UnknownNameError
from marketdash.instruments import Instrument, Universe
from marketdash.providers.yahoo import RateLimited, YahooClient, YahooError
from marketdash.providers.yahoo_listings import Record, has_known_hours, instrument_of
from marketdash.providers.yahoo_universe import COMPANIES
from marketdash.schema import TOPICS, Event, conform
from marketdash.settings import Settings, load_settings
from marketdash.sources._yahoo_changes import QuoteChanges, numbers
from marketdash.sources.base import Entitlement, PolledSource, source

log = logging.getLogger(__name__)

TERMS = "Yahoo's terms allow personal use; its data may not be shown to others."

HISTORY_SECONDS = 20.0
"""How long `history` may hold up the live prices; what it leaves is fetched between the polls."""

UNREACHED = 3
"""Failures to reach Yahoo in a row after which no more history is asked for until it answers a poll."""


@source("yahoo")
class YahooSource(PolledSource):
    """`yahoo:AAPL,MSFT` polls these symbols; `yahoo` alone those of the settings, or 77 large US companies.

    Making one asks Yahoo once, to learn what the symbols are. Symbols that it does not know are left out
    and named in `warnings`; if it knows none of them that is an error.

    History costs two requests for each instrument, at the client's pace: what cannot be had within
    `history_seconds` comes later, in `batches`, between the polls.
    """

    name = "yahoo"
    finest = "1min"  # a poll sees one trade out of many

    def __init__(
        self,
        argument: str = "",
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        client: YahooClient | None = None,
        history_seconds: float = HISTORY_SECONDS,
    ) -> None:
        settings = settings or load_settings()
        self.client = client or YahooClient(base_url=settings.yahoo_url, clock=clock)
        self.warnings: list[str] = []
        records = self._records(_symbols(argument) or settings.yahoo_symbols or tuple(COMPANIES))
        universe = Universe(instrument_of(record, i) for i, record in enumerate(records))
        super().__init__(universe, clock=clock or self.client.clock)
        self.interval = settings.yahoo_interval
        self.stall_after = max(60.0, 3 * self.interval)
        self.history_seconds = history_seconds
        self._changes = QuoteChanges(self.universe)
        self._backlog: deque[tuple[Instrument, str]] = deque()
        self._unreached = 0
        self._polled_us: int | None = None
        self._seq, self._seq_lock = 0, threading.Lock()
        self._entitle(records)

    def fetch(self) -> list[Event]:
        """Poll once: ticks and quotes of the instruments that changed."""
        asked_us = self.clock.now_us()
        records = self.client.quotes(self.universe.symbols)
        known_us = self.clock.now_us()
        self._polled_us, self._unreached = asked_us, 0
        self._entitle(records)
        rows = {
            "ticks": self._changes.ticks(records, known_us),
            "quotes": self._changes.quotes(records, known_us),
        }
        return [self._event(topic, table) for topic, table in rows.items() if len(table)]

    async def batches(self) -> AsyncIterator[Event]:
        now = asyncio.get_running_loop().time
        while True:
            following = now() + self.interval
            # An empty batch when there is no news tells that Yahoo was heard.
            for event in await asyncio.to_thread(self.fetch) or [_no_ticks()]:
                yield event
            while self._more_history and now() < following:
                if past := await asyncio.to_thread(self._past):
                    yield past
            await asyncio.sleep(max(following - now(), 0.0))

    def history(self) -> Iterator[Event]:
        """For each instrument a batch of daily bars of one year, then one of minute bars of five days.

        It ends after `history_seconds`. An instrument that fails is named in `warnings` and passed over.
        """
        self._backlog = deque(product(self.universe, ("1d", "1min")))
        until = self.client.wall() + self.history_seconds
        while self._more_history and self.client.wall() < until:
            if past := self._past():
                yield past

    def complete_until(self, now_us: int) -> int:
        """The last poll, less the feed's delay: what traded since is not known yet."""
        polled_us = now_us if self._polled_us is None else self._polled_us
        return min(now_us, polled_us) - int(self.entitlement.delay.total_seconds() * 1e6)

    def close(self) -> None:
        """Close the client's connections."""
        self.client.close()

    @property
    def _more_history(self) -> bool:
        return bool(self._backlog) and self._unreached < UNREACHED

    def _past(self) -> Event | None:
        """The next batch of history; None if there are no bars, or it failed."""
        instrument, width = wanted = self._backlog.popleft()
        try:
            bars = self.client.history(instrument, width, delay=pd.Timedelta(self.entitlement.delay))
        except SourceError as error:
            self._warn(str(error))
            if isinstance(error, RateLimited):
                self._backlog.appendleft(wanted)
                self._unreached = UNREACHED
            else:
                self._unreached = 0 if isinstance(error, YahooError) else self._unreached + 1
            return None
        self._unreached = 0
        if not len(bars):
            return None
        if width == "1d":
            self._changes.has_days[instrument.id] = True
        return self._event("bars", bars)

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
        minutes = np.nan_to_num(numbers(records, "exchangeDataDelayedBy")).max(initial=0.0)
        self.entitlement = Entitlement(timedelta(minutes=float(minutes)), redistributable=False, note=TERMS)
        self.mode = "delayed" if minutes > 0 else "live"
        # A price is as old as the feed is late before it could be heard of at all.
        self.cadence = self.interval + float(minutes) * 60

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


def _no_ticks() -> Event:
    return "ticks", conform("ticks", TOPICS["ticks"].schema.empty_table())


def _symbols(argument: str) -> tuple[str, ...]:
    return tuple(symbol for symbol in re.split(r"[,\s]+", argument) if symbol)


__all__ = ["YahooSource"]
