"""Kill -9 while recording, again and again: every log opens and holds all that was told to be on the disk."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketdash.clock import to_us
from marketdash.instruments import Universe
from marketdash.log import Recorder, SessionLibrary, open_session
from marketdash.schema import conform

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
KILLS = max(5, min(50, round(SECONDS / 12)))
UNIVERSE = Universe.of([f"S{i}" for i in range(50)], calendar="24/7")
START = to_us("2024-03-12 23:00")
STEP_US = 40_000
"""Between two rows: a day has two million, so that days end, and logs are sealed, while all this goes on."""


def rows_of(first: int, count: int) -> dict[str, pa.RecordBatch]:
    """Rows by number: what is in them follows from it."""
    number = np.arange(first, first + count)
    known = pa.array(START + number * STEP_US, pa.timestamp("us", "UTC"))
    common = {
        "time": known,
        "known_at": known,
        "seq": number,
        "source": pa.array(["feed", "late feed"]).take(pa.array(number // 1000 % 2)),
        "instrument_id": (number % 50).astype(np.int32),
    }
    ticks = common | {"price": number / 7, "size": number % 13 + 0.0}
    quotes = common | {"bid": number / 8, "ask": number / 7}
    return {"ticks": conform("ticks", ticks), "quotes": conform("quotes", quotes)}


def record_for_ever(folder: Path) -> None:
    """What the child does: record, and tell how many rows are on the disk."""
    rng, sent = random.Random(), 0
    with Recorder(folder, UNIVERSE, source="feed", calendar="24/7", tz="UTC") as recorder:
        while True:
            for _ in range(rng.randrange(1, 60)):
                count = rng.randrange(1, 4_000)
                for topic, batch in rows_of(sent, count).items():
                    recorder.write(topic, batch)
                sent += count
            assert recorder.flush()
            assert not recorder.status.dropped
            print(sent, flush=True)


def killed_after(folder: Path, seconds: float) -> int:
    """Let a child record until it is killed; the number of rows that it told to be on the disk."""
    script = f"import sys; sys.path[:0] = {sys.path!r}\n"
    script += f"import pathlib, test_soak_record as t; t.record_for_ever(pathlib.Path({str(folder)!r}))"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        told = child.stdout.readline()
        threading.Timer(seconds, child.kill).start()
        for line in child.stdout:
            told = line if line.endswith("\n") else told
        complaint = child.stderr.read()
    assert child.returncode == -9, complaint
    return int(told)


def test_a_killed_recorder_leaves_all_that_was_flushed(tmp_path: Path) -> None:
    rng, torn, sealed, found_live = random.Random(), 0, 0, 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        told = killed_after(folder, rng.uniform(0, 2.5))
        for item in SessionLibrary([folder]).segments():
            assert item.pid is None, "a process that is dead holds no lock"
            assert item.error is None
            if item.rows:
                rows = [batch.num_rows for batch in open_session(item.path).topics.values()]
                assert sum(rows) == item.rows
                found_live += 1
            torn += bool(item.torn)
        for _ in SessionLibrary([folder]).seal():
            sealed += 1
        logs = sorted(
            (open_session(path) for path in SessionLibrary([folder]).paths().values()),
            key=lambda log: log.first,
        )
        for topic in ("ticks", "quotes"):
            batch = pa.concat_batches([log.topics[topic] for log in logs if topic in log.topics])
            assert batch.num_rows >= told, f"kill {kill}: {topic} were told to be on the disk"
            assert batch.to_pandas().equals(rows_of(0, batch.num_rows)[topic].to_pandas()), (
                f"kill {kill}: {topic}"
            )
    assert found_live, "a soak in which nothing was left to find shows nothing"
    print(
        f"{KILLS} kills: {found_live} live segments with rows, {torn} of them torn, {sealed} sealed afterwards"
    )
