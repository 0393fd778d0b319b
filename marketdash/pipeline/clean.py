"""Clean: rows that cannot be true go no further, and are kept with the reason."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.pipeline import columns, kernels
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited

REASONS = ("good", "unknown instrument", "impossible price", "impossible size", "impossible bar")
KEPT_REJECTS = 1000


class Clean(Sited):
    """Stops impossible rows and stamps the others with their session and trading day.

    A trade or bar price must be a finite number above zero, a size finite and not negative, an instrument
    known. What real tapes contain (a busted print, a low above the open) is not impossible and passes. Stopped
    rows are counted by reason in `rejected`; the last ones are kept in `rejects`.
    """

    def __init__(self, sessions: SessionTable, topic: str) -> None:
        super().__init__(sessions)
        self.topic = topic
        self.rejected: Counter[str] = Counter()
        self.rejects: deque[dict[str, Any]] = deque(maxlen=KEPT_REJECTS)

    def reset(self) -> None:
        self.rejected.clear()
        self.rejects.clear()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not batch.num_rows:
            return None
        verdict = self._judge(batch)
        if verdict is not None:
            self._keep_rejects(batch, verdict)
            batch = batch.filter(pa.array(verdict == 0))
            if not batch.num_rows:
                return None
        times = columns.ints(batch, "time")
        self.sessions.cover(int(times.min()), int(times.max()))
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=columns.known(batch))
        if batch.column("session").null_count or batch.column("trading_day").null_count:
            batch = self._stamped(batch, times)
        return batch

    def _judge(self, batch: pa.RecordBatch) -> npt.NDArray[np.int8] | None:
        """Reason number per row, or None when all rows are good."""
        ids, instruments = columns.ids(batch), len(self.sessions.universe)
        verdict = np.empty(len(ids), np.int8)
        if self.topic == "quotes":
            # A side without a quote is NaN; only a price below zero is impossible.
            price = np.fmax(columns.floats(batch, "bid"), columns.floats(batch, "ask"))
            size = np.fmax(columns.floats(batch, "bid_size"), columns.floats(batch, "ask_size"))
        elif self.topic == "bars":
            prices = np.stack([columns.floats(batch, name) for name in ("open", "high", "low", "close")])
            price, size = prices.min(axis=0), columns.floats(batch, "volume")
        else:
            price, size = columns.floats(batch, "price"), columns.floats(batch, "size")
        bad = kernels.check_ticks(ids, price, size, instruments, verdict)
        return verdict if bad else None

    def _keep_rejects(self, batch: pa.RecordBatch, verdict: npt.NDArray[np.int8]) -> None:
        for code, count in zip(*np.unique(verdict[verdict > 0], return_counts=True), strict=True):
            self.rejected[REASONS[code]] += int(count)
        rows = np.flatnonzero(verdict)[-KEPT_REJECTS:]
        for row, record in zip(rows, batch.take(pa.array(rows)).to_pylist(), strict=True):
            self.rejects.append({"topic": self.topic, "reason": REASONS[verdict[row]], **record})

    def _stamped(self, batch: pa.RecordBatch, times: npt.NDArray[np.int64]) -> pa.RecordBatch:
        session, day = np.empty(len(times), np.int8), np.empty(len(times), np.int32)
        table = self.sessions
        kernels.stamp(columns.ids(batch), times, table.segments, table.spans, self.pointers, session, day)
        return columns.with_columns(batch, session=session, trading_day=day)
