"""Last prices: what each instrument is worth now, from trades, quotes and bars."""

from __future__ import annotations

import pyarrow as pa

from marketdash.frames.last import LastPrices
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.bars import WIDTHS_US
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited


class UpdateLast(Sited):
    """Writes clean batches of `topic` into the last prices, and passes them on."""

    def __init__(self, sessions: SessionTable, last: LastPrices, topic: str) -> None:
        super().__init__(sessions)
        self.last, self.topic = last, topic

    def reset(self) -> None:
        self.last.reset()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids, times, known = columns.ids(batch), columns.ints(batch, "time"), columns.known(batch)
        table, last = self.sessions, self.last
        if self.topic == "quotes":
            sides = [columns.floats(batch, name) for name in ("bid", "ask", "bid_size", "ask_size")]
            kernels.last_quotes(ids, times, known, *sides, last.floats, last.ints)
        else:
            where = (table.segments, table.spans, self.pointers, last.floats, last.ints)
            if self.topic == "ticks":
                kernels.last_ticks(ids, times, known, columns.floats(batch, "price"), *where)
            else:
                closes = columns.floats(batch, "close")
                kernels.last_bars(columns.widths(batch), ids, times, known, closes, WIDTHS_US, *where)
        last.version += 1
        return batch
