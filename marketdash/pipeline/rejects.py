"""The rows that cleaning has stopped: counted by reason, the last of them kept."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.pipeline import columns

REASONS = (
    "good",
    "unknown instrument",
    "impossible price",
    "impossible size",
    "impossible bar",
    "impossible time",
    "unknown width",
    "duplicate",
    "far from the last prices",
    "impossible action",
    "unknown original",
    "withdrawn by its source",
)
UNKNOWN, WITHDRAWN = map(REASONS.index, ("unknown original", "withdrawn by its source"))
KEPT = 1000

Verdict = npt.NDArray[np.int8]


class Rejects:
    """Rows of one topic with the number of their reason; `counts` of all, the last `KEPT` themselves."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.counts: Counter[str] = Counter()
        self._stopped: deque[tuple[pa.RecordBatch, Verdict]] = deque()
        self._kept = 0

    def reset(self) -> None:
        self.counts.clear()
        self._stopped.clear()
        self._kept = 0

    def add(self, batch: pa.RecordBatch, verdict: Verdict) -> None:
        """Keep the rows whose verdict is not 0."""
        for code, count in enumerate(np.bincount(verdict).tolist()):
            if code and count:
                self.counts[REASONS[code]] += count
        rows = np.flatnonzero(verdict)[-KEPT:]
        if len(rows):
            self._stopped.append((batch.take(pa.array(rows)), verdict[rows]))
            self._kept += len(rows)
        while (surplus := self._kept - KEPT) > 0:  # exactly, so that it does not matter how rows were cut
            oldest, verdicts = self._stopped.popleft()
            if surplus < len(verdicts):
                self._stopped.appendleft((oldest.slice(surplus), verdicts[surplus:]))
            self._kept -= min(surplus, len(verdicts))

    def take_back(self, code: int, instrument: int, rows: int) -> pa.RecordBatch | None:
        """The last `rows` rows of an instrument that were stopped for this reason; they are no rejects any more."""
        taken: list[pa.RecordBatch] = []
        for place in range(len(self._stopped) - 1, -1, -1):
            batch, verdict = self._stopped[place]
            if not rows:
                break
            found = np.flatnonzero((verdict == code) & (columns.ids(batch) == instrument))[-rows:]
            if not len(found):
                continue
            rows -= len(found)
            taken.append(batch.take(pa.array(found)))
            others = np.delete(np.arange(len(verdict)), found)
            self._stopped[place] = batch.take(pa.array(others)), verdict[others]
            self._kept -= len(found)
            self.counts[REASONS[code]] -= len(found)
        self._stopped = deque(item for item in self._stopped if len(item[1]))
        return pa.concat_batches(taken[::-1]) if taken else None

    def withdraw(self, code: int, instrument: int, seq: int) -> None:
        """Give the row of this number that was stopped for `code` another reason: its source has taken it back."""
        for place, (batch, verdict) in enumerate(self._stopped):
            same = (
                (columns.ids(batch) == instrument) & (columns.counts(batch, "seq") == seq) & (verdict == code)
            )
            if same.any():
                self._stopped[place] = batch, np.where(same, WITHDRAWN, verdict).astype(np.int8)
                self.counts[REASONS[code]] -= int(same.sum())
                self.counts[REASONS[WITHDRAWN]] += int(same.sum())

    def rows(self) -> list[dict[str, Any]]:
        """The kept rows, oldest first, with topic and reason; times in microseconds."""
        rows = []
        for batch, verdict in self._stopped:
            # As numbers, since what was stopped for its time may lie outside of all calendars.
            plain = pa.table({name: _numbers(batch.column(name)) for name in batch.schema.names})
            for code, record in zip(verdict.tolist(), plain.to_pylist(), strict=True):
                rows.append({"topic": self.topic, "reason": REASONS[code], **record})
        return rows[-KEPT:]

    def snapshot(self) -> Any:
        return self.counts.copy(), self._stopped.copy(), self._kept

    def restore(self, kept: Any) -> None:
        counts, stopped, self._kept = kept
        self.counts, self._stopped = counts.copy(), stopped.copy()


class Rejecting:
    """A step that stops rows, and keeps nothing else: a step that does, hands out and takes back both."""

    stopped: Rejects

    @property
    def rejected(self) -> Counter[str]:
        return self.stopped.counts

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """The last rows that were stopped, oldest first, with topic and reason; times in microseconds."""
        return self.stopped.rows()

    def reset(self) -> None:
        self.stopped.reset()

    def snapshot(self) -> Any:
        return self.stopped.snapshot()

    def restore(self, kept: Any) -> None:
        self.stopped.restore(kept)


def _numbers(column: pa.Array) -> pa.Array:
    return column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column
