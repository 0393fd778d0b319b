"""The recorded sessions hold what their catalogue says, oddities included, and can be rebuilt."""

import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from marketdash.calendars import calendar
from marketdash.clock import to_us
from marketdash.errors import SourceError
from marketdash.log import SessionLibrary, SessionLog
from marketdash.log.manifest import content_hash

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data"
DAILY, MINUTES, TRADES = "us-2010-daily", "us-2018-11-minute", "es-2013-09-ticks"
SESSIONS = (DAILY, MINUTES, TRADES)
ROWS = {DAILY: ("bars", 122_574), MINUTES: ("bars", 21_309), TRADES: ("ticks", 500_000)}
LIQUID = ("AAPL", "GS", "INTC", "NVDA", "V")
PRICES = ["open", "high", "low", "close"]

README = (DATA / "README.md").read_text("utf-8")


def opened(name: str) -> SessionLog:
    return SessionLibrary([DATA]).open(name)


@cache
def table(name: str) -> pd.DataFrame:
    """The rows of a session with its symbols, and times in the zone of its exchange."""
    log = opened(name)
    rows = log.topics[ROWS[name][0]].to_pandas()
    rows["symbol"] = np.array(log.universe.symbols)[rows["instrument_id"]]
    for column in ("time", "known_at"):
        rows[column] = rows[column].dt.tz_convert(log.manifest.tz)
    rows["trading_day"] = pd.to_datetime(rows["trading_day"])
    return rows


def day(symbol: str, date: str) -> pd.Series:
    rows = table(DAILY)
    found = rows[(rows["symbol"] == symbol) & (rows["trading_day"] == date)]
    assert len(found) == 1, f"{symbol} has {len(found)} bars on {date}"
    return found.iloc[0]


@cache
def closes() -> pd.DataFrame:
    return table(DAILY).pivot(index="trading_day", columns="symbol", values="close")


def minute(symbol: str, end: str) -> pd.Series:
    rows = table(MINUTES)
    known_at = pd.Timestamp(end, tz="America/New_York")
    found = rows[(rows["symbol"] == symbol) & (rows["known_at"] == known_at)]
    assert len(found) == 1, f"{symbol} has {len(found)} bars that end at {end}"
    return found.iloc[0]


# ---- every session


@pytest.fixture(params=SESSIONS)
def name(request) -> str:
    return request.param


def test_these_sessions_are_shipped_and_whole():
    assert SessionLibrary([DATA]).check() == dict.fromkeys(sorted(SESSIONS))
    assert set(SESSIONS) <= set(SessionLibrary().paths())


def test_rows_have_the_number_and_the_hash_of_the_manifest(name):
    topic, rows = ROWS[name]
    manifest = opened(name).manifest
    assert list(manifest.topics) == [topic]
    for part in (manifest.instruments, manifest.topics[topic]):
        stored = pq.read_table(DATA / name / part.file)
        assert (stored.num_rows, content_hash(stored)) == (part.rows, part.sha256)
    assert opened(name).topics[topic].num_rows == rows


def test_the_sessions_are_small():
    assert sum(path.stat().st_size for name in SESSIONS for path in (DATA / name).iterdir()) < 3_000_000


def test_the_manifest_tells_origin_and_licence(name):
    manifest = opened(name).manifest
    assert manifest.licence == "MIT"
    assert manifest.redistributable
    assert manifest.provenance["built_by"] == "data/build.py"
    assert manifest.provenance["files"]
    assert set(table(name)["source"]) == {manifest.provenance["package"]} == {manifest.source}
    text = (DATA / manifest.provenance["licence"]).read_text("utf-8")
    assert "MIT License" in text
    assert re.search(r"Copyright \(c\) 20\d\d", text)
    assert "THE SOFTWARE IS PROVIDED" in text


def test_the_catalogue_has_each_session_and_package(name):
    manifest = opened(name).manifest
    rows = ROWS[name][1]
    assert f"## {name}\n" in README
    summary = next(line for line in README.splitlines() if line.startswith(f"| [`{name}`]"))
    assert f"| {rows:,} |" in summary
    assert f"| {len(opened(name).universe)} " in summary
    assert manifest.first[:10] in summary
    assert manifest.last[:10] in summary
    source = manifest.provenance
    line = f"| {source['package']} | {source['version']} | `{source['wheel_sha256']}` | MIT, "
    assert line in README
    assert f"[text]({source['licence']})" in README


