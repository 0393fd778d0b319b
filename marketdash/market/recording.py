"""A recording of a market: everything its source writes from now on, as it came, before it is cleaned."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa

from marketdash.bus import ALL
from marketdash.clock import to_timestamp
from marketdash.log.recorder import Recorder, RecorderStatus
from marketdash.settings import user_data_dir

if TYPE_CHECKING:
    from marketdash.market.market import Market


class Recording:
    """What `market.record()` returns: stop it, ask where it is and how it does. Works as a `with` block, too.

    A replay of it passes through the same cleaning and gives the same frames. Recording for oneself is
    allowed whatever the source; whether others may see the log is in its manifest, as the source says.
    """

    def __init__(self, market: Market, path: Path | str | None, name: str) -> None:
        source, entitlement = market.source, market.source.entitlement
        self._market, self._flushed, self._busy = market, 0, 0.0
        self._waiting: asyncio.Task[None] | None = None
        self._stage = market.health.own_stage("record", self)
        self._stage.reads(self)
        self.recorder = Recorder(
            user_data_dir() / "sessions" if path is None else Path(path),
            market.universe,
            source=source.name,
            calendar=market.calendar.name,
            tz=market.tz,
            name=name,
            clock=_Written(market),
            report=self._report,
            cadence=source.cadence,
            lateness=source.lateness,
            horizon=source.horizon,
            redistributable=entitlement.redistributable,
            licence=entitlement.note,
            provenance={
                "mode": source.mode,
                "delay_s": entitlement.delay.total_seconds(),
                "principal": market.principal,
            },
        )
        self._unsubscribe = market.bus.subscribe(ALL, self._heard)

    def __repr__(self) -> str:
        status = self.status
        return f"<Recording of {self._market.source.name}: {status.state}, {status.rows:,} rows, {self.path}>"

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def path(self) -> Path | None:
        """The log (or, while it is recorded, the segment) of this trading day; None before the first row."""
        return self.status.path

    @property
    def status(self) -> RecorderStatus:
        return self.recorder.status

    def flush(self) -> bool:
        """Wait until all rows so far are on the disk; False when the disk fails."""
        return self.recorder.flush()

    def stop(self, *, wait: bool = True) -> Path | None:
        """Record no more, wait until the log is sealed, and return its folder. Stopping twice is fine."""
        self._unsubscribe()
        self.recorder.close(wait=wait)
        if self in self._market.recordings:
            self._market.recordings.remove(self)
        return self.path

    def counts(self) -> dict[str, int | Counter[str]]:
        """What waits and what was lost, for `market.health`."""
        status = self.status
        return {"queue": status.queued, "dropped": Counter(status.dropped)}

    def _heard(self, topic: str, batch: pa.RecordBatch) -> None:
        if self.recorder.closing:  # at the end of a program that did not close its market
            return
        self.recorder.write(topic, batch)
        # A source that is faster than the disk waits for it, without holding up the loop.
        if self.recorder.crowded and (self._waiting is None or self._waiting.done()):
            room = asyncio.to_thread(self.recorder.wait_for_room)
            self._waiting = asyncio.get_running_loop().create_task(room)
            self._market.wait_for(self._waiting)

    def _report(self, recorder: Recorder, error: Exception | None) -> None:
        if error is not None:
            self._stage.failed(error)
            return
        flushed, busy = recorder.status.flushed, recorder.busy_s
        if flushed > self._flushed:
            self._stage.worked(flushed - self._flushed, busy - self._busy, 0.0)
            self._flushed, self._busy = flushed, busy


class _Written:
    """The clock of a recording: what the source has written is known until then, at whatever pace."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def now_us(self) -> int:
        return self._market.source.complete_until(self._market.clock.now_us())

    def now(self) -> pd.Timestamp:
        return to_timestamp(self.now_us(), self._market.tz)
