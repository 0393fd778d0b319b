"""The recorder: writes what a market hears to the disk as it comes, a session log per trading day."""

from __future__ import annotations

import atexit
import logging
import queue
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from marketdash.clock import Clock, SystemClock
from marketdash.errors import LogError, MarketdashError, SchemaError
from marketdash.instruments import Universe
from marketdash.log.day import Days, LiveDay, TradingDay, create_stream
from marketdash.log.lock import Lock
from marketdash.log.sealing import check_about, live_segments, seal
from marketdash.log.segment import OpenFile, Segment
from marketdash.schema import topic

log = logging.getLogger(__name__)

FLUSH_S = 1.0
CHUNK_ROWS = 1 << 16
"""Rows that are written without waiting for the second to end, so that messages stay of one size."""
SYNC_ROWS = 1 << 20
"""Rows after which the second is cut short: what is not on the disk for certain is kept in memory."""
QUEUE_ROWS = 1_000_000
PATIENCE_S = 1.0
"""How long a writer waits for room before its rows are given up."""
GRACE_US = 60_000_000
"""How long after its end a trading day may still be heard of before its log is sealed without a sign of the next."""
POLL_S = 0.1


@dataclass(frozen=True)
class RecorderStatus:
    """What a recorder has done and how it is doing; rows over all topics, since it began."""

    state: str
    """`waiting` for a first row, `recording`, `failing` (it keeps trying) or `closed`."""
    rows: int
    flushed: int
    """Rows that are on the disk for certain."""
    queued: int
    dropped: dict[str, int]
    """Reason → rows that were not recorded."""
    size: int
    """Bytes of the segment that is being written."""
    last_flush: float
    """When rows were last put on the disk, or tried to, by the `wall` clock."""
    errors: int
    last_error: str
    path: Path | None
    """The segment that is being written, else the last log."""
    sealed: tuple[Path, ...]
    recovered: tuple[Path, ...]
    """Logs of segments that a crash had left."""
    torn: tuple[str, ...]
    """What was cut off from those, in sentences."""


@dataclass
class _Count:
    rows: int = 0
    errors: int = 0
    last_error: str = ""
    dropped: Counter[str] = field(default_factory=Counter)
    sealed: list[Path] = field(default_factory=list)
    recovered: list[Path] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)


