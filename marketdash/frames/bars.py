"""Bars of all instruments and widths, in rings that a compiled kernel writes in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.errors import UnknownNameError
from marketdash.schema import WIDTHS, width_us

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OPEN, HIGH, LOW, CLOSE, VOLUME, TURNOVER = range(6)
TIME, END, KNOWN, COUNT, REVISION, SESSION, DAY, GIVEN = range(8)

_FIRST_CAPACITY = 64


class Bars(NamedTuple):
    """Consecutive bars of one instrument, oldest first, as columns that the caller owns.

    `number` is the number of the first bar since the start of the market: bar i has the number
    `number + i`, for ever. Times are microseconds (UTC); `end` is when a bar is known; `given` is 1 for
    bars that came ready-made from the source. `turnover` is NaN and `count` -1 where the source knows none.
    """

    number: int
    time: Ints
    end: Ints
    known: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    turnover: Floats
    count: Ints
    revision: Ints
    session: Ints
    day: Ints
    given: Ints

    def __len__(self) -> int:  # type: ignore[override]
        return len(self.time)

    @property
    def vwap(self) -> Floats:
        """Turnover by volume; NaN where nothing traded or the turnover is unknown."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.volume > 0, self.turnover / self.volume, np.nan)


class Ring:
    """The bars of one width: `floats[instrument, slot, field]` and `ints[instrument, slot, field]`.

    `total[instrument]` counts the bars ever begun; bar b lies in the slot b % capacity. The capacity
    starts small and doubles up to `limit`; from then on the oldest bar makes room for the newest.
    """

    def __init__(self, instruments: int, limit: int) -> None:
        self.limit = limit
        self.total = np.zeros(instruments, np.int64)
        self._allocate(min(_FIRST_CAPACITY, limit))

    def _allocate(self, capacity: int) -> None:
        self.floats = np.zeros((len(self.total), capacity, 6))
        self.ints = np.zeros((len(self.total), capacity, 8), np.int64)

    @property
    def capacity(self) -> int:
        return self.floats.shape[1]

    @property
    def may_grow(self) -> bool:
        return self.capacity < self.limit

    def grow(self) -> None:
        """Double the capacity; only called before the first slot is used again."""
        floats, ints, used = self.floats, self.ints, self.capacity
        self._allocate(min(used * 2, self.limit))
        self.floats[:, :used], self.ints[:, :used] = floats, ints

    def reset(self) -> None:
        self.total[:] = 0

    def slots(self, instrument: int, last: int | None = None) -> Ints:
        """Slots of the kept bars of an instrument, oldest first."""
        total = int(self.total[instrument])
        kept = min(total, self.capacity if last is None else min(last, self.capacity))
        return np.arange(total - kept, total) % self.capacity

    @property
    def nbytes(self) -> int:
        return self.floats.nbytes + self.ints.nbytes


