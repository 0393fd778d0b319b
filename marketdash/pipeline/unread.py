"""Which bars have ended and were not read yet: what indicators and listeners to complete bars ask for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.frames.bars import END, TIME, BarStore, Ints

_BEFORE_ALL = np.iinfo(np.int64).min


class Found(NamedTuple):
    """Bars by instrument and number, in the order of their ends, then of their starts and instruments."""

    ids: Ints
    numbers: Ints
    ends: Ints


class Unread:
    """Remembers, for one reader of one width, how far each instrument's bars were read.

    With `since`, only bars that end after that moment are ever found.
    """

    def __init__(self, store: BarStore, width: str, since: int = _BEFORE_ALL) -> None:
        self.store, self.width, self.since = store, width, since
        self.read_until = np.full(store.instruments, _BEFORE_ALL)
        self._late: list[tuple[int, int]] = []
        if since != _BEFORE_ALL:
            ring, complete = store.ring(width), store.complete(width, since)
            ids = np.flatnonzero(complete > np.maximum(ring.total - ring.capacity, 0))
            self.read_until[ids] = ring.ints[ids, (complete[ids] - 1) % ring.capacity, TIME]

    def reset(self) -> None:
        """The market begins again, and so does this reader."""
        self.since = _BEFORE_ALL
        self.read_until[:] = _BEFORE_ALL
        self._late = []

    @property
    def is_whole(self) -> bool:
        """Whether all bars are found, whenever they have ended."""
        return self.since == _BEFORE_ALL

    def snapshot(self) -> tuple[int, Ints, tuple[tuple[int, int], ...]]:
        """How far the bars were read, as copies."""
        return self.since, self.read_until.copy(), tuple(self._late)

    def restore(self, kept: tuple[int, Ints, tuple[tuple[int, int], ...]]) -> None:
        """Go back to where a snapshot was taken."""
        self.since, self.read_until[:], late = kept
        self._late = list(late)

    def note_new(self, ids: Ints, starts: Ints) -> None:
        """Bars have come to be behind newer ones; those behind the last one read are read by themselves."""
        behind = starts <= self.read_until[ids]
        self._late += zip(ids[behind].tolist(), starts[behind].tolist(), strict=True)

    def take(self, us: int) -> Found:
        """The bars that have ended at the moment `us`, each of them once."""
        ring, ids = self.store.ring(self.width), np.flatnonzero(self.store.ring(self.width).total)
        numbers, oldest = ring.total[ids] - 1, np.maximum(ring.total - ring.capacity, 0)
        found = [self._taken_late()]
        while len(ids):  # backwards from the newest bar, mostly two steps
            starts = ring.ints[ids, numbers % ring.capacity, TIME]
            new = starts > self.read_until[ids]
            ids, numbers, starts = ids[new], numbers[new], starts[new]
            found.append((ids, numbers, starts))
            more = numbers > oldest[ids]
            ids, numbers = ids[more], numbers[more] - 1
        which, number, start = (np.concatenate(parts) for parts in zip(*found, strict=True))
        end = ring.ints[which, number % ring.capacity, END]
        over = end <= us
        which, number, start, end = which[over], number[over], start[over], end[over]
        np.maximum.at(self.read_until, which, start)
        rows = np.lexsort((which, start, end))
        rows = rows[end[rows] > self.since]
        return Found(which[rows], number[rows], end[rows])

    def _taken_late(self) -> tuple[Ints, Ints, Ints]:
        late, self._late = self._late, []
        rows = [(i, self.store.find(self.width, i, start), start) for i, start in late]
        columns: npt.NDArray[np.int64] = np.array([row for row in rows if row[1] >= 0], np.int64).reshape(
            -1, 3
        )
        return columns[:, 0], columns[:, 1], columns[:, 2]
