"""Bars: ticks, and ready-made bars, into the bars of all widths at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from marketdash.errors import UnknownNameError
from marketdash.frames.bars import BarStore
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS

_WIDTH_NAMES = tuple(WIDTHS)
_WIDTHS_US = np.array(list(WIDTHS.values()), np.int64)


class BuildBars(Sited):
    """Writes clean ticks or bars into the store, and passes them on.

    `late` counts ticks (or bars) that revised a bar which was no longer the newest, and those that were
    too old for any bar still kept.
    """

    def __init__(self, sessions: SessionTable, store: BarStore, topic: str) -> None:
        super().__init__(sessions)
        self.store, self.topic = store, topic
        self.late = np.zeros(2, np.int64)

    def reset(self) -> None:
        self.store.reset()
        self.late[:] = 0

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.topic == "ticks":
            rows = (
                columns.ids(batch),
                columns.ints(batch, "time"),
                columns.known(batch),
                columns.floats(batch, "price"),
                columns.floats(batch, "size"),
            )
            self._run(kernels.add_ticks, rows, batch.num_rows)
        else:
            self._bars(batch)
        return batch

    def _bars(self, batch: pa.RecordBatch) -> None:
        width = batch.column("width")[0].as_py()  # the graph splits batches by width
        if width not in self.store.rings:
            raise UnknownNameError("width", width, self.store.widths, "This market was opened without it.")
        volume, vwap = columns.floats(batch, "volume"), columns.floats(batch, "vwap")
        prices = [columns.floats(batch, name) for name in ("open", "high", "low", "close")]
        turnover = np.where(volume > 0, vwap * volume, 0.0 * vwap)
        rows = (
            _WIDTH_NAMES.index(width),
            columns.ids(batch),
            columns.ints(batch, "time"),
            columns.known(batch),
            np.column_stack([*prices, volume, turnover]),
            columns.counts(batch, "count"),
        )
        self._run(kernels.add_bars, rows, batch.num_rows)

    def _run(self, kernel: kernels.Kernel, rows: tuple[object, ...], length: int) -> None:
        store, table, row = self.store, self.sessions, 0
        while True:
            row = kernel(
                row, *rows, store.active, _WIDTHS_US, store.floats, store.ints, store.totals, store.limits,
                store.full, table.segments, table.spans, self.pointers, store.touched, self.late,
            )  # fmt: skip
            if row >= length:
                return
            store.grow()
