"""From a live segment to a session log: by the recorder when the day is over, or after a crash."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marketdash.clock import to_us
from marketdash.errors import LogError, MarketdashError
from marketdash.instruments import Universe
from marketdash.log.lock import Lock, holder
from marketdash.log.manifest import MANIFEST, Manifest, Part, content_hash, file_hash
from marketdash.log.order import Order
from marketdash.log.segment import (
    INSTRUMENTS,
    LIVE,
    SEGMENT,
    STREAM,
    Segment,
    Survey,
    known_us,
    survey,
    sync_file,
    sync_folder,
    whole_batches,
)
from marketdash.log.writer import iso, parquet_options, put_in_place
from marketdash.schema import SCHEMA_VERSION, TOPICS

log = logging.getLogger(__name__)

ROW_GROUP = 1 << 19
LEVEL = 3
"""Of Zstandard: a day must be sealed in less time than it took, on a machine that records the next one."""


@dataclass(frozen=True)
class Sealed:
    """What has become of a segment: the log's folder (None when there was not one row), rows, what was cut off."""

    path: Path | None
    rows: int
    torn: tuple[str, ...]


@dataclass(frozen=True)
class LeftBehind:
    """A segment that no log has been made of yet."""

    path: Path
    pid: int | None
    """The process that is writing it."""
    rows: int = 0
    torn: tuple[str, ...] = ()
    error: MarketdashError | None = None


