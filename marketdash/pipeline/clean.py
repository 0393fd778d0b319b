"""Clean: rows that cannot be true go no further, and are kept with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.calendars import REGULAR
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.rejects import Rejecting, Rejects
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS


class Clean(Rejecting, Sited):
    """Stops impossible rows and stamps the others with their session and trading day.

    A bar's prices must be finite numbers above zero, a size finite and not negative, a high not
    below its low, an instrument known, a width one of `widths`, and nothing can be known a quarter of an hour
    before it happened. What real tapes contain (a busted print, a low above the open) is not
    impossible and passes. Stopped rows are counted by reason in `rejected`, the last kept in `rejects`.
    """

    def __init__(self, sessions: SessionTable, topic: str, widths: Sequence[str] = tuple(WIDTHS)) -> None:
        super().__init__(sessions)
        self.topic, self.stopped = topic, Rejects(topic)
        self._built = np.array([width in widths for width in WIDTHS], np.int64)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not batch.num_rows:
            return None
        times, known = columns.ints(batch, "time"), columns.known(batch)
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=known)
        verdict = np.empty(len(times), np.int8)
        if self._judge(batch, times, known, verdict):
            self.stopped.add(batch, verdict)
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
        else:
            values, bases = columns.bars(batch), columns.widths(batch)
            bad = kernels.check_bars(ids, times, known, values, bases, self._built, instruments, verdict)
        return bad  # type: ignore[no-any-return]

    def _stamped(self, batch: pa.RecordBatch, times: npt.NDArray[np.int64]) -> pa.RecordBatch:
        session, day = np.empty(len(times), np.int8), np.empty(len(times), np.int32)
        table = self.sessions
        kernels.stamp(columns.ids(batch), times, table.segments, table.spans, self.pointers, session, day)
        if self.topic == "bars":
            # A daily bar is the regular session's, at whatever hour of its day the source has stamped it.
            session[columns.widths(batch) == len(WIDTHS) - 1] = REGULAR
        return columns.with_columns(batch, session=session, trading_day=day)
