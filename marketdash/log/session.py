"""A session log, opened: checked once, then cut by known-at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from marketdash.calendars import calendar
from marketdash.clock import Timeline, to_timestamp, to_us
from marketdash.errors import LogError, SchemaError
from marketdash.instruments import Universe
from marketdash.log.manifest import MANIFEST, Manifest, Part, content_hash
from marketdash.log.segment import SEGMENT
from marketdash.schema import conform

LEAD_US = 15 * 60_000_000
"""What a replay plays before an event outside the regular sessions; longer silence there is skipped."""

Positions = Mapping[str, int]
"""Topic → number of its rows."""


class SessionLog:
    """A recorded market. Its batches are immutable, so that many replays share one log."""

    def __init__(
        self, folder: Path, manifest: Manifest, universe: Universe, topics: dict[str, pa.RecordBatch]
    ) -> None:
        self.folder, self.manifest, self.universe, self.topics = folder, manifest, universe, topics
        self._known = {name: _times(batch, "known_at") for name, batch in topics.items()}

    def __repr__(self) -> str:
        rows = ", ".join(f"{batch.num_rows:,} {name}" for name, batch in self.topics.items())
        return f"<SessionLog {self.manifest.name}: {rows} of {len(self.universe)} instruments>"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def first(self) -> int:
        """Known-at of the first row, in microseconds."""
        return min((int(known[0]) for known in self._known.values() if len(known)), default=0)

    @property
    def last(self) -> int:
        """Known-at of the last row, in microseconds."""
        return max((int(known[-1]) for known in self._known.values() if len(known)), default=0)

    @property
    def start(self) -> int:
        """Where a replay starts when nobody says otherwise."""
        return to_us(self.manifest.start or self.manifest.first, self.manifest.tz)

    @cached_property
    def timeline(self) -> Timeline:
        """What a replay plays: the regular sessions, and what leads up to each event outside of them.

        It begins at the first open, or at the first event time of that day, and ends with the last row. Actions
        are not played for: they are announced at any hour, some years before the first price.
        """
        topics = [name for name in self.topics if name != "actions" and self.topics[name].num_rows]
        topics = topics or list(self.topics)
        known = np.unique(np.concatenate([self._known[name] for name in topics]))
        first, last = (int(known[0]), int(known[-1])) if len(known) else (self.first, self.last)
        # A daily bar is known at the close: asked from just before it, the calendar gives that day as well.
        regular = calendar(self.manifest.calendar).regular(first - 1, last)
        opens, closes = np.array(regular, np.int64).reshape(-1, 2).T
        session = np.searchsorted(opens, known, side="right") - 1
        outside = known[(session < 0) | (known > closes[session])] if len(opens) else known
        begin = first
        if len(opens):
            event_times = [_times(self.topics[name], "time") for name in topics]
            begin = min(
                begin, max(int(opens[0]), min(int(times.min()) for times in event_times if len(times)))
            )
        starts = np.concatenate([opens, outside - LEAD_US]).clip(begin, last)
        ends = np.concatenate([closes, outside]).clip(begin, last)
        return Timeline(_joined(starts, ends))

    def next_event(self, us: int) -> int | None:
        """Known-at of the first row after the moment `us`, or None at the end."""
        following = []
        for known in self._known.values():
            i = int(np.searchsorted(known, us, side="right"))
            if i < len(known):
                following.append(int(known[i]))
        return min(following, default=None)

    def next_row(self, position: dict[str, int]) -> int | None:
        """Known-at of the first row that is not before `position` (rows per topic), or None at the end."""
        following = [
            int(known[position.get(name, 0)])
            for name, known in self._known.items()
            if position.get(name, 0) < len(known)
        ]
        return min(following, default=None)

    def rows_until(self, us: int) -> dict[str, int]:
        """How many rows of each topic are known at the moment `us`."""
        return {name: int(np.searchsorted(known, us, side="right")) for name, known in self._known.items()}

    def cut(self, start: Positions, stop: Positions, rows: int) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows between two positions as batches of at most `rows`, topic by topic."""
        for name, batch in self.topics.items():
            for i in range(start.get(name, 0), stop[name], rows):
                yield name, batch.slice(i, min(rows, stop[name] - i))


def open_session(folder: Path) -> SessionLog:
    """Open the log in `folder` after checking it whole: version, columns, order, number and hash of rows.

    A log that was checked before and has not been touched since is not read again. A segment that is still
    being recorded, or was left by a crash, is opened as far as it is whole; nothing in it is changed.
    """
    folder = Path(folder).absolute()
    if (folder / SEGMENT).exists():
        return _open_segment(folder)
    manifest = Manifest.read(folder)
    files = [folder / MANIFEST, folder / manifest.instruments.file]
    files += [folder / part.file for part in manifest.topics.values()]
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            reason = error.strerror or str(error)
            raise LogError(f"{file}", "the file that the manifest names", reason) from error
        stamps.append((status.st_mtime_ns, status.st_size))
    return _opened(folder, tuple(stamps))