def seal(folder: Path) -> Sealed:
    """Make the session log of the segment in `folder`, put it on the disk, then delete the segment.

    The rows are put in order by (known_at, seq), and torn ends are left out and told. What is in memory at
    a time is a row group, and what came out of order (see `Order`). The log appears whole or not at all.
    """
    segment = Segment.read(folder)
    found = surveys(folder)
    torn = tuple(item.torn for item in found.values() if item.torn)
    for sentence in torn:
        log.warning("%s", sentence)
    rows = sum(item.rows for item in found.values())
    target = _target(folder, segment)
    if rows and not _is_of(target, segment):
        work = folder.with_name(f".{target.name}.sealing")
        shutil.rmtree(work, ignore_errors=True)  # what a crash has left
        try:
            work.mkdir()
            _write_log(work, folder, segment, target, found, torn)
            for path in work.iterdir():
                sync_file(path)
            sync_folder(work)
            put_in_place(work, target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    _delete(folder)
    return Sealed(target if rows else None, rows, torn)


def surveys(folder: Path) -> dict[str, Survey]:
    """Topic → what its stream holds, of all streams in a segment."""
    names = (path.name.removesuffix(STREAM) for path in sorted(folder.glob(f"*{STREAM}")))
    return {name: survey(folder / f"{name}{STREAM}") for name in names if name in TOPICS}


def left_behind(folders: Iterable[Path]) -> list[LeftBehind]:
    """The segments in these folders: being written, or left by a crash; nothing is changed."""
    result = []
    for path in live_segments(folders):
        try:
            segment = Segment.read(path)
            pid = holder(path.parent, segment.recording)
            if pid is not None:
                result.append(LeftBehind(path, pid))
                continue
            found = surveys(path).values()
            torn = tuple(item.torn for item in found if item.torn)
            result.append(LeftBehind(path, None, sum(item.rows for item in found), torn))
        except MarketdashError as error:
            result.append(LeftBehind(path, None, error=error))
    return result


def seal_left_behind(folders: Iterable[Path]) -> Iterator[Sealed]:
    """Seal every segment that nobody is writing."""
    for item in left_behind(folders):
        if item.pid is None and item.error is None:
            with Lock(item.path.parent, Segment.read(item.path).recording):
                yield seal(item.path)


def live_segments(folders: Iterable[Path]) -> list[Path]:
    """The folders of all segments in these folders."""
    return [path.parent for folder in folders for path in sorted(folder.glob(f"*{LIVE}/{SEGMENT}"))]


def read_segment(folder: Path) -> tuple[Manifest, Universe, dict[str, pa.RecordBatch]]:
    """All whole rows of a segment in order, as the log that it would be sealed to."""
    segment, universe = Segment.read(folder), _universe(folder)
    topics, parts, order = {}, {}, Order()
    found = surveys(folder)
    for name, item in found.items():
        if item.rows:
            topics[name] = pa.concat_batches(list(order.ordered(whole_batches(item), item.lows)))
            parts[name] = _part_of(item.path, pa.Table.from_batches([topics[name]]))
    if not topics:
        raise LogError(f"{folder}", "a segment with at least one row", "none")
    torn = [item.torn for item in found.values() if item.torn]
    known = [known_us(batch) for batch in topics.values()]
    bounds = min(int(times[0]) for times in known), max(int(times[-1]) for times in known)
    instruments = _part_of(folder / INSTRUMENTS, universe.to_arrow())
    return _manifest(folder, segment, folder.name, bounds, instruments, parts, torn, order), universe, topics


def check_about(where: Path, about: dict[str, Any]) -> None:
    """Refuse what no manifest may hold before there are rows that depend on it."""
    nothing = Part(file="none", rows=0, sha256="0" * 64)
    fixed = {"version": SCHEMA_VERSION, "name": where.name, "first": "1970-01-01", "last": "1970-01-01"}
    parts = {"instruments": nothing, "topics": {"ticks": nothing}}
    Manifest.checked({"title": where.name} | about | fixed | parts, where)


def _universe(folder: Path) -> Universe:
    try:
        return Universe.from_arrow(pq.read_table(folder / INSTRUMENTS))
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise LogError(f"{folder / INSTRUMENTS}", "a table of instruments", reason) from error


def _write_log(
    work: Path,
    folder: Path,
    segment: Segment,
    target: Path,
    found: dict[str, Survey],
    torn: Iterable[str],
) -> None:
    parts, bounds, order = {}, [], Order()
    for name, item in found.items():
        if item.rows:
            path = work / f"{name}.parquet"
            bounds += _write_topic(path, order.ordered(whole_batches(item), item.lows))
            parts[name] = _part(path)
    shutil.copyfile(folder / INSTRUMENTS, work / INSTRUMENTS)
    span = min(bounds), max(bounds)
    manifest = _manifest(
        target, segment, target.name, span, _part(work / INSTRUMENTS), parts, list(torn), order
    )
    manifest.write(work)


def _write_topic(path: Path, batches: Iterable[pa.RecordBatch]) -> list[int]:
    """Write one topic in groups of rows; the first and the last known-at."""
    writer: pq.ParquetWriter | None = None
    bounds: list[int] = []
    try:
        for group in _groups(batches):
            writer = writer or pq.ParquetWriter(path, group.schema, **parquet_options(group.schema, LEVEL))
            writer.write_table(pa.Table.from_batches([group]), row_group_size=ROW_GROUP)
            known = known_us(group)
            bounds = [*bounds[:1], *known[[0, -1]].tolist()]
    finally:
        if writer is not None:
            writer.close()
    return bounds


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= ROW_GROUP:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def _part_of(path: Path, table: pa.Table) -> Part:
    return Part(file=path.name, rows=table.num_rows, sha256=content_hash(table))


def _part(path: Path) -> Part:
    rows, sha256 = file_hash(path)
    return Part(file=path.name, rows=rows, sha256=sha256)


def _manifest(
    where: Path,
    segment: Segment,
    name: str,
    bounds: tuple[int, int],
    instruments: Part,
    parts: dict[str, Part],
    torn: list[str],
    order: Order,
) -> Manifest:
    first, last = bounds
    tz = segment.about["tz"]
    provenance: dict[str, Any] = {**segment.about.get("provenance", {}), "segment": segment.id}
    facts = {"torn": torn, "repeated": order.repeated, "renumbered": order.renumbered}
    provenance |= {name: value for name, value in facts.items() if value}
    fields = {"title": name} | segment.about
    fields |= {
        "name": name,
        "version": SCHEMA_VERSION,
        "first": iso(first, tz),
        "last": iso(last, tz),
        # A source that tells its past first puts rows of the past before what was recorded.
        "start": iso(segment.start, tz) if first < segment.start <= last else "",
        "instruments": instruments,
        "topics": parts,
        "provenance": provenance,
    }
    manifest = Manifest.checked(fields, where / MANIFEST)
    assert (to_us(manifest.first), to_us(manifest.last)) == bounds
    return manifest


def _target(folder: Path, segment: Segment) -> Path:
    """Where the log goes: by its name, unless that is taken by a log of something else."""
    target, number = folder.with_name(segment.log), 2
    while target.exists() and not _is_of(target, segment):
        target, number = folder.with_name(f"{segment.log}-{number}"), number + 1
    return target


def _is_of(target: Path, segment: Segment) -> bool:
    """Whether a log was made of this very segment, which a crash kept from being deleted."""
    try:
        return Manifest.read(target).provenance.get("segment") == segment.id
    except MarketdashError:
        return False


def _delete(folder: Path) -> None:
    # What makes it a segment goes first: half a segment is none.
    os.remove(folder / SEGMENT)
    shutil.rmtree(folder)
    sync_folder(folder.parent)
