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
            self._add_ticks(ids, times, known, price, size)
        else:
            values, counts = columns.bars(batch), columns.counts(batch, "count")
            self._add_bars(columns.widths(batch), ids, times, known, values, counts)
        return batch

    def _add_ticks(self, *rows: npt.NDArray[Any]) -> None:
        progress, scratch = np.zeros(2, np.int64), np.empty((2, len(rows[0])), np.int64)
        while not kernels.add_ticks(progress, *rows, *self._places(), *scratch):
            self.store.make_room()
        self.store.make_room()

    def _add_bars(self, *rows: npt.NDArray[Any]) -> None:
        done = 0
        while done < len(rows[0]):
            done = kernels.add_bars(done, *rows, *self._places())
            self.store.make_room()

    def _places(self) -> tuple[Any, ...]:
        store, table = self.store, self.sessions
        return (
            store.active, WIDTHS_US, store.floats, store.ints, store.totals, store.limits, store.past,
            store.past_used, table.segments, table.spans, self.pointers, store.touched, self.late,
        )  # fmt: skip
