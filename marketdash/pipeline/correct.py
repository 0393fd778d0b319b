"""Correct: what a source takes back or puts right, in the bars and the last prices that it has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from marketdash.frames import BarStore, LastPrices
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.bars import HORIZON_US
from marketdash.pipeline.clean_ticks import CleanTicks
from marketdash.pipeline.correct_kernels import SETTLED, Corrections, Sites, apply_corrections
from marketdash.pipeline.rejects import Rejecting, Rejects
from marketdash.pipeline.step import Sited
from marketdash.schema import WIDTHS

_COUNTED = ("applied", "partial", "settled", "revised")


class Correct(Rejecting, Sited):
    """Cancels and corrects trades that `clean` remembers, and passes on the corrections that are good.

    * A correction without a price cancels the trade, one with a price replaces price, size and conditions (what is
      not given stays). It is believed, however far its price is from others. A correction of a corrected trade works
      on the newest values; one that says what is known already is a duplicate; a price for a cancelled trade puts it
      in again.
    * The volume, turnover and count of a bar are exact. Its prices are made anew if more than the trade itself must be
      known for that: from all its trades, if they are still remembered, else from narrower bars. If neither is there
      they stay as they were, and the correction is counted as `partial`.
    * A bar all of whose price-making trades are cancelled stays, since the numbers of bars never change: with the
      volume that is left, and the close of the bar before it as all its prices (NaN while there is none). The next
      trade that falls into it makes its prices alone.
    * A bar that had ended, for longer than `lateness_us`, is revised, however long ago that was. Ready-made bars, and
      those that are wider, are their source's own truth and do not change.
    * Last price, regular close and previous close become those of the newest trade or bar that holds. The trading day
      does not go back.
    * A print that was held as absurd is dropped when it is cancelled, and goes into the bars with its new price when it
      is corrected (`settled`); among the rejects of ticks it is then "withdrawn by its source". What came too late
      for its bars changes none when it is corrected (`settled` too).

    A correction of a trade that is not remembered (too old, never seen, or impossible) is stopped as an "unknown
    original". Stopped rows are counted by reason in `rejected`, the last kept in `rejects`.
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
        self.stopped = Rejects("corrections")
        self._counts = np.zeros(len(_COUNTED), np.int64)
        self._unsettled = np.zeros((len(WIDTHS), 4), np.int64)

    def counts(self) -> Mapping[str, int | Mapping[str, int]]:
        """Rows by what became of them: `applied`, and of these `partial`, `revised`; `settled`; stopped by reason."""
        told = dict(zip(_COUNTED, self._counts.tolist(), strict=True))
        return {"quarantined": dict(self.rejected), **told}

    def reset(self) -> None:
        self.stopped.reset()
        self._counts[:] = 0

    def snapshot(self) -> Any:
        """What was stopped and counted; bars and recent ticks are in the snapshots of the steps they belong to."""
        return self.stopped.snapshot(), self._counts.copy()

    def restore(self, kept: Any) -> None:
        stopped, self._counts[:] = kept
        self.stopped.restore(stopped)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not batch.num_rows:
            return None
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=columns.known(batch))
        rows, done = _columns(batch), 0
        verdict, became = np.empty(len(rows.ids), np.int8), np.empty(len(rows.ids), np.int8)
        while True:
            table = self.sessions
            sites = Sites(table.segments, table.spans, self.pointers)
            done = apply_corrections(
                done, rows, self.lateness_us, self.horizon_us, self.clean.recent, sites, self.store.memory,
                self.last.memory, verdict, became, self._counts, self._unsettled,
            )  # fmt: skip
            if done >= len(rows.ids) and not self._unsettled[:, 0].any():
                break
            self.store.make_room()
        self.store.changed()
        self.last.version += 1
        for row in np.flatnonzero(became == SETTLED).tolist():
            self.clean.stopped.withdraw(kernels.FAR, int(rows.ids[row]), int(rows.originals[row]))
        if verdict.any():
            self.stopped.add(batch, verdict)
            batch = batch.filter(pa.array(verdict == kernels.GOOD))
        return batch if batch.num_rows else None


def _columns(batch: pa.RecordBatch) -> Corrections:
    given = batch.column("conditions").is_valid().to_numpy(zero_copy_only=False)
    return Corrections(
        columns.ids(batch), columns.ints(batch, "time"), columns.ints(batch, "known_at"),
        columns.counts(batch, "original_seq"), columns.floats(batch, "price"), columns.floats(batch, "size"),
        columns.conditions(batch), given,
    )  # fmt: skip
