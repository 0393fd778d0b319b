"""Last prices from quotes and ready-made bars; those from ticks are written with their bars."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from marketdash.frames.last import LastPrices
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.bars import WIDTHS_US
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited


class UpdateLast(Sited):
    """Writes clean quotes or bars into the last prices, and passes them on."""

    def __init__(self, sessions: SessionTable, last: LastPrices, topic: str) -> None:
        super().__init__(sessions)
        self.last, self.topic = last, topic

    def reset(self) -> None:
        self.last.reset()

    def snapshot(self) -> None:
        """Nothing of its own: the last prices are in the snapshot of `BuildTicks`."""

    def restore(self, kept: Any) -> None:
        pass

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids, times, known = columns.ids(batch), columns.ints(batch, "time"), columns.known(batch)
        table, last = self.sessions, self.last
        if self.topic == "quotes":
            sides = [columns.floats(batch, name) for name in ("bid", "ask", "bid_size", "ask_size")]
            kernels.last_quotes(ids, times, known, *sides, last.floats, last.ints)
        else:
            where = (table.segments, table.spans, self.pointers, last.floats, last.ints)
            closes = columns.floats(batch, "close")
            kernels.last_bars(columns.widths(batch), ids, times, known, closes, WIDTHS_US, *where)
        last.version += 1
        return batch