def test_picker_texts_are_short_and_on_one_line(name):
    manifest = opened(name).manifest
    assert 10 < len(manifest.title) <= 36
    assert 40 < len(manifest.note) <= 100
    assert "\n" not in manifest.title + manifest.note


def test_a_replay_starts_amid_the_log_where_something_happens_soon(name):
    log = opened(name)
    before = log.rows_until(log.start)[ROWS[name][0]]
    assert 0.2 < before / ROWS[name][1] < 0.7, "a chart needs a past, and a replay a future"
    following = log.next_event(log.start)
    assert following is not None
    wait = log.timeline.active(following) - log.timeline.active(log.start)
    assert wait / 1e6 / log.manifest.pace <= 1.0, "the first event must come within a second"


def test_highlights_lie_in_the_log_in_order_with_something_to_see(name):
    log = opened(name)
    times = [to_us(item.time) for item in log.manifest.highlights]
    assert len(times) >= 5
    assert times == sorted(times)
    for us in times:
        following = log.next_event(us - 1)
        assert following is not None
        assert us <= following < us + 60_000_000


def test_every_row_can_be_played_and_the_timeline_ends_with_the_last(name):
    log = opened(name)
    known = log.topics[ROWS[name][0]].column("known_at").view("int64").to_numpy()
    i = np.searchsorted(log.timeline.opens, known, side="right") - 1
    assert ((i >= 0) & (known <= log.timeline.closes[i])).all()
    assert log.timeline.end == known[-1] == log.last


def test_session_and_trading_day_are_those_of_the_calendar(name):
    log, rows = opened(name), table(name)
    session, days = calendar(log.manifest.calendar).stamp(
        rows["time"].dt.as_unit("us").astype("int64").to_numpy()
    )
    assert (rows["session"] == 1).all()
    assert (rows["session"] == session).all()
    assert (rows["trading_day"] == pd.to_datetime(days, unit="D")).all()


def test_numbers_follow_the_order_and_rows_are_not_known_before_they_happened(name):
    rows = table(name)
    assert (rows["seq"] == np.arange(len(rows))).all()
    assert rows["known_at"].is_monotonic_increasing
    assert (rows["known_at"] >= rows["time"]).all()


# ---- us-2010-daily


def test_the_daily_log_has_its_stocks_sectors_and_days():
    universe, rows = opened(DAILY).universe, table(DAILY)
    assert len(universe) == rows["symbol"].nunique() == 524
    assert list(universe.symbols) == sorted(universe.symbols)
    assert rows["trading_day"].nunique() == 245
    assert not rows.duplicated(["symbol", "trading_day"]).any()
    unclassified = [item for item in universe if item.sector == "Unclassified"]
    assert len(unclassified) == 524 - 442
    assert all(item.name == item.symbol and not item.industry for item in unclassified)
    assert len(universe.sectors) == 11
    assert universe.sectors[-1] == "Unclassified"
    assert {item.calendar for item in universe} == {"XNYS"}
    assert {item.mic for item in universe} == {""}, "the file does not tell where a stock was listed"
    apple = universe.get("AAPL")
    assert (apple.name, apple.sector, apple.industry) == (
        "Apple Inc.",
        "Information Technology",
        "Computer Hardware",
    )
    assert universe.get("GAS").name == "Nicor Inc."


def test_a_daily_bar_spans_its_session_and_is_known_at_the_close():
    rows = table(DAILY)
    log = opened(DAILY)
    sessions = np.array(calendar("XNYS").regular(log.first - 1, log.last))
    times = pd.DataFrame({"time": sessions[:, 0], "known_at": sessions[:, 1]})
    times = times.apply(
        lambda column: pd.to_datetime(column, unit="us", utc=True).dt.tz_convert(rows["time"].dt.tz)
    )
    times.index = times["time"].dt.tz_localize(None).dt.normalize()
    for column in ("time", "known_at"):
        assert (rows[column] == times[column].loc[rows["trading_day"]].to_numpy()).all()
    closed = rows.groupby("trading_day")["known_at"].first().dt.hour.value_counts()
    assert closed.to_dict() == {16: 243, 13: 2}, "two half days"
    assert set(rows["width"]) == {"1d"}


