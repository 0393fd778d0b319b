"""Replay: a session log written again, at the pace of a replay clock."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.calendars import FOREVER
from marketdash.clock import ReplayClock, to_us
from marketdash.errors import ClockError
from marketdash.log import SessionLibrary, SessionLog
from marketdash.schema import WIDTHS, Event, width_us
from marketdash.sources.base import BaseSource, Entitlement, source

LIVE_ROWS = 8_192
SEEK_ROWS = 65_536
SHORTEST_SLEEP = 0.02
LONGEST_SLEEP = 0.5
ORDERED = ("ticks", "bars", "corrections")
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


class ReplaySource(BaseSource):
    """Writes a log's rows when the clock reaches their known-at.

    The position in the log is a number of rows per topic, so that a seek is a new position and the rest
    is the same code as playing. Ticks and bars come in the order of (known-at, seq), ticks first where both
    are equal, since both make bars, and corrections after all of them that were known at the same moment, since not
    every source numbers them from one count; between other topics there is no order.
    """

    mode = "replay"
    stall_after = None

    def __init__(
        self,
        log: SessionLog,
        *,
        start: object = None,
        pace: float | None = None,
        playing: bool = True,
        rows: int = LIVE_ROWS,
        wall: Callable[[], float] | None = None,
    ) -> None:
        manifest = log.manifest
        self.log, self.rows = log, rows
        self.name, self.universe, self.cadence = f"replay:{log.name}", log.universe, manifest.cadence
        self.lateness, self.horizon = manifest.lateness, manifest.horizon
        self.entitlement = Entitlement(
            redistributable=manifest.redistributable, note=manifest.licence or manifest.source
        )
        try:
            begin = log.start if start is None else to_us(start, manifest.tz)
        except ClockError as error:
            raise ClockError(f"The start of {self.name}", error.expected, error.got) from error
        self.clock: ReplayClock = ReplayClock(
            log.timeline,
            start=begin,
            pace=manifest.pace if pace is None else pace,
            playing=playing,
            tz=manifest.tz,
            next_event=log.next_event,
            **({"wall": wall} if wall else {}),
        )
        self.marks: tuple[int, ...] = ()
        self._rows_at_marks: list[int] = []
        self._position: dict[str, int] = {}
        self._keys = {name: _keys(name, batch) for name, batch in log.topics.items()}

    @property
    def finest(self) -> str:  # type: ignore[override]  # known from the log
        """The narrowest width that can be built: from ticks all, from bars theirs and wider ones."""
        if "ticks" in self.log.topics or "bars" not in self.log.topics:
            return "1s"
        widths = self.log.topics["bars"].column("width").unique().to_pylist()
        return min(widths, key=width_us, default=next(iter(WIDTHS)))

    def rewind(self, until_us: int | None = None) -> None:
        """Go to the first row, or to the first that is not known at a moment; what was written stays written."""
        self._position = {} if until_us is None else self.log.rows_until(until_us)

    def halt_at(self, marks: Iterable[int]) -> None:
        """From now on let no batch go past one of these moments, which are in order; only to be told at the start."""
        self.marks = tuple(marks)
        self._rows_at_marks = [sum(self.log.rows_until(us).values()) for us in self.marks]

    @property
    def marks_passed(self) -> int:
        """How many of the marks have all their rows written."""
        return bisect_right(self._rows_at_marks, sum(self._position.values()))

    def is_beyond(self, us: int) -> bool:
        """Whether a row was written that is not known at the moment `us`."""
        until = self.log.rows_until(us)
        return any(row > until[name] for name, row in self._position.items())

    def take(self, until_us: int, rows: int = SEEK_ROWS) -> Iterator[Event]:
        """The rows not written yet that are known at `until_us`, as batches.

        The position moves before each batch is handed out, so that this may be left and taken up anywhere.
        """
        while True:
            following = self.marks[self.marks_passed :][:1]
            stop = self.log.rows_until(min([until_us, *following]))
            if not (heads := self._heads(stop)):
                return
            (_, _, _, name), *others = heads
            begin, end = self._position.get(name, 0), stop[name]
            for known, seq, order, other in others:
                if name in ORDERED and other in ORDERED:
                    end = min(end, self._row_after(name, begin, stop[name], known, seq, order))
            end = min(end, begin + rows)
            self._position = {**self._position, name: end}
            yield name, self.log.topics[name].slice(begin, end - begin)

    def _heads(self, stop: Mapping[str, int]) -> list[tuple[int, int, int, str]]:
        """Known-at, number, place and name of each topic's next row, the first one first."""
        heads = []
        for order, (name, (known, seq)) in enumerate(self._keys.items()):
            row = self._position.get(name, 0)
            if row < stop[name]:
                place = ORDERED.index(name) if name in ORDERED else order
                heads.append((int(known[row]), int(seq[row]), place, name))
        return sorted(heads)

    def _row_after(self, name: str, begin: int, stop: int, known_us: int, number: int, place: int) -> int:
        """The first row of a topic that comes after the row of another one with this known-at, seq and place."""
        known, seq = self._keys[name]
        low, high = (begin + int(np.searchsorted(known[begin:stop], known_us, side)) for side in SIDES)
        side: Literal["left", "right"] = "right" if ORDERED.index(name) < place else "left"
        return low + int(np.searchsorted(seq[low:high], number, side))

    def complete_until(self, now_us: int) -> int:
        following = self.log.next_row(self._position)
        return now_us if following is None else min(now_us, following - 1)

    async def batches(self) -> AsyncIterator[Event]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        # The clock is moved from any thread, and an event may only be set on its loop.

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        cancel = self.clock.on_change(wake)
        try:
            while True:
                changed.clear()
                # The clock is asked anew for each batch: while others had their turn, a seek may have moved it.
                while (event := next(self.take(self.clock.now_us(), self.rows), None)) is not None:
                    yield event
                    await asyncio.sleep(0)
                following = self.log.next_event(self.clock.now_us())
                wait = math.inf if following is None else self.clock.seconds_until(following)
                bounded = min(max(wait, SHORTEST_SLEEP), LONGEST_SLEEP)
                await _wait(changed, bounded if wait < math.inf else None)
        finally:
            cancel()


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return


def _keys(name: str, batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Known-at and number of each row; a correction has the highest number of its moment."""
    numbers = np.full(batch.num_rows, FOREVER) if name == "corrections" else batch.column("seq").to_numpy()
    return batch.column("known_at").view(pa.int64()).to_numpy(), numbers


@source("replay")
def replay(session: str, **options: Any) -> ReplaySource:
    """Open the session log called `session`."""
    return ReplaySource(SessionLibrary().open(session), **options)
