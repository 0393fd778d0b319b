"""What was recorded comes back: after a day's end, after a crash, and when the disk failed meanwhile."""

import asyncio
import errno
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
from io import FileIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketdash.clock import to_us
from marketdash.errors import LogError, SchemaError
from marketdash.log import Recorder, SessionLibrary, open_session, write_session
from marketdash.log.manifest import content_hash, file_hash
from marketdash.log.recorder import QUEUE_ROWS, file_name
from marketdash.log.sealing import left_behind
from marketdash.log.segment import StreamWriter, survey, whole_batches
from marketdash.market import Market
from marketdash.schema import conform
from marketdash.sources.base import BaseSource, Entitlement
from marketdash.sources.replay import ReplaySource
from marketdash.sources.simulated import SimulatedSource
from marketdash.testing.clock import ManualClock, ManualWall, caught_up
from marketdash.testing.golden import (
    assert_same,
    few_instruments,
    random_bars,
    random_quotes,
    random_ticks,
    snapshot,
    write_log,
)

ROUGH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
UNIVERSE = few_instruments(5)
HALF_DAY = ("2018-11-23 14:40", "2018-11-23 17:50")
SECOND = 1_000_000


def recorder(folder: Path, clock: ManualClock | None = None, **options) -> Recorder:
    given = {"source": "test", "calendar": "XNYS", "tz": "America/New_York", "wall": ManualWall()}
    return Recorder(folder, UNIVERSE, clock=clock or ManualClock(HALF_DAY[0]), **given | options)


def ticks(times, seq=None, ids=None, **columns) -> pa.RecordBatch:
    known = pa.array(np.asarray(times, np.int64), pa.timestamp("us", "UTC"))
    rows = {
        "time": known,
        "known_at": known,
        "seq": np.arange(len(known)) if seq is None else seq,
        "source": ["test"] * len(known),
        "instrument_id": np.zeros(len(known), np.int32) if ids is None else np.asarray(ids, np.int32),
        "price": np.arange(len(known)) + 1.0,
    }
    return conform("ticks", rows | columns)


def numbered(topic: str, rows: pd.DataFrame) -> pa.RecordBatch:
    return conform(topic, rows.assign(seq=np.arange(len(rows)), source="test"))


def all_topics() -> dict[str, pa.RecordBatch]:
    readings = random_ticks(UNIVERSE, *HALF_DAY, rows=50, seed=4)[["time", "known_at", "instrument_id"]]
    readings = readings.assign(width="1min", indicator="mood", output="value", value=np.arange(50) / 7)
    stages = readings[["time", "known_at"]].assign(stage="feed", state="fine", message=None)
    return {
        "ticks": numbered("ticks", random_ticks(UNIVERSE, *HALF_DAY, rows=3_000, seed=1)),
        "quotes": numbered("quotes", random_quotes(UNIVERSE, *HALF_DAY, rows=900, seed=2)),
        "bars": numbered("bars", random_bars(UNIVERSE, "1min", *HALF_DAY, seed=3)),
        "readings": numbered("readings", readings),
        "health": numbered("health", stages),
    }


def in_pieces(topics: dict[str, pa.RecordBatch], seed: int = 0):
    rng = np.random.default_rng(seed)
    pieces = []
    for name, batch in topics.items():
        cuts = np.unique(rng.integers(0, batch.num_rows, 9)).tolist()
        for first, end in zip([0, *cuts], [*cuts, batch.num_rows], strict=True):
            pieces.append((name, batch.slice(first, end - first)))
    order = sorted(
        range(len(pieces)), key=lambda i: pieces[i][1].num_rows and pieces[i][1]["known_at"][0].value
    )
    return [pieces[i] for i in order]