def test_the_flash_crash_is_kept_with_its_busted_prints():
    lows = {symbol: day(symbol, "2010-05-06")["low"] for symbol in ("PM", "CNP", "PG", "CTL")}
    assert lows == {"PM": 2.00, "CNP": 1.00, "PG": 39.37, "CTL": 14.16}
    assert day("PM", "2010-05-06")["close"] == 47.00


@pytest.mark.parametrize(
    ("symbol", "date", "percent"),
    [
        ("DHR", "2010-06-14", -49.6),
        ("ESRX", "2010-06-08", -48.6),
        ("GIS", "2010-06-09", -50.1),
        ("CAH", "2009-09-01", -27.4),
        ("STR", "2010-07-01", -66.5),
        ("WY", "2010-07-20", -61.9),
        ("AMZN", "2009-10-23", 26.8),
        ("ARG", "2010-02-05", 40.0),
        ("MFE", "2010-08-19", 57.1),
    ],
)
def test_jumps_are_neither_adjusted_nor_smoothed(symbol, date, percent):
    close = closes()[symbol].dropna()
    assert 100 * close.pct_change().loc[date] == pytest.approx(percent, abs=0.05)


def test_the_market_days_of_the_highlights_are_as_described():
    change = closes().pct_change(fill_method=None)
    assert 100 * change.loc["2010-05-10"].median() == pytest.approx(5.0, abs=0.05)
    fall = change.loc["2010-05-20"].dropna()
    assert ((fall < 0).sum(), len(fall)) == (497, 500)
    assert 100 * fall.median() == pytest.approx(-3.9, abs=0.05)


def test_sessions_that_the_source_missed_are_absent_and_no_others():
    log = opened(DAILY)
    sessions = np.array(calendar("XNYS").regular(log.first - 1, log.last))[:, 0]
    days = pd.to_datetime(calendar("XNYS").stamp(sessions)[1], unit="D")
    missing = days.difference(pd.DatetimeIndex(table(DAILY)["trading_day"].unique()))
    assert [f"{date:%Y-%m-%d}" for date in missing] == [
        "2009-09-08",
        "2009-10-29",
        "2009-10-30",
        "2009-11-02",
        "2009-11-03",
        "2009-11-04",
        "2010-08-18",
    ]
    stocks = table(DAILY).groupby("trading_day").size()
    assert (stocks.loc["2009-11-12"], *stocks.drop(pd.Timestamp("2009-11-12")).agg(["min", "max"])) == (
        408,
        482,
        508,
    )
    assert (table(DAILY).groupby("symbol").size() == 245).sum() == 379


def test_bars_that_contradict_themselves_are_kept():
    rows = table(DAILY)
    outside = np.maximum(rows["open"] - rows["high"], rows["low"] - rows["open"]).clip(lower=0)
    assert (outside > 0).sum() == 78
    worst = rows.loc[outside.idxmax()]
    assert (worst["symbol"], f"{worst['trading_day']:%Y-%m-%d}") == ("HUM", "2010-08-20")
    assert outside.max() == pytest.approx(1.95)
    rest = rows[["open", "close"]].where(outside == 0)
    assert not (rest.gt(rows["high"], axis=0) | rest.lt(rows["low"], axis=0)).any(axis=None)


def test_volumes_count_shares_up_to_the_largest_number_of_the_file():
    assert day("AAPL", "2010-05-06")["volume"] == 45_923_500
    rows = table(DAILY)
    biggest = rows.loc[rows["volume"].idxmax()]
    assert (biggest["symbol"], f"{biggest['trading_day']:%Y-%m-%d}") == ("C", "2009-12-18")
    assert biggest["volume"] == (2**31 - 1) // 100 * 100


def test_what_the_source_does_not_tell_is_null():
    for name in (DAILY, MINUTES):
        bars = opened(name).topics["bars"]
        empty = [field for field in bars.schema.names if bars.column(field).null_count]
        assert empty == ["vwap", "count", "revision"]
        assert all(bars.column(field).null_count == bars.num_rows for field in empty)


# ---- us-2018-11-minute


