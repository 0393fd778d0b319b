"""Adjusted reads: the splits and dividends that were in effect and known, put on the bars of a market."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.clock import to_timestamp, to_us
from marketdash.errors import CapacityError, ClockError, SchemaError, UnknownNameError
from marketdash.frames import Bars, BarStore, RollingFrame, adjust
from marketdash.frames.bars import CLOSE, TIME
from marketdash.instruments import Universe

Ints = npt.NDArray[np.int64]


class _Known(NamedTuple):
    """The rows of the frame that change prices, as columns; the same key stands together, as it came."""

    instrument: Ints
    is_split: npt.NDArray[np.bool_]
    time: Ints
    known: Ints
    day: Ints
    ex: Ints
    value: npt.NDArray[np.float64]


class View:
    """One adjustment at one moment. `unadjusted` are ids of instruments with bars whose prices came out as NaN,
    since a dividend could not be taken off."""

    def __init__(self, factors: adjust.Factors, day: int) -> None:
        self.factors, self.as_of = factors, str(np.datetime64(day, "D"))
        self.unadjusted: Ints = np.zeros(0, np.int64)

    def rows(self, rows: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Long columns of bars, those of `BarStore.rows`."""
        price, volume = self._at(rows["instrument_id"], rows["time"])
        return rows | adjust.applied(rows, price, volume)

    def bars(self, instrument: int, bars: Bars) -> Bars:
        """The bars of one instrument."""
        price, volume = self._at(np.full(len(bars), instrument), bars.time)
        changed: dict[str, Any] = adjust.applied(bars._asdict(), price, volume)
        return Bars(**(bars._asdict() | changed))  # `_replace` takes the number of bars for that of fields

    def table(
        self, times: Ints, ids: npt.NDArray[Any], fields: dict[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """Fields of shape (bars, instruments), those of `BarStore.table`."""
        columns = np.flatnonzero(np.isin(ids, self.factors.instrument))
        price, volume = np.ones((2, len(times), len(ids)))
        found = self._at(np.tile(ids[columns], len(times)), np.repeat(times, len(columns)))
        price[:, columns], volume[:, columns] = (part.reshape(len(times), len(columns)) for part in found)
        return adjust.applied(fields, price, volume)

    def _at(
        self, ids: npt.NDArray[Any], times: Ints
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        price, volume = self.factors.at(ids, times)
        self.unadjusted = np.unique(ids[np.isnan(price)])
        return price, volume


class Adjuster:
    """Reads the frame of actions anew only when it has changed."""

    def __init__(self, universe: Universe, store: BarStore, frame: RollingFrame) -> None:
        self.universe, self.store, self.frame = universe, store, frame
        self._version = -1
        self._known: _Known

    def view(self, ids: npt.NDArray[Any], adjustment: str, day: int | None, now_us: int, today: int) -> View:
        """The actions of some instruments that were in effect and known at `now_us`, with an ex-date up to `day`."""
        if len(self.frame) >= self.frame.rows:
            expected, got = (
                f"fewer than {self.frame.rows:,} rows",
                "so many that some may have been forgotten",
            )
            raise CapacityError(
                "The frame of actions", expected, got, "A source should tell each action once."
            )
        if self.frame.version != self._version:
            self._known, self._version = self._read(), self.frame.version
        rows, asked = self._known, np.zeros(len(self.universe), np.bool_)
        asked[ids] = True
        chosen = asked[rows.instrument] & (rows.time <= now_us) & (rows.known <= now_us)
        if day is not None:
            chosen &= rows.day <= day
        kept = _Known._make(column[chosen] for column in rows)
        # Told again, a row replaces what it said before.
        same = np.ones(len(kept.time), np.bool_)
        for column in (kept.instrument, kept.is_split, kept.time):
            same[:-1] &= column[1:] == column[:-1]
        same[-1:] = False
        kept = _Known._make(column[~same] for column in kept)
        actions = adjust.combine(kept.instrument, kept.ex, kept.is_split, kept.value)
        closes = self._closes(actions) if adjustment != "split" else (actions.dividend, actions.dividend)
        return View(adjust.factors(actions, adjustment, *closes), today if day is None else min(day, today))

    def _read(self) -> _Known:
        table = self.frame.table()
        kind = table["kind"].cast(pa.utf8())
        table = table.filter(pc.not_equal(kind, "rename"))
        instrument = table["instrument_id"].to_numpy().astype(np.int64)
        time, known = (table[name].cast(pa.int64()).to_numpy() for name in ("time", "known_at"))
        is_split = pc.equal(table["kind"].cast(pa.utf8()), "split").to_numpy()
        day, ex = np.zeros((2, len(time)), np.int64)
        for name, ids in self.universe.by_calendar.items():
            mine = np.isin(instrument, ids)
            if mine.any():
                day[mine], ex[mine] = adjust.trading_days(name, time[mine])
        order = np.lexsort((time, is_split, instrument))  # stable: what came later stays behind
        columns = (instrument, is_split, time, known, day, ex, table["value"].to_numpy())
        return _Known._make(column[order] for column in columns)

    def _closes(self, actions: adjust.Actions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The raw daily closes that dividends need."""
        ring = self.store.ring("1d")
        ids = np.unique(actions.instrument[actions.dividend > 0])
        kept = np.minimum(ring.total[ids], ring.capacity)
        which = np.repeat(ids, kept)
        begin = np.repeat(ring.total[ids] - kept, kept)
        offset = np.arange(len(which)) - np.repeat(np.cumsum(kept) - kept, kept)
        slots = (begin + offset) % ring.capacity
        times, closes = ring.ints[which, slots, TIME], ring.floats[which, slots, CLOSE]
        return adjust.closes_around(actions, which, times, closes)


def as_of_day(as_of: object, adjustment: str, tz: str) -> int | None:
    """The date `as_of` in days since 1970; of a moment with a zone, its date on the market's clock."""
    if as_of is None:
        return None
    if adjustment == "raw":
        hint = "Raw bars are of no date; ask for adjustment='split', 'total' or 'reinvested'."
        raise UnknownNameError("option", "as_of", (), hint)
    try:
        local = to_timestamp(to_us(as_of, tz), tz).tz_localize(None)
    except ClockError as error:
        raise SchemaError("The argument `as_of`", "a date such as '2018-11-16'", error.got) from error
    return int(local.to_datetime64().astype("M8[D]").astype(np.int64))