def same_rows(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    return content_hash(pa.Table.from_batches([left])) == content_hash(pa.Table.from_batches([right]))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- what is written comes back


def test_what_was_recorded_is_the_log_that_a_writer_would_have_made(tmp_path):
    topics = all_topics()
    with recorder(tmp_path / "logs", title="Ein Tag", redistributable=False, licence="mine") as mine:
        for name, piece in in_pieces(topics):
            mine.write(name, piece)
    write_session(tmp_path / "other", UNIVERSE, topics, calendar="XNYS", tz="America/New_York")
    recorded, written = open_session(tmp_path / "logs" / "test-2018-11-23"), open_session(tmp_path / "other")
    assert set(recorded.topics) == set(topics)
    for name in topics:
        assert recorded.manifest.topics[name].sha256 == written.manifest.topics[name].sha256
    about = recorded.manifest
    assert (about.title, about.redistributable, about.licence) == ("Ein Tag", False, "mine")
    assert repr(list(recorded.universe)) == repr(list(UNIVERSE))
    assert mine.status.state == "closed"
    assert mine.status.flushed == mine.status.rows == sum(batch.num_rows for batch in topics.values())
    assert names(tmp_path / "logs") == ["test-2018-11-23"]
    assert names(tmp_path) == ["logs", "other"]


def test_a_log_that_is_still_written_opens_with_what_was_flushed(tmp_path):
    topics = all_topics()
    with recorder(tmp_path) as mine:
        for name, piece in in_pieces(topics):
            mine.write(name, piece)
        assert mine.flush()
        library = SessionLibrary([tmp_path])
        log = library.open("test-2018-11-23.live")
        assert all(same_rows(log.topics[name], conform(name, batch)) for name, batch in topics.items())
        mine.write("ticks", topics["ticks"].slice(0, 7))  # not flushed, hence not there yet
        assert library.open(str(log.folder)).topics["ticks"].num_rows == topics["ticks"].num_rows
        assert [item.pid for item in library.segments()] == [os.getpid()]
        assert library.check() == {}
        source = ReplaySource(log, playing=False)
        assert sum(batch.num_rows for _, batch in source.take(log.last)) == sum(map(len, log.topics.values()))
    assert open_session(tmp_path / "test-2018-11-23").topics["ticks"].num_rows == topics["ticks"].num_rows


def test_a_second_on_the_wall_puts_rows_on_the_disk(tmp_path):
    wall = ManualWall()
    done = threading.Event()
    with recorder(tmp_path, wall=wall, report=lambda mine, _: mine.status.flushed and done.set()) as mine:
        mine.write("ticks", ticks([mine._clock.us]))
        assert not done.wait(0.3), "the second was not over"
        wall.advance(1.01)
        assert done.wait(10)
        assert open_session(mine.status.path).topics["ticks"].num_rows == 1


def test_a_recording_without_rows_leaves_nothing(tmp_path):
    with recorder(tmp_path) as mine:
        mine.write("ticks", ticks([]))
        mine.flush()
        mine.seal()
    assert mine.status.path is None
    assert names(tmp_path) == []


def test_what_was_sealed_by_hand_and_what_came_after_are_two_logs_of_one_day(tmp_path):
    clock = ManualClock(HALF_DAY[0])
    with recorder(tmp_path, clock) as mine:
        for _ in range(3):
            mine.write("ticks", ticks([clock.us]))
            mine.seal()
            clock.advance(1)
    assert names(tmp_path) == ["test-2018-11-23", "test-2018-11-23-2", "test-2018-11-23-3"]
    assert [open_session(path).first for path in mine.status.sealed] == [
        clock.us - n * SECOND for n in (3, 2, 1)
    ]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("replay:es/2013 09", "replay-es-2013-09"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("Börse ✓ 東京", "Börse-東京"),
        ("/", "recording"),
        ("ä" * 300, "ä" * 60),
    ],
)
def test_any_name_makes_a_folder_inside(tmp_path, name, folder):
    with recorder(tmp_path / "logs", name=name) as mine:
        mine.write("ticks", ticks([mine._clock.us]))
    assert file_name(name) == folder
    assert names(tmp_path / "logs") == [f"{folder}-2018-11-23"]
    assert names(tmp_path) == ["logs"]
    assert open_session(mine.status.path).name == f"{folder}-2018-11-23"


# ---- order


