"""Clean ticks: stop what cannot be true or came before, hold what is absurd, and say what each trade changes."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash import conditions
from marketdash.pipeline import columns, kernels
from marketdash.pipeline.rejects import Rejects
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited

RECENT = 1 << 17
"""Ticks of all instruments that are remembered; a power of two."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class TickColumns(NamedTuple):
    """The columns of a batch of ticks as the kernels take them.

    `effects` are bits of `marketdash.conditions`, `rows` the segments of the sessions' table.
    """

    ids: npt.NDArray[np.int32]
    times: Ints
    known: Ints
    seqs: Ints
    prices: Floats
    sizes: Floats
    effects: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int32]


class CleanTicks(Sited):
    """Stops impossible ticks, drops duplicates, holds absurd prints, and stamps the others with session and day.

    * A price must be a finite number above zero, a size finite and not negative, an instrument known, and
      nothing can be known a quarter of an hour before it happened.
    * A tick that equals one of the last `RECENT` ticks in instrument, sequence number, time, price and size is a
      duplicate. A number that comes again with other values is another tick: not every source numbers uniquely.
    * A print far from the last prices (see `kernels.judge_price`) is held. When two more prints agree with it
      the price has moved there, and all go on in their order; else they stay among the rejects. Only prints whose
      conditions let them move a price are judged, and an instrument's first twenty are not.

    Stopped rows are counted by reason in `rejected`, the last kept in `rejects`.
    """

    def __init__(self, sessions: SessionTable) -> None:
        super().__init__(sessions)
        universe = sessions.universe
        self.stopped = Rejects("ticks")
        self.passed: tuple[pa.RecordBatch, TickColumns] | None = None
        """The batch that was passed on last, and its columns."""
        self._tapes = conditions.tapes(item.mic for item in universe)
        self._rules = conditions.rules().copy()  # a kernel is compiled once more for what is read-only
        self._tick_sizes = np.array([item.tick_size for item in universe], np.float64)
        self._band = np.zeros((len(universe), kernels.N_BAND))
        self._recent = np.full((len(universe), kernels.N_RECENT), -1, np.int64)
        both = self._recent_rows = np.zeros((RECENT, 8), np.int64)
        self._recent_ints, self._recent_floats = both[:, :6], both.view(np.float64)[:, 6:]
        self._appended = np.zeros(1, np.int64)

    @property
    def rejected(self) -> Counter[str]:
        return self.stopped.counts

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """The last rows that were stopped, oldest first, with topic and reason; times in microseconds."""
        return self.stopped.rows()

    def reset(self) -> None:
        self.stopped.reset()
        self._band[:] = 0.0
        self._recent[:] = -1
        self._appended[:] = 0

    def snapshot(self) -> Any:
        """What was stopped, the bands, and the recent ticks."""
        recent = self._recent_rows[: int(self._appended[0])].copy()
        return self.stopped.snapshot(), self._band.copy(), self._recent.copy(), self._appended.copy(), recent

    def restore(self, kept: Any) -> None:
        stopped, self._band[:], self._recent[:], self._appended[:], recent = kept
        self._recent_rows[: len(recent)] = recent
        self.stopped.restore(stopped)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        length = batch.num_rows
        if not length:
            return None
        if batch.column("known_at").null_count:
            batch = columns.with_columns(batch, known_at=columns.known(batch))
        ticks = _unsited(batch)
        table = self.sessions
        first, last = kernels.span_of_times(ticks.ids, ticks.times, ticks.known)
        if last:  # else no row has a possible time, and none will be looked up
            table.cover(first, last)
        verdict = np.empty(length, np.int8)
        if kernels.check_ticks(
            ticks.ids, ticks.times, ticks.known, ticks.seqs, ticks.prices, ticks.sizes, columns.conditions(batch),
            self._tapes, self._rules, self._tick_sizes, table.segments, table.spans, self.pointers, self._band,
            self._recent, self._recent_floats, self._recent_ints, self._appended, verdict, ticks.effects, ticks.rows,
        ):  # fmt: skip
            batch, ticks = self._sorted_out(batch, ticks, verdict)
            if not batch.num_rows:
                return None
        if batch.column("session").null_count or batch.column("trading_day").null_count:
            session, day = np.empty(batch.num_rows, np.int8), np.empty(batch.num_rows, np.int32)
            kernels.stamp_rows(ticks.rows, table.segments, session, day)
            batch = columns.with_columns(batch, session=session, trading_day=day)
        self.passed = batch, ticks
        return batch

    def _sorted_out(
        self, batch: pa.RecordBatch, ticks: TickColumns, verdict: npt.NDArray[np.int8]
    ) -> tuple[pa.RecordBatch, TickColumns]:
        """Keep what was stopped, and put what was held before the tick that has freed it."""
        freeing = np.flatnonzero(verdict == kernels.FREED)
        verdict[freeing] = kernels.GOOD
        if not len(freeing):
            self.stopped.add(batch, verdict)
            good = verdict == kernels.GOOD
            return batch.filter(pa.array(good)), TickColumns(*(column[good] for column in ticks))
        parts, begin = [], 0
        for row in freeing.tolist():
            # Up to here, since a tick of this batch may be among those that it frees.
            self.stopped.add(batch.slice(begin, row - begin), verdict[begin:row])
            parts.append(batch.slice(begin, row - begin).filter(pa.array(verdict[begin:row] == kernels.GOOD)))
            freed = self.stopped.take_back(kernels.FAR, int(ticks.ids[row]), kernels.BAND_PRINTS - 1)
            if freed is not None:
                parts.append(freed)
            begin = row
        self.stopped.add(batch.slice(begin), verdict[begin:])
        parts.append(batch.slice(begin).filter(pa.array(verdict[begin:] == kernels.GOOD)))
        batch = pa.concat_batches(parts)
        return batch, self._columns(batch)

    def _columns(self, batch: pa.RecordBatch) -> TickColumns:
        """The columns of ticks that are known to be good."""
        table = self.sessions
        ticks = _unsited(batch)
        kernels.site_ticks(
            ticks.ids, ticks.times, columns.conditions(batch), self._tapes, self._rules, table.segments, table.spans,
            self.pointers, ticks.effects, ticks.rows,
        )  # fmt: skip
        return ticks


def _unsited(batch: pa.RecordBatch) -> TickColumns:
    """The columns of a batch, with room for what is not known yet."""
    site = np.empty(batch.num_rows, np.uint8), np.empty(batch.num_rows, np.int32)
    return TickColumns._make((*columns.ticks(batch), *site))
