"""Bars of all instruments and widths, in rings that a compiled kernel writes in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.errors import UnknownNameError
from marketdash.schema import WIDTHS, width_us

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OPEN, HIGH, LOW, CLOSE, VOLUME, TURNOVER, VOLUME_REST, TURNOVER_REST = range(8)
TIME, END, KNOWN, COUNT, REVISION, SESSION, DAY, GIVEN, OPENED, CLOSED, OPENED_SEQ, CLOSED_SEQ = range(8, 20)
RECORD, N_FLOATS = 20, 8
"""A bar is a record of 20 numbers of 8 bytes each, of which the first 8 are floats."""

FRESH_HIGH, FRESH_LOW, FRESH_CLOSE, FRESH_VOLUME, FRESH_TURNOVER, FRESH_VOLUME_REST, FRESH_TURNOVER_REST = (
    range(7)
)
FRESH_UNTIL, FRESH_CLOSED, FRESH_SEQ, FRESH_KNOWN, FRESH_COUNT, FRESH_CLOSE_KNOWN, FRESH_LISTED = range(7, 14)
FRESH = 16
"""The record of an instrument's fresh ticks; sixteen numbers fill two lines of the processor's cache."""

BUILT, READY_MADE, FOLDED = range(3)
"""Values of GIVEN: built from ticks alone, told by the source, or FOLDED + i: folded from bars that the
source told, the widest of which have the i-th width."""

FIRST_CAPACITY = 64
_PAST = 4096
TOLD_AGAIN = 2
"""Of a note of the past: a source has told a bar again as it was, which changes no more than when it was known."""
PLACES = {width: place for place, width in enumerate(WIDTHS)}
"""Width → its place in WIDTHS, which is its number in kernels."""

_FIELDS = {"open": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME, "turnover": TURNOVER}


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
    count: Ints  # type: ignore[assignment]  # the field's name for it, not the tuple's method
    revision: Ints
    session: Ints
    day: Ints
    given: Ints

    def __len__(self) -> int:
        return len(self.time)

    @property
    def vwap(self) -> Floats:
        """Turnover by volume; NaN where nothing traded or the turnover is unknown."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.volume > 0, self.turnover / self.volume, np.nan)


class Ring:
    """The bars of one width: `floats[instrument, slot, field]` and `ints[instrument, slot, field]`.

    Both are views of the same records: read fields up to TURNOVER_REST from `floats`, the others from `ints`.

    OPENED and CLOSED are the event times to which OPEN and CLOSE belong, OPENED_SEQ and CLOSED_SEQ the
    numbers of their events, so that a print that comes late finds its place in the bar. VOLUME_REST and
    TURNOVER_REST are what rounding has taken from VOLUME and TURNOVER: with them a sum does not depend on the
    order in which it was formed.

    `total[instrument]` counts the bars ever begun; bar b lies in the slot b % capacity. The capacity
    starts small and doubles up to `limit`; from then on the oldest bar makes room for the newest.
    """

    def __init__(self, total: Ints, limit: int, settle: Callable[[], None]) -> None:
        self.total, self.limit, self._settle = total, limit, settle
        self.lie_in(np.empty((len(total), 0, RECORD), np.int64))

    def lie_in(self, records: Ints) -> None:
        """Use this memory from now on."""
        self.raw_ints, self.raw_floats = records, records.view(np.float64)

    @property
    def floats(self) -> Floats:
        self._settle()
        return self.raw_floats

    @property
    def ints(self) -> Ints:
        self._settle()
        return self.raw_ints

    @property
    def capacity(self) -> int:
        return int(self.raw_ints.shape[1])

    @property
    def is_full(self) -> bool:
        """Whether it must grow before it can take another bar of each instrument."""
        return self.capacity < self.limit and bool(self.total.max(initial=0) >= self.capacity)

    def slots(self, instrument: int, last: int | None = None) -> Ints:
        """Slots of the kept bars of an instrument, oldest first."""
        total = int(self.total[instrument])
        kept = min(total, self.capacity if last is None else min(last, self.capacity))
        return np.arange(total - kept, total) % self.capacity

    @property
    def nbytes(self) -> int:
        return self.raw_ints.nbytes


class Memory(NamedTuple):
    """All arrays of a store, as kernels take them: flat ones are looked into both as floats and as integers."""

    active: Ints
    widths: Ints
    totals: Ints
    limits: Ints
    touched: Ints
    past: Ints
    past_used: Ints
    head_floats: Floats
    head_ints: Ints
    waiting_floats: Floats
    waiting_ints: Ints
    fresh_floats: Floats
    fresh_ints: Ints
    fresh_ids: Ints
    floats: Floats
    ints: Ints
    offsets: Ints
    capacities: Ints


