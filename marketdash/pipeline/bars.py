"""Bars: ticks, and ready-made bars, into the bars of all widths at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.frames.bars import BarStore
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS

WIDTHS_US = np.array(list(WIDTHS.values()), np.int64)


class BuildBars(Sited):
    """Writes clean ticks or bars into the store, and passes them on.

    `late` counts ticks (or bars) that revised a bar which had ended, and those that were too old for any bar
    still kept.
    """

    def __init__(self, sessions: SessionTable, store: BarStore, topic: str) -> None:
        super().__init__(sessions)
        self.store, self.topic = store, topic
        self.late = np.zeros(2, np.int64)

    def reset(self) -> None:
        self.store.reset()
        self.late[:] = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids, times, known = columns.ids(batch), columns.ints(batch, "time"), columns.known(batch)
        if self.topic == "ticks":
            price, size = columns.floats(batch, "price"), columns.floats(batch, "size")
            self._run(kernels.add_ticks, ids, times, known, price, size)
        else:
            values, counts = columns.bars(batch), columns.counts(batch, "count")
            self._run(kernels.add_bars, columns.widths(batch), ids, times, known, values, counts)
        return batch

    def _run(self, kernel: kernels.Kernel, *rows: npt.NDArray[Any]) -> None:
        store, table, done = self.store, self.sessions, 0
        while True:
            done = kernel(
                done, *rows, store.active, WIDTHS_US, store.head_floats, store.head_ints, store.floats, store.ints,
                store.totals, store.capacities, store.limits, store.past, store.past_used, table.segments,
                table.spans, self.pointers, store.touched, self.late,
            )  # fmt: skip
            if done >= len(rows[0]):
                break
            store.make_room()
        store.changed()
