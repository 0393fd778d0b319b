"""Bars for those who listen: each change of a bar, or each bar once when it has ended."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from streamz import Stream

from marketdash.frames.bars import RECORD, TIME, BarStore, Ints
from marketdash.pipeline import columns
from marketdash.pipeline.unread import Unread
from marketdash.schema import TIME as MOMENT

_BEFORE_ALL = np.iinfo(np.int64).min


class BarFeed:
    """Sends bars of one width to a node, as long as somebody listens there."""

    def __init__(self, store: BarStore, width: str, node: Stream) -> None:
        self.store, self.width, self.node = store, width, node
        self._seq = 0

    @property
    def heard(self) -> bool:
        return any(True for _ in self.node.downstreams)

    def reset(self) -> None:
        """Forget what was sent."""

    def send(self, batch: pa.RecordBatch) -> list[Any]:
        """Hand a batch to the listeners; returns what they have left to await."""
        return self.node._emit(batch)  # type: ignore[no-any-return]

    def batch(self, ids: npt.NDArray[Any], numbers: Ints) -> pa.RecordBatch:
        """These bars as a batch of the topic, in this order."""
        rows, length = self.store.gather(self.width, ids, numbers), len(ids)
        self._seq += length
        return columns.batch_of(
            "bars",
            rows
            | {
                "time": pa.array(rows["time"]).view(MOMENT),
                "known_at": pa.array(rows["known_at"]).view(MOMENT),
                "seq": np.arange(self._seq - length, self._seq),
                "source": columns.same("bars", length),
                "width": columns.same(self.width, length),
                "vwap": pa.array(rows["vwap"], from_pandas=True),
                "count": pa.array(rows["count"], mask=rows["count"] < 0),
                "revision": rows["revision"].astype(np.int32),
                "session": rows["session"].astype(np.int8),
                "trading_day": pa.array(rows["trading_day"].astype(np.int32)).view(pa.date32()),
            },
        )


class EndedBars(BarFeed):
    """Each bar once, when it is complete, and once more when it was revised after that."""

    def __init__(self, store: BarStore, width: str, node: Stream, now_us: int) -> None:
        super().__init__(store, width, node)
        self.unread = Unread(store, width, now_us)
        self._revised: set[tuple[int, int]] = set()

    def reset(self) -> None:
        self._seq = 0
        self._revised.clear()
        self.unread.reset()

    def note_revised(self, past: Ints) -> None:
        """Bars have changed; those that were sent already are sent again."""
        sent = past[past[:, 2] <= self.unread.read_until[past[:, 1]]]
        self._revised |= set(zip(sent[:, 1].tolist(), sent[:, 2].tolist(), strict=True))

    def take(self, us: int) -> pa.RecordBatch | None:
        """The bars that are complete at `us` and were not sent yet, in the order of their ends, after revised ones."""
        revised, self._revised = sorted(self._revised, key=lambda bar: (bar[1], bar[0])), set()
        found = [(i, self.store.find(self.width, i, start)) for i, start in revised]
        again = np.array([bar for bar in found if bar[1] >= 0], np.int64).reshape(-1, 2)
        ids, numbers, _ = self.unread.take(us)
        ids, numbers = np.concatenate([again[:, 0], ids]), np.concatenate([again[:, 1], numbers])
        return self.batch(ids, numbers) if len(ids) else None


class ChangedBars(BarFeed):
    """Bars whenever they have changed."""

    def __init__(self, store: BarStore, width: str, node: Stream) -> None:
        super().__init__(store, width, node)
        self._touched = store.touched.copy()
        self._newest = np.full(store.instruments, _BEFORE_ALL)
        self._sent = np.zeros((store.instruments, RECORD), np.int64)
        self._past: set[tuple[int, int]] = set()
        ids = np.flatnonzero(store.ring(width).total)
        self._remember(ids, store.ring(width).total[ids] - 1)

    def reset(self) -> None:
        self._seq = 0
        self._touched = self.store.touched.copy()
        self._newest[:] = _BEFORE_ALL
        self._sent[:] = -1
        self._past.clear()

    def note_past(self, past: Ints) -> None:
        """Bars behind the newest have changed or come to be."""
        self._past |= set(zip(past[:, 1].tolist(), past[:, 2].tolist(), strict=True))

    def take(self) -> pa.RecordBatch | None:
        """The bars that have changed since the last call, by time and instrument."""
        ids = np.flatnonzero(self.store.touched != self._touched)
        if not len(ids) or not self.heard:
            return None
        self._touched[ids] = self.store.touched[ids]
        ring, found = self.store.ring(self.width), self._found_past()
        ids = ids[ring.total[ids] > 0]
        newest, oldest = ring.total[ids] - 1, np.maximum(ring.total - ring.capacity, 0)
        which, numbers = ids, newest
        while len(which):  # back to the bar that was the newest when last sent, which may have changed
            starts = ring.ints[which, numbers % ring.capacity, TIME]
            new = starts > self._newest[which]
            new |= (starts == self._newest[which]) & (self._content(which, numbers) != self._sent[which]).any(
                axis=1
            )
            which, numbers, starts = which[new], numbers[new], starts[new]
            found |= set(zip(which.tolist(), numbers.tolist(), starts.tolist(), strict=True))
            more = numbers > oldest[which]
            which, numbers = which[more], numbers[more] - 1
        self._remember(ids, newest)
        if not found:
            return None
        table = np.array(sorted(found, key=lambda row: (row[2], row[0])), np.int64)
        return self.batch(table[:, 0], table[:, 1])

    def _found_past(self) -> set[tuple[int, int, int]]:
        past, self._past = self._past, set()
        found = {(i, self.store.find(self.width, i, start), start) for i, start in past}
        return {row for row in found if row[1] >= 0}

    def _remember(self, ids: Ints, numbers: Ints) -> None:
        ring = self.store.ring(self.width)
        self._newest[ids] = ring.ints[ids, numbers % ring.capacity, TIME]
        self._sent[ids] = self._content(ids, numbers)

    def _content(self, ids: Ints, numbers: Ints) -> Ints:
        """All fields of these bars as bits, so that NaN equals itself."""
        ring = self.store.ring(self.width)
        slots = numbers % ring.capacity
        return ring.ints[ids, slots]
