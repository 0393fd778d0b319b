"""The trading day that is being recorded: its segment on the disk."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from marketdash.calendars import DAY_US, FOREVER, calendar
from marketdash.instruments import Universe
from marketdash.log.segment import (
    INSTRUMENTS,
    LIVE,
    SEGMENT,
    STREAM,
    OpenFile,
    Segment,
    StreamWriter,
    known_us,
    sync_file,
    sync_folder,
)

_AHEAD = 60 * DAY_US


class TradingDay(NamedTuple):
    """A trading day: its number since 1970-01-01, and from when to when it lasts, in microseconds."""

    number: int
    start: int
    end: int

    def __str__(self) -> str:
        return str(np.datetime64(self.number, "D"))


def trading_day(name: str, us: int) -> TradingDay:
    """The trading day of a calendar to which a moment belongs: all since the end of the day before."""
    month = us // _AHEAD * _AHEAD  # rounded, so that a moving moment asks for the same stretch again
    segments = calendar(name).segments(month, month + 2 * _AHEAD)
    number = int(segments.day[segments.row(us)])
    rows = np.flatnonzero(segments.day == number)
    start, end = int(segments.start[rows[0]]), int(segments.end[rows[-1]])
    return TradingDay(number, max(start, -FOREVER // 2), end)


class LiveDay:
    """A segment that is open for writing. It appears in the folder whole, with what it is and who is traded."""

    def __init__(
        self,
        folder: Path,
        recording: str,
        day: TradingDay,
        universe: Universe,
        about: dict[str, Any],
        open_file: OpenFile,
        began: int = 0,
    ) -> None:
        self.day, self._open_file = day, open_file
        self._streams: dict[str, StreamWriter] = {}
        name, number = f"{recording}-{day}", 2
        while (folder / name).exists() or (folder / f"{name}{LIVE}").exists():
            name, number = f"{recording}-{day}-{number}", number + 1
        self.folder = folder / f"{name}{LIVE}"
        start = max(day.start, began)
        segment = Segment(id=uuid.uuid4().hex, recording=recording, log=name, start=start, about=about)
        new = folder / f".{recording}.new"
        shutil.rmtree(new, ignore_errors=True)  # what a crash has left
        new.mkdir()
        pq.write_table(universe.to_arrow(), new / INSTRUMENTS, compression="zstd")
        (new / SEGMENT).write_text(segment.model_dump_json(indent=2), encoding="utf-8")
        for path in new.iterdir():
            sync_file(path)
        sync_folder(new)
        new.rename(self.folder)
        sync_folder(folder)

    @property
    def size(self) -> int:
        """Bytes of all streams."""
        return sum(stream.size for stream in self._streams.values())

    @property
    def waiting(self) -> int:
        """Rows that the system has not taken yet."""
        return sum(stream.waiting for stream in self._streams.values())

    @property
    def unsynced(self) -> int:
        """Rows that the system has and that may not be on the disk yet."""
        return sum(stream.unsynced for stream in self._streams.values())

    def add(self, topic: str, rows: pa.RecordBatch) -> None:
        """Encode rows for their topic's stream."""
        if rows.num_rows:
            stream = self._streams.get(topic)
            if stream is None:
                path = self.folder / f"{topic}{STREAM}"
                stream = StreamWriter(path, rows.schema, self._open_file)
                self._streams = {**self._streams, topic: stream}  # others are counting what is in them
            stream.add(rows)

    def write(self) -> None:
        """Hand all encoded rows to the system."""
        for stream in self._streams.values():
            stream.write()

    def sync(self) -> int:
        """Put all written rows on the disk; how many were not."""
        return sum([stream.sync() for stream in self._streams.values()])

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()


class Days:
    """Writes rows to the segment of the trading day in which they became known, one day after the other.

    What fails raises, and nothing is lost by that: the next call goes on where it stopped.
    """

    def __init__(self, make: Callable[[TradingDay], LiveDay], calendar: str, now_us: int) -> None:
        self._make, self._calendar = make, calendar
        self._least = trading_day(calendar, now_us)
        self._backlog: dict[str, pa.RecordBatch] = {}
        self.live: LiveDay | None = None
        self.ended: list[Path] = []
        self.flushed = 0

    @property
    def waiting(self) -> int:
        """Rows that were taken and that the system has not."""
        taken: int = sum(batch.num_rows for batch in self._backlog.values())
        return taken + (self.live.waiting if self.live else 0)

    @property
    def unsynced(self) -> int:
        """Rows that the system has and that may not be on the disk yet."""
        return self.live.unsynced if self.live else 0

    def is_over(self, now_us: int) -> bool:
        """Whether the day that is being written has ended by the clock."""
        return self.live is not None and now_us >= self.live.day.end

    def take(self, rows: list[tuple[str, pa.RecordBatch]]) -> None:
        """Take rows to be written next; only when the last ones are."""
        parts: dict[str, list[pa.RecordBatch]] = {}
        for name, batch in rows:
            parts.setdefault(name, []).append(batch)
        self._backlog = {
            name: some[0] if len(some) == 1 else pa.concat_batches(some) for name, some in parts.items()
        }

    def write(self) -> None:
        """Hand all rows to the system, each day's to its own segment."""
        while self._backlog:
            live = self.live = self.live or self._begin()
            later = {}
            for name, batch in self._backlog.items():
                early = known_us(batch) < live.day.end
                if early.all():
                    live.add(name, batch)
                else:
                    live.add(name, batch.filter(pa.array(early)))
                    later[name] = batch.filter(pa.array(~early))
            self._backlog = later
            if later:
                live.write()
                self.end()
        if self.live:
            self.live.write()

    def _begin(self) -> LiveDay:
        first = min(int(known_us(batch).min()) for batch in self._backlog.values())
        # The past that a source tells at its start belongs to the day on which it was told.
        self._least = max(self._least, trading_day(self._calendar, first))
        return self._make(self._least)

    def sync(self) -> None:
        """Put all written rows on the disk."""
        if self.live:
            self.flushed += self.live.sync()

    def end(self) -> None:
        """Finish the segment that is being written, if there is one; all its rows were written."""
        self.sync()
        if self.live:
            self.live.close()
            self.ended.append(self.live.folder)
            self.live = None

    def abandon(self) -> int:
        """Close the files as they are; how many rows are not in them for certain."""
        lost = self.waiting
        if self.live:
            self.live.close()
        return lost


def create_stream(path: Path) -> FileIO:
    """A new file, written without a buffer of Python's."""
    return FileIO(os.fspath(path), "xb")