@ROUGH
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=60
    ),
    cut=st.integers(1, 20),
)
def test_rows_come_in_order_each_once_and_none_is_lost(rows, cut):
    known, seq, price = np.array(rows).T
    start = to_us(HALF_DAY[0])
    batch = ticks(start + known, seq=seq, price=price.astype(float))
    with tempfile.TemporaryDirectory() as folder, recorder(Path(folder)) as mine:
        for first in range(0, len(rows), cut):
            mine.write("ticks", batch.slice(first, cut))
            mine.flush()  # each its own message
        mine.seal()
        log = open_session(mine.status.path)  # which refuses rows that are not in order
        found = log.topics["ticks"].to_pandas()
        about = log.manifest.provenance
    left = [(int(t.value) // 1000 - start, p) for t, p in zip(found["known_at"], found["price"], strict=True)]
    assert set(left) == {(k, float(p)) for k, _, p in rows}
    assert len(left) + about.get("repeated", 0) == len(rows)
    if len({row[:2] for row in rows}) == len(rows):
        expected = sorted((k, s, float(p)) for k, s, p in rows)
        assert [(k, p) for k, _, p in expected] == left
        assert found["seq"].tolist() == [s for _, s, _ in expected]
        assert "renumbered" not in about


def test_a_row_that_came_twice_is_kept_once_and_one_with_a_taken_number_gets_the_next(tmp_path):
    at = to_us(HALF_DAY[0])
    with recorder(tmp_path) as mine:
        mine.write("ticks", ticks([at, at, at + 1], seq=[5, 6, 6], price=[1.0, math.nan, 3.0]))
        mine.write("ticks", ticks([at, at, at], seq=[5, 6, 6], price=[1.0, math.nan, 2.0]))
    log = open_session(mine.status.path)
    assert log.topics["ticks"]["seq"].to_pylist() == [5, 6, 7, 6]
    assert log.topics["ticks"].to_pandas()["price"].tolist()[2:] == [2.0, 3.0]
    assert (log.manifest.provenance["repeated"], log.manifest.provenance["renumbered"]) == (2, 1)


def test_sealing_holds_what_came_out_of_order_and_not_the_day(tmp_path, monkeypatch):
    from marketdash.log import order, sealing

    monkeypatch.setattr(sealing, "ROW_GROUP", 1_000)
    held = []
    sort = order.Order._sorted
    monkeypatch.setattr(
        order.Order, "_sorted", lambda self, parts: held.append(sum(map(len, parts))) or sort(self, parts)
    )
    rng = np.random.default_rng(1)
    known = (
        to_us(HALF_DAY[0]) + np.arange(20_000) * 100 + rng.integers(0, 30_000, 20_000)
    )  # 300 rows or less late
    batch = ticks(known)
    with recorder(tmp_path) as mine:
        for first in range(0, 20_000, 500):
            mine.write("ticks", batch.slice(first, 500))
            mine.flush()
    assert max(held) < 2_000
    assert pq.ParquetFile(mine.status.path / "ticks.parquet").metadata.num_row_groups > 10
    assert same_rows(
        open_session(mine.status.path).topics["ticks"], batch.take(pa.array(np.argsort(known, kind="stable")))
    )


COLUMNS = {
    "names": st.one_of(st.none(), st.sampled_from(["a", "", "b", "ü"])),
    "counts": st.one_of(st.none(), st.integers(-5, 5)),
    "flags": st.one_of(st.none(), st.booleans()),
    "prices": st.one_of(st.none(), st.floats(width=64)),
}


@ROUGH
@given(rows=st.lists(st.tuples(*COLUMNS.values()), max_size=30), group=st.integers(1, 40))
def test_a_file_has_the_hash_of_its_rows(tmp_path, rows, group):
    kinds = (pa.utf8(), pa.int32(), pa.bool_(), pa.float64())
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]
    columns.append(columns[0].dictionary_encode())
    table = pa.table(columns, names=[*COLUMNS, "encoded"])
    pq.write_table(table, tmp_path / "some.parquet", row_group_size=group)
    assert file_hash(tmp_path / "some.parquet") == (len(rows), content_hash(table))


# ---- the trading day


def test_a_half_day_ends_by_the_clock_when_nothing_comes(tmp_path):
    clock = ManualClock("2018-11-23 17:59")  # New York closes at 13:00 and its post session ends at 17:00
    with recorder(tmp_path, clock) as mine:
        mine.write("ticks", ticks([clock.us]))
        clock.set("2018-11-23 22:00:59")
        mine.flush()
        assert mine.status.state == "recording"
        clock.set("2018-11-23 22:01:01")  # a minute after the end
        mine.flush()
        mine._to_seal.join()
        assert names(tmp_path)[1:] == ["test-2018-11-23"]
        assert mine.status.state == "waiting"


def test_what_is_known_on_a_holiday_or_a_weekend_belongs_to_the_day_that_follows(tmp_path):
    clock = ManualClock("2018-11-21 15:00")  # Wednesday; Thursday is Thanksgiving, Friday a half day
    moments = {
        "2018-11-21": ["2018-11-21 15:00", "2018-11-22 00:59:59"],  # until eight in the evening in New York
        "2018-11-23": ["2018-11-22 01:00", "2018-11-22 15:00", "2018-11-23 21:59:59"],
        "2018-11-26": ["2018-11-23 22:00", "2018-11-24 12:00", "2018-11-26 15:00"],
    }
    known = [to_us(moment) for day in moments.values() for moment in day]
    with recorder(tmp_path, clock) as mine:
        mine.write("ticks", ticks(known))  # one batch of three days
        mine.write("quotes", conform("quotes", _quote(known[-1])))
    assert names(tmp_path) == [f"test-{day}" for day in moments]
    for day, expected in moments.items():
        log = open_session(tmp_path / f"test-{day}")
        assert log.topics["ticks"]["known_at"].to_pylist() == [pd.Timestamp(m, tz="UTC") for m in expected]
        assert ("quotes" in log.topics) == (day == "2018-11-26")


def _quote(us: int) -> dict:
    row = ticks([us]).drop_columns(["price", "size", "conditions"]).to_pydict()
    return row | {"bid": [1.0], "ask": [2.0]}


def test_the_past_that_a_source_tells_first_stays_in_the_log_of_the_day(tmp_path):
    clock = ManualClock(HALF_DAY[0])
    with recorder(tmp_path, clock) as mine:
        mine.write("ticks", ticks([to_us("2018-10-01 15:00"), to_us("2018-11-20 15:00")]))
        clock.advance(1)
        mine.write("ticks", ticks([clock.us], seq=[2]))
    log = open_session(tmp_path / "test-2018-11-23")
    assert log.topics["ticks"].num_rows == 3
    assert log.start == clock.us - SECOND, "a replay begins where the recording began"


def test_a_market_that_never_closes_is_cut_at_midnight(tmp_path):
    clock = ManualClock("2024-02-29 23:59:59")
    with recorder(tmp_path, clock, calendar="24/7", tz="UTC") as mine:
        mine.write("ticks", ticks(clock.us + np.arange(3) * SECOND))
    rows = [
        open_session(tmp_path / f"test-2024-{day}").topics["ticks"].num_rows for day in ("02-29", "03-01")
    ]
    assert rows == [1, 2]


# ---- torn ends


def stream(folder: Path) -> tuple[bytes, list[int], list[pa.RecordBatch]]:
    """A stream of ticks with two sources: its bytes, where its batches end, and these."""
    parts = [
        ticks(to_us(HALF_DAY[0]) + np.arange(n), source=[who] * n)
        for n, who in ((5, "a"), (1, "b"), (9, "a"))
    ]
    path, ends = folder / "ticks.arrows", []
    writer = StreamWriter(path, parts[0].schema, lambda path: FileIO(path, "wb"))
    for part in parts:
        writer.add(part)
        writer.write()
        ends.append(writer.size)
    writer.close()
    return path.read_bytes(), ends, parts


def found_in(contents: bytes) -> tuple[list[pa.RecordBatch], str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticks.arrows"
        path.write_bytes(contents)
        found = survey(path)
        return list(whole_batches(found)), found.torn, found.good


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return stream(tmp_path_factory.mktemp("stream"))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_stream_cut_at_any_byte_holds_the_batches_before_it(recorded, data):
    contents, ends, parts = recorded
    cut = data.draw(st.one_of(st.integers(0, len(contents)), st.sampled_from([0, 1, *ends])))
    junk = data.draw(
        st.one_of(st.just(b""), st.binary(max_size=40), st.sampled_from([b"\0" * 900, b"\xff" * 64]))
    )
    damaged = contents[:cut] + junk
    batches, torn, good = found_in(damaged)
    whole = sum(damaged[:end] == contents[:end] for end in ends)  # junk may happen to be what was cut off
    assert len(batches) == whole
    assert all(same_rows(left, right) for left, right in zip(batches, parts, strict=False))
    assert good == (ends[whole - 1] if whole else 0)
    assert bool(torn) == (len(damaged) > good)
    assert not torn or f"the last {len(damaged) - good:,} of {len(damaged):,} bytes" in torn


def test_a_batch_whose_contents_never_reached_the_disk_is_found_by_its_checksum(recorded):
    contents, ends, parts = recorded
    body = pa.ipc.read_message(parts[2].serialize()).body.size
    hollow = contents[: ends[2] - body] + b"\0" * body
    batches, torn, good = found_in(hollow)
    assert (len(batches), good) == (2, ends[1])
    assert "not a whole batch" in torn


def test_a_torn_segment_is_sealed_without_its_end_and_says_so(tmp_path):
    crashed = left_by_a_crash(tmp_path, rows=20)
    with (crashed / "ticks.arrows").open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x00\x01half a message")
    (crashed / "quotes.arrows").write_bytes(b"")
    assert open_session(crashed).topics["ticks"].num_rows == 20
    (item,) = left_behind([tmp_path])
    assert (item.rows, item.pid) == (20, None)
    assert "the last 20 of" in item.torn[0]
    (sealed,) = SessionLibrary([tmp_path]).seal()
    log = open_session(sealed.path)
    assert log.topics["ticks"].num_rows == 20
    assert list(log.topics) == ["ticks"]
    assert log.manifest.provenance["torn"] == list(sealed.torn) == list(item.torn)
    assert names(tmp_path) == ["test-2018-11-23"]


CHILD = """
import sys, numpy as np
from pathlib import Path
sys.path[:0] = {path!r}
from test_recorder import recorder, ticks, to_us, HALF_DAY
mine = recorder(Path({folder!r}))
mine.write("ticks", ticks(to_us(HALF_DAY[0]) + np.arange({rows})))
mine.flush()
print("flushed", flush=True)
sys.stdin.read()
"""


def left_by_a_crash(folder: Path, rows: int) -> Path:
    script = CHILD.format(path=sys.path, folder=str(folder), rows=rows)
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "flushed\n"
        with pytest.raises(LogError, match=rf"another recording|one of process {child.pid}"):
            recorder(folder)
        (item,) = left_behind([folder])
        assert item.pid == child.pid
        child.send_signal(signal.SIGKILL)
    return folder / "test-2018-11-23.live"


def test_the_next_recorder_takes_over_what_a_killed_one_has_left(tmp_path):
    left_by_a_crash(tmp_path, rows=33)
    assert ".test.lock" in names(tmp_path), "a stale lock is part of this test"
    with recorder(tmp_path) as mine:
        mine.seal()
        assert mine.status.path is None
        assert mine.status.recovered == (tmp_path / "test-2018-11-23",)
        mine.write("ticks", ticks([to_us(HALF_DAY[1])]))
    assert open_session(tmp_path / "test-2018-11-23").topics["ticks"].num_rows == 33
    assert names(tmp_path) == ["test-2018-11-23", "test-2018-11-23-2"]


def test_a_second_recorder_of_one_name_is_refused_and_another_name_is_not(tmp_path):
    with recorder(tmp_path):
        with pytest.raises(LogError, match=f"no other recording called 'test' .* process {os.getpid()}"):
            recorder(tmp_path)
        recorder(tmp_path, name="beside").close()
    recorder(tmp_path).close()


def test_a_crash_between_the_log_and_the_end_of_its_segment_makes_no_second_log(tmp_path, monkeypatch):
    from marketdash.log import sealing

    monkeypatch.setattr(sealing, "_delete", lambda folder: None)
    with recorder(tmp_path) as mine:
        mine.write("ticks", ticks([to_us(HALF_DAY[0])]))
    assert names(tmp_path) == ["test-2018-11-23", "test-2018-11-23.live"]
    monkeypatch.undo()
    (tmp_path / ".test-2018-11-23.sealing").mkdir()
    assert [sealed.path.name for sealed in SessionLibrary([tmp_path]).seal()] == ["test-2018-11-23"]
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["test-2018-11-23"]


def test_a_segment_that_cannot_be_sealed_is_told_and_left_for_the_next_time(tmp_path):
    (tmp_path / ".test-2018-11-23.sealing").write_text("in the way")
    with recorder(tmp_path) as mine:
        mine.write("ticks", ticks([to_us(HALF_DAY[0])]))
    assert "could not be sealed" in mine.status.last_error
    assert open_session(tmp_path / "test-2018-11-23.live").topics["ticks"].num_rows == 1
    (tmp_path / ".test-2018-11-23.sealing").unlink()
    with recorder(tmp_path) as again:
        again.seal()
    assert again.status.recovered == (tmp_path / "test-2018-11-23",)


@pytest.mark.parametrize(
    ("contents", "message"),
    [("{", "the description of a marketdash live segment"), ("{}", "Field required|validation error")],
)
def test_a_segment_that_does_not_say_what_it_is_is_left_alone(tmp_path, contents, message):
    (tmp_path / "x.live").mkdir()
    (tmp_path / "x.live" / "segment.json").write_text(contents)
    with pytest.raises(LogError, match=message):
        open_session(tmp_path / "x.live")
    assert left_behind([tmp_path])[0].error is not None
    recorder(tmp_path).close()
    assert names(tmp_path) == ["x.live"]


# ---- disks that fail


class Disk:
    """Opens files on a disk that can be full, broken or slow."""

    def __init__(self) -> None:
        self.room: float = math.inf
        self.gate = threading.Event()
        self.gate.set()

    def open(self, path: Path) -> FileIO:
        disk = self

        class File(FileIO):
            def write(self, contents) -> int:
                disk.gate.wait(20)
                if disk.room <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                taken = int(min(len(contents), disk.room, 1_000))  # as a system may, it takes a part
                disk.room -= taken
                return super().write(contents[:taken])

        return File(path, "xb")


@pytest.mark.parametrize("room", [0, 1, 700, 1_000, 5_000])
def test_a_full_disk_is_told_and_nothing_is_lost_when_it_has_room_again(tmp_path, room):
    disk, errors = Disk(), []
    rows = ticks(to_us(HALF_DAY[0]) + np.arange(600))
    disk.room = room
    with recorder(tmp_path, open_file=disk.open, report=lambda _, error: errors.append(error)) as mine:
        for first in range(0, 600, 100):
            mine.write("ticks", rows.slice(first, 100))
            mine.flush()
        status = mine.status
        assert status.state == "failing"
        assert "No space left" in status.last_error
        assert status.flushed + status.queued == status.rows == 600
        assert any(isinstance(error, OSError) for error in errors)
        if status.flushed:
            assert open_session(status.path).topics["ticks"].num_rows == status.flushed
        disk.room = math.inf
        assert mine.flush()
        assert mine.status.state == "recording"
    assert same_rows(open_session(mine.status.path).topics["ticks"], rows)
    assert mine.status.dropped == {}


def test_a_full_disk_bounds_what_waits_and_counts_what_is_lost(tmp_path):
    disk = Disk()
    with recorder(tmp_path, open_file=disk.open, queue_rows=250, report=lambda *_: None) as mine:
        mine.write("ticks", ticks(to_us(HALF_DAY[0]) + np.arange(100)))
        assert mine.flush()
        disk.room = 0
        mine.write("ticks", ticks(to_us(HALF_DAY[0]) + np.arange(100, 300), seq=np.arange(200)))
        assert not mine.flush()
        for _ in range(5):
            mine.write("ticks", ticks(to_us(HALF_DAY[0]) + np.arange(300, 400)))
        status = mine.status
        assert status.dropped == {"ticks: the disk is failing": 500}
        assert (status.rows, status.flushed, status.queued) == (300, 100, 200)
    lost = mine.status.dropped["not on the disk when the recorder was closed"]
    assert lost == 200
    assert open_session(tmp_path / "test-2018-11-23.live").topics["ticks"].num_rows == 100


def test_a_slow_disk_makes_the_writer_wait_once_and_then_counts_what_it_drops(tmp_path):
    disk, at = Disk(), to_us(HALF_DAY[0])
    rows = ticks(at + np.arange(1_000))
    disk.gate.clear()
    with recorder(tmp_path, open_file=disk.open, queue_rows=250) as mine:
        mine.write("ticks", rows.slice(0, 200))
        assert mine.crowded
        threading.Timer(0.1, disk.gate.set).start()
        threading.Timer(0.1, mine.flush).start()
        mine.write("ticks", rows.slice(200, 100), patience=20)  # room comes while it waits
        assert mine.flush()
        disk.gate.clear()
        mine.write("ticks", rows.slice(300, 200))
        mine.write("ticks", rows.slice(500, 100), patience=0.05)
        mine.write("ticks", rows.slice(600, 100), patience=1_000)  # waiting has been tried
        assert mine.status.dropped == {"ticks: the disk is too slow": 200}
        disk.gate.set()
        assert mine.flush()
        mine.write("ticks", rows.slice(700, 100))
        assert mine.status.rows == 600
    kept = pa.concat_batches([rows.slice(0, 500), rows.slice(700, 100)])
    assert same_rows(open_session(mine.status.path).topics["ticks"], kept)


def test_what_a_failed_sync_may_have_lost_is_written_again(tmp_path, monkeypatch):
    rows = ticks(to_us(HALF_DAY[0]) + np.arange(300))
    with recorder(tmp_path, report=lambda *_: None) as mine:
        mine.write("ticks", rows.slice(0, 100))
        assert mine.flush()
        sync, broken = os.fsync, {"on": True}

        def failing_sync(file: int) -> None:
            if broken["on"]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(file)

        monkeypatch.setattr(os, "fsync", failing_sync)
        mine.write("ticks", rows.slice(100, 100))
        assert not mine.flush()
        assert (mine.status.flushed, mine.status.queued) == (100, 100)
        file = mine.status.path / "ticks.arrows"
        contents = file.read_bytes()
        good = _size_of(contents)
        assert good < len(contents)
        with file.open("r+b") as same:  # the system has forgotten what it could not write
            same.seek(good)
            same.write(b"\0" * (len(contents) - good))
        broken["on"] = False
        mine.write("ticks", rows.slice(200, 100))
        assert mine.flush()
    assert same_rows(open_session(mine.status.path).topics["ticks"], rows)


def _size_of(contents: bytes) -> int:
    """Where the first batch of a stream ends."""
    with pa.BufferReader(contents) as file:
        pa.ipc.open_stream(file).read_next_batch()
        return file.tell()


def test_a_listener_that_fails_does_not_end_the_recording(tmp_path, caplog):
    def unwell(*_: object) -> None:
        raise ZeroDivisionError("of its own")

    with recorder(tmp_path, report=unwell) as mine:
        for i in range(3):
            mine.write("ticks", ticks([to_us(HALF_DAY[0]) + i]))
            assert mine.flush()
    assert open_session(mine.status.path).topics["ticks"].num_rows == 3
    assert "A listener of the recording test failed" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match="a folder that can be written to"):
        recorder(tmp_path / "file" / "logs")
    with pytest.raises(LogError, match="field 'cadence'"):
        recorder(tmp_path, cadence=0.0)
    with pytest.raises(LogError, match="field 'colour'"):
        recorder(tmp_path, colour="red")
    assert names(tmp_path) == ["file"]


# ---- bad input


def test_rows_that_no_log_may_hold_are_refused_or_counted(tmp_path):
    at = to_us(HALF_DAY[0])
    with recorder(tmp_path) as mine:
        with pytest.raises(SchemaError, match="rows that fit the topic"):
            mine.write("quotes", ticks([at]))
        with pytest.raises(LogError, match="seq in every row, got 1 rows without"):
            mine.write("ticks", ticks([at], seq=pa.nulls(1, pa.int64())))
        mine.write("ticks", ticks([at] * 5, ids=[0, 4, 5, 9_999, -1]))
        assert mine.status.dropped == {"ticks: unknown instrument": 3}
        mine.write("ticks", ticks(at + 10 + np.arange(QUEUE_ROWS + 5)))
    log = open_session(mine.status.path)
    assert log.topics["ticks"].num_rows == QUEUE_ROWS + 5 + 2
    with pytest.raises(LogError, match="an open recorder"):
        mine.write("ticks", ticks([at]))


# ---- markets


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A day with every topic, trades that come late and such that cleaning refuses."""
    universe = few_instruments(6, ("XNYS", "XLON", "24/7"))
    some = random_ticks(universe, "2018-11-23 17:10", "2018-11-23 18:40", rows=1_500, seed=1)
    topics = {
        "ticks": pd.concat([some, some.iloc[::97].assign(price=-1.0)]),
        "quotes": random_quotes(universe, "2018-11-23 17:10", "2018-11-23 18:40", rows=700, seed=2),
        "bars": random_bars(universe, "1min", "2018-11-23 17:10", "2018-11-23 18:40", seed=3),
    }
    return write_log(tmp_path_factory.mktemp("logs") / "everything", universe, topics)


async def shown_at_the_end(log) -> dict[str, pd.DataFrame]:
    with Market(ReplaySource(log, start=log.timeline.start, playing=False)).start() as market:
        market.derive("SMA(5)", "1min")
        market.clock.seek(log.timeline.end)
        return snapshot(market)


async def test_a_replay_of_a_recorded_replay_is_identical(everything, tmp_path):
    wall = ManualWall()
    with Market(
        ReplaySource(everything, start=everything.timeline.start, pace=60, rows=37, wall=wall)
    ) as market:
        recording = market.record(tmp_path)
        market.start().derive("SMA(5)", "1min")
        for _ in range(5):
            wall.advance(everything.timeline.length / 60e6 / 5)
            await caught_up(market)
        market.clock.pace = math.inf
        wall.advance(1)
        await caught_up(market)
        expected = snapshot(market)
        path = recording.stop()
    log = open_session(path)
    assert {name: part.sha256 for name, part in log.manifest.topics.items()} == {
        name: part.sha256 for name, part in everything.manifest.topics.items()
    }
    assert len(expected["rejected"]) > 10
    assert_same(expected, await shown_at_the_end(log))


async def test_a_seek_back_while_recording_changes_nothing_in_the_log(everything, tmp_path):
    with Market(ReplaySource(everything, start=everything.timeline.start, playing=False)) as market:
        with market.record(tmp_path) as recording:
            market.start()
            for share in (0.7, 0.2, 1.0):
                market.clock.seek(everything.timeline.at(int(share * everything.timeline.length)))
        log = open_session(recording.path)
    assert all(same_rows(log.topics[name], batch) for name, batch in everything.topics.items())
    assert log.manifest.provenance["repeated"] > 100


async def test_a_replay_of_a_recorded_simulation_is_identical(tmp_path):
    clock = ManualClock("2024-03-12 15:00")
    source = SimulatedSource(
        instruments=12, rate=300, origin="2024-03-12 15:00", clock=clock, minutes=0, days=0
    )
    with Market(source) as market:
        recording = market.record(tmp_path, name="a day")
        market.start().derive("SMA(3)", "1min")
        for _ in range(30):
            clock.advance(9.9)
            heard = market.heard_us
            async with asyncio.timeout(20):
                while market.heard_us == heard or source.complete_until(clock.us) < clock.us:
                    await asyncio.sleep(0.01)
        log = open_session(recording.stop())
        clock.set(log.last)  # the moment that both can show
        expected = snapshot(market)
    assert (log.name, log.manifest.source, log.manifest.redistributable) == (
        "a-day-2024-03-12",
        "simulated",
        True,
    )
    replayed = ReplaySource(log, start=log.timeline.start, playing=False)
    with Market(replayed).start() as market:
        market.derive("SMA(3)", "1min")
        market.clock.seek(log.last)
        shown = snapshot(market)
    for frames in (
        expected,
        shown,
    ):  # what a number is called, and its age at the last row, depend on who asks
        frames["last"] = frames["last"].drop(columns=["state", "age", "trading_age"], errors="ignore")
    assert len(expected["ticks"]) > 500
    assert_same(expected, shown)


class Forbidden(BaseSource):
    name, slow_history, stall_after = "forbidden", False, None
    entitlement = Entitlement(redistributable=False, note="for one person only")

    async def batches(self):
        await asyncio.Event().wait()
        yield  # makes this a generator


def test_a_market_says_how_its_recording_does_and_closes_it(tmp_path):
    with Market(Forbidden(UNIVERSE)).start() as market:
        recording = market.record(tmp_path)
        rows = ticks([market.clock.now_us()] * 3).drop_columns(["known_at", "seq", "source"])
        market.feed("ticks", rows)
        assert recording.flush()
        stage = market.health.summary()["record"]
        assert (stage["rows"], stage["queue"], stage["dropped"], stage["errors"]) == (3, 0, 0, 0)
        assert "forbidden: recording, 3 rows" in repr(recording)
    assert recording.status.state == "closed"
    manifest = open_session(recording.path).manifest
    assert (manifest.redistributable, manifest.licence) == (False, "for one person only")
    assert manifest.provenance["principal"] == "anonymous"
    assert recording.stop() == recording.path, "stopping twice is fine"


def test_a_recording_whose_disk_fails_is_seen_in_health_and_the_market_goes_on(tmp_path):
    disk = Disk()
    with Market(Forbidden(UNIVERSE)).start() as market:
        recording = market.record(tmp_path)
        recording.recorder._open_file = disk.open
        disk.room = 0
        market.feed("ticks", ticks([market.clock.now_us()] * 3))
        assert not recording.flush()
        assert [stage.name for stage in market.health.failing] == ["record"]
        assert "No space left" in market.health.stage("record").last_error
        assert len(market.frame("ticks"))
        disk.room = math.inf
        assert recording.flush()
        assert not market.health.failing
    assert open_session(recording.path).topics["ticks"].num_rows == 3


async def test_a_source_that_is_faster_than_the_disk_waits_for_it_and_the_loop_does_not(everything, tmp_path):
    disk = Disk()
    disk.gate.clear()
    with Market(
        ReplaySource(everything, start=everything.timeline.start, pace=math.inf, playing=False, rows=50)
    ) as market:
        recording = market.record(tmp_path)
        recording.recorder._open_file, recording.recorder._queue_rows = disk.open, 400
        market.start()
        market.clock.play()
        for _ in range(20):  # the source rests, half full, while the loop is free
            await asyncio.sleep(0.005)
        assert 200 < recording.status.queued <= 400
        disk.gate.set()
        async with asyncio.timeout(30):
            while not (
                market.clock.finished
                and market.source.complete_until(market.clock.now_us()) == everything.last
            ):
                await asyncio.sleep(0.01)
        recording.stop()
    log = open_session(recording.path)
    assert recording.status.dropped == {}
    assert all(same_rows(log.topics[name], batch) for name, batch in everything.topics.items())


# ---- the command line


def run(*arguments: str, folder: Path, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from marketdash.cli import main; main()", *arguments]
    env = {**os.environ, "COLUMNS": "250", "MARKETDASH_SESSIONS": str(folder), "MARKETDASH_PORT": "0"}
    env["MARKETDASH_YAHOO_URL"] = "http://127.0.0.1:9"
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=env, **options)


def test_a_replay_recorded_from_the_command_line_is_the_same_log(everything, tmp_path):
    arguments = (
        "--source",
        f"replay:{everything.folder}",
        "--pace",
        "1e9",
        "--into",
        str(tmp_path),
        "--name",
        "ür",
    )
    result = run("record", *arguments, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    log = open_session(tmp_path / "ür-2018-11-23")
    assert str(log.folder) in result.stdout
    assert all(same_rows(log.topics[name], batch) for name, batch in everything.topics.items())


def test_the_command_line_tells_of_what_was_left_and_seals_it(tmp_path):
    left_by_a_crash(tmp_path, rows=7)
    listed, looked = run("sessions", folder=tmp_path), run("doctor", folder=tmp_path)
    assert "test-2018-11-23.live" in listed.stdout
    assert "not sealed" in listed.stdout
    assert "Not readable" not in listed.stderr
    told = " ".join(looked.stdout.split())
    assert "was not ended; 7 rows are whole and can be replayed. `marketdash seal`" in told
    sealed = run("seal", folder=tmp_path)
    assert sealed.returncode == 0, sealed.stderr
    assert "Sealed 7 rows" in sealed.stdout
    assert open_session(tmp_path / "test-2018-11-23").topics["ticks"].num_rows == 7


def test_an_interrupt_ends_a_recording_with_a_sealed_log(tmp_path):
    command = [sys.executable, "-c", "from marketdash.cli import main; main()", "record"]
    command += ["--source", "simulated:rate=500,instruments=20,minutes=0,days=0", "--into", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        while not list(tmp_path.glob("*.live/quotes.arrows")):
            assert child.poll() is None, child.stderr.read()
            threading.Event().wait(0.05)
        child.send_signal(signal.SIGTERM)
        said, complained = child.communicate(timeout=60)
    assert child.returncode == 0, complained
    (name,) = names(tmp_path)
    assert name in said
    log = open_session(tmp_path / name)
    rows = sum(batch.num_rows for batch in log.topics.values())
    assert f"{rows:,} rows." in said
    assert json.loads((log.folder / "manifest.json").read_text("utf-8"))["provenance"]["mode"] == "simulated"


def test_a_length_of_time_that_is_none_is_told(tmp_path):
    result = run("record", "--source", "simulated", "--for", "soon", folder=tmp_path)
    assert result.returncode == 2
    assert "90s, 10m or 1h30m" in result.stderr