def test_the_minute_log_has_its_ten_stocks():
    universe = opened(MINUTES).universe
    assert universe.symbols == ("AAPL", "CBIO", "FBNC", "GNC", "GS", "INTC", "NDLS", "NVDA", "QES", "V")
    assert [item.symbol for item in universe if item.mic == "XNYS"] == ["GNC", "GS", "QES", "V"]
    assert {item.mic for item in universe} == {"XNYS", "XNAS"}
    assert {
        item.symbol: item.sector for item in universe if item.symbol in ("CBIO", "FBNC", "NDLS", "QES", "V")
    } == {
        "CBIO": "Health Care",
        "FBNC": "Financials",
        "NDLS": "Consumer Discretionary",
        "QES": "Energy",
        "V": "Information Technology",
    }
    assert table(MINUTES).groupby("symbol").size().to_dict() == {
        "AAPL": 3112,
        "CBIO": 1000,
        "FBNC": 777,
        "GNC": 2422,
        "GS": 3089,
        "INTC": 3112,
        "NDLS": 1415,
        "NVDA": 3112,
        "QES": 174,
        "V": 3096,
    }


def test_a_minute_bar_starts_at_its_time_and_is_known_a_minute_later():
    rows = table(MINUTES)
    assert (rows["known_at"] - rows["time"] == pd.Timedelta(minutes=1)).all()
    minutes = rows["time"].dt.hour * 60 + rows["time"].dt.minute
    assert (minutes.min(), minutes.max()) == (9 * 60 + 30, 15 * 60 + 59)
    assert set(rows["width"]) == {"1min"}
    assert rows["trading_day"].nunique() == 8


def test_the_columns_of_the_minutes_mean_what_they_are_called():
    rows = table(MINUTES)
    assert (rows["high"] == rows[PRICES].max(axis=1)).all()
    assert (rows["low"] == rows[PRICES].min(axis=1)).all()
    first = minute("AAPL", "2018-11-12 09:32")
    assert first[[*PRICES, "volume"]].tolist() == [199.40, 199.85, 198.88, 199.16, 320_342.0]


def test_nvidia_opens_nineteen_percent_lower():
    before, opened_at = minute("NVDA", "2018-11-15 16:00"), minute("NVDA", "2018-11-16 09:31")
    assert 100 * (opened_at["open"] / before["close"] - 1) == pytest.approx(-19.45, abs=0.01)
    assert 100 * (opened_at["close"] / before["close"] - 1) == pytest.approx(-19.19, abs=0.01)
    assert 100 * (minute("NVDA", "2018-11-16 16:00")["close"] / before["close"] - 1) == pytest.approx(
        -18.96, abs=0.01
    )


@pytest.mark.parametrize(
    ("symbol", "date", "before", "percent"),
    [
        ("NVDA", "2018-11-14", "2018-11-13", 3.50),
        ("NVDA", "2018-11-20", "2018-11-19", -7.27),
        ("AAPL", "2018-11-20", "2018-11-19", -3.96),
        ("V", "2018-11-20", "2018-11-19", -3.52),
    ],
)
def test_the_openings_of_the_highlights_are_as_described(symbol, date, before, percent):
    last = minute(symbol, f"{before} 16:00")["close"]
    assert 100 * (minute(symbol, f"{date} 09:31")["open"] / last - 1) == pytest.approx(percent, abs=0.01)


@pytest.mark.parametrize("symbol", LIQUID)
def test_the_hole_of_20_november_is_kept(symbol):
    rows = table(MINUTES)
    ends = rows.loc[(rows["symbol"] == symbol), "known_at"].dt.tz_localize(None)
    wanted = pd.date_range("2018-11-20 10:48", "2018-11-20 10:58", freq="min")
    missing = [f"{end:%H:%M}" for end in wanted.difference(ends)]
    assert missing == ["10:49", "10:50", "10:51", "10:53", "10:54", "10:55", "10:56", "10:57"]


def test_bars_without_volume_are_kept():
    rows = table(MINUTES)
    first = rows.groupby(["symbol", "trading_day"])["time"].transform("min") == rows["time"]
    assert ((rows["volume"] == 0).sum(), (first & (rows["volume"] == 0)).sum()) == (67, 58)


# ---- es-2013-09-ticks


def test_the_future_is_described():
    future = opened(TRADES).universe[0]
    assert (future.symbol, future.asset_class, future.mic, future.calendar) == (
        "ES",
        "future",
        "XCME",
        "CMES",
    )
    assert (future.currency, future.tick_size, future.multiplier, future.expiry) == (
        "USD",
        0.25,
        50.0,
        "2013-09-20",
    )


