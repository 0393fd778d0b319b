"""Replay: a session log written again, at the pace of a replay clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from marketdash.clock import ReplayClock, to_us
from marketdash.errors import ClockError
from marketdash.log import SessionLibrary, SessionLog
from marketdash.schema import WIDTHS, Event, width_us
from marketdash.sources.base import BaseSource, Entitlement, source

LIVE_ROWS = 8_192
SEEK_ROWS = 65_536
SHORTEST_SLEEP = 0.02
LONGEST_SLEEP = 0.5


class ReplaySource(BaseSource):
    """Writes a log's rows when the clock reaches their known-at.

    The position in the log is a number of rows per topic, so that a seek is a new position and the rest
    is the same code as playing.
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
            pace=pace or manifest.pace,
            playing=playing,
            tz=manifest.tz,
            next_event=log.next_event,
            **({"wall": wall} if wall else {}),
        )
        self._position: dict[str, int] = {}

    @property
    def finest(self) -> str:
        """The narrowest width that can be built: from ticks all, from bars theirs and wider ones."""
        if "ticks" in self.log.topics or "bars" not in self.log.topics:
            return "1s"
        widths = self.log.topics["bars"].column("width").unique().to_pylist()
        return min(widths, key=width_us, default=next(iter(WIDTHS)))

    def rewind(self) -> None:
        """Go back to the first row; what was written before is not taken back here."""
        self._position = {}

    def take(self, until_us: int, rows: int = SEEK_ROWS) -> Iterator[Event]:
        """The rows not written yet that are known at `until_us`, as batches.

        The position moves before each batch is handed out, so that this may be left and taken up anywhere.
        """
        stop = self.log.rows_until(until_us)
        while True:
            begin = dict(self._position)
            batch = next(self.log.cut(begin, stop, rows), None)
            if batch is None:
                return
            self._position = {**begin, batch[0]: begin.get(batch[0], 0) + batch[1].num_rows}
            yield batch

    def complete_until(self, now_us: int) -> int:
        following = self.log.next_row(self._position)
        return now_us if following is None else min(now_us, following - 1)

    async def batches(self) -> AsyncIterator[Event]:
        changed = asyncio.Event()
        cancel = self.clock.on_change(changed.set)
        try:
            while True:
                changed.clear()
                now = self.clock.now_us()
                while (event := next(self.take(now, self.rows), None)) is not None:
                    yield event
                    if changed.is_set():  # a seek has moved the position and the clock meanwhile
                        break
                    await asyncio.sleep(0)
                if changed.is_set():
                    continue
                following = self.log.next_event(self.clock.now_us())
                wait = math.inf if following is None else self.clock.seconds_until(following)
                await _wait(changed, min(max(wait, SHORTEST_SLEEP), LONGEST_SLEEP) if wait < math.inf else None)
        finally:
            cancel()


async def _wait(changed: asyncio.Event, seconds: float | None) -> None:
    try:
        await asyncio.wait_for(changed.wait(), seconds)
    except TimeoutError:
        return


@source("replay")
def replay(session: str, **options: Any) -> ReplaySource:
    """Open the session log called `session`."""
    return ReplaySource(SessionLibrary().open(session), **options)
