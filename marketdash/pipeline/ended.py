"""Bars of one width that ended at one moment, with the past that indicators need of them."""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.frames.bars import CLOSE, HIGH, LOW, OPEN, TIME, TURNOVER, VOLUME, BarStore, Ints
from marketdash.indicators.history import FIELDS, BarHistory, Floats
from marketdash.indicators.windows import Windows
from marketdash.instruments import Universe
from marketdash.pipeline.kernels import compiled

_PLACES = {"open": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME, "vwap": TURNOVER}


class Part(NamedTuple):
    """Some of the bars, the history to compute on, and the row and columns of these bars in it."""

    bars: Ints
    history: BarHistory
    row: Ints | int
    columns: Ints | slice


class EndedTogether:
    """These bars of one width: each piece of their past is gathered once, whoever asks for it.

    `lookbacks` tells how many bars of each field will be asked for at most.
    """

    def __init__(
        self,
        universe: Universe,
        store: BarStore,
        width: str,
        tz: str,
        ids: Ints,
        numbers: Ints,
        lookbacks: Mapping[str, int],
    ) -> None:
        self.universe, self.store, self.width, self.tz = universe, store, width, tz
        self.ids, self.numbers, self.lookbacks = ids, numbers, lookbacks
        self._parts: dict[int, list[Part]] = {}

    @cached_property
    def bars(self) -> dict[str, npt.NDArray[Any]]:
        """The bars themselves, as columns."""
        return self.store.gather(self.width, self.ids, self.numbers)

    @cached_property
    def symbols(self) -> list[str]:
        return [self.universe.symbols[i] for i in self.ids.tolist()]

    @cached_property
    def kept(self) -> Ints:
        """How many bars of the instrument are kept up to each of these."""
        ring = self.store.ring(self.width)
        kept: Ints = self.numbers + 1 - np.maximum(ring.total - ring.capacity, 0)[self.ids]
        return kept

    @cached_property
    def fields(self) -> tuple[dict[str, Floats], dict[str, Ints]]:
        """The last bars by field, ending in the last column, and how many of them are finite in a row."""
        longest = min(max(self.lookbacks.values()), int(self.kept.max()))
        shape = len(self.lookbacks), len(self.ids)
        # Memory that nobody touches costs nothing.
        found, unbroken = np.empty((*shape, longest)), np.empty(shape, np.int64)
        fill(
            self.store.ring(self.width).floats, self.ids, self.numbers, self.kept,
            np.array([_PLACES[name] for name in self.lookbacks]), np.array([*self.lookbacks.values()]),
            found, unbroken,
        )  # fmt: skip
        found.setflags(write=False)
        names = list(self.lookbacks)
        return dict(zip(names, found, strict=True)), dict(zip(names, unbroken, strict=True))

    @cached_property
    def windows(self) -> Windows:
        """The last bars of each instrument by itself."""
        fields, unbroken = self.fields
        return Windows(self.symbols, self.kept, fields, unbroken, int(self.kept.max()))

    def histories(self, lookback: int) -> list[Part]:
        """Histories of the instruments whose last `lookback` bars start at the same times.

        They have no holes. In a liquid market there are few of them, since nearly all instruments are alike.
        """
        if lookback not in self._parts:
            self._parts[lookback] = list(self._histories(lookback))
        return self._parts[lookback]

    def _histories(self, lookback: int) -> Iterator[Part]:
        fields, counts = self.fields[0], np.minimum(self.kept, lookback)
        starts = self._starts(lookback)
        length = starts.shape[1]
        if (starts == starts[0]).all():
            alike = [np.arange(len(starts))]
        else:
            found: dict[bytes, list[int]] = {}
            for i in range(len(starts)):  # 3 ms for 2,500 instruments
                found.setdefault(starts[i].tobytes(), []).append(i)
            alike = [np.array(rows) for rows in found.values()]
        for rows in alike:
            count = int(counts[rows[0]])
            tables = {
                name: _transposed(values[rows, values.shape[1] - count :]) for name, values in fields.items()
            }
            symbols = [self.symbols[i] for i in rows.tolist()]
            times = starts[rows[0], length - count :]
            history = BarHistory.from_arrays(times, symbols, self.width, self.tz, copy=False, **tables)
            yield Part(rows, history, -1, slice(None))

    def _starts(self, lookback: int) -> Ints:
        ring, length = self.store.ring(self.width), min(lookback, int(self.kept.max()))
        starts = np.zeros((len(self.ids), length), np.int64)
        fill_starts(ring.ints, self.ids, self.numbers, self.kept, starts)
        return starts

    def of_market(self, lookback: int) -> list[Part]:
        """All bars at once, with the history of all instruments: of each, the bars that had ended by then."""
        if -lookback not in self._parts:
            stop = self.store.complete(self.width, int(self.bars["end"].max()))
            times, fields = self.store.aligned(self.width, np.arange(len(self.universe)), stop, lookback)
            turnover, volume = fields.pop("turnover"), fields["volume"]
            with np.errstate(invalid="ignore", divide="ignore"):
                fields["vwap"] = np.where(volume > 0, turnover / volume, np.nan)
            symbols = self.universe.symbols
            history = BarHistory.from_arrays(times, symbols, self.width, self.tz, copy=False, **fields)
            row = np.searchsorted(times, self.bars["time"])
            self._parts[-lookback] = [Part(np.arange(len(self.ids)), history, row, self.ids)]
        return self._parts[-lookback]


def _transposed(values: Floats) -> Floats:
    """A field of a history, which nobody can change: several indicators share it."""
    table = np.ascontiguousarray(values)
    table.setflags(write=False)
    return table.T


@compiled
def fill(floats, ids, numbers, kept, places, lookbacks, found, unbroken):
    """Copy the last bars of instruments, one field after the other; turnover by volume in place of turnover."""
    capacity, length = floats.shape[1], found.shape[2]
    for i in range(len(ids)):
        ring = floats[ids[i]]
        for f in range(len(places)):
            place, row = places[f], found[f, i]
            count = min(kept[i], lookbacks[f])
            slot = (numbers[i] - count + 1) % capacity
            run = 0
            for k in range(length - count, length):
                value = ring[slot, place]
                if place == TURNOVER:
                    volume = ring[slot, VOLUME]
                    value = value / volume if volume > 0.0 else np.nan
                row[k] = value
                run = run + 1 if np.isfinite(value) else 0
                slot += 1
                if slot == capacity:
                    slot = 0
            unbroken[f, i] = run


@compiled
def fill_starts(ints, ids, numbers, kept, starts):
    """Copy the starts of the last bars of instruments, ending in the last column."""
    capacity, length = ints.shape[1], starts.shape[1]
    for i in range(len(ids)):
        count = min(kept[i], length)
        slot = (numbers[i] - count + 1) % capacity
        for k in range(length - count, length):
            starts[i, k] = ints[ids[i], slot, TIME]
            slot = slot + 1 if slot + 1 < capacity else 0


__all__ = ["FIELDS", "EndedTogether", "Part"]
