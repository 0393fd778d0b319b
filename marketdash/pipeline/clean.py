"""Clean: rows that cannot be true go no further, and are kept with the reason."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.calendars import REGULAR
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS

REASONS = (
    "good",
    "unknown instrument",
    "impossible price",
    "impossible size",
    "impossible bar",
    "impossible time",
    "unknown width",
)
KEPT_REJECTS = 1000


class Clean(Sited):
    """Stops impossible rows and stamps the others with their session and trading day.

    A trade or bar price must be a finite number above zero, a size finite and not negative, a high not
    below its low, an instrument known, a width one of `widths`, and nothing can be known a quarter of an hour
    before it happened. What real tapes contain (a busted print, a low above the open) is not
    impossible and passes. Stopped rows are counted by reason in `rejected`, the last kept in `rejects`.
    """

    def __init__(self, sessions: SessionTable, topic: str, widths: Sequence[str] = tuple(WIDTHS)) -> None:
        super().__init__(sessions)
        self.topic = topic
        self.rejected: Counter[str] = Counter()
        self._built = np.array([width in widths for width in WIDTHS], np.int64)
        self._stopped: deque[tuple[pa.RecordBatch, npt.NDArray[np.int8]]] = deque()
        self._kept = 0

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """The last rows that were stopped, oldest first, with topic and reason; times in microseconds."""
        rows = []
        for batch, verdict in self._stopped:
            # As numbers, since what was stopped for its time may lie outside of all calendars.
            plain = pa.table({name: _numbers(batch.column(name)) for name in batch.schema.names})
            for code, record in zip(verdict.tolist(), plain.to_pylist(), strict=True):
                rows.append({"topic": self.topic, "reason": REASONS[code], **record})
        return rows[-KEPT_REJECTS:]

    def reset(self) -> None:
        self.rejected.clear()
        self._stopped.clear()
        self._kept = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not batch.num_rows:
            return None
        times, known = columns.ints(batch, "time"), columns.known(batch)
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=known)
        verdict = np.empty(len(times), np.int8)
        if self._judge(batch, times, known, verdict):
            self._keep_rejects(batch, verdict)
            batch = batch.filter(pa.array(verdict == 0))
            if not batch.num_rows:
                return None
            times = columns.ints(batch, "time")
        self.sessions.cover(int(times.min()), int(times.max()))
        if batch.column("session").null_count or batch.column("trading_day").null_count:
            batch = self._stamped(batch, times)
        return batch

    def _judge(self, batch: pa.RecordBatch, *rows: Any) -> int:
        """Write the number of the reason of each row, and return how many are stopped."""
        times, known, verdict = rows
        ids, instruments = columns.ids(batch), len(self.sessions.universe)
        if self.topic == "quotes":
            sides = [columns.floats(batch, name) for name in ("bid", "ask", "bid_size", "ask_size")]
            bad = kernels.check_quotes(ids, times, known, *sides, instruments, verdict)
        elif self.topic == "bars":
            values, bases = columns.bars(batch), columns.widths(batch)
            bad = kernels.check_bars(ids, times, known, values, bases, self._built, instruments, verdict)
        else:
            price, size = columns.floats(batch, "price"), columns.floats(batch, "size")
            bad = kernels.check_ticks(ids, times, known, price, size, instruments, verdict)
        return bad  # type: ignore[no-any-return]

    def _keep_rejects(self, batch: pa.RecordBatch, verdict: npt.NDArray[np.int8]) -> None:
        for code, count in enumerate(np.bincount(verdict).tolist()):
            if code and count:
                self.rejected[REASONS[code]] += count
        rows = np.flatnonzero(verdict)[-KEPT_REJECTS:]
        self._stopped.append((batch.take(pa.array(rows)), verdict[rows]))
        self._kept += len(rows)
        while self._kept - len(self._stopped[0][1]) >= KEPT_REJECTS:
            self._kept -= len(self._stopped.popleft()[1])

    def _stamped(self, batch: pa.RecordBatch, times: npt.NDArray[np.int64]) -> pa.RecordBatch:
        session, day = np.empty(len(times), np.int8), np.empty(len(times), np.int32)
        table = self.sessions
        kernels.stamp(columns.ids(batch), times, table.segments, table.spans, self.pointers, session, day)
        if self.topic == "bars":
            # A daily bar is the regular session's, at whatever hour of its day the source has stamped it.
            session[columns.widths(batch) == len(WIDTHS) - 1] = REGULAR
        return columns.with_columns(batch, session=session, trading_day=day)


def _numbers(column: pa.Array) -> pa.Array:
    return column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column