class Recorder:
    """Records batches of any topic into session logs in `folder`, one for each trading day of `calendar`.

    Rows are written and synced in a thread: at least once in `FLUSH_S` seconds of `wall`. When the trading
    day ends, by the rows or by `clock`, and when the recorder is closed, the segment is sealed: see
    `marketdash.log.sealing.seal`. What a crash has left under this name is sealed at the start.

    At most `queue_rows` rows wait for the disk. Beyond that a writer waits, and when the disk does not
    come round in `PATIENCE_S` (or is failing already) its rows are dropped, counted and told. `about`
    holds further fields of the manifest; `report` is called in the recorder's thread after each piece
    of work with the recorder and the error, if there was one.
    """

    def __init__(
        self,
        folder: Path,
        universe: Universe,
        *,
        source: str,
        calendar: str,
        tz: str,
        name: str = "",
        clock: Clock | None = None,
        wall: Callable[[], float] = time.monotonic,
        queue_rows: int = QUEUE_ROWS,
        open_file: OpenFile = create_stream,
        report: Callable[[Recorder, Exception | None], None] | None = None,
        **about: Any,
    ) -> None:
        self.folder, self.universe = Path(folder).expanduser().absolute(), universe
        self.name, self.calendar = file_name(name or source), calendar
        self._about = {"source": source, "calendar": calendar, "tz": tz} | about
        self._clock, self._wall, self._queue_rows = clock or SystemClock(), wall, queue_rows
        self._open_file, self._report = open_file, report or _log_error
        check_about(self.folder / self.name, self._about)
        self._began = self._clock.now_us()
        self._days = Days(self._begin, calendar, self._began)
        self._lock = _locked(self.folder, self.name)
        self._count = _Count()
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, pa.RecordBatch]] = deque()
        self._in_queue = self._asked = self._answered = 0
        self.busy_s = 0.0
        self._ending = self._closed = self._failing = self._stuck = False
        self._seal_asked = False
        self._synced = wall()
        self._to_seal: queue.Queue[Path | None] = queue.Queue()
        self._left = [path for path in live_segments([self.folder]) if _recording_of(path) == self.name]
        for path in self._left:
            self._to_seal.put(path)
        self._threads = [
            threading.Thread(target=work, name=f"{what} {self.name}", daemon=True)
            for what, work in (("record", self._run), ("seal", self._seal_all))
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)

    def __repr__(self) -> str:
        status = self.status
        return f"<Recorder {self.name} in {self.folder}: {status.state}, {status.rows:,} rows>"

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, day: TradingDay) -> LiveDay:
        about, began = self._about, self._began
        return LiveDay(self.folder, self.name, day, self.universe, about, self._open_file, began)

    @property
    def queued(self) -> int:
        """Rows that the system has not taken yet."""
        return self._in_queue + self._days.waiting

    @property
    def status(self) -> RecorderStatus:
        count, live = self._count, self._days.live
        state = "recording" if live else "waiting"
        state = "closed" if self._closed else "failing" if self._failing else state
        sealed = tuple(count.sealed)
        path = live.folder if live else sealed[-1] if sealed else None
        return RecorderStatus(
            state=state,
            rows=count.rows,
            flushed=self._days.flushed,
            queued=self.queued,
            dropped=dict(count.dropped),
            size=live.size if live else 0,
            last_flush=self._synced,
            errors=count.errors,
            last_error=count.last_error,
            path=path,
            sealed=sealed,
            recovered=tuple(count.recovered),
            torn=tuple(count.torn),
        )

    # Writing, in the market's thread

    def write(self, name: str, batch: pa.RecordBatch, *, patience: float = PATIENCE_S) -> None:
        """Take rows that fit their topic, each with known_at and seq; wait for room no longer than `patience`."""
        if not batch.schema.equals(topic(name).schema):
            raise SchemaError(f"A recording of {name}", "rows that fit the topic", "others", "Use `conform`.")
        for column in ("known_at", "seq"):
            if missing := batch.column(column).null_count:
                raise LogError(
                    f"A recording of {name}", f"{column} in every row", f"{missing:,} rows without"
                )
        if self._ending:
            raise LogError(f"{self!r}", "an open recorder", "one that was closed")
        batch = self._known_instruments(name, batch)
        deadline = time.monotonic() + patience
        for first in range(0, batch.num_rows, CHUNK_ROWS):
            self._put(name, batch.slice(first, CHUNK_ROWS), deadline)

    def _known_instruments(self, name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out rows of instruments that are not in the universe: no log may hold them."""
        if "instrument_id" not in batch.schema.names or not batch.num_rows:
            return batch
        ids = batch.column("instrument_id").to_numpy()
        if ids.min() >= 0 and ids.max() < len(self.universe):
            return batch
        known = (ids >= 0) & (ids < len(self.universe))
        with self._changed:
            self._count.dropped[f"{name}: unknown instrument"] += int((~known).sum())
        return batch.filter(pa.array(known))

    def _put(self, name: str, piece: pa.RecordBatch, deadline: float) -> None:
        rows = piece.num_rows
        with self._changed:
            if not self._failing and not self._stuck:
                self._changed.wait_for(
                    lambda: self._has_room(rows) or self._failing, timeout=max(deadline - time.monotonic(), 0)
                )
            self._stuck = not self._has_room(rows)  # then nobody waits again before there is room
            if self._stuck:
                why = "the disk is failing" if self._failing else "the disk is too slow"
                self._count.dropped[f"{name}: {why}"] += rows
                return
            self._queue.append((name, piece))
            self._in_queue += rows
            self._count.rows += rows
            if self._in_queue >= CHUNK_ROWS:
                self._changed.notify_all()

    def _has_room(self, rows: int) -> bool:
        return self.queued + rows <= self._queue_rows or not self.queued

    @property
    def closing(self) -> bool:
        """Whether it takes no more rows."""
        return self._ending

    @property
    def crowded(self) -> bool:
        """Whether more than half of what may wait does."""
        return self.queued > self._queue_rows // 2

    def wait_for_room(self, patience: float = PATIENCE_S) -> None:
        """Wait until less than half of what may wait does, or for so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self.crowded or self._failing, timeout=patience)

    def flush(self) -> bool:
        """Wait until all rows so far are on the disk; False when the disk fails."""
        with self._changed:
            self._asked += 1
            ticket = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered >= ticket or self._closed)
            return not self._failing

    def seal(self) -> None:
        """End the segment now and wait until its log, and those before it, are on the disk."""
        self._seal_asked = True
        self.flush()
        self._to_seal.join()

    def close(self, *, wait: bool = True) -> None:
        """Write and seal what is there, then stop; rows that a failing disk does not take are counted as lost."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if wait:
            for thread in self._threads:
                thread.join()

    # Working, in the recorder's threads

    def _run(self) -> None:
        while not self._ending:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=POLL_S)
            if self._is_due():
                self._work()
        self._seal_asked = True
        self._work()
        if lost := self._days.abandon() + self._in_queue:
            self._count.dropped["not on the disk when the recorder was closed"] += lost
        self._to_seal.put(None)

    def _is_due(self) -> bool:
        if self._ending or self._asked > self._answered or self._second_is_over():
            return True
        return self._in_queue >= CHUNK_ROWS and not self._failing

    def _second_is_over(self) -> bool:
        return self._wall() - self._synced >= FLUSH_S

    def _work(self) -> None:
        """Write all that waits; put it on the disk when somebody asked or the second is over."""
        asked, seal_asked, begin = self._asked, self._seal_asked, time.perf_counter()
        error: Exception | None = None
        try:
            self._write_waiting()
            if seal_asked or self._days.is_over(self._clock.now_us() - GRACE_US):
                self._days.end()
                self._synced = self._wall()
            elif asked > self._answered or self._second_is_over():
                self._sync()
        except Exception as failure:
            error = failure
            self._failed(f"{type(failure).__name__}: {failure}")
            self._synced = self._wall()  # so that it tries again in a second and not at once
        for path in self._days.ended:
            self._to_seal.put(path)
        self._days.ended = []
        with self._changed:
            self._failing, self._answered = error is not None, asked
            self._seal_asked = self._seal_asked and not seal_asked
            self._changed.notify_all()
        self.busy_s += time.perf_counter() - begin
        self._tell(error)

    def _write_waiting(self) -> None:
        remaining = self._in_queue
        self._days.write()  # what has failed before
        while remaining > 0:
            with self._changed:
                taken, rows = [], 0
                while self._queue and rows < CHUNK_ROWS:
                    taken.append(self._queue.popleft())
                    rows += taken[-1][1].num_rows
                self._in_queue -= rows
                self._days.take(taken)
            remaining -= rows
            self._days.write()
            if self._second_is_over() or self._days.unsynced >= SYNC_ROWS:
                self._sync()
            with self._changed:
                self._changed.notify_all()

    def _sync(self) -> None:
        self._days.sync()
        self._synced = self._wall()

    def _tell(self, error: Exception | None) -> None:
        try:
            self._report(self, error)
        except Exception:  # which must not end the recording
            log.exception("A listener of the recording %s failed", self.name)

    def _failed(self, what: str) -> None:
        self._count.errors += 1
        self._count.last_error = what

    def _seal_all(self) -> None:
        while (path := self._to_seal.get()) is not None:
            error: Exception | None = None
            try:
                sealed = seal(path)
                self._count.torn.extend(sealed.torn)
                if sealed.path:
                    mine = self._count.recovered if path in self._left else self._count.sealed
                    mine.append(sealed.path)
            except Exception as failure:
                error = failure
                self._failed(f"{path} could not be sealed and is left as it is: {failure}")
            self._tell(error)
            self._to_seal.task_done()
        self._closed = True
        self._lock.release()
        atexit.unregister(self.close)
        self._to_seal.task_done()
        with self._changed:
            self._changed.notify_all()


def file_name(name: str) -> str:
    """A name that a folder may have: letters of any script, digits, dots and hyphens.

    >>> file_name("replay:es 2013/09")
    'replay-es-2013-09'
    """
    cleaned = re.sub(r"[^\w.-]+", "-", name).lstrip(".-").rstrip("-.") or "recording"
    return cleaned.encode()[:120].decode(errors="ignore")


def _log_error(recorder: Recorder, error: Exception | None) -> None:
    if error is not None:
        log.warning("The recording %s: %s", recorder.name, recorder.status.last_error)


def _locked(folder: Path, name: str) -> Lock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Lock(folder, name)
    except OSError as error:
        hint = "Name another folder."
        raise LogError(f"{folder}", "a folder that can be written to", error.strerror, hint) from error


def _recording_of(path: Path) -> str:
    try:
        return Segment.read(path).recording
    except MarketdashError:
        return ""  # the doctor tells about it


__all__ = ["Recorder", "RecorderStatus", "file_name"]
