"""The order of a session log, (known_at, seq), made out of batches that came nearly in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.log.segment import known_us

_FOREVER = 2**62


@dataclass
class Order:
    """Puts rows in order and tells what it had to do for that.

    A row that came twice, as after a seek of the replay that was recorded, is kept once and counted in
    `repeated`. Different rows of one known-at and number are all kept: the later ones get the next numbers
    and are counted in `renumbered`. `moved` counts batches that had to be sorted.
    """

    repeated: int = 0
    renumbered: int = 0
    moved: int = 0

    def ordered(self, batches: Iterable[pa.RecordBatch], lows: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """The rows in order, as batches. `lows` holds the least known-at of each batch.

        A row is handed out as soon as no later batch has an earlier one, so that what is in memory is what
        came out of order and not the day.
        """
        # What comes after each batch is known from here on, or later.
        following = np.minimum.accumulate(np.append(lows, _FOREVER)[::-1])[::-1][1:]
        held: list[pa.RecordBatch] = []
        least = _FOREVER
        for batch, low, floor in zip(batches, lows, following.tolist(), strict=True):
            held.append(batch)
            least = min(least, low)
            if least >= floor:
                continue
            rows = self._sorted(held)
            ready = int(np.searchsorted(known_us(rows), floor, side="left"))
            yield self._once(rows.slice(0, ready))
            held = [rows.slice(ready)] if ready < rows.num_rows else []
            least = int(known_us(rows)[ready]) if held else _FOREVER

    def _sorted(self, held: list[pa.RecordBatch]) -> pa.RecordBatch:
        rows = held[0] if len(held) == 1 else pa.concat_batches(held)
        known, seq = known_us(rows), rows.column("seq").to_numpy()
        if not _goes_back(known, seq).any():
            return rows
        self.moved += 1
        return rows.take(pa.array(np.lexsort((seq, known))))

    def _once(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        known, seq = known_us(rows), rows.column("seq").to_numpy()
        again = np.flatnonzero((np.diff(known) == 0) & (np.diff(seq) == 0)) + 1
        if not len(again):
            return rows
        repeated = again[_same_rows(rows, again)]
        self.repeated += len(repeated)
        kept = np.delete(np.arange(rows.num_rows), repeated)
        rows, known, seq = rows.take(pa.array(kept)), known[kept], seq[kept]
        if len(repeated) == len(again):
            return rows
        numbers = _rising(known, seq)
        self.renumbered += int((numbers != seq).sum())
        place = rows.schema.get_field_index("seq")
        return rows.set_column(place, rows.schema.field(place), pa.array(numbers))


def _goes_back(known: npt.NDArray[np.int64], seq: npt.NDArray[np.int64]) -> Any:
    later = np.diff(known)
    return (later < 0) | ((later == 0) & (np.diff(seq) < 0))


def _same_rows(rows: pa.RecordBatch, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the row at each place equals the one before it; NaN equals NaN here, and null equals null."""
    same = np.ones(len(places), np.bool_)
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        left, right = (column.take(pa.array(row)) for row in (places, places - 1))
        equal = pc.fill_null(pc.equal(left, right), False)
        neither = pc.and_(pc.is_null(left, nan_is_null=True), pc.is_null(right, nan_is_null=True))
        same &= pc.or_(equal, neither).to_numpy(zero_copy_only=False)
    return same


def _rising(known: npt.NDArray[np.int64], seq: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers that rise within each known-at, none lower than it was."""
    numbers = seq.copy()
    starts = np.flatnonzero(np.diff(known, prepend=known[0] - 1))
    ends = np.append(starts[1:], len(known))
    crowded = np.add.reduceat(
        np.append(np.diff(seq) <= 0, False) & np.append(np.diff(known) == 0, False), starts
    )
    for start, end in zip(starts[crowded > 0].tolist(), ends[crowded > 0].tolist(), strict=True):
        rank = np.arange(end - start)  # one pass per moment that has equal numbers, which hardly any has
        numbers[start:end] = np.maximum.accumulate(seq[start:end] - rank) + rank
    return numbers