def _open_segment(folder: Path) -> SessionLog:
    from marketdash.log.sealing import read_segment  # which writes, and nothing that only reads needs it

    manifest, universe, batches = read_segment(folder)
    topics = {}
    for name, rows in batches.items():
        path = folder / manifest.topics[name].file
        topics[name] = conform(name, rows, f"{path}")
        check_rows(path, topics[name], len(universe))
    return SessionLog(folder, manifest, universe, topics)


def check_rows(path: Path, batch: pa.RecordBatch, instruments: int) -> None:
    """Refuse rows without known_at or seq, out of order, or of an instrument that the universe has not."""
    for name in ("known_at", "seq"):
        if missing := batch.column(name).null_count:
            raise LogError(f"{path}", f"{name} in every row", f"{missing:,} rows without")
    known, seq = _times(batch, "known_at"), batch.column("seq").to_numpy()
    back = (np.diff(known) < 0) | ((np.diff(known) == 0) & (np.diff(seq) <= 0))
    if back.any():
        row = int(np.argmax(back)) + 1
        found, before = (f"{to_timestamp(int(known[i]))}, seq {seq[i]}" for i in (row, row - 1))
        got = f"row {row} ({found}) after ({before})"
        raise LogError(f"{path}", "rows ordered by (known_at, seq), each once", got)
    if "instrument_id" in batch.schema.names and batch.num_rows:
        ids = batch.column("instrument_id").to_numpy()
        if ids.min() < 0 or ids.max() >= instruments:
            wanted = f"instrument ids from 0 to {instruments - 1}"
            raise LogError(f"{path}", wanted, f"{ids.min()} to {ids.max()}")


@lru_cache(maxsize=8)
def _opened(folder: Path, stamps: tuple[tuple[int, int], ...]) -> SessionLog:
    manifest = Manifest.read(folder)
    universe = _universe(folder, manifest.instruments)
    topics = {}
    for name, part in manifest.topics.items():
        table = _read(folder, part)
        try:
            batch = conform(name, table, f"{folder / part.file}")
        except SchemaError as error:
            raise LogError(error.where, error.expected, error.got, error.hint) from error
        check_rows(folder / part.file, batch, len(universe))
        topics[name] = batch
    log = SessionLog(folder, manifest, universe, topics)
    found, stated = (log.first, log.last), (to_us(manifest.first), to_us(manifest.last))
    if found != stated:
        raise LogError(f"{folder / MANIFEST}", *(_span(*span) for span in (found, stated)))
    return log


def _read(folder: Path, part: Part) -> pa.Table:
    path = folder / part.file
    hint = "The file is damaged or was changed; take a fresh copy or rebuild it."
    try:
        table = pq.read_table(path)
        found = content_hash(table)
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:  # damaged text is a ValueError
        reason = str(error).partition("\n")[0][:120]
        raise LogError(f"{path}", "a whole Parquet file", reason, hint) from error
    if table.num_rows != part.rows:
        raise LogError(f"{path}", f"{part.rows:,} rows", f"{table.num_rows:,}", hint)
    if found != part.sha256:
        raise LogError(f"{path}", f"rows with the hash {part.sha256[:12]}…", f"{found[:12]}…", hint)
    return table


def _universe(folder: Path, part: Part) -> Universe:
    table, wanted = _read(folder, part), Universe([]).to_arrow().schema
    try:
        known = pa.schema([wanted.field(name) for name in table.column_names if name in wanted.names])
        return Universe.from_arrow(table.select(known.names).cast(known))
    except (pa.ArrowException, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise LogError(f"{folder / part.file}", "a table of instruments", reason) from error


def _times(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    column = batch.column(name)
    if column.null_count:
        raise LogError("A session log", f"{name} in every row", f"{column.null_count:,} rows without")
    return column.view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def _joined(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Stretches of time in order, with those that overlap or touch made one."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    apart = np.flatnonzero(starts[1:] > ends[:-1]) + 1
    first = np.concatenate([[0], apart])
    last = np.concatenate([apart - 1, [len(ends) - 1]])
    return list(zip(starts[first].tolist(), ends[last].tolist(), strict=True))


def _span(first: int, last: int) -> str:
    return f"rows known from {to_timestamp(first)} to {to_timestamp(last)}"
