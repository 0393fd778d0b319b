"""Clean actions: splits, dividends and renames that cannot be true go no further."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.pipeline import columns, kernels
from marketdash.pipeline.rejects import REASONS, Rejecting, Rejects
from marketdash.schema import ACTIONS

UNKNOWN, UNTIMELY, IMPOSSIBLE = map(
    REASONS.index, ("unknown instrument", "impossible time", "impossible action")
)


class CleanActions(Rejecting):
    """Stops impossible actions; the others are kept as they were told.

    A split must have a finite ratio above zero, a dividend a finite amount that is not negative, a rename a new
    symbol. Actions are announced before they happen, and no session limits them. Whether a dividend is smaller
    than the price is seen when it is taken off. Stopped rows are counted by reason in `rejected`, the last kept in
    `rejects`.
    """

    def __init__(self, instruments: int) -> None:
        self.instruments, self.stopped = instruments, Rejects("actions")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not batch.num_rows:
            return None
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=columns.known(batch))
        verdict = self._judge(batch)
        if not verdict.any():
            return batch
        self.stopped.add(batch, verdict)
        batch = batch.filter(pa.array(verdict == 0))
        return batch if batch.num_rows else None

    def _judge(self, batch: pa.RecordBatch) -> npt.NDArray[np.int8]:
        """The number of the reason of each row."""
        ids, value = columns.ids(batch), columns.floats(batch, "value")
        kind, text = (batch.column(name).cast(pa.utf8()) for name in ("kind", "text"))
        split, dividend, rename = (_numpy(pc.equal(kind, name)) for name in ACTIONS)
        sound = (split & (value > 0) | dividend & (value >= 0)) & (value < np.inf)
        sound |= rename & _numpy(pc.greater(pc.utf8_length(text.fill_null("")), 0))
        moments = np.stack([columns.ints(batch, "time"), columns.known(batch)])
        timely = ((moments > 0) & (moments < kernels.THE_END_US)).all(axis=0)
        known = (ids >= 0) & (ids < self.instruments)
        return np.select([~known, ~timely, ~sound], [UNKNOWN, UNTIMELY, IMPOSSIBLE]).astype(np.int8)


def _numpy(flags: pa.Array) -> npt.NDArray[np.bool_]:
    return flags.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
