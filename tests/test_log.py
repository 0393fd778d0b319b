"""A session log comes back as it was written, or is refused by name and reason."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.calendars import calendar
from marketdash.clock import ReplayClock, Timeline, to_us
from marketdash.errors import LogError, SchemaError, UnknownNameError
from marketdash.instruments import Universe
from marketdash.log import SessionLibrary, SessionLog, open_session, write_session
from marketdash.log.manifest import content_hash
from marketdash.log.session import LEAD_US
from marketdash.schema import conform

NEW_YORK = "America/New_York"
SECOND = 1_000_000
MINUTE = 60 * SECOND
OPEN = to_us("2018-11-12 09:30", NEW_YORK)  # a Monday
UNIVERSE = Universe.of(["AAPL", "MSFT", "BRK.B"], calendar="XNYS")
HINT = "The file is damaged or was changed; take a fresh copy or rebuild it."


def stamps(us) -> pa.Array:
    return pa.array(np.asarray(us, np.int64)).cast(pa.timestamp("us", tz="UTC"))


def ticks(known_at, seq=None, ids=None, **columns) -> dict:
    known_at = np.asarray(known_at, np.int64)
    rows = {
        "time": stamps(known_at),
        "known_at": stamps(known_at),
        "source": ["test"] * len(known_at),
        "instrument_id": np.zeros(len(known_at), np.int32) if ids is None else np.asarray(ids, np.int32),
        "price": np.arange(len(known_at)) * 0.25 + 100,
    }
    return rows | ({} if seq is None else {"seq": np.asarray(seq, np.int64)}) | columns


def bars(known_at, minutes=1, width="1min", **columns) -> dict:
    known_at = np.asarray(known_at, np.int64)
    prices = {name: np.full(len(known_at), 10.0) for name in ("open", "high", "low", "close", "volume")}
    rows = ticks(known_at) | {"time": stamps(known_at - minutes * MINUTE), "width": [width] * len(known_at)}
    del rows["price"]
    return rows | prices | columns


def write(folder: Path, topics: dict | None = None, **about) -> Path:
    if topics is None:
        some_ticks = ticks(OPEN + SECOND * np.arange(200), ids=np.arange(200) % 3, size=np.full(200, 7.0))
        topics = {"bars": bars(OPEN + MINUTE * np.arange(1, 41)), "ticks": some_ticks}
    write_session(folder, UNIVERSE, topics, **{"calendar": "XNYS", "tz": NEW_YORK} | about)
    return folder


def in_memory(topics: dict, **about) -> SessionLog:
    with tempfile.TemporaryDirectory() as scratch:
        return open_session(write(Path(scratch) / "log", topics, **about))


@pytest.fixture
def folder(tmp_path) -> Path:
    return write(tmp_path / "a-day", title="A day")


# ---- what is written comes back


def test_a_log_comes_back_as_it_was_written(tmp_path):
    rows = {
        "bars": conform(
            "bars", bars(OPEN + MINUTE * np.arange(1, 41), seq=np.arange(40), count=[None, 3] * 20)
        ),
        "ticks": conform("ticks", ticks(OPEN + SECOND * np.arange(9), seq=np.arange(9), price=[np.nan] * 9)),
    }
    manifest = write_session(
        tmp_path / "day",
        UNIVERSE,
        rows,
        calendar="XNYS",
        tz=NEW_YORK,
        title="Ein Tag für Übungen",
        note="quiet",
        start="2018-11-12T09:35:00-05:00",
        pace=30.0,
        highlights=[{"time": "2018-11-12T09:40:00-05:00", "text": "now"}],
    )
    log = open_session(tmp_path / "day")
    assert log.manifest == manifest
    assert list(log.topics) == list(rows)
    for name, batch in rows.items():
        assert log.topics[name].schema.equals(batch.schema, check_metadata=True)
        pd.testing.assert_frame_equal(log.topics[name].to_pandas(), batch.to_pandas(), check_exact=True)
        assert [column.null_count for column in log.topics[name].columns] == [
            c.null_count for c in batch.columns
        ]
    assert repr(list(log.universe)) == repr(list(UNIVERSE))
    assert (manifest.name, manifest.title, manifest.start) == (
        "day",
        "Ein Tag für Übungen",
        log.manifest.start,
    )
    assert log.start == to_us("2018-11-12 09:35", NEW_YORK)
    assert (log.first, log.last) == (OPEN, OPEN + 40 * MINUTE)
    assert repr(log) == "<SessionLog day: 40 bars, 9 ticks of 3 instruments>"


def test_rows_without_numbers_are_numbered_as_they_came():
    late, early = OPEN + MINUTE, OPEN
    log = in_memory({"ticks": ticks([late, early, late, early], price=[1.0, 2.0, 3.0, 4.0])})
    assert log.topics["ticks"].column("price").to_pylist() == [2.0, 4.0, 1.0, 3.0]
    assert log.topics["ticks"].column("seq").to_pylist() == [0, 1, 2, 3]


def test_rows_without_known_at_were_known_when_they_happened():
    rows = ticks([OPEN, OPEN + 5, OPEN + 9])
    rows["known_at"] = pa.array([None, OPEN + 7, None]).cast(pa.timestamp("us", tz="UTC"))
    known = in_memory({"ticks": rows}).topics["ticks"].column("known_at").view(pa.int64())
    assert known.to_pylist() == [OPEN, OPEN + 7, OPEN + 9]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40, unique=True))
def test_rows_are_ordered_by_known_at_then_number(pairs):
    known, seq = np.array(pairs).T
    batch = in_memory({"ticks": ticks(OPEN + known, seq=seq)}).topics["ticks"]
    known = batch["known_at"].view(pa.int64()).to_numpy() - OPEN
    found = zip(known.tolist(), batch["seq"].to_pylist(), strict=True)
    assert list(found) == sorted(pairs)


def test_a_log_is_read_once_until_its_files_change(folder):
    first = open_session(folder)
    assert open_session(folder) is first
    write(folder, {"ticks": ticks([OPEN])})
    assert open_session(folder).topics["ticks"].num_rows == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# ---- the hash


TABLE = pa.table({"id": [1, 2, 3, 4], "price": [1.5, None, 0.0, 2.5], "name": ["b", None, "", "b"]})


def test_the_hash_does_not_depend_on_how_rows_are_held(tmp_path):
    pq.write_table(TABLE, tmp_path / "one.parquet", compression="none", row_group_size=1)
    pq.write_table(TABLE, tmp_path / "two.parquet", compression="zstd", use_dictionary=False)
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1, 0), TABLE.slice(1)])
    name = pa.chunked_array(
        [
            pa.array(["z", "b"]).take(pa.array([1])).dictionary_encode(),
            TABLE["name"].chunk(0)[1:].dictionary_encode(),
        ]
    )
    encoded = TABLE.set_column(2, "name", name)
    files = [pq.read_table(tmp_path / file) for file in ("one.parquet", "two.parquet")]
    assert {content_hash(table) for table in (chunked, encoded, *files)} == {content_hash(TABLE)}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.slice(0, 3),
        lambda t: t.take([0, 1, 3, 2]),
        lambda t: t.select(["price", "id", "name"]),
        lambda t: t.rename_columns(["id", "cost", "name"]),
        lambda t: t.set_column(0, "id", t["id"].cast(pa.int32())),
        lambda t: t.set_column(0, "id", t["id"].cast(pa.timestamp("us"))),
        lambda t: t.set_column(1, "price", pa.array([1.5, 0.0, 0.0, 2.5])),
        lambda t: t.set_column(1, "price", pa.array([1.5, None, -0.0, 2.5])),
        lambda t: t.set_column(1, "price", pa.array([1.5, None, np.nan, 2.5], from_pandas=False)),
        lambda t: t.set_column(2, "name", pa.array(["b", "", "", "b"])),
        lambda t: t.set_column(2, "name", pa.array(["b", None, "", ""])),
        lambda t: t.set_column(2, "name", pa.array(["c", None, "", "c"])),
    ],
)
def test_the_hash_changes_with_the_rows(change):
    assert content_hash(change(TABLE)) != content_hash(TABLE)


def test_the_hash_of_no_rows_tells_the_columns_apart():
    empty = TABLE.slice(0, 0)
    assert content_hash(empty) == content_hash(TABLE.schema.empty_table())
    assert content_hash(empty) != content_hash(empty.rename_columns(["id", "cost", "name"]))


# ---- what cannot be written


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ({"ticks": ticks([])}, "expected at least one row, got none"),
        ({}, "expected at least one row, got none"),
        ({"ticks": ticks([OPEN, OPEN], seq=[4, 4])}, r"row 1 \(.*, seq 4\) after \(.*, seq 4\)"),
        ({"ticks": ticks([OPEN], ids=[3])}, "expected instrument ids from 0 to 2, got 3 to 3"),
        ({"ticks": ticks([OPEN], ids=[-1])}, "expected instrument ids from 0 to 2, got -1 to -1"),
    ],
)
def test_rows_that_could_not_be_opened_are_not_written(tmp_path, topics, message):
    with pytest.raises(LogError, match=message):
        write(tmp_path / "log", topics)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"pace": 0}, "field 'pace': expected Input should be greater than 0, got 0"),
        ({"name": "a day"}, "field 'name': expected String should match pattern"),
        ({"colour": "red"}, "field 'colour': .* The fields are format, version, name"),
        ({"tz": "New York"}, "field 'tz': expected the name of a time zone"),
        ({"tz": ""}, "field 'tz': expected the name of a time zone"),
        ({"start": "soon"}, "field 'start': expected a time in ISO 8601"),
        ({"start": "9:30"}, "field 'start': expected a time in ISO 8601"),
        ({"highlights": [{"time": "soon", "text": ""}]}, "field 'highlights.0.time': expected a time"),
    ],
)
def test_a_field_that_does_not_fit_is_not_written(tmp_path, about, message):
    with pytest.raises(LogError, match=message):
        write(tmp_path / "log", **about)
    assert not list(tmp_path.iterdir())


def test_rows_that_do_not_fit_their_topic_are_not_written(tmp_path):
    with pytest.raises(SchemaError, match="log of ticks, column 'price'"):
        write(tmp_path / "log", {"ticks": ticks([OPEN], price=["dear"])})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_a_log_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(LogError, match="expected a session log, or nothing, got something else"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_write_that_fails_leaves_the_old_log(folder, monkeypatch):
    before = open_session(folder).manifest

    def full(*_args: object, **_options: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space left"):
        write(folder)
    assert open_session(folder).manifest == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_log(folder, monkeypatch):
    before, rename = open_session(folder).manifest, Path.rename

    def fail_on_the_new(self, target):
        if target == folder and not self.name.endswith("-old"):
            raise OSError("full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new)
    with pytest.raises(OSError, match="full"):
        write(folder)
    assert open_session(folder).manifest == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


# ---- damage


@contextmanager
def changed_manifest(folder: Path) -> Iterator[dict]:
    path = folder / "manifest.json"
    document = json.loads(path.read_text("utf-8"))
    yield document
    path.write_text(json.dumps(document), encoding="utf-8")


def edit(**fields) -> Callable[[Path], None]:
    """Change fields of the manifest; None removes one."""

    def change(folder: Path) -> None:
        with changed_manifest(folder) as document:
            document.update(fields)
            for name in [name for name, value in fields.items() if value is None]:
                del document[name]

    return change


def replace(
    file: str, change: Callable[[pa.Table], pa.Table], *, honest: bool = True
) -> Callable[[Path], None]:
    """Write other rows; an honest forger brings the manifest up to date."""

    def rewrite(folder: Path) -> None:
        table = change(pq.read_table(folder / file))
        pq.write_table(table, folder / file)
        if honest:
            table = pq.read_table(folder / file)
            with changed_manifest(folder) as document:
                parts = [document["instruments"], *document["topics"].values()]
                part = next(part for part in parts if part["file"] == file)
                part.update(rows=table.num_rows, sha256=content_hash(table))

    return rewrite


def column(name: str, change: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    def rewrite(table: pa.Table) -> pa.Table:
        i = table.schema.get_field_index(name)
        kind = table.schema.field(i).type
        return table.set_column(i, pa.field(name, kind), pa.array(change(table[name].to_pylist()), kind))

    return rewrite


def set_row(i: int, value) -> Callable[[list], list]:
    return lambda values: [*values[:i], value, *values[i + 1 :]]


def truncate(file: str, keep: float) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(
        (content := (folder / file).read_bytes())[: int(len(content) * keep)]
    )


def flip(file: str, position: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(len(content) * position)] ^= 0x10
        (folder / file).write_bytes(bytes(content))

    return change


def wrong_hash(folder: Path) -> None:
    with changed_manifest(folder) as document:
        document["topics"]["ticks"]["sha256"] = "0" * 64


def wrong_count(folder: Path) -> None:
    with changed_manifest(folder) as document:
        document["topics"]["ticks"]["rows"] = 201


def other_topic(folder: Path) -> None:
    with changed_manifest(folder) as document:
        document["topics"]["tick"] = document["topics"].pop("ticks")


def elsewhere(folder: Path) -> None:
    with changed_manifest(folder) as document:
        document["topics"]["ticks"]["file"] = "../ticks.parquet"


TICKS, BARS, WHO, SAYS = "ticks.parquet", "bars.parquet", "instruments.parquet", "manifest.json"
WHOLE = "expected a whole Parquet file"
DAMAGE = {
    "rows changed": (
        replace(TICKS, column("price", set_row(7, 1.0)), honest=False),
        TICKS,
        "rows with the hash",
    ),
    "another hash": (wrong_hash, TICKS, "expected rows with the hash 000000000000…, got "),
    "an instrument changed": (replace(WHO, column("symbol", set_row(0, "X")), honest=False), WHO, "the hash"),
    "torn in half": (truncate(TICKS, 0.5), TICKS, WHOLE),
    "torn at the end": (truncate(TICKS, 0.999), TICKS, WHOLE),
    "empty file": (truncate(TICKS, 0), TICKS, WHOLE),
    "torn instruments": (truncate(WHO, 0.9), WHO, WHOLE),
    "rows missing": (replace(TICKS, lambda t: t.slice(1), honest=False), TICKS, "expected 200 rows, got 199"),
    "another count": (wrong_count, TICKS, "expected 201 rows, got 200"),
    "no ticks": (
        lambda f: (f / TICKS).unlink(),
        TICKS,
        "expected the file that the manifest names, got No such",
    ),
    "no instruments": (lambda f: (f / WHO).unlink(), WHO, "expected the file that the manifest names"),
    "no manifest": (
        lambda f: (f / SAYS).unlink(),
        "",
        r"a session log with a manifest\.json, got no such file",
    ),
    "another version": (edit(version=2), SAYS, "expected schema version 1, got 2. Rebuild the log"),
    "no version": (edit(version=None), SAYS, "expected schema version 1, got None"),
    "another format": (edit(format="diary"), SAYS, 'expected "format": "marketdash session log", got'),
    "a list": (lambda f: (f / SAYS).write_text("[]"), SAYS, r'expected "format": .* got \[\]'),
    "not JSON": (truncate(SAYS, 0.7), SAYS, "expected a readable JSON document, got"),
    "not text": (lambda f: (f / SAYS).write_bytes(b"\xff\xfe"), SAYS, "expected a readable JSON document"),
    "an extra field": (
        edit(colour="red"),
        SAYS,
        r"field 'colour': expected Extra inputs .* got 'red'\. The fields",
    ),
    "a field missing": (edit(tz=None), SAYS, "field 'tz': expected Field required"),
    "no such zone": (
        edit(tz="Mars/Base"),
        SAYS,
        "field 'tz': expected the name of a time zone, .* 'Mars/Base'",
    ),
    "not a time": (edit(start="soon"), SAYS, "field 'start': expected a time in ISO 8601, .* got 'soon'"),
    "another first": (
        edit(first="2018-11-12T09:29:00-05:00"),
        SAYS,
        "expected rows known from .*, got rows known",
    ),
    "no topic": (edit(topics={}), SAYS, "field 'topics': expected Dictionary should have at least 1 item"),
    "another topic": (other_topic, SAYS, "field 'topics': expected Unknown topic 'tick'. Did you mean ticks"),
    "outside": (elsewhere, SAYS, "field 'topics.ticks.file': expected String should match"),
    "out of order": (
        replace(TICKS, lambda t: t.take([*range(90), 91, 90, *range(92, 200)])),
        TICKS,
        r"rows ordered by \(known_at, seq\), each once, got row 91 .*, seq 90\) after .*, seq 91\)",
    ),
    "a number twice": (
        replace(TICKS, lambda t: t.take([*range(90), 90, *range(90, 200)])),
        TICKS,
        r"each once, got row 91 \(2018-11-12 14:31:30\+00:00, seq 90\) after \(.* seq 90\)",
    ),
    "known never": (
        replace(TICKS, column("known_at", set_row(3, None))),
        TICKS,
        "known_at in every row, got 1 rows",
    ),
    "no number": (
        replace(TICKS, column("seq", set_row(3, None))),
        TICKS,
        "seq in every row, got 1 rows without",
    ),
    "no price": (
        replace(TICKS, column("price", set_row(3, None))),
        TICKS,
        "'price': expected a value in every row",
    ),
    "id too high": (
        replace(TICKS, column("instrument_id", set_row(3, 3))),
        TICKS,
        "ids from 0 to 2, got 0 to 3",
    ),
    "id below 0": (
        replace(TICKS, column("instrument_id", set_row(3, -1))),
        TICKS,
        "ids from 0 to 2, got -1 to 2",
    ),
    "no column": (
        replace(TICKS, lambda t: t.drop_columns("price")),
        TICKS,
        "'price': expected double values",
    ),
    "a new column": (
        replace(TICKS, lambda t: t.append_column("mood", t["seq"])),
        TICKS,
        "of the topic, got mood",
    ),
    "another type": (
        replace(TICKS, lambda t: t.set_column(0, "time", pa.array(["noon"] * 200))),
        TICKS,
        r"column 'time': expected timestamp\[us, tz=UTC\] values",
    ),
    "no symbol": (
        replace(WHO, column("symbol", set_row(1, None))),
        WHO,
        "expected a table of instruments, got",
    ),
    "a symbol twice": (
        replace(WHO, column("symbol", set_row(1, "AAPL"))),
        WHO,
        "a table of instruments, got",
    ),
    "ids mixed up": (
        replace(WHO, lambda t: t.take([1, 0, 2])),
        WHO,
        "a table of instruments, got A universe",
    ),
    "no symbols": (
        replace(WHO, lambda t: t.drop_columns("symbol")),
        WHO,
        "expected a table of instruments, got",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_log_is_refused_with_place_and_reason(folder, case):
    damage, file, reason = DAMAGE[case]
    open_session(folder)  # a log that was trusted before is not trusted for ever
    damage(folder)
    with pytest.raises(LogError, match=reason) as caught:
        open_session(folder)
    assert str(folder / file) in str(caught.value)


def test_a_damaged_file_comes_with_advice(folder):
    wrong_hash(folder)
    with pytest.raises(LogError, match=re.escape(HINT)):
        open_session(folder)


@pytest.mark.parametrize("file", [TICKS, WHO])
@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_refused_or_harmless(folder, file, bit):
    good, content = open_session(folder), (folder / file).read_bytes()
    refused: list[str] = []
    for position in range(bit, len(content), 61):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        (folder / file).write_bytes(bytes(damaged))
        try:
            log = open_session(folder)
        except LogError as error:
            refused.append(str(error))
            continue
        # The bit is in no row: in a statistic, or in a name that nobody reads.
        assert log.topics["ticks"].equals(good.topics["ticks"])
        assert repr(list(log.universe)) == repr(list(good.universe))
    assert refused
    assert all(str(folder / file) in message for message in refused)


def test_a_log_in_memory_must_know_when_its_rows_were_known():
    rows = conform("ticks", {**ticks([OPEN]), "known_at": pa.nulls(1, pa.timestamp("us", tz="UTC"))})
    manifest = in_memory({"ticks": ticks([OPEN])}).manifest
    with pytest.raises(LogError, match="known_at in every row, got 1 rows without"):
        SessionLog(Path(), manifest, UNIVERSE, {"ticks": rows})


# ---- the library


@pytest.fixture
def library(tmp_path) -> SessionLibrary:
    for name in ("us-daily", "us-minute", "es-ticks"):
        write(tmp_path / "shipped" / name, title=f"Shipped {name}")
    write(tmp_path / "own" / "us-daily", title="Own us-daily")
    write(tmp_path / "own" / "mine")
    return SessionLibrary([tmp_path / "shipped", tmp_path / "absent", tmp_path / "own"])


def test_the_first_folder_that_holds_a_name_wins(library):
    assert list(library.paths()) == ["es-ticks", "us-daily", "us-minute", "mine"]
    assert library.open("us-daily").manifest.title == "Shipped us-daily"
    assert library.open("mine").name == "mine"


def test_a_log_can_be_opened_by_its_path(library, tmp_path):
    assert library.open(str(tmp_path / "own" / "us-daily")).manifest.title == "Own us-daily"


def test_an_unknown_session_gets_the_nearest_names(library):
    with pytest.raises(UnknownNameError, match=r"Unknown session 'us-minutes'\. Did you mean us-minute"):
        library.open("us-minutes")


def test_check_names_the_bad_log_and_keeps_the_good_ones(library, tmp_path):
    truncate(TICKS, 0.5)(tmp_path / "shipped" / "us-minute")
    edit(version=9)(tmp_path / "own" / "mine")
    found = library.check()
    assert list(found) == ["es-ticks", "us-daily", "us-minute", "mine"]
    assert [name for name, error in found.items() if error is None] == ["es-ticks", "us-daily"]
    assert "us-minute/ticks.parquet" in str(found["us-minute"])
    assert "schema version 1, got 9" in str(found["mine"])
    # A picker lists what has a readable manifest; opening tells about the rest.
    assert [manifest.name for manifest in library.manifests()] == ["es-ticks", "us-daily", "us-minute"]


def test_a_log_that_is_being_written_is_not_listed(library, tmp_path):
    shutil.copytree(tmp_path / "own" / "mine", tmp_path / "own" / ".mine-x1y2")
    assert ".mine-x1y2" not in library.paths()


def test_the_settings_name_further_folders(tmp_path, monkeypatch):
    write(tmp_path / "team" / "ours")
    monkeypatch.setenv("MARKETDASH_SESSIONS", str(tmp_path / "team"))
    assert "ours" in SessionLibrary().paths()


# ---- cutting


def quotes(known_at) -> dict:
    rows = ticks(known_at)
    rows["bid"] = rows.pop("price")
    return rows | {"ask": rows["bid"] + 0.25}


SECONDS = st.lists(st.integers(0, 25), min_size=1, max_size=30).map(lambda s: OPEN + SECOND * np.array(s))
TWO_TOPICS = st.builds(lambda a, b: {"ticks": ticks(a), "quotes": quotes(b)}, SECONDS, SECONDS)


@settings(max_examples=25, deadline=None)
@given(TWO_TOPICS, st.lists(st.integers(-2, 27), max_size=6), st.integers(1, 9))
def test_pieces_cut_anywhere_make_the_whole(topics, moments, rows):
    log = in_memory(topics)
    pieces: dict[str, list[pa.RecordBatch]] = {"ticks": [], "quotes": []}
    before: dict[str, int] = {}
    for moment in [*sorted(OPEN + SECOND * m for m in moments), log.last]:
        until = log.rows_until(moment)
        for name, batch in log.cut(before, until, rows):
            assert 1 <= batch.num_rows <= rows
            assert (batch.column("known_at").view(pa.int64()).to_numpy() <= moment).all()
            pieces[name].append(batch)
        before = until
    for name, batches in pieces.items():
        assert pa.Table.from_batches(batches).combine_chunks().to_batches() == [log.topics[name]]


@settings(max_examples=25, deadline=None)
@given(TWO_TOPICS, st.integers(-2, 27))
def test_the_next_event_and_the_rows_until_now_agree_with_a_plain_search(topics, second):
    log, now = in_memory(topics), OPEN + SECOND * second
    known = {name: batch["known_at"].view(pa.int64()).to_pylist() for name, batch in log.topics.items()}
    later = [us for times in known.values() for us in times if us > now]
    assert log.next_event(now) == min(later, default=None)
    assert log.rows_until(now) == {name: sum(us <= now for us in times) for name, times in known.items()}
    assert log.next_row(log.rows_until(now)) == min(later, default=None)


# ---- what a replay plays


def at(text: str) -> int:
    return to_us(text, NEW_YORK)


def played(log: SessionLog) -> list[tuple[int, int]]:
    return list(zip(log.timeline.opens.tolist(), log.timeline.closes.tolist(), strict=True))


def test_closed_hours_are_skipped_and_half_days_end_early():
    known = [at("2018-11-21 09:31"), at("2018-11-23 12:59"), at("2018-11-26 09:31")]
    assert played(in_memory({"bars": bars(known)})) == [
        (at("2018-11-21 09:30"), at("2018-11-21 16:00")),
        (at("2018-11-23 09:30"), at("2018-11-23 13:00")),
        (at("2018-11-26 09:30"), at("2018-11-26 09:31")),
    ]


def test_a_daily_bar_is_known_at_the_end_of_its_day():
    days = [("2018-11-16 09:30", "2018-11-16 16:00"), ("2018-11-19 09:30", "2018-11-19 16:00")]
    log = in_memory({"bars": bars([at(close) for _, close in days], 390, "1d")})
    assert played(log) == [(at(opened), at(close)) for opened, close in days]


def test_a_single_daily_bar_has_a_day_that_can_be_played():
    log = in_memory({"bars": bars([at("2018-11-16 16:00")], 390, "1d")})
    assert played(log) == [(at("2018-11-16 09:30"), at("2018-11-16 16:00"))]


def test_a_log_that_begins_in_the_afternoon_does_not_play_the_morning():
    log = in_memory({"bars": bars([at("2018-11-16 14:01"), at("2018-11-16 14:30")])})
    assert played(log) == [(at("2018-11-16 14:00"), at("2018-11-16 14:30"))]


def test_what_happens_outside_the_regular_session_is_played_with_what_leads_up_to_it():
    known = [
        "2018-11-16 08:00",
        "2018-11-16 08:05",
        "2018-11-16 16:01",
        "2018-11-16 19:00",
        "2018-11-18 20:00",
    ]
    log = in_memory({"ticks": ticks([at(text) for text in known])})
    assert played(log) == [
        (at("2018-11-16 08:00"), at("2018-11-16 08:05")),
        (at("2018-11-16 09:30"), at("2018-11-16 16:01")),
        (at("2018-11-16 18:45"), at("2018-11-16 19:00")),
        (at("2018-11-18 19:45"), at("2018-11-18 20:00")),
    ]


def test_a_log_without_any_session_is_played_too():
    known = ["2018-11-17 11:00", "2018-11-17 11:10", "2018-11-17 15:00"]  # a Saturday
    log = in_memory({"ticks": ticks([at(text) for text in known])})
    assert played(log) == [
        (at("2018-11-17 11:00"), at("2018-11-17 11:10")),
        (at("2018-11-17 14:45"), at("2018-11-17 15:00")),
    ]


def test_a_market_that_never_closes_is_played_whole():
    known = [at("2018-11-17 11:00"), at("2018-11-20 03:00")]
    assert played(in_memory({"ticks": ticks(known)}, calendar="24/7")) == [tuple(known)]


WEEK = st.lists(st.integers(0, 8 * 24 * 60), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(WEEK)
def test_every_event_is_played_and_nothing_else_outside_the_sessions(minutes):
    known = OPEN - 12 * 60 * MINUTE + MINUTE * np.array(sorted(minutes))
    log = in_memory({"ticks": ticks(known)})
    opens, closes = log.timeline.opens, log.timeline.closes
    holder = np.searchsorted(opens, known, side="right") - 1
    assert (holder >= 0).all()
    assert (known <= closes[holder]).all()
    assert (int(opens[0]), int(closes[-1])) == (log.first, log.last)
    sessions = calendar("XNYS").regular(log.first, log.last)
    outside = [us for us in known.tolist() if not any(start <= us <= end for start, end in sessions)]
    middles = np.arange(log.first, log.last, MINUTE) + MINUTE // 2
    wanted = np.zeros(len(middles), bool)
    for start, end in [*sessions, *((us - LEAD_US, us) for us in outside)]:
        wanted |= (start < middles) & (middles < end)
    inside = middles < closes[np.searchsorted(opens, middles, side="right") - 1]
    assert (wanted == inside).all(), pd.to_datetime(middles[wanted != inside][:5], unit="us")


@settings(max_examples=40, deadline=None)
@given(WEEK, st.floats(1e2, 1e7))
def test_a_clock_that_plays_the_timeline_sees_every_event_and_ends(minutes, pace):
    log = in_memory({"ticks": ticks(OPEN + MINUTE * np.array(sorted(minutes)))})
    wall = 0.0
    clock = ReplayClock(log.timeline, pace=pace, wall=lambda: wall, next_event=log.next_event)
    while not clock.finished:
        following = log.next_event(clock.now_us())
        assert following is not None
        wall += clock.seconds_until(following) + 1e-3
        assert clock.now_us() >= following
    assert log.rows_until(clock.now_us()) == {"ticks": len(minutes)}
    assert isinstance(clock.timeline, Timeline)