class BarStore:
    """The rings of several widths.

    `rows` bounds the bars kept per width over all instruments (and at least 250 for each one), so that
    memory is bounded whatever the number of instruments. `touched[instrument]` grows whenever a bar of
    the instrument changes.
    """

    def __init__(self, instruments: int, widths: Sequence[str], rows: int = 1_000_000) -> None:
        self.widths = tuple(sorted(widths, key=width_us))
        self.instruments = instruments
        limit = int(np.clip(rows // max(instruments, 1), 250, 20_000))
        self.rings = {width: Ring(instruments, limit) for width in self.widths}
        self.touched = np.zeros(instruments, np.int64)
        self.full = np.zeros(instruments, np.bool_)
        self.active = np.array([i for i, width in enumerate(WIDTHS) if width in self.rings], np.int64)
        self.limits = np.array([limit if width in self.rings else 0 for width in WIDTHS], np.int64)
        self._idle = Ring(1, 1)
        self._share()

    def _share(self) -> None:
        # Kernels take one tuple entry per known width, built or not, so that one compiled version serves all.
        rings = [self.rings.get(width, self._idle) for width in WIDTHS]
        self.floats = tuple(ring.floats for ring in rings)
        self.ints = tuple(ring.ints for ring in rings)
        self.totals = tuple(ring.total for ring in rings)

    def grow(self) -> None:
        """Double every ring that is full and may grow."""
        for ring in self.rings.values():
            if ring.may_grow and (ring.total >= ring.capacity).any():
                ring.grow()
        self.full[:] = False
        self._share()

    @property
    def version(self) -> int:
        return int(self.touched.sum())

    def reset(self) -> None:
        for ring in self.rings.values():
            ring.reset()
        self.full[:] = False
        self.touched += 1

    def ring(self, width: str) -> Ring:
        """The ring of a width; an unknown one, or one that this market does not build, is an error."""
        width_us(width)
        if width not in self.rings:
            hint = f"This market has bars of {', '.join(self.widths)}."
            raise UnknownNameError("width", width, self.widths, hint)
        return self.rings[width]

    def bars(self, instrument: int, width: str, last: int | None = None) -> Bars:
        """The kept bars of one instrument, at most the `last` ones."""
        ring = self.ring(width)
        slots = ring.slots(instrument, last)
        floats, ints = ring.floats[instrument, slots], ring.ints[instrument, slots]
        return Bars(
            int(ring.total[instrument]) - len(slots),
            *(ints[:, field].copy() for field in (TIME, END, KNOWN)),
            *(floats[:, field].copy() for field in (OPEN, HIGH, LOW, CLOSE, VOLUME, TURNOVER)),
            *(ints[:, field].copy() for field in (COUNT, REVISION, SESSION, DAY, GIVEN)),
        )

    def table(
        self, width: str, instruments: npt.NDArray[Any] | None = None, last: int | None = None
    ) -> tuple[Ints, dict[str, Floats]]:
        """The last bars of several instruments aligned by their start.

        Returns the T starts (microseconds) and, by field, arrays of shape (T, number of instruments)
        that hold NaN where an instrument has no bar.
        """
        ring = self.ring(width)
        ids = np.arange(self.instruments) if instruments is None else np.asarray(instruments, dtype=np.int64)
        kept = min(ring.capacity, ring.capacity if last is None else last)
        numbers = ring.total[ids][:, None] + np.arange(-kept, 0)[None, :]
        valid = (numbers >= 0) & (numbers >= ring.total[ids][:, None] - ring.capacity)
        slots = numbers % ring.capacity
        times = np.where(valid, ring.ints[ids[:, None], slots, TIME], np.iinfo(np.int64).min)
        starts = np.unique(times[valid])
        if last is not None:
            starts = starts[-last:]
        row = np.searchsorted(starts, times)
        if len(starts):
            valid &= times >= starts[0]
        column = np.broadcast_to(np.arange(len(ids))[:, None], row.shape)
        fields = {}
        names = {"open": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME, "turnover": TURNOVER}
        for name, field in names.items():
            values = np.full((len(starts), len(ids)), np.nan)
            values[row[valid], column[valid]] = ring.floats[ids[:, None], slots, field][valid]
            fields[name] = values
        return starts, fields

    def rows(self, width: str, instruments: npt.NDArray[Any], last: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """All kept bars of several instruments as long columns, by instrument, then oldest first."""
        ring = self.ring(width)
        ids = np.asarray(instruments, dtype=np.int64)
        kept = np.minimum(ring.total[ids], ring.capacity if last is None else min(last, ring.capacity))
        which = np.repeat(ids, kept)
        begin = np.repeat(ring.total[ids] - kept, kept)
        offset = np.arange(len(which)) - np.repeat(np.cumsum(kept) - kept, kept)
        return self.gather(width, which, begin + offset)

    def gather(self, width: str, instruments: npt.NDArray[Any], numbers: Ints) -> dict[str, npt.NDArray[Any]]:
        """The bars with these numbers, as columns."""
        ring = self.ring(width)
        slots = numbers % ring.capacity
        floats, ints = ring.floats[instruments, slots], ring.ints[instruments, slots]
        columns: dict[str, npt.NDArray[Any]] = {"instrument_id": instruments.astype(np.int32), "number": numbers}
        for name, field in (("open", OPEN), ("high", HIGH), ("low", LOW), ("close", CLOSE)):
            columns[name] = floats[:, field]
        columns["volume"] = floats[:, VOLUME]
        with np.errstate(invalid="ignore", divide="ignore"):
            columns["vwap"] = np.where(floats[:, VOLUME] > 0, floats[:, TURNOVER] / floats[:, VOLUME], np.nan)
        for name, field in (("time", TIME), ("end", END), ("known_at", KNOWN), ("count", COUNT)):
            columns[name] = ints[:, field]
        for name, field in (("revision", REVISION), ("session", SESSION), ("trading_day", DAY)):
            columns[name] = ints[:, field]
        return columns

    def complete(self, width: str, until_us: int) -> Ints:
        """For each instrument, how many of its bars have ended at the moment `until_us`."""
        ring = self.ring(width)
        total = ring.total
        end = ring.ints[np.arange(len(total)), (total - 1) % ring.capacity, END]
        return total - ((total > 0) & (end > until_us))

    @property
    def nbytes(self) -> int:
        return sum(ring.nbytes for ring in self.rings.values())
