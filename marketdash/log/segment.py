"""A live segment: the log of a trading day while it is written, an Arrow IPC stream per topic."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marketdash.errors import LogError
from marketdash.schema import SCHEMA_VERSION

SEGMENT = "segment.json"
FORMAT = "marketdash live segment"
LIVE = ".live"
STREAM = ".arrows"
INSTRUMENTS = "instruments.parquet"

OpenFile = Callable[[Path], FileIO]
"""Creates the file of a stream; a test gives one whose disk is full."""

_CHECK = b"crc32"
_STREAMING = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)


class Segment(BaseModel):
    """What `segment.json` holds: the log that it will become, and the fields of that log's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["marketdash live segment"] = FORMAT  # type: ignore[assignment]
    version: int = SCHEMA_VERSION
    id: str
    recording: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    log: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    start: int
    about: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Segment:
        """Read what the segment in `folder` says about itself."""
        path = folder / SEGMENT
        try:
            segment = cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            reason = str(error).partition("\n")[0][:120]
            raise LogError(f"{path}", f"the description of a {FORMAT}", reason) from error
        if segment.version != SCHEMA_VERSION:
            hint = "Seal it with the version of marketdash that wrote it."
            raise LogError(f"{path}", f"schema version {SCHEMA_VERSION}", segment.version, hint)
        return segment


class StreamWriter:
    """Writes one topic's stream. What the disk has not taken for certain stays in memory and is tried again.

    Each batch carries the checksum of its body, since after a power cut a file may have its length
    without having its contents.
    """

    def __init__(self, path: Path, schema: pa.Schema, open_file: OpenFile) -> None:
        self._path, self._open = path, open_file
        self._file: FileIO | None = None
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema, options=_STREAMING)
        self._unsynced: list[bytes] = []
        self._whole = True
        self.size, self.waiting, self.unsynced = 0, 0, 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Encode rows; they are in memory until `write`."""
        self._writer.write_batch(batch, custom_metadata={_CHECK: _checksum(batch)})
        self.waiting += batch.num_rows

    def write(self) -> None:
        """Hand everything that waits to the system, whole or not at all."""
        if not self._sink.parts:
            return
        if self._file is None:
            self._file = self._open(self._path)
        if not self._whole:
            self._file.truncate(self.size)
            self._file.seek(self.size)
        contents = b"".join(self._sink.parts)
        self._sink.parts, self._whole = [contents], False
        written = 0
        while written < len(contents):
            written += self._file.write(memoryview(contents)[written:]) or 0
        self._whole, self._sink.parts = True, []
        self._unsynced.append(contents)
        self.size += len(contents)
        self.unsynced, self.waiting = self.unsynced + self.waiting, 0

    def sync(self) -> int:
        """Wait until all that was written is on the disk; return the number of rows that were not before.

        When that fails the system may forget what it could not write (https://lwn.net/Articles/752063/),
        so that all of it is written once more the next time.
        """
        if not self.unsynced or self._file is None:
            return 0
        try:
            if self.size == sum(map(len, self._unsynced)):  # a file without its name would be lost
                sync_folder(self._path.parent)
            os.fsync(self._file.fileno())
        except OSError:
            self._sink.parts = [*self._unsynced, *self._sink.parts]
            self.size -= sum(map(len, self._unsynced))
            self.waiting += self.unsynced
            self._unsynced, self.unsynced, self._whole = [], 0, False
            raise
        rows, self.unsynced, self._unsynced = self.unsynced, 0, []
        return rows

    def close(self) -> None:
        """Close the file; a stream without an end mark is complete."""
        if self._file is not None:
            self._file.close()


class _Sink:
    """Where Arrow writes to, so that one message is one write and can be taken back."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, part: Any) -> int:
        self.parts.append(bytes(part))
        return len(part)

    def flush(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Survey:
    """What a stream's file holds: whole batches, the least known-at of each, and where they end."""

    path: Path
    rows: int
    lows: tuple[int, ...]
    good: int
    size: int

    @property
    def torn(self) -> str:
        """What was cut off at the end, in a sentence; empty when nothing was."""
        if self.good == self.size:
            return ""
        cut = f"the last {self.size - self.good:,} of {self.size:,} bytes are not a whole batch"
        return f"{self.path}: {cut}; {self.rows:,} rows before byte {self.good:,} are whole."


def survey(path: Path) -> Survey:
    """Read a stream as far as it is whole. The file is not changed: somebody may be writing it."""
    rows, good, lows = 0, 0, []
    size = path.stat().st_size
    with pa.OSFile(str(path)) as file:
        for batch, check in _batches(file):
            if check != _checksum(batch) or batch.column("known_at").null_count:
                break
            rows, good = rows + batch.num_rows, file.tell()
            lows.append(int(batch.column("known_at").view(pa.int64()).to_numpy().min(initial=2**62)))
    return Survey(path, rows, tuple(lows), good, size)


def whole_batches(found: Survey) -> Iterator[pa.RecordBatch]:
    """The batches that a survey has found, again."""
    with pa.OSFile(str(found.path)) as file:
        for (batch, _), _ in zip(_batches(file), found.lows, strict=False):
            yield batch


def _batches(file: pa.NativeFile) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """Batches with their checksums until the end, or until something is not a batch."""
    try:
        reader = pa.ipc.open_stream(file)
        while True:
            batch, about = reader.read_next_batch_with_custom_metadata()
            batch.validate()
            yield batch, (about or {}).get(_CHECK, b"")
    except (StopIteration, EOFError, OSError, pa.ArrowException, ValueError):
        return


def _checksum(batch: pa.RecordBatch) -> bytes:
    body = pa.ipc.read_message(batch.serialize()).body
    return str(zlib.crc32(body)).encode()


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; a file without its name would be lost."""
    if sys.platform == "win32":  # which does not open folders
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def sync_file(path: Path) -> None:
    """Put a file's contents on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def known_us(batch: pa.RecordBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Known-at of each row, in microseconds."""
    return batch.column("known_at").view(pa.int64()).to_numpy()  # type: ignore[no-any-return]
