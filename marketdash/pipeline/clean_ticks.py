"""Clean ticks: stop what cannot be true or came before, hold what is absurd, and say what each trade changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash import conditions
from marketdash.pipeline import addresses, columns, kernels
from marketdash.pipeline.addresses import TickColumns
from marketdash.pipeline.rejects import Rejecting, Rejects
from marketdash.pipeline.sessions import SessionTable
from marketdash.pipeline.step import Sited

RECENT = 1 << 17
"""Ticks of all instruments that are remembered; a power of two."""


class Recent(NamedTuple):
    """The recent ticks of all instruments in the order in which they came, and what is known of each instrument."""

    marks: npt.NDArray[np.int64]
    floats: npt.NDArray[np.float64]
    ints: npt.NDArray[np.int64]
    appended: npt.NDArray[np.int64]
    band: npt.NDArray[np.float64]
    tapes: npt.NDArray[np.int64]
    rules: npt.NDArray[np.uint8]


class CleanTicks(Rejecting, Sited):
    """Stops impossible ticks, drops duplicates, holds absurd prints, and stamps the others with session and day.

    * A price must be a finite number above zero, a size finite and not negative, an instrument known, and
      nothing can be known a quarter of an hour before it happened. A time before February 1970 or after 2099 is a
      number in a wrong unit. A trade of size 0, or of none, is a trade of no volume.
    * A tick that equals one of the recent ticks in instrument, sequence number, time, price and size is a
      duplicate, and so is one that equals a held one. A number that comes again with other values is another tick:
      not every source numbers uniquely. Without numbers nothing is a duplicate.
    * A print far from the last prices (see `kernels.judge_price`) is held. When two more prints agree with it
      the price has moved there, and all go on in their order; else they stay among the rejects. Only prints whose
      conditions let them move a price are judged, and an instrument's first twenty are not.

    `recent` is how many ticks are remembered, a power of two. Stopped rows are counted by reason in `rejected`, the
    last kept in `rejects`; a held one behind a thousand later ones of any instrument stays among them for good.
    """

    def __init__(self, sessions: SessionTable, recent: int = RECENT) -> None:
        super().__init__(sessions)
        universe = sessions.universe
        self.stopped = Rejects("ticks")
        self.passed: pa.RecordBatch | None = None
        """The batch that was passed on last; `ticks` has its columns."""
        self.ticks = TickColumns()
        self._tapes = conditions.tapes(item.mic for item in universe)
        self._rules = conditions.rules().copy()  # a kernel is compiled once more for what is read-only
        self._tick_sizes = np.array([item.tick_size for item in universe], np.float64)
        self._band = np.zeros((len(universe), kernels.N_BAND))
        self._recent = np.full((len(universe), kernels.N_RECENT), -1, np.int64)
        both = self._recent_rows = np.zeros((recent, 8), np.int64)
        self._recent_ints, self._recent_floats = both[:, :6], both.view(np.float64)[:, 6:]
        self._appended = np.zeros(1, np.int64)
        self._reach = np.zeros(4, np.int64)

    @property
    def recent(self) -> Recent:
        """What is remembered, as kernels take it: who corrects a tick changes it there."""
        return Recent(
            self._recent,
            self._recent_floats,
            self._recent_ints,
            self._appended,
            self._band,
            self._tapes,
            self._rules,
        )

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
        ticks, table = self.ticks, self.sessions
        ticks.read(batch)
        if ticks.nulls[addresses.KNOWN_AT]:
            batch = columns.with_columns(batch, known_at=columns.known(batch))
            ticks.read(batch)
        if self._check():
            batch = self._sorted_out(batch, ticks.verdict[:length])
            if not batch.num_rows:
                return None
        if ticks.nulls[addresses.SESSION :].any():
            session, day = np.empty(batch.num_rows, np.int8), np.empty(batch.num_rows, np.int32)
            addresses.stamp(ticks.addresses, ticks.length, table.segments, session, day)
            batch = columns.with_columns(batch, session=session, trading_day=day)
        self.passed = batch
        return batch

    def _check(self) -> int:
        """Judge the ticks; returns how many are not good."""
        ticks, table = self.ticks, self.sessions
        while True:
            self._reach[:2] = table.first, table.last
            bad: int = addresses.check(
                ticks.addresses, ticks.length, self._reach, self._tapes, self._rules, self._tick_sizes, table.segments,
                table.spans, self.pointers, self._band, self._recent, self._recent_floats, self._recent_ints,
                self._appended, ticks.verdict,
            )  # fmt: skip
            if bad >= 0:
                return bad
            table.cover(int(self._reach[2]), int(self._reach[3]))

    def _sorted_out(self, batch: pa.RecordBatch, verdict: npt.NDArray[np.int8]) -> pa.RecordBatch:
        """Keep what was stopped, and put what was held before the tick that has freed it."""
        freeing = np.flatnonzero(verdict == kernels.FREED)
        verdict[freeing] = kernels.GOOD
        parts, begin = [], 0
        for row in freeing.tolist():
            # Up to here, since a tick of this batch may be among those that it frees.
            parts.append(self._kept(batch, verdict, begin, row))
            instrument = batch.column("instrument_id")[row].as_py()
            freed = self.stopped.take_back(kernels.FAR, instrument, kernels.BAND_PRINTS - 1)
            if freed is not None:
                parts.append(freed)
            begin = row
        parts.append(self._kept(batch, verdict, begin, len(verdict)))
        batch = pa.concat_batches(parts) if len(parts) > 1 else parts[0]
        ticks, table = self.ticks, self.sessions
        ticks.read(batch)
        addresses.site(
            ticks.addresses,
            ticks.length,
            self._tapes,
            self._rules,
            table.segments,
            table.spans,
            self.pointers,
        )
        return batch

    def _kept(
        self, batch: pa.RecordBatch, verdict: npt.NDArray[np.int8], begin: int, end: int
    ) -> pa.RecordBatch:
        """The good rows of a part; the others go to the rejects."""
        part, codes = batch.slice(begin, end - begin), verdict[begin:end].copy()
        self.stopped.add(part, codes)
        return part.filter(pa.array(codes == kernels.GOOD))