def test_the_trades_keep_their_stamps_prices_and_order():
    rows = table(TRADES)
    assert (rows["time"] == rows["known_at"]).all()
    first, last = rows.iloc[0], rows.iloc[-1]
    assert first["time"] == pd.Timestamp("2013-09-01 17:00:00.083", tz="America/Chicago")
    assert (first["price"], first["size"]) == (1640.25, 8)
    assert last["time"] == pd.Timestamp("2013-09-03 13:51:44.578", tz="America/Chicago")
    assert (last["price"], last["size"]) == (1631.25, 2)
    # The first three share a stamp: only the number keeps the order of the file.
    assert rows["size"].head(3).tolist() == [8, 1, 2]
    assert rows["time"].nunique() == 84_568
    assert rows.groupby("time").size().max() == 378
    assert not (rows["price"] % 0.25).any()
    assert rows["size"].sum() == 1_844_058
    assert rows.groupby("trading_day").size().tolist() == [55_799, 444_201]


def test_the_trades_of_the_highlights_are_as_described():
    rows = table(TRADES).set_index("time")
    price = rows["price"]
    assert len(rows.loc["2013-09-03 08:30:00":"2013-09-03 08:30:00.999"]) == 1582
    assert f"{price.idxmax():%d %H:%M} {price.max():.2f}" == "03 08:35 1650.00"
    assert f"{price.idxmin():%d %H:%M:%S} {price.min():.2f}" == "03 13:51:42 1630.75"
    night = price.loc["2013-09-03 03:50":"2013-09-03 03:54"]
    assert night.max() - night.min() == 5.00
    morning = price.loc["2013-09-03 10:15":"2013-09-03 10:30"]
    assert morning.max() - morning.min() == 9.50
    week = price.loc["2013-09-01 17:00:00":"2013-09-01 17:00:00.999"]
    assert week.diff().abs().max() == 1.50


def test_the_holiday_halt_is_skipped_as_far_as_the_calendar_knows_it():
    timeline, rows = opened(TRADES).timeline, table(TRADES)
    halted = rows["time"].loc[rows["trading_day"] == "2013-09-02"].iloc[-1]
    assert halted == pd.Timestamp("2013-09-02 10:29:59.246", tz="America/Chicago")
    assert len(timeline.opens) == 2
    assert timeline.closes[0] == to_us("2013-09-02 12:00", "America/Chicago")
    assert timeline.opens[1] == to_us("2013-09-02 17:00", "America/Chicago")


# ---- rebuilding


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_sessions", DATA / "build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheels(script: ModuleType) -> Path:
    """Give the folder of the wheels, downloaded at most once."""
    try:
        script.fetch(script.PACKAGES, script.CACHE)
    except SourceError as error:
        pytest.skip(f"The sessions cannot be rebuilt here: {error}")
    return script.CACHE


def test_the_script_rebuilds_what_is_shipped(script, wheels, tmp_path):
    built = script.build(wheels, tmp_path)
    assert list(built) == list(SESSIONS)
    for name, manifest in built.items():
        shipped = opened(name).manifest
        assert {topic: part.sha256 for topic, part in manifest.topics.items()} == {
            topic: part.sha256 for topic, part in shipped.topics.items()
        }
        document = json.loads((tmp_path / name / "manifest.json").read_text("utf-8"))
        assert document == json.loads((DATA / name / "manifest.json").read_text("utf-8"))
    for licence in (DATA / "LICENSES").iterdir():
        assert licence.read_text("utf-8") == (tmp_path / "LICENSES" / licence.name).read_text("utf-8")


def test_a_wheel_with_another_hash_is_not_used(script, monkeypatch, tmp_path):
    (tmp_path / "flowrisk-0.3.0-py3-none-any.whl").write_bytes(b"something else")
    asked = []
    monkeypatch.setattr(script, "download", lambda packages, folder: asked.extend(packages))
    with pytest.raises(
        SourceError, match=r"expected flowrisk==0.3.0 --hash=sha256:1df402b3.* got no wheel with"
    ):
        script.fetch([script.MINUTES], tmp_path)
    assert asked == [script.MINUTES]


def test_no_file_names_a_package_index():
    # Which index serves the packages is the business of the machine that downloads them.
    for path in [DATA / "README.md", DATA / "build.py", *(DATA / "LICENSES").iterdir()]:
        assert not re.search("://|--(extra-)?index", path.read_text("utf-8")), path
