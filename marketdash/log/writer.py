"""Write a session log in one go, from rows that are already known."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marketdash.clock import to_timestamp
from marketdash.errors import LogError
from marketdash.instruments import Universe
from marketdash.log.manifest import MANIFEST, Manifest, Part, content_hash
from marketdash.log.session import check_rows
from marketdash.schema import SCHEMA_VERSION, conform

# These mostly count up, and their differences take a third of the space of their values.
_COUNTING = ("time", "known_at", "seq")


def write_session(
    folder: Path, universe: Universe, topics: Mapping[str, Any], *, calendar: str, tz: str, **about: Any
) -> Manifest:
    """Write `topics` (name → rows) as the session log in `folder`, replacing the log that was there.

    The rows are sorted by (known_at, seq); rows without a sequence number are numbered in the order in
    which they came. `about` holds the other fields of the `Manifest`; `name` is the folder's unless given.
    The folder appears whole or not at all; one that holds something else than a log is left alone.
    """
    folder = Path(folder)
    _refuse_other(folder)
    batches = {name: _ordered(conform(name, rows, folder.name)) for name, rows in topics.items()}
    bounds: list[int] = []
    for name, batch in batches.items():
        check_rows(folder / f"{name}.parquet", batch, len(universe))
        bounds += _known_at(batch)[[0, -1]].tolist() if batch.num_rows else []
    if not bounds:
        raise LogError(f"{folder}", "at least one row", "none")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fields = {"name": folder.name, "title": folder.name, "source": "recorded"} | about
        fields |= {
            "version": SCHEMA_VERSION,
            "calendar": calendar,
            "tz": tz,
            "first": iso(min(bounds), tz),
            "last": iso(max(bounds), tz),
            "instruments": _write(work, "instruments.parquet", universe.to_arrow()),
            "topics": {
                name: _write(work, f"{name}.parquet", pa.Table.from_batches([batch]))
                for name, batch in batches.items()
            },
        }
        manifest = Manifest.checked(fields, folder / MANIFEST)
        manifest.write(work)
        os.chmod(work, 0o755)  # a temporary folder is private; a log is as readable as its neighbours
        put_in_place(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _refuse_other(folder: Path) -> None:
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        hint = "Choose another folder: writing a log here would delete what is in it."
        raise LogError(f"{folder}", "a session log, or nothing", "something else", hint)


def _ordered(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.column("known_at").null_count:
        batch = _with(batch, "known_at", pc.coalesce(batch.column("known_at"), batch.column("time")))
    known, numbers = _known_at(batch), batch.column("seq")
    if not numbers.null_count:
        return batch.take(pa.array(np.lexsort((numbers.to_numpy(), known))))
    batch = batch.take(pa.array(np.argsort(known, kind="stable")))
    return _with(batch, "seq", pa.array(np.arange(batch.num_rows)))


def _with(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    i = batch.schema.get_field_index(name)
    return batch.set_column(i, batch.schema.field(i), values)


def _known_at(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    return batch.column("known_at").view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def _write(folder: Path, file: str, table: pa.Table) -> Part:
    pq.write_table(table, folder / file, **parquet_options(table.schema, 15))
    # Rows are hashed as a reader gets them back, since Parquet keeps no 16-bit dictionary indices.
    written = pq.read_table(folder / file)
    return Part(file=file, rows=written.num_rows, sha256=content_hash(written))


def parquet_options(schema: pa.Schema, level: int) -> dict[str, Any]:
    """How the rows of a log are packed; `level` is Zstandard's."""
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [name for name in schema.names if name not in _COUNTING],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in schema.names if name in _COUNTING},
    }


def put_in_place(work: Path, folder: Path) -> None:
    """Give a finished log its name; one that was there before goes, or stays when that fails."""
    if not folder.exists():
        work.rename(folder)
        return
    old = work.with_name(f"{work.name}-old")
    folder.rename(old)
    try:
        work.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def iso(us: int, tz: str) -> str:
    """A moment as a manifest tells it."""
    try:
        return to_timestamp(us, tz).isoformat()
    except (LookupError, ValueError, OSError):
        return to_timestamp(us).isoformat()  # the manifest will refuse this zone
