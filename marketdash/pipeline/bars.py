"""Bars: ticks, and ready-made bars, into the bars of all widths at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.calendars import DAY_US
from marketdash.frames.bars import RECORD, BarStore
from marketdash.frames.last import LastPrices
from marketdash.pipeline import addresses, columns, kernels
from marketdash.pipeline.clean_ticks import CleanTicks
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS

WIDTHS_US = np.array(list(WIDTHS.values()), np.int64)
HORIZON_US = 366 * DAY_US
"""How long after it happened a trade may still revise bars, if nobody says otherwise."""


class BuildTicks(Sited):
    """Writes the ticks that `clean` has passed into the store and the last prices, and passes them on.

    A tick that is known at most `lateness_us` after the end of its bar belongs to it like any other. A later one
    revises the bar, and one that is known more than `horizon_us` after it happened changes no bar; it is the last
    price if none came after it. `late` counts those that revised a bar, and those that were too late, or too old for
    any bar still kept.

    A trade that makes no price goes to the bar of its time or, where that has no price when the next one begins, with
    its volume to the bar before; before the first bar of all, to that one. So within the lateness any order gives the
    same prices, but such a volume may go to the bar before.
    """

    def __init__(
        self,
        store: BarStore,
        last: LastPrices,
        clean: CleanTicks,
        lateness_us: int = 0,
        horizon_us: int = HORIZON_US,
    ) -> None:
        super().__init__(clean.sessions)
        self.store, self.last, self.clean = store, last, clean
        self.lateness_us, self.horizon_us = lateness_us, horizon_us
        self.late = np.zeros(2, np.int64)

    def reset(self) -> None:
        self.store.reset()
        self.last.reset()
        self.late[:] = 0

    def snapshot(self) -> Any:
        """What was late, the last prices and the newest bars; bars behind them are not in it."""
        return self.store.snapshot(), self.last.snapshot(), self.late.copy()

    def restore(self, kept: Any) -> None:
        newest, prices, self.late[:] = kept
        self.store.restore(newest)
        self.last.restore(prices)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self.clean.passed is batch
        ticks, store, last, done = self.clean.ticks, self.store, self.last, 0
        while True:
            done = addresses.add(
                done, ticks.addresses, ticks.length, self.lateness_us, self.horizon_us, store.memory,
                self.sessions.segments, last.memory, self.late,
            )  # fmt: skip
            if done >= ticks.length:
                break
            store.make_room()
        store.changed()
        last.version += 1
        return batch


class BuildBars(Sited):
    """Writes clean ready-made bars into the store, and passes them on.

    `late` counts bars that revised one which had ended, and those that were too old for any bar still kept.
    """

    def __init__(self, sessions: SessionTable, store: BarStore) -> None:
        super().__init__(sessions)
        self.store = store
        self.late = np.zeros(2, np.int64)
        self._old = np.zeros(RECORD, np.int64)

    def reset(self) -> None:
        self.store.reset()
        self.late[:] = 0

    def snapshot(self) -> Any:
        """What was late; the newest bars are in the snapshot of `BuildTicks`."""
        return self.late.copy()

    def restore(self, kept: Any) -> None:
        self.late[:] = kept

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        store, table, done = self.store, self.sessions, 0
        rows: list[npt.NDArray[Any]] = [
            columns.widths(batch), columns.ids(batch), columns.ints(batch, "time"), columns.known(batch),
            columns.bars(batch), columns.counts(batch, "count"),
        ]  # fmt: skip
        # What they change is not that of the ticks before; these find their bars anew.
        store.fresh[rows[1]] = 0
        while True:
            done = kernels.add_bars(
                done, *rows, store.memory, table.segments, table.spans, self.pointers, self.late,
                self._old.view(np.float64), self._old,
            )  # fmt: skip
            if done >= len(rows[0]):
                break
            store.make_room()
        store.changed()
        return batch
