"""Yahoo, through the real yfinance, against a server of our own: no test here needs a network."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import exchange_calendars
import pandas as pd
import pytest
import requests

from marketdash.clock import to_us
from marketdash.errors import SourceError, UnknownNameError
from marketdash.instruments import UNCLASSIFIED, Instrument
from marketdash.providers.yahoo import RateLimited, YahooClient
from marketdash.providers.yahoo_listings import _CALENDARS, _CALENDARS_BY_ZONE, instrument_of
from marketdash.providers.yahoo_pace import Pause, TokenBucket
from marketdash.providers.yahoo_universe import COMPANIES
from marketdash.providers.yahoo_wire import RedirectedSession
from marketdash.schema import TOPICS, conform
from marketdash.settings import Settings
from marketdash.sources.base import Source, make_source
from marketdash.sources.yahoo import YahooSource
from marketdash.testing.yahoo import FakeYahoo

# exchange-calendars 4.13 asks the dates of Chinese New Year for their .weekday, which pandas 3.1 deprecates.
pytestmark = pytest.mark.filterwarnings(
    "ignore:DatetimeIndex.weekday is deprecated:pandas.errors.Pandas4Warning"
)

MINUTE = 60
# A Friday, half an hour after New York opened.
START = "2026-11-20 15:00"


class Hands:
    """A clock, a stopwatch, and a sleeper who turns both: time passes only when somebody waits."""

    def __init__(self, start: str = START) -> None:
        self.us = to_us(start)
        self.elapsed = 0.0
        self.slept: list[float] = []

    def now_us(self) -> int:
        return self.us

    def now(self) -> pd.Timestamp:
        return pd.Timestamp(self.us, unit="us", tz="UTC")

    def wall(self) -> float:
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds
        self.us += int(seconds * 1e6)

    def set(self, when: str) -> int:
        self.us = to_us(when)
        return self.us // 1_000_000


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def yahoo(hands: Hands) -> Iterator[FakeYahoo]:
    with FakeYahoo(hands) as server:
        yield server


@pytest.fixture
def client(yahoo: FakeYahoo, hands: Hands) -> Iterator[YahooClient]:
    with client_of(yahoo, hands) as made:
        yield made


def client_of(yahoo: FakeYahoo, hands: Hands, **options) -> YahooClient:
    return YahooClient(base_url=yahoo.url, clock=hands, wall=hands.wall, sleep=hands.sleep, **options)


def source_of(client: YahooClient, symbols: str, **settings) -> YahooSource:
    return YahooSource(symbols, client=client, settings=Settings(**settings))


def poll(source: YahooSource) -> dict[str, pd.DataFrame]:
    return {topic: batch.to_pandas() for topic, batch in source.fetch()}


def key_of(batch) -> tuple[int, str]:
    return batch.column("instrument_id")[0].as_py(), batch.column("width")[0].as_py()


def in_microseconds(bars: pd.DataFrame) -> pd.DataFrame:
    return bars.assign(**{name: bars[name].astype("int64") for name in ("time", "known_at")})


def seconds(when: str) -> int:
    return to_us(when) // 1_000_000


class TestTicks:
    def test_the_previous_close_comes_first_as_a_late_print(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49, regularMarketPreviousClose=268.14, time=hands.set("2026-11-23 15:00"))
        yahoo.add("BTC-USD", 90_000.0, regularMarketPreviousClose=89_000.0)
        source = source_of(client, "AAPL,BTC-USD")
        ticks = poll(source)["ticks"]
        assert ticks["price"].tolist() == [268.14, 89_000.0, 271.49, 90_000.0]
        assert ticks["time"].astype(str).tolist()[:2] == [
            "2026-11-20 20:59:59.999999+00:00",
            "2026-11-22 23:59:59.999999+00:00",
        ]
        assert ticks["trading_day"].astype(str).tolist()[:2] == ["2026-11-20", "2026-11-22"]
        assert set(ticks["known_at"]) == {hands.now()}
        assert poll(source) == {}

    def test_no_previous_close_is_needed_after_daily_bars(self, yahoo, client):
        yahoo.add("AAPL", 271.49, regularMarketPreviousClose=268.14)
        source = source_of(client, "AAPL")
        list(source.history())
        assert poll(source)["ticks"]["price"].tolist() == [271.49]

    def test_size_is_what_the_day_s_volume_grew_by(self, yahoo, client):
        yahoo.add("AAPL", 271.49, volume=1_000_000)
        source = source_of(client, "AAPL")
        first = poll(source)["ticks"]
        yahoo.trade("AAPL", 271.55, 300, time=seconds("2026-11-20 15:00:10"))
        second = poll(source)["ticks"]
        assert first["price"].tolist() == [271.49]
        assert first["size"].isna().all(), "what traded before we looked is not this tick's"
        assert second[["price", "size"]].to_numpy().tolist() == [[271.55, 300.0]]
        assert second["time"].tolist() == [pd.Timestamp("2026-11-20 15:00:10", tz="UTC")]

    def test_a_poll_without_news_emits_nothing(self, yahoo, client):
        yahoo.add("AAPL", 271.49, volume=1_000_000, bid=271.48, ask=271.5)
        source = source_of(client, "AAPL")
        assert set(poll(source)) == {"ticks", "quotes"}
        assert poll(source) == {}

    def test_only_instruments_with_news_get_a_row(self, yahoo, client):
        for symbol in ("AAPL", "MSFT", "NVDA"):
            yahoo.add(symbol, 100.0, volume=1000)
        source = source_of(client, "AAPL,MSFT,NVDA")
        poll(source)
        yahoo.trade("MSFT", 101.0, 50, time=seconds("2026-11-20 15:00:05"))
        assert poll(source)["ticks"]["instrument_id"].tolist() == [1]

    def test_more_volume_in_the_same_second_is_news(self, yahoo, client):
        yahoo.add("AAPL", 271.49, volume=1000)
        source = source_of(client, "AAPL")
        poll(source)
        yahoo.trade("AAPL", 271.49, 20)
        assert poll(source)["ticks"]["size"].tolist() == [20.0]

    def test_a_new_day_s_volume_begins_at_zero(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49, volume=45_000_000)
        source = source_of(client, "AAPL")
        poll(source)
        opened = hands.set("2026-11-23 14:30:02")
        yahoo.update(
            "AAPL", regularMarketPrice=272.0, regularMarketVolume=1_200_000, regularMarketTime=opened
        )
        tick = poll(source)["ticks"].iloc[0]
        assert tick["size"] == 1_200_000
        assert str(tick["trading_day"]) == "2026-11-23"

    def test_a_lagging_server_makes_no_share_trade_twice(self, yahoo, client):
        yahoo.add("AAPL", 100.0, volume=1000)
        source = source_of(client, "AAPL")
        poll(source)
        sizes = []
        for second, volume in ((1, 1500), (2, 1400), (3, 1600)):
            when = seconds(f"2026-11-20 15:00:0{second}")
            yahoo.update("AAPL", regularMarketVolume=volume, regularMarketTime=when)
            sizes += poll(source)["ticks"]["size"].tolist()
        assert sizes == [500.0, 0.0, 100.0]

    def test_a_record_older_than_the_last_is_passed_over(self, yahoo, client):
        yahoo.add("AAPL", 100.0, volume=1000)
        source = source_of(client, "AAPL")
        poll(source)
        when = seconds("2026-11-20 14:59:58")
        yahoo.update("AAPL", regularMarketPrice=99.0, regularMarketVolume=2000, regularMarketTime=when)
        assert poll(source) == {}

    def test_prices_before_and_after_hours_are_in_their_sessions(self, yahoo, client, hands):
        before, after = seconds("2026-11-20 13:30"), seconds("2026-11-20 22:00")
        hands.set("2026-11-20 13:30:05")
        close = seconds("2026-11-19 21:00:01")
        yahoo.add("AAPL", 268.14, volume=45_000_000, time=close, preMarketPrice=269.9, preMarketTime=before)
        source = source_of(client, "AAPL")
        ticks = poll(source)["ticks"]
        assert ticks["price"].tolist() == [268.14, 269.9]
        assert ticks["session"].tolist() == [1, 0]
        assert ticks["trading_day"].astype(str).tolist() == ["2026-11-19", "2026-11-20"]
        yahoo.update(
            "AAPL", preMarketPrice=None, preMarketTime=None, postMarketPrice=271.2, postMarketTime=after
        )
        ticks = poll(source)["ticks"]
        assert ticks["price"].tolist() == [271.2]
        assert ticks["session"].tolist() == [2]
        assert ticks["size"].isna().all()

    @pytest.mark.parametrize(
        ("symbol", "printed", "kept"),
        [
            ("AAPL", "2026-11-20 21:00:01", "2026-11-20 20:59:59.999999"),
            ("VOD.L", "2026-11-20 16:35:12", "2026-11-20 16:29:59.999999"),
            ("AAPL", "2026-11-20 20:59:58", "2026-11-20 20:59:58"),
        ],
    )
    def test_the_closing_auction_belongs_to_the_session_it_closes(
        self, yahoo, client, hands, symbol, printed, kept
    ):
        yahoo.add(symbol, 100.0, time=hands.set(printed))
        tick = poll(source_of(client, symbol))["ticks"].iloc[0]
        assert tick["time"] == pd.Timestamp(kept, tz="UTC")
        assert tick["session"] == 1
        assert str(tick["trading_day"]) == "2026-11-20"

    @pytest.mark.parametrize("when", [None, 0, -5, 10**30, "now"])
    def test_a_price_without_a_usable_time_is_no_tick(self, yahoo, client, when):
        yahoo.add("AAPL", 271.49)
        yahoo.update("AAPL", regularMarketTime=when)
        assert poll(source_of(client, "AAPL")) == {}

    def test_crypto_has_no_sizes_since_its_volume_is_that_of_24_hours(self, yahoo, client):
        yahoo.add("BTC-USD", 90_000.0, volume=59_000_000_000)
        source = source_of(client, "BTC-USD")
        poll(source)
        yahoo.trade("BTC-USD", 90_010.0, 7_000_000, time=seconds("2026-11-20 15:00:05"))
        assert poll(source)["ticks"]["size"].isna().all()

    def test_rows_are_numbered_in_order_and_known_when_received(self, yahoo, client, hands):
        for symbol, second in (("AAPL", 20), ("MSFT", 10)):
            yahoo.add(symbol, 100.0, time=seconds(f"2026-11-20 14:59:{second}"), bid=99.0, ask=101.0)
        source = source_of(client, "AAPL,MSFT")
        hands.sleep(3)
        events = poll(source)
        assert events["ticks"]["instrument_id"].tolist() == [1, 0], "earlier prices come first"
        numbers = [*events["ticks"]["seq"], *events["quotes"]["seq"]]
        assert numbers == [0, 1, 2, 3]
        assert set(events["ticks"]["known_at"]) == {hands.now()}
        assert set(events["ticks"]["source"]) == {"yahoo"}


class TestQuotes:
    def test_a_quote_is_emitted_when_bid_ask_or_size_is_new(self, yahoo, client):
        yahoo.add("AAPL", 271.49, bid=271.48, ask=271.5, bidSize=3, askSize=5)
        source = source_of(client, "AAPL")
        columns = ["bid", "ask", "bid_size", "ask_size"]
        assert poll(source)["quotes"][columns].to_numpy().tolist() == [[271.48, 271.5, 3, 5]]
        yahoo.update("AAPL", bidSize=4)
        assert poll(source)["quotes"]["bid_size"].tolist() == [4]

    @pytest.mark.parametrize("book", [{}, {"bid": 0, "ask": 0}, {"bid": 271.48}, {"bid": 0, "ask": 271.5}])
    def test_a_book_without_two_sides_is_no_quote(self, yahoo, client, book):
        yahoo.add("AAPL", 271.49, **book)
        assert set(poll(source_of(client, "AAPL"))) == {"ticks"}


class TestSource:
    def test_it_is_a_source_that_the_registry_makes(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        source = make_source("yahoo:aapl", client=client, settings=Settings())
        assert isinstance(source, Source)
        assert source.universe.symbols == ("AAPL",)

    @pytest.mark.parametrize(("minutes", "mode"), [(0, "live"), (15, "delayed")])
    def test_mode_and_entitlement_tell_the_delay(self, yahoo, client, minutes, mode):
        yahoo.add("AAPL", 271.49)
        yahoo.add("RELIANCE.NS", 1423.5, exchangeDataDelayedBy=minutes)
        source = source_of(client, "AAPL,RELIANCE.NS")
        assert source.mode == mode
        assert source.entitlement.delay == pd.Timedelta(minutes=minutes)
        assert not source.entitlement.redistributable
        assert "personal use" in source.entitlement.note

    def test_mode_follows_when_the_feed_becomes_delayed(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        source = source_of(client, "AAPL")
        yahoo.update("AAPL", exchangeDataDelayedBy=15)
        source.fetch()
        assert source.mode == "delayed"

    def test_symbols_come_from_argument_settings_or_the_built_in_list(self, yahoo, client):
        for symbol in COMPANIES:
            yahoo.add(symbol, 100.0)
        assert source_of(client, " aapl, MSFT,AAPL").universe.symbols == ("AAPL", "MSFT")
        assert source_of(client, "", yahoo_symbols="NVDA,KO").universe.symbols == ("NVDA", "KO")
        everything = source_of(client, "").universe
        assert everything.symbols == tuple(COMPANIES)
        assert len(everything.sectors) == 11
        assert UNCLASSIFIED not in everything.sectors
        assert everything.calendars == ("XNYS",)

    @pytest.mark.parametrize(("minutes", "cadence"), [(0, 30), (15, 930)])
    def test_cadence_is_the_interval_of_the_settings_and_the_delay(self, yahoo, client, minutes, cadence):
        yahoo.add("AAPL", 271.49, exchangeDataDelayedBy=minutes)
        source = source_of(client, "AAPL", yahoo_interval=30)
        assert source.interval == 30
        assert source.cadence == cadence

    def test_bars_are_complete_until_the_last_poll_less_the_delay(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49, exchangeDataDelayedBy=15)
        source = source_of(client, "AAPL")
        source.fetch()
        polled_us = hands.now_us()
        hands.advance(10)
        assert source.complete_until(hands.now_us()) == polled_us - 900 * 1_000_000

    def test_unknown_symbols_are_left_out_and_named(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        source = source_of(client, "FOOO,AAPL,BARR")
        assert source.universe.symbols == ("AAPL",)
        assert source.warnings == ["Yahoo does not know FOOO, BARR: left out."]
        assert client.unknown == ("FOOO", "BARR")

    def test_nothing_but_unknown_symbols_is_an_error_that_names_them(self, client):
        with pytest.raises(UnknownNameError, match=r"'APPL'.*AAPL") as raised:
            source_of(client, "APPL")
        assert "AAPL" in raised.value.nearest

    def test_an_exchange_of_unknown_hours_is_reported(self, yahoo, client):
        yahoo.add("XX.AT", 5.0, exchange="ATH", exchangeTimezoneName="Europe/Athens")
        source = source_of(client, "XX.AT")
        assert source.universe.get("XX.AT").calendar == "24/7"
        assert "'ATH' of XX.AT" in source.warnings[0]

    async def test_batches_yields_both_topics_and_goes_on_after_the_interval(self, yahoo, client):
        yahoo.add("AAPL", 271.49, bid=271.48, ask=271.5)
        source = source_of(client, "AAPL")
        source.interval = 0.01
        events = source.batches()
        topics = [(await anext(events))[0], (await anext(events))[0]]
        quiet = (await anext(events))[1].num_rows
        yahoo.trade("AAPL", 272.0, 10, time=seconds("2026-11-20 15:00:05"))
        topic, batch = await anext(events)
        await events.aclose()
        assert topics == ["ticks", "quotes"]
        assert quiet == 0, "a poll without news tells that Yahoo was heard"
        assert topic == "ticks"
        assert batch.column("price").to_pylist() == [272.0]

    async def test_what_it_remembers_outlives_a_failure(self, yahoo, client):
        yahoo.add("AAPL", 271.49, volume=1000)
        source = source_of(client, "AAPL")
        source.fetch()
        yahoo.fail("server_error", "quote", times=2)
        with pytest.raises(SourceError):
            await anext(source.batches())
        yahoo.trade("AAPL", 271.6, 70, time=seconds("2026-11-20 15:00:05"))
        _, batch = await anext(source.batches())
        assert batch.column("size").to_pylist() == [70.0]

    def test_importing_the_source_does_not_import_yfinance(self):
        script = "import sys, marketdash.sources.yahoo; sys.exit('yfinance' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", script], env={**os.environ}).returncode == 0


class TestHistory:
    def history(self, client, width="1min", symbol="AAPL", **facts):
        facts = {"calendar": "XNYS"} | facts
        bars = client.history(Instrument(0, symbol, **facts), width)
        assert conform("bars", bars).schema == TOPICS["bars"].schema
        return in_microseconds(bars)

    def test_rows_with_nulls_are_left_out(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        start = seconds("2026-11-20 14:30")
        yahoo.chart("AAPL", "1m", [
            (start, 270.1, 270.5, 269.9, 270.4, 120_345),
            (start + MINUTE, None, None, None, None, None),
            (start + 2 * MINUTE, 270.4, 270.6, 270.2, None, 500),
            (start + 3 * MINUTE, 270.4, 270.6, 270.2, 270.5, None),
        ])  # fmt: skip
        bars = self.history(client)
        assert bars["time"].tolist() == [to_us("2026-11-20 14:30"), to_us("2026-11-20 14:33")]
        assert bars["volume"].tolist() == [120_345, 0]

    def test_the_unfinished_bar_is_known_when_fetched_and_the_others_at_their_end(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        hands.set("2026-11-20 14:31:20")
        start = seconds("2026-11-20 14:30")
        yahoo.chart("AAPL", "1m", [
            (start, 270.0, 271.0, 269.0, 270.5, 100),
            (start + MINUTE, 270.5, 270.9, 270.4, 270.6, 40),
            (start + MINUTE + 17, 271.2, 271.2, 271.2, 271.2, 0),
        ])  # fmt: skip
        bars = self.history(client)
        assert bars["known_at"].tolist() == [to_us("2026-11-20 14:31"), hands.now_us()]
        last = bars.iloc[-1]
        assert last["time"] == to_us("2026-11-20 14:31")
        assert last[["open", "high", "low", "close", "volume"]].tolist() == [270.5, 271.2, 270.4, 271.2, 40]

    def test_bars_of_a_delayed_feed_are_known_later(self, yahoo, client, hands):
        hands.set("2026-11-20 14:50")
        yahoo.add("AAPL", 271.49)
        yahoo.chart("AAPL", "1m", [(seconds("2026-11-20 14:30"), 270.0, 271.0, 269.0, 270.5, 100)])
        bars = client.history(Instrument(0, "AAPL", calendar="XNYS"), "1min", delay=pd.Timedelta(minutes=15))
        bars = in_microseconds(bars)
        assert bars["known_at"].tolist() == [to_us("2026-11-20 14:46")]

    def test_daily_bars_start_at_the_open_of_their_trading_day(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        yahoo.chart("AAPL", "1d", [
            (seconds("2026-11-18 14:30"), 268.0, 270.0, 267.0, 269.0, 40_000_000),
            (seconds("2026-11-19 14:30"), 269.0, 271.0, 268.0, 268.14, 45_000_000),
            (seconds("2026-11-20 14:30"), 269.0, 270.0, 268.3, 270.0, 1_000_000),
            (seconds("2026-11-20 14:59:58"), 269.0, 272.1, 268.3, 269.49, 1_000_100),
        ])  # fmt: skip
        bars = self.history(client, "1d")
        assert bars["time"].tolist() == [to_us(f"2026-11-{day} 14:30") for day in (18, 19, 20)]
        assert bars["known_at"].tolist() == [to_us(f"2026-11-{day} 21:00") for day in (18, 19)] + [
            to_us(START)
        ]
        assert bars["close"].tolist() == [269.0, 268.14, 269.49]
        assert bars["volume"].tolist()[-1] == 1_000_100, "the moment's row covers the day, it is not added"

    def test_a_day_that_has_not_opened_has_no_bar(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        early = hands.set("2026-11-20 13:00")
        yahoo.chart("AAPL", "1d", [(early, 269.0, 270.0, 267.0, 269.0, 1000)])
        assert len(self.history(client, "1d")) == 0

    @pytest.mark.parametrize(
        ("symbol", "hours", "midnight", "opened"),
        [
            ("VOD.L", "XLON", "2026-07-01 23:00", "2026-07-02 07:00"),
            ("RELIANCE.NS", "XBOM", "2026-07-01 18:30", "2026-07-02 03:45"),
            ("BTC-USD", "24/7", "2026-07-02 00:00", "2026-07-02 00:00"),
            ("EURUSD=X", "24/5", "2026-07-01 23:00", "2026-07-02 00:00"),
        ],
    )
    def test_a_daily_row_at_local_midnight_finds_its_day(
        self, yahoo, client, symbol, hours, midnight, opened
    ):
        yahoo.add(symbol, 100.0)
        yahoo.chart(symbol, "1d", [(seconds(midnight), 99.0, 101.0, 98.0, 100.0, 10)])
        bars = self.history(client, "1d", symbol, calendar=hours)
        assert bars["time"].tolist() == [to_us(opened)]

    def test_a_chart_without_bars_gives_no_rows(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        for interval in ("1m", "1d"):
            yahoo.chart("AAPL", interval, [])
        assert len(self.history(client)) == len(self.history(client, "1d")) == 0
        assert list(source_of(client, "AAPL").history()) == []

    def test_each_chart_asks_for_what_one_request_gives(self, yahoo, client):
        yahoo.add("^GSPC", 6789.12)
        source = source_of(client, "^GSPC")
        assert [topic for topic, _ in source.history()] == ["bars", "bars"]
        asked = [request for request in yahoo.requests if request.endpoint == "chart"]
        assert [(r.query["interval"], r.query["range"], r.query["includePrePost"]) for r in asked] == [
            ("1d", "1y", "false"),
            ("1m", "5d", "true"),
        ]
        assert asked[0].path.endswith("/^GSPC")
        assert asked[0].host == "query2.finance.yahoo.com"

    def test_an_instrument_that_fails_does_not_cost_the_others(self, yahoo, client):
        for symbol in ("AAPL", "MSFT", "NVDA"):
            yahoo.add(symbol, 100.0)
        source = source_of(client, "AAPL,MSFT,NVDA")
        yahoo.fail("torn", "chart", "MSFT")
        yahoo.fail("reset", "chart", "AAPL", times=1)
        batches = [batch for _, batch in source.history()]
        assert [key_of(batch) for batch in batches] == [(0, "1min"), (2, "1d"), (2, "1min")]
        assert len(source.warnings) == 3
        assert "1d bars of AAPL" in source.warnings[0]
        assert [b.column("seq")[0].as_py() for b in batches] == sorted(
            b.column("seq")[0].as_py() for b in batches
        )

    async def test_what_takes_too_long_comes_between_the_polls(self, yahoo, client):
        symbols = [f"S{i}" for i in range(10)]
        for symbol in symbols:
            yahoo.add(symbol, 100.0)
        source = YahooSource(",".join(symbols), client=client, settings=Settings(), history_seconds=6)
        first = [key_of(batch) for _, batch in source.history()]
        events, later = source.batches(), []
        assert (await anext(events))[0] == "ticks"
        while len(first) + len(later) < 20:
            topic, batch = await anext(events)
            assert topic == "bars"
            later.append(key_of(batch))
        await events.aclose()
        assert len(first) == 10, "four at once and then one per second"
        assert first + later == [(i, width) for i in range(10) for width in ("1d", "1min")]

    async def test_after_a_refusal_history_waits_for_an_answer_to_a_poll(self, yahoo, client, hands):
        for symbol in ("AAPL", "MSFT"):
            yahoo.add(symbol, 100.0)
        source = source_of(client, "AAPL,MSFT")
        yahoo.fail("rate_limit", "chart")
        assert list(source.history()) == []
        asked = {request.path for request in yahoo.requests if request.endpoint == "chart"}
        assert asked == {"/v8/finance/chart/AAPL"}
        yahoo.recover()
        with pytest.raises(RateLimited):
            await anext(source.batches())
        hands.advance(61)
        events = source.batches()
        topics = [(await anext(events))[0] for _ in range(5)]
        await events.aclose()
        assert topics == ["ticks", "bars", "bars", "bars", "bars"]

    def test_a_network_that_is_gone_is_not_asked_for_every_instrument(self, yahoo, client):
        symbols = [f"S{i}" for i in range(10)]
        for symbol in symbols:
            yahoo.add(symbol, 100.0)
        source = source_of(client, ",".join(symbols))
        yahoo.fail("reset", "chart")
        assert list(source.history()) == []
        assert yahoo.count("chart") == 3

    def test_nulls_everywhere_make_no_bar_and_no_error(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        yahoo.fail("nulls", "chart")
        assert len(self.history(client)) == 15

    def test_another_width_is_refused_with_those_there_are(self, client):
        with pytest.raises(UnknownNameError, match="1min"):
            client.history(Instrument(0, "AAPL"), "5min")


FAULTS = {
    "rate_limit": "429 Too Many Requests",
    "bad_crumb": "401 Unauthorized: Invalid Crumb",
    "not_found": "404 Not Found: No data found",
    "server_error": "500 internal-error",
    "maintenance": "expected an answer in JSON.*down for maintenance",
    "torn": "expected an answer in JSON",
    "hold": "expected an answer within 0.5 s.*Timeout",
    "reset": "expected an answer within 10 s.*Connection",
}


class TestFailures:
    @pytest.mark.parametrize("endpoint", ["quote", "chart"])
    @pytest.mark.parametrize("fault", FAULTS)
    def test_every_fault_becomes_one_clear_error(self, yahoo, hands, fault, endpoint):
        yahoo.add("AAPL", 271.49)
        session = RedirectedSession(yahoo.url, 10.0)
        with YahooClient(session, clock=hands, wall=hands.wall, sleep=hands.sleep, timeout=10.0) as client:
            client.quotes(["AAPL"])
            if fault == "hold":  # only from now on: what does answer may take longer on a busy machine
                client.timeout = session.limit = 0.5
            yahoo.fail(fault, endpoint)
            ask = {
                "quote": lambda: client.quotes(["AAPL"]),
                "chart": lambda: client.history(Instrument(0, "AAPL", calendar="XNYS"), "1min"),
            }
            with pytest.raises(SourceError, match=FAULTS[fault]) as raised:
                ask[endpoint]()
        message = str(raised.value)
        assert message.startswith("Yahoo, ")
        assert "AAPL" in message
        assert "Traceback" not in message

    @pytest.mark.parametrize("fault", ["empty", "nulls"])
    def test_no_quote_at_all_of_known_symbols_is_an_error(self, yahoo, client, fault):
        yahoo.add("AAPL", 271.49)
        client.quotes(["AAPL"])
        yahoo.fail(fault, "quote")
        with pytest.raises(SourceError, match="a quote of at least one of them"):
            client.quotes(["AAPL"])
        assert client.unknown == (), "a fault at Yahoo does not make a known symbol unknown"

    def test_an_empty_chart_answer_is_an_error(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        yahoo.fail("empty", "chart")
        with pytest.raises(SourceError, match="a list as the result"):
            client.history(Instrument(0, "AAPL", calendar="XNYS"), "1min")

    @pytest.mark.parametrize("fault", ["bad_crumb", "server_error", "not_found"])
    def test_a_fault_that_passes_at_once_is_not_seen(self, yahoo, client, fault):
        yahoo.add("AAPL", 271.49)
        yahoo.fail(fault, "quote", times=1)
        assert len(client.quotes(["AAPL"])) == 1

    def test_an_expired_crumb_is_replaced(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        client.quotes(["AAPL"])
        yahoo.crumb = "another.crumb"
        assert len(client.quotes(["AAPL"])) == 1
        assert yahoo.requests[-1].query["crumb"] == "another.crumb"

    def test_cookie_and_crumb_are_asked_for_once(self, yahoo, client):
        yahoo.add("AAPL", 271.49)
        for _ in range(3):
            client.quotes(["AAPL"])
        assert (yahoo.count("cookie"), yahoo.count("crumb"), yahoo.count("quote")) == (1, 1, 3)
        assert yahoo.requests[0].host == "fc.yahoo.com"

    def test_without_a_network_the_error_is_quick_and_clear(self, hands, caplog):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]  # nobody listens there any more
        with YahooClient(base_url=f"http://127.0.0.1:{port}", clock=hands) as client:
            began = time.monotonic()
            with pytest.raises(SourceError, match="Is this machine connected") as raised:
                client.quotes(["AAPL"])
            assert time.monotonic() - began < 5
        assert len(str(raised.value)) < 400, "a sentence, not a chain of wrappers"
        assert caplog.records == [], "what is raised is not also logged"

    def test_the_browser_s_session_fails_the_same_way(self, hands):
        from marketdash.providers.yahoo_wire import BrowserSession

        session = BrowserSession(2.0)
        session.proxies = {"https": "http://127.0.0.1:9", "http": "http://127.0.0.1:9"}
        with (
            YahooClient(session, clock=hands) as client,
            pytest.raises(SourceError, match="Is this machine connected") as raised,
        ):
            client.quotes(["AAPL"])
        assert len(str(raised.value)) < 400, "a sentence, not a chain of wrappers"

    def test_a_proxy_of_the_environment_is_not_asked_for_a_local_address(self, yahoo, client, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "")
        yahoo.add("AAPL", 271.49)
        assert len(client.quotes(["AAPL"])) == 1

    def test_even_the_cookie_is_not_waited_for_longer_than_the_timeout(self, yahoo, hands):
        yahoo.add("AAPL", 271.49)
        yahoo.fail("hold", "cookie")
        with client_of(yahoo, hands, timeout=0.3) as client:
            began = time.monotonic()
            with pytest.raises(SourceError):
                client.quotes(["AAPL"])
            assert time.monotonic() - began < 25, "yfinance itself would wait half a minute"

    def test_two_clients_do_not_share_a_session(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        with FakeYahoo(hands) as other, client_of(other, hands) as second:
            other.crumb = "of.the.other"
            other.add("MSFT", 500.0)
            assert len(second.quotes(["MSFT"])) == 1
            assert len(client.quotes(["AAPL"])) == 1
            assert len(second.quotes(["MSFT"])) == 1
            assert yahoo.count("quote") == 1


class TestManners:
    def test_many_symbols_are_asked_for_in_chunks(self, yahoo, client):
        symbols = [f"S{i}" for i in range(450)]
        for symbol in symbols:
            yahoo.add(symbol, 100.0)
        assert [record["symbol"] for record in client.quotes(symbols)] == symbols
        asked = [r.query["symbols"].split(",") for r in yahoo.requests if r.endpoint == "quote"]
        assert [len(chunk) for chunk in asked] == [200, 200, 50]

    def test_after_the_burst_one_request_goes_out_per_second(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        for _ in range(8):
            client.quotes(["AAPL"])
        assert hands.slept == pytest.approx([1.0, 1.0, 1.0])

    def test_the_bucket_fills_again_but_never_over_its_burst(self, hands):
        bucket = TokenBucket(1.0, 5, hands.wall, hands.sleep)
        hands.advance(3600)
        for _ in range(6):
            bucket.take()
        assert hands.slept == [1.0]

    def test_those_who_wait_together_are_let_go_one_by_one(self):
        slept = []
        bucket = TokenBucket(2.0, 1, lambda: 0.0, slept.append)
        for _ in range(4):
            bucket.take()
        assert slept == [0.5, 1.0, 1.5]

    def test_a_refusal_silences_the_client_a_minute_then_twice_as_long(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        yahoo.fail("rate_limit", "quote")
        silences = []
        for _ in range(6):
            with pytest.raises(RateLimited) as raised:
                client.quotes(["AAPL"])
            silences.append(raised.value.wait)
            before = len(yahoo.requests)
            hands.advance(raised.value.wait - 1)
            with pytest.raises(RateLimited, match="another 1 s"):
                client.quotes(["AAPL"])
            assert len(yahoo.requests) == before, "nothing may be sent in the silence"
            hands.advance(1)
        assert silences == [60, 120, 240, 480, 900, 900]

    def test_two_refusals_at_once_count_as_one(self, hands):
        pause = Pause(60, 900, hands.wall)
        pause.refused()
        pause.refused()
        assert pause.remaining == 60

    def test_an_answer_ends_the_doubling(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        for _ in range(2):
            yahoo.fail("rate_limit", "quote")
            with pytest.raises(RateLimited) as raised:
                client.quotes(["AAPL"])
            assert raised.value.wait == 60
            hands.advance(61)
            yahoo.recover()
            assert client.quotes(["AAPL"])

    def test_an_unknown_symbol_is_not_asked_for_again_for_an_hour(self, yahoo, client, hands):
        yahoo.add("AAPL", 271.49)
        client.quotes(["AAPL", "FOOO"])
        client.quotes(["AAPL", "FOOO"])
        with pytest.raises(SourceError, match="FOOO"):
            client.history(Instrument(0, "FOOO"), "1d")
        assert yahoo.requests[-1].query["symbols"] == "AAPL"
        assert yahoo.count("chart") == 0
        assert client.quotes(["FOOO"]) == []
        hands.advance(3601)
        client.quotes(["AAPL", "FOOO"])
        assert yahoo.requests[-1].query["symbols"] == "AAPL,FOOO"

    def test_a_chart_that_does_not_exist_is_not_asked_for_again(self, yahoo, client):
        for _ in range(2):
            with pytest.raises(SourceError):
                client.history(Instrument(0, "FOOO", calendar="XNYS"), "1d")
        assert yahoo.count("chart") == 2, "yfinance asks a second time by itself; we do not"


class TestProbe:
    def test_it_is_true_when_yahoo_answers(self, yahoo, client):
        reach = client.probe(timeout=60)
        assert reach
        assert reach.ok

    @pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "hold"])
    def test_it_is_false_with_a_reason_at_every_fault(self, yahoo, client, fault):
        yahoo.fail(fault)
        reach = client.probe(timeout=60)
        assert not reach
        assert reach.reason

    def test_it_gives_up_on_an_answer_that_does_not_come(self, yahoo, client):
        yahoo.fail("hold")
        began = time.monotonic()
        reach = client.probe(timeout=0.2)
        assert time.monotonic() - began < 5
        assert not reach
        assert reach.reason == "Yahoo did not answer within 0.2 s."

    def test_it_gives_up_on_a_look_up_that_nothing_can_interrupt(self, hands):
        answered = threading.Event()

        class Stuck(requests.Session):
            def request(self, *args, **options):
                answered.wait()
                raise requests.ConnectionError("too late")

        with YahooClient(Stuck(), clock=hands) as client:
            began = time.monotonic()
            reach = client.probe(timeout=0.1)
            assert time.monotonic() - began < 5
            answered.set()
        assert not reach


class TestInstruments:
    @pytest.mark.parametrize(
        ("exchange", "mic", "hours"),
        [
            ("NMS", "XNAS", "XNYS"), ("NYQ", "XNYS", "XNYS"), ("PCX", "ARCX", "XNYS"),
            ("NSI", "XNSE", "XBOM"),
            ("BSE", "XBOM", "XBOM"), ("LSE", "XLON", "XLON"), ("JPX", "XTKS", "XTKS"),
            ("HKG", "XHKG", "XHKG"),
            ("GER", "XETR", "XETR"), ("CME", "XCME", "CMES"), ("CCC", "", "24/7"), ("CCY", "", "24/5"),
            ("SNP", "", "XNYS"), ("???", "", "24/7"),
        ],
    )  # fmt: skip
    def test_the_exchange_s_code_gives_market_and_calendar(self, exchange, mic, hours):
        made = instrument_of({"symbol": "X", "exchange": exchange})
        assert (made.mic, made.calendar) == (mic, hours)

    def test_a_code_nobody_listed_takes_its_zone_s_hours(self):
        record = {"symbol": "X", "exchange": "???", "exchangeTimezoneName": "Asia/Kolkata"}
        assert instrument_of(record).calendar == "XBOM"

    def test_every_calendar_it_names_exists_under_that_name(self):
        names = {*_CALENDARS.values(), *_CALENDARS_BY_ZONE.values()}
        assert names <= set(exchange_calendars.get_calendar_names(include_aliases=False))

    @pytest.mark.parametrize(
        ("unit", "currency", "price_unit"),
        [("GBp", "GBP", "GBp"), ("ZAc", "ZAR", "ZAc"), ("GBP", "GBP", ""), ("INR", "INR", "")],
    )
    def test_pence_stay_pence_of_pounds(self, unit, currency, price_unit):
        made = instrument_of({"symbol": "X", "currency": unit})
        assert (made.currency, made.price_unit) == (currency, price_unit)

    def test_london_prices_are_emitted_as_quoted(self, yahoo, client):
        yahoo.add("VOD.L", 92.5)
        source = source_of(client, "VOD.L")
        assert poll(source)["ticks"]["price"].tolist() == [92.5]
        assert source.universe[0].price_unit == "GBp"

    @pytest.mark.parametrize(
        ("symbol", "hours"), [("RELIANCE.NS", "XBOM"), ("RELIANCE.BO", "XBOM"), ("0700.HK", "XHKG")]
    )
    def test_asia_trades_by_its_own_calendars(self, yahoo, client, hands, symbol, hours):
        yahoo.add(symbol, 1423.5, time=hands.set("2026-11-20 05:30"))
        source = source_of(client, symbol)
        tick = poll(source)["ticks"].iloc[0]
        assert source.universe[0].calendar == hours
        assert (tick["session"], str(tick["trading_day"])) == (1, "2026-11-20")

    @pytest.mark.parametrize(("hint", "tick"), [(2, 0.01), (4, 0.0001), (0, 1.0), (None, 0.01)])
    def test_the_price_hint_gives_the_tick_size(self, hint, tick):
        assert instrument_of({"symbol": "X", "priceHint": hint}).tick_size == pytest.approx(tick)

    @pytest.mark.parametrize(
        ("kind", "asset_class"),
        [
            ("EQUITY", "equity"),
            ("ETF", "etf"),
            ("CRYPTOCURRENCY", "crypto"),
            ("CURRENCY", "fx"),
            ("FUTURE", "future"),
        ],
    )
    def test_the_quote_type_gives_the_asset_class(self, kind, asset_class):
        assert instrument_of({"symbol": "X", "quoteType": kind}).asset_class == asset_class

    def test_sectors_are_those_of_gics_or_none(self):
        assert instrument_of({"symbol": "AAPL"}).sector == "Information Technology"
        assert instrument_of({"symbol": "X", "sector": "Healthcare"}).sector == "Health Care"
        assert instrument_of({"symbol": "X"}).sector == UNCLASSIFIED
