"""The recorder: rows a second onto the disk and into sealed logs, read back and compared."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import pyarrow as pa

from benchmarks.day import INSTRUMENTS, trading_day
from benchmarks.report import Report
from marketdash.instruments import Universe
from marketdash.log import Recorder, open_session
from marketdash.testing.clock import ManualClock

TICKS = 4_000_000
BATCH = 1_000
RUNS = 3


def run(report: Report) -> None:
    """Record a day of ticks, seal it, and write the same rows the simplest way there is."""
    ticks = trading_day(TICKS)
    batches = [ticks.slice(i, BATCH) for i in range(0, TICKS, BATCH)]
    universe = Universe.of([f"S{i}" for i in range(INSTRUMENTS)], calendar="XNYS")
    folder = Path(__file__).parent  # a disk, where the system's folder for such files may be memory
    with tempfile.TemporaryDirectory(dir=folder, prefix=".record-") as scratch:
        rounds = [one_round(Path(scratch) / str(i), universe, ticks, batches) for i in range(RUNS)]
    written, sealed, raw, live_bytes, log_bytes = (median(column) for column in zip(*rounds, strict=True))
    what = f"batches of {BATCH:,} through Recorder.write until the last fsync, read back and equal"
    report.add("record.ticks_per_s", written, "ticks/s", what, at_least=1e6)
    report.add(
        "record.raw_ticks_per_s", raw, "ticks/s", "the same batches, one Arrow stream, one fsync at the end"
    )
    report.add("record.vs_raw_write", written / raw, "×", "the recorder against that")
    report.add(
        "record.seal_rows_per_s", sealed, "rows/s", "segment to Parquet with hashes, fsynced, read back"
    )
    report.add("record.bytes_per_tick", log_bytes, "bytes", "in the sealed log")
    report.add("record.bytes_per_tick.live", live_bytes, "bytes", "in the segment")


def one_round(
    folder: Path, universe: Universe, ticks: pa.RecordBatch, batches: list[pa.RecordBatch]
) -> tuple[float, float, float, float, float]:
    """Rows a second written, sealed, and by the peer; bytes a row while live and in the log."""
    clock = ManualClock("2024-03-12 13:00")
    about = {"source": "benchmark", "calendar": "XNYS", "tz": "America/New_York"}
    with Recorder(folder, universe, clock=clock, **about) as recorder:  # type: ignore[arg-type]
        begin = time.perf_counter()
        for batch in batches:
            recorder.write("ticks", batch)
        assert recorder.flush()
        written = time.perf_counter() - begin
        status = recorder.status
        assert status.flushed == TICKS
        assert not status.dropped
        assert status.path is not None
        assert open_session(status.path).topics["ticks"].equals(ticks)
        begin = time.perf_counter()
        recorder.seal()
        sealed = time.perf_counter() - begin
    (log,) = recorder.status.sealed
    assert pa.Table.from_batches([open_session(log).topics["ticks"]]).equals(pa.Table.from_batches([ticks]))
    raw = raw_write(folder / "raw.arrows", batches)
    return TICKS / written, TICKS / sealed, TICKS / raw, status.size / TICKS, _size(log) / TICKS


def raw_write(path: Path, batches: list[pa.RecordBatch]) -> float:
    """Seconds to write the batches as they are to one file and sync it."""
    begin = time.perf_counter()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    with path.open("rb+") as again:
        os.fsync(again.fileno())
    seconds = time.perf_counter() - begin
    with pa.OSFile(str(path)) as file:
        assert sum(batch.num_rows for batch in pa.ipc.open_stream(file)) == TICKS
    path.unlink()
    return seconds


def _size(log: Path) -> int:
    return sum(path.stat().st_size for path in log.iterdir())