class BarStore:
    """The rings of several widths.

    `rows` bounds the bars kept per width over all instruments (and at least 250 for each one), so that
    memory is bounded whatever the number of instruments. `touched[instrument]` grows whenever a bar of
    the instrument changes. Changes of bars that are not the newest are noted for `take_past`, if
    `notes_past` is set.

    The newest bars of an instrument lie together in `heads`, apart from the rings: a tick then touches one
    page of memory instead of one per width, which takes a third of the time. Whoever reads a ring finds the
    newest bars in it. `fresh` sums up the ticks of a batch that belong to all of an instrument's newest bars,
    and is empty between batches. `waiting` has the trades that make no price, where there is no bar for them
    yet. Kernels write into `memory`.
    """

    def __init__(self, instruments: int, widths: Sequence[str], rows: int = 1_000_000) -> None:
        self.widths = tuple(sorted(widths, key=width_us))
        self.instruments = instruments
        limit = int(np.clip(rows // max(instruments, 1), 250, 20_000))
        self.active = np.array([i for i, width in enumerate(WIDTHS) if width in self.widths], np.int64)
        self.limits = np.array([limit if width in self.widths else 0 for width in WIDTHS], np.int64)
        self.totals = np.zeros((instruments, len(WIDTHS)), np.int64)
        self.heads = np.zeros((instruments, len(WIDTHS), RECORD), np.int64)
        self.waiting = np.zeros_like(self.heads)
        self.fresh = np.zeros((instruments, FRESH), np.int64)
        self.fresh_ids = np.zeros(instruments, np.int64)
        self.touched = np.zeros(instruments, np.int64)
        self.changes = 0
        self._settled = {place: (0, self.touched.copy()) for place in self.active.tolist()}
        self.rings = {width: self._ring(width) for width in self.widths}
        self.notes_past = False
        self.tell_past: Callable[[Ints], None] | None = None
        """Hears of each of these changes whether they are noted or not, and of those that are TOLD_AGAIN as well."""
        self.past, self.past_used = np.zeros((_PAST, 4), np.int64), np.zeros(1, np.int64)
        self._past: list[Ints] = []
        self._lay_out({width: min(FIRST_CAPACITY, self.limits[PLACES[width]]) for width in self.widths})

    def _ring(self, width: str) -> Ring:
        place = PLACES[width]
        return Ring(self.totals[:, place], int(self.limits[place]), lambda: self._settle(width))

    def _lay_out(self, capacities: Mapping[str, int]) -> None:
        """Put all rings into one memory, in which kernels find them by their offsets, and keep what they hold.

        Only to be called before the first slot of a ring that grows is used again.
        """
        sizes = [self.instruments * int(capacities.get(width, 0)) * RECORD for width in WIDTHS]
        offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        all_rings = np.zeros(sum(sizes), np.int64)
        for width, ring in self.rings.items():
            begin, size = offsets[PLACES[width]], sizes[PLACES[width]]
            records = all_rings[begin : begin + size].reshape(self.instruments, -1 if size else 0, RECORD)
            records[:, : ring.capacity] = ring.raw_ints
            ring.lie_in(records)
        heads, waiting, fresh = (part.reshape(-1) for part in (self.heads, self.waiting, self.fresh))
        self.memory = Memory(
            active=self.active,
            widths=np.array(list(WIDTHS.values()), np.int64),
            totals=self.totals,
            limits=self.limits,
            touched=self.touched,
            past=self.past,
            past_used=self.past_used,
            head_floats=heads.view(np.float64),
            head_ints=heads,
            waiting_floats=waiting.view(np.float64),
            waiting_ints=waiting,
            fresh_floats=fresh.view(np.float64),
            fresh_ints=fresh,
            fresh_ids=self.fresh_ids,
            floats=all_rings.view(np.float64),
            ints=all_rings,
            offsets=offsets,
            capacities=np.array([capacities.get(width, 0) for width in WIDTHS], np.int64),
        )

    def _settle(self, width: str) -> None:
        """Bring the newest bars into the ring."""
        place = PLACES[width]
        changes, touched = self._settled[place]
        if changes == self.changes:
            return
        ring = self.rings[width]
        ids = np.flatnonzero((self.touched != touched) & (ring.total > 0))
        slots = (ring.total[ids] - 1) % ring.capacity
        ring.raw_ints[ids, slots] = self.heads[ids, place]
        self._settled[place] = (self.changes, self.touched.copy())

    def make_room(self) -> None:
        """After a kernel has stopped: double the rings that are full, empty the notes of the past."""
        full = {width for width, ring in self.rings.items() if ring.is_full}
        if full:
            self._lay_out(
                {
                    width: min(ring.capacity * 2, ring.limit) if width in full else ring.capacity
                    for width, ring in self.rings.items()
                }
            )
        self._empty_past()

    def changed(self) -> None:
        """After a kernel has run: whoever reads next must look."""
        self.changes += 1
        self._empty_past()

    def _empty_past(self) -> None:
        if used := int(self.past_used[0]):
            past = self.past[:used]
            if self.notes_past:
                self._past.append(past[past[:, 3] != TOLD_AGAIN])
            if self.tell_past is not None:
                self.tell_past(past)
            self.past_used[0] = 0

    def take_past(self) -> Ints:
        """What changed behind the newest bars since the last call: rows of width (its place in WIDTHS),
        instrument, start of the bar, and 1 if the bar is new or 0 if it was revised."""
        if not self._past:
            return self.past[:0]
        noted, self._past = np.concatenate(self._past), []
        return noted

    @property
    def version(self) -> int:
        return int(self.touched.sum())

    def reset(self) -> None:
        self.totals[:] = 0
        self.heads[:] = 0
        self.waiting[:] = 0
        self.fresh[:] = 0
        self.past_used[0] = 0
        self._past = []
        self.touched += 1
        self.changes += 1

    def snapshot(self) -> tuple[Ints, ...]:
        """A copy of all that is not in the rings: the newest bars, and how many there were."""
        return tuple(part.copy() for part in self._outside)

    def restore(self, kept: Sequence[Ints]) -> None:
        """Go back to a snapshot; the bars behind the newest are to be put into the rings besides."""
        for part, values in zip(self._outside, kept, strict=True):
            part[:] = values
        self.past_used[0] = 0
        self._past = []
        self.touched += 1
        self.changes += 1

    @property
    def _outside(self) -> tuple[Ints, ...]:
        return self.totals, self.heads, self.waiting, self.fresh

    def grow(self, capacities: Ints) -> None:
        """Make the rings at least as long as these (by place in WIDTHS); they keep what they hold."""
        if (capacities > self.memory.capacities).any():
            longer = np.maximum(capacities, self.memory.capacities)
            self._lay_out({width: int(longer[PLACES[width]]) for width in self.widths})

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
        given = (ints[:, GIVEN] == READY_MADE).astype(np.int64)
        columns: list[Any] = [ints[:, field].copy() for field in (TIME, END, KNOWN)]
        columns += [floats[:, field].copy() for field in (OPEN, HIGH, LOW, CLOSE, VOLUME, TURNOVER)]
        columns += [ints[:, field].copy() for field in (COUNT, REVISION, SESSION, DAY)]
        columns.append(given)
        return Bars(int(ring.total[instrument]) - len(slots), *columns)

    def table(
        self, width: str, instruments: npt.NDArray[Any] | None = None, last: int | None = None
    ) -> tuple[Ints, dict[str, Floats]]:
        """The last bars of several instruments aligned by their start.

        Returns the T starts (microseconds) and, by field, arrays of shape (T, number of instruments)
        that hold NaN where an instrument has no bar. With `last`, T is at most that.
        """
        ids = np.arange(self.instruments) if instruments is None else np.asarray(instruments, dtype=np.int64)
        return self.aligned(width, ids, self.ring(width).total[ids], last, rows=last)

    def aligned(
        self,
        width: str,
        ids: npt.NDArray[Any],
        stop: Ints,
        last: int | None = None,
        rows: int | None = None,
    ) -> tuple[Ints, dict[str, Floats]]:
        """As `table`, of the bars before number `stop[i]` of each instrument, at most the `last` of each.

        With `rows`, T is at most that.
        """
        ring = self.ring(width)
        kept = min(ring.capacity, ring.capacity if last is None else last)
        numbers = stop[:, None] + np.arange(-kept, 0)[None, :]
        valid = (numbers >= 0) & (numbers >= ring.total[ids][:, None] - ring.capacity)
        slots = numbers % ring.capacity
        times = np.where(valid, ring.ints[ids[:, None], slots, TIME], np.iinfo(np.int64).min)
        starts = np.unique(times[valid])
        if rows is not None and len(starts) > rows:
            starts = starts[len(starts) - rows :]
            valid &= times >= (starts[0] if rows else np.iinfo(np.int64).max)
        row, column = np.searchsorted(starts, times[valid]), np.nonzero(valid)[0]
        floats = ring.floats[ids[column], slots[valid]]
        fields = {}
        for name, field in _FIELDS.items():
            values = np.full((len(starts), len(ids)), np.nan, order="F")
            values[row, column] = floats[:, field]
            fields[name] = values
        return starts, fields

    def rows(
        self, width: str, instruments: npt.NDArray[Any], last: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
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
        columns: dict[str, npt.NDArray[Any]] = {
            "instrument_id": instruments.astype(np.int32),
            "number": numbers,
        }
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

    def find(self, width: str, instrument: int, start: int) -> int:
        """The number of the kept bar that starts at `start`, or -1."""
        ring = self.ring(width)
        slots = ring.slots(instrument)
        row = int(np.searchsorted(ring.ints[instrument, slots, TIME], start))
        if row < len(slots) and ring.ints[instrument, slots[row], TIME] == start:
            return int(ring.total[instrument]) - len(slots) + row
        return -1

    def complete(self, width: str, until_us: int) -> Ints:
        """For each instrument, how many of its bars have ended at the moment `until_us`."""
        ring = self.ring(width)
        count, oldest = ring.total.copy(), np.maximum(ring.total - ring.capacity, 0)
        ids = np.arange(len(count))
        while True:  # once, and again for those whose newest bar has not ended
            ids = ids[count[ids] > oldest[ids]]
            ids = ids[ring.ints[ids, (count[ids] - 1) % ring.capacity, END] > until_us]
            if not len(ids):
                return count
            count[ids] -= 1

    @property
    def nbytes(self) -> int:
        return self.heads.nbytes + self.waiting.nbytes + self.fresh.nbytes + self.memory.ints.nbytes
