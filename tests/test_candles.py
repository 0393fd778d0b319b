"""The candle chart shows the market's bars, sends only what changed, and stays where its reader moved it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnsPatchedEvent, ColumnsStreamedEvent, DocumentPatchedEvent
from bokeh.models import Line, Scatter, Segment, Text, VArea
from serving import PATIENCE_S, eventually, free_port

import marketdash as md
from marketdash.clock import to_us
from marketdash.errors import IndicatorError, UnknownNameError
from marketdash.frames import Bars
from marketdash.indicators import INDICATORS, BarHistory, indicator, parse
from marketdash.instruments import Universe
from marketdash.market import Market
from marketdash.schema import Event
from marketdash.sources.base import BaseSource
from marketdash.views._candle_readings import series_of
from marketdash.views._candle_rows import ROWS, bar_columns, local_ms
from marketdash.views.base import VIEWS
from marketdash.views.candles import Candles
from marketdash.views.pump import Pump

FRIDAY = "2024-03-01 15:00:00+00:00"


class Hand:
    """A clock that only a test moves."""

    def __init__(self, now: str) -> None:
        self.us = to_us(pd.Timestamp(now))

    def now_us(self) -> int:
        return self.us

    def now(self) -> pd.Timestamp:
        return pd.Timestamp(self.us, unit="us", tz="UTC")


class Silent(BaseSource):
    """A source that says nothing by itself: the test feeds its market."""

    name, stall_after, slow_history, cadence = "silent", None, False, 10.0

    async def batches(self) -> AsyncIterator[Event]:
        await asyncio.Event().wait()
        yield "ticks", None  # type: ignore[misc]


class Scene:
    """A market of two instruments under a test's hand."""

    def __init__(self, now: str = FRIDAY, **common: Any) -> None:
        self.clock = Hand(now)
        self.market = Market(Silent(Universe.of(["AAA", "BBB"], **common), clock=self.clock)).start()

    def trade(
        self, *prices: float, every: float = 60.0, symbol: str = "AAA", size: float | None = 1.0
    ) -> None:
        """One print per price, the first one now and the others `every` so many seconds."""
        start, step = self.clock.us, int(every * 1e6)
        times = start + step * np.arange(len(prices))
        rows = {
            "instrument_id": np.full(len(prices), self.market.universe.id(symbol)),
            "time": pd.DatetimeIndex(times.astype("M8[us]"), tz="UTC"),
            "price": np.array(prices, float),
        }
        if size is not None:
            rows["size"] = np.full(len(prices), size)
        self.clock.us = int(times[-1])
        self.market.feed("ticks", pd.DataFrame(rows))

    def later(self, seconds: float) -> None:
        self.clock.us += int(seconds * 1e6)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.market.close()


class Screen:
    """A chart in a document, and what has happened there since one last asked."""

    def __init__(self, market: Market, **choices: Any) -> None:
        self.view = Candles(market, **({"symbol": "AAA", "width": "1min"} | choices))
        self.document = Document()
        self.document.add_root(self.view.drawn.get_root(self.document))
        self._events: list[Any] = []
        self.document.on_change(self._events.append)

    def tick(self) -> list[str]:
        self._events.clear()
        self.view.tick()
        return [type(event).__name__ for event in self._events if isinstance(event, DocumentPatchedEvent)]

    @property
    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        return {name: np.asarray(values) for name, values in self.view.rows.source.data.items()}

    @property
    def panes(self) -> list[Any]:
        return list(self.view.chart.layout.children[1:])


def walk(count: int, seed: int = 1) -> list[float]:
    steps = np.random.default_rng(seed).integers(-20, 21, count) / 100
    return (100 + steps.cumsum()).round(2).tolist()


def check_bars(columns: dict[str, Any], bars: Bars) -> None:
    np.testing.assert_array_equal(columns["i"], bars.number + np.arange(len(bars)))
    for name, field in {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}.items():
        np.testing.assert_array_equal(columns[name], getattr(bars, field))
    np.testing.assert_array_equal(columns["up"], bars.close >= bars.open)


# Drawing


def test_it_comes_in_through_the_door_of_views() -> None:
    assert VIEWS.get("candles") is Candles


def test_an_empty_market_draws_and_then_fills(scene: Scene) -> None:
    screen = Screen(scene.market, indicators=["SMA(3)", "RSI(3)"])
    assert len(screen.columns["i"]) == 0
    scene.trade(*walk(50))
    assert screen.tick().count("ColumnDataChangedEvent") == 1
    check_bars(screen.columns, scene.market.bars("AAA", "1min"))
    assert np.isfinite(screen.columns["r0_0"][2:]).all()


def test_one_bar_is_a_chart(scene: Scene) -> None:
    scene.trade(100.0)
    screen = Screen(scene.market)
    check_bars(screen.columns, scene.market.bars("AAA", "1min"))
    assert np.isnan(screen.columns["b"]).all()


def test_a_market_without_instruments_draws() -> None:
    with Market(Silent(Universe([]), clock=Hand(FRIDAY))) as market:
        screen = Screen(market.start(), symbol="", width="")
        assert len(screen.columns["i"]) == 0
        assert screen.tick() == []


def test_the_browser_holds_the_newest_thousand_bars_under_their_own_numbers(scene: Scene) -> None:
    scene.trade(*walk(1500))
    screen = Screen(scene.market)
    assert screen.columns["i"].tolist() == list(range(500, 1500))
    check_bars(screen.columns, scene.market.bars("AAA", "1min", ROWS))
    window = screen.view.chart.range
    assert window.start < 1499 < window.end < 1520, "the newest bar is at the right end"


def test_prices_without_volume_draw(scene: Scene) -> None:
    scene.trade(*walk(20), size=None)
    bars = scene.market.bars("AAA", "1min")
    assert np.isnan(bars.vwap).all()
    screen = Screen(scene.market, indicators=["day_vwap", "OBV"])
    check_bars(screen.columns, bars)


# Moving


def test_a_trade_in_the_forming_bar_is_one_small_patch(scene: Scene) -> None:
    scene.trade(*walk(30), 100.0, every=60)
    screen = Screen(scene.market, indicators=["SMA(5)"])
    scene.later(1)
    scene.trade(101.0)
    assert screen.columns["up"][-1] == 1.0
    assert screen.tick() == ["ColumnsPatchedEvent"]
    event = screen._events[0]
    assert isinstance(event, ColumnsPatchedEvent)
    assert set(event.patches) == {"h", "c", "v", "r0_0"}, "what stayed is not sent"
    scene.later(1)
    scene.trade(99.0)
    screen.tick()
    assert screen.columns["up"][-1] == 0.0, "the bar turns"
    check_bars(screen.columns, scene.market.bars("AAA", "1min"))


def test_new_bars_are_streamed_after_the_last_word_on_the_old_one(scene: Scene) -> None:
    scene.trade(*walk(30))
    screen = Screen(scene.market)
    scene.later(10)
    scene.trade(98.0, 97.0, 96.0)
    assert screen.tick() == ["ColumnsPatchedEvent", "ColumnsStreamedEvent"]
    event = screen._events[1]
    assert isinstance(event, ColumnsStreamedEvent)
    assert event.rollover == ROWS
    assert isinstance(event.data["c"], list), "few rows are sent as lists"
    check_bars(screen.columns, scene.market.bars("AAA", "1min"))


def test_the_oldest_bars_make_room(scene: Scene) -> None:
    scene.trade(*walk(ROWS))
    screen = Screen(scene.market)
    scene.later(60)
    scene.trade(*walk(7))
    screen.tick()
    assert screen.columns["i"].tolist() == list(range(7, ROWS + 7))
    check_bars(screen.columns, scene.market.bars("AAA", "1min", ROWS))


def test_what_concerns_others_is_not_sent(scene: Scene) -> None:
    scene.trade(*walk(30))
    screen = Screen(scene.market)
    scene.trade(50.0, symbol="BBB")
    assert screen.tick() == []


def test_a_late_print_corrects_an_older_bar(scene: Scene) -> None:
    scene.trade(*walk(30), every=1)
    screen = Screen(scene.market, width="1s")
    before = screen.columns["h"][-3]
    scene.later(-2)
    scene.trade(higher := round(before * 1.04, 2))
    scene.later(2)
    assert screen.tick() == ["ColumnsPatchedEvent"]
    assert screen.columns["h"][-3] == higher != before
    check_bars(screen.columns, scene.market.bars("AAA", "1s"))


@pytest.mark.parametrize(
    "text", ["SMA(7)", "RSI(5)", "MACD(3,6,4)", "BBANDS(5)", "OBV", "CDLDOJI", "zscore(9)"]
)
def test_a_chart_that_has_followed_shows_what_one_drawn_now_shows(scene: Scene, text: str) -> None:
    scene.trade(*walk(400), every=17)
    screen = Screen(scene.market, indicators=[text])
    for seed in range(2, 12):
        scene.later(17)
        scene.trade(*walk(9, seed), every=17)
        screen.view.readings._free_at = 0.0
        screen.tick()
    fresh = Screen(scene.market, indicators=[text]).columns
    assert np.isfinite(fresh["r0_0"]).any(), "nothing to compare"
    assert screen.columns.keys() == fresh.keys()
    for name, values in fresh.items():
        np.testing.assert_allclose(screen.columns[name], values, rtol=1e-5, err_msg=name)


def test_costly_readings_wait_but_are_not_forgotten(scene: Scene) -> None:
    scene.trade(*walk(30), 100.0)
    screen = Screen(scene.market, indicators=["SMA(5)"])
    drawn = screen.columns["r0_0"][-1]
    screen.view.readings._free_at = float("inf")
    scene.later(1)
    scene.trade(104.0)
    screen.tick()
    assert (screen.columns["c"][-1], screen.columns["r0_0"][-1]) == (104.0, drawn)
    assert screen.tick() == []
    screen.view.readings._free_at = 0.0
    assert screen.tick() == ["ColumnsPatchedEvent"], "though the market has not moved"
    assert screen.columns["r0_0"][-1] == pytest.approx(screen.columns["c"][-5:].mean())


def test_after_a_jump_all_is_drawn_anew() -> None:
    with md.open("replay:us-2018-11-minute", start="2018-11-16 11:00") as market:
        market.clock.pause()
        screen = Screen(market, symbol="NVDA", width="5min", indicators=["SMA(20)"])
        for when in ("2018-11-14 10:00", "2018-11-20 12:00"):
            market.clock.seek(when)
            assert "ColumnsStreamedEvent" not in screen.tick()
            check_bars(screen.columns, market.bars("NVDA", "5min", ROWS))
            assert str(market.epoch) in screen.view.rows.source.tags[0]["key"]


# Choosing


def test_unknown_names_are_refused_with_the_nearest_and_the_choice_stays(scene: Scene) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean AAA"):
        Candles(scene.market, symbol="AAAA")
    with pytest.raises(UnknownNameError) as caught:
        Candles(scene.market, symbol="AAA", width="10min")
    assert "1min" in caught.value.nearest
    with pytest.raises(UnknownNameError, match="Did you mean"):
        Candles(scene.market, symbol="AAA", indicators=["SMAA(20)"])
    with pytest.raises(IndicatorError):
        Candles(scene.market, symbol="AAA", indicators=["SMA(0)"])
    screen = Screen(scene.market, indicators=["SMA(20)"])
    for name, bad in (("symbol", "ZZZ"), ("width", "7min"), ("indicators", ["SMA(20)", "none"])):
        good = getattr(screen.view, name)
        with pytest.raises(UnknownNameError):
            setattr(screen.view, name, bad)
        assert getattr(screen.view, name) == good
    assert screen.view.head.widths.value == "1min"


def test_names_are_completed_as_the_market_writes_them(scene: Scene) -> None:
    view = Candles(scene.market, symbol="bbb", indicators=["macd", "MACD(12, 26, 9)"])
    assert (view.symbol, view.width, view.indicators) == (
        "BBB",
        scene.market.default_width,
        ["MACD(12,26,9)"],
    )


def test_another_symbol_or_width_replaces_the_bars(scene: Scene) -> None:
    scene.trade(*walk(100))
    scene.trade(*walk(10, 2), symbol="BBB")
    screen = Screen(scene.market, indicators=["SMA(5)"])
    screen.view.symbol = "BBB"
    screen.tick()
    check_bars(screen.columns, scene.market.bars("BBB", "1min"))
    screen.view.width = "5min"
    screen.tick()
    check_bars(screen.columns, scene.market.bars("BBB", "5min"))
    assert screen.view.head.widths.value == "5min"
    assert "BBB" in screen.view.head.about.object


def test_choices_leave_no_models_behind(scene: Scene) -> None:
    scene.trade(*walk(100))
    screen = Screen(scene.market)
    before = len(screen.document.models)
    for width in ("5min", "1min"):
        screen.view.indicators = ["SMA(20)", "BBANDS(20)", "RSI(14)", "MACD", "CDLDOJI"]
        screen.tick()
        assert len(screen.document.models) > before + 50
        screen.view.param.update(indicators=[], symbol="BBB", width=width)
        screen.tick()
        assert len(screen.document.models) == before


def test_prices_carry_overlays_and_the_rest_has_panes_of_its_own(scene: Scene) -> None:
    scene.trade(*walk(100))
    names = ["SMA(20)", "BBANDS(20)", "RSI(14)", "MACD(12,26,9)", "SAR", "CDLDOJI", "SUPERTREND(10)"]
    screen = Screen(scene.market, indicators=names)
    assert [pane.name for pane in screen.panes] == ["price", "volume", "RSI(14)", "MACD(12,26,9)"]
    price, _, rsi, macd = screen.panes
    glyphs = [renderer.glyph for renderer in price.renderers]
    lines = [glyph for glyph in glyphs if isinstance(glyph, Line)]
    assert len(lines) == 1 + 3 + 1, "the state of SUPERTREND is no price"
    assert len([g for g in glyphs if isinstance(g, VArea)]) == 1, "the band is filled"
    assert len([g for g in glyphs if isinstance(g, Scatter)]) == 1
    assert len([g for g in glyphs if isinstance(g, Text)]) == 2, "marks stand above and below"
    assert [pane.xaxis[0].visible for pane in screen.panes] == [False, False, False, True]
    assert rsi.yaxis[0].ticker.ticks == [30, 70]
    dashes = [r.glyph.line_dash for r in macd.renderers if isinstance(r.glyph, Line)]
    assert dashes == [[], [4, 3]], "the signal is dashed"
    assert len([r for r in macd.renderers if isinstance(r.glyph, Segment) and r.name == "bar"]) == 1
    assert {pane.x_range for pane in screen.panes} == {screen.view.chart.range}


def test_the_limits_of_a_band_share_its_colour_and_signals_have_their_own() -> None:
    band = series_of([parse("BBANDS(20)")])
    assert len({item.colour for item in band}) == 1
    main, signal, histogram = series_of([parse("MACD")])
    assert len({main.colour, signal.colour, histogram.colour}) == 3


def test_an_indicator_that_compares_instruments_sees_them_all(scene: Scene) -> None:
    for first, second in zip(walk(30), walk(30, 2), strict=True):
        scene.trade(first)
        scene.trade(second, symbol="BBB")
        scene.later(60)
    screen = Screen(scene.market, indicators=["relative_strength(5)"])
    history = scene.market.history("1min")
    expected = parse("relative_strength(5)").compute(history)["value"][:, 0]
    np.testing.assert_allclose(screen.columns["r0_0"], expected)


def test_an_indicator_that_fails_is_named_and_the_others_go_on(scene: Scene) -> None:
    @indicator("broken_for_test")
    def broken(bars: BarHistory) -> Any:
        raise RuntimeError("no luck <b>")

    try:
        scene.trade(*walk(30))
        screen = Screen(scene.market, indicators=["broken_for_test", "SMA(5)"])
        assert np.isnan(screen.columns["r0_0"]).all()
        assert np.isfinite(screen.columns["r1_0"][4:]).all()
        note = screen.view.head.note
        assert note.visible
        assert "no luck &lt;b&gt;" in note.object
    finally:
        INDICATORS.remove("broken_for_test")


def test_the_chooser_adds_what_is_typed_and_tells_what_it_cannot(scene: Scene) -> None:
    scene.trade(*walk(30))
    screen = Screen(scene.market)
    head = screen.view.head
    head.chooser.value = "ema(50)"
    assert screen.view.indicators == ["EMA(50)"]
    assert head.chooser.value == ""
    head.chooser.value = "EMAA(50)"
    assert screen.view.indicators == ["EMA(50)"]
    assert head.note.visible
    assert "EMA" in head.note.object
    head.chooser.value = "RSI"
    assert screen.view.indicators == ["EMA(50)", "RSI(14)"]
    assert not head.note.visible
    screen.view._remove("EMA(50)")
    screen.tick()
    assert [pane.name for pane in screen.panes] == ["price", "volume", "RSI(14)"]


def test_the_state_of_the_price_is_told_when_it_is_not_live() -> None:
    scene = Scene("2024-03-01 15:00:00+00:00", calendar="XNYS")
    try:
        scene.trade(100.0)
        screen = Screen(scene.market)
        eventually(lambda: scene.market.status.state == "running", what="running")
        screen.view.head.look("AAA", now=True)
        assert "stale" not in screen.view.head.about.object
        scene.later(600)
        screen.view.head.look("AAA", now=True)
        assert ">stale<" in screen.view.head.about.object
        scene.clock.us = to_us("2024-03-02 15:00", "UTC")
        screen.view.head.look("AAA", now=True)
        assert "CLOSED" in screen.view.head.about.object
    finally:
        scene.market.close()


# Times


def bars_at(times: Any, days: list[str]) -> Bars:
    us = pd.DatetimeIndex(times).tz_convert("UTC").as_unit("us").asi8
    count, zero = np.zeros(len(us), np.int64), np.ones(len(us))
    day = pd.DatetimeIndex(days).as_unit("s").asi8 // 86_400
    prices = (zero,) * 6
    return Bars(40, us, us, us, *prices, count, count, count, day, count)


def shown(ms: Any) -> list[str]:
    return [f"{pd.Timestamp(value, unit='ms'):%a %d %b %H:%M}" for value in ms]


def test_nights_and_weekends_take_no_place_and_times_are_the_exchanges() -> None:
    with md.open("replay:us-2018-11-minute", start="2018-11-19 10:30") as market:
        market.clock.pause()
        columns = Screen(market, symbol="NVDA", width="1h").columns
    np.testing.assert_array_equal(np.diff(columns["i"]), 1.0)
    times = shown(columns["t"])
    monday = next(k for k, text in enumerate(times) if text.startswith("Mon 19"))
    assert times[monday - 1].startswith("Fri 16 Nov 15:")
    assert times[monday].startswith("Mon 19 Nov 09:")
    breaks = columns["b"][np.isfinite(columns["b"])]
    assert columns["i"][monday] - 0.5 == breaks[-1]
    assert [times[int(place + 0.5 - columns["i"][0])][:6] for place in breaks] == [
        "Tue 13", "Wed 14", "Thu 15", "Fri 16", "Mon 19",
    ]  # fmt: skip


def test_a_change_of_the_clock_shows_as_on_the_exchanges_wall() -> None:
    times = ["2018-11-02 15:59", "2018-11-05 09:30"]
    bars = bars_at(pd.DatetimeIndex(times, tz="America/New_York"), ["2018-11-02", "2018-11-05"])
    assert np.diff(bars.time)[0] / 3.6e9 == 24 * 3 - 6.5 + 1 + 1 / 60, "an hour more has passed"
    columns = bar_columns(bars, "1min", "America/New_York")
    assert shown(columns["t"]) == ["Fri 02 Nov 15:59", "Mon 05 Nov 09:30"]
    assert columns["i"].tolist() == [40.0, 41.0]
    night = pd.date_range("2018-11-04 05:30", periods=3, freq="1h", tz="UTC").as_unit("us").asi8
    assert shown(local_ms(night, "America/New_York")) == [
        "Sun 04 Nov 01:30", "Sun 04 Nov 01:30", "Sun 04 Nov 02:30",
    ]  # fmt: skip


def test_a_trading_day_that_begins_in_the_evening_is_the_next_date() -> None:
    times = pd.DatetimeIndex(["2013-09-03 15:10", "2013-09-03 17:00"], tz="America/Chicago")
    columns = bar_columns(bars_at(times, ["2013-09-03", "2013-09-04"]), "5min", "America/Chicago")
    assert np.isfinite(columns["b"]).tolist() == [False, True]
    assert shown(columns["d"] * 864e5) == ["Tue 03 Sep 00:00", "Wed 04 Sep 00:00"]


def test_daily_bars_are_cut_by_months() -> None:
    days = ["2010-04-29", "2010-04-30", "2010-05-03", "2010-05-04", "2010-06-01"]
    columns = bar_columns(
        bars_at(pd.DatetimeIndex(days, tz="America/New_York"), days), "1d", "America/New_York"
    )
    assert np.isfinite(columns["b"]).tolist() == [False, False, True, False, True]


# In a browser

STATE = """() => {
  const find = (name) => Bokeh.documents[0].get_model_by_name(name)
  const [range, source, price, volume] = ["window", "bars", "price", "volume"].map(find)
  const axis = volume.below[0]
  const ticks = axis.ticker.get_ticks(range.start, range.end, range, 0).major
  const view = Bokeh.index.find_one(find("readout"))
  return {
    start: range.start, end: range.end, newest: source.data.i[source.data.i.length - 1] ?? null,
    low: price.y_range.start, high: price.y_range.end, close: source.data.c[source.data.c.length - 1],
    labels: axis.formatter.doFormat(ticks, {loc: 0}), tag: find("last").text, seen: find("last").text_alpha,
    readout: view?.markup_el?.textContent, empty: find("empty").visible,
  }
}"""


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """A served chart, and what its page is made of."""
    made: dict[str, Any] = {}

    def page() -> Any:
        scene = made["scene"] = Scene("2024-03-01 14:30:00+00:00", calendar="XNYS")
        view = made["view"] = Candles(
            scene.market, symbol="AAA", width="1min", indicators=["SMA(5)", "RSI(5)"]
        )
        pump = made["pump"] = Pump([view], hz=20)
        document = pn.state.curdoc
        pn.state.onload(lambda: pump.start(document))
        return view.drawn

    port = free_port()
    server = pn.serve(page, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
    yield f"http://127.0.0.1:{port}/", made
    server.stop()
    server.join(10)
    if "scene" in made:
        made["scene"].market.close()


def test_it_paints_follows_and_stays_in_a_browser(chromium: Any, served: tuple[str, dict[str, Any]]) -> None:
    url, made = served
    page = chromium.new_page(viewport={"width": 1000, "height": 700})
    page.set_default_timeout(PATIENCE_S * 1000)
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if not _is_local(asked.url) else None)
    page.goto(url)
    page.locator(".MuiToggleButton-root").first.wait_for()

    def state() -> dict[str, Any]:
        return dict(page.evaluate(STATE))

    # Models come first and paint follows; of one change, too, some parts are drawn before others.
    def picture() -> bytes:
        """Of the page once it rests."""
        return bytes(
            eventually(lambda: (seen := page.screenshot()) == page.screenshot() and seen, what="rest")
        )

    eventually(lambda: made["pump"].ticks and state()["empty"], what="the page is there")
    nothing = picture()

    def filled() -> dict[str, Any]:
        s = state()
        assert s["newest"] == 299
        assert s["low"] > 50
        assert s["start"] < 200 < 299 < s["end"]
        assert s["low"] < s["close"] < s["high"], "the scale fits the first bars"
        assert s["tag"] == f"{s['close']:.2f}"
        assert s["seen"] == 1
        assert not s["empty"]
        assert {"13:00", "14:00"} <= set(s["labels"]), "the exchange's time, at round times"
        assert "SMA(5)" in (s["readout"] or "")
        return s

    scene = made["scene"]
    scene.trade(*walk(300))
    full = eventually(filled, what="the bars are drawn")
    eventually(lambda: page.screenshot() != nothing, what="they are painted")
    painted = picture()

    def followed() -> dict[str, Any]:
        s = state()
        assert s["newest"] == 300
        assert s["high"] > higher
        assert s["end"] - full["end"] == 1, "the window follows"
        assert s["tag"] == f"{higher:.2f}"
        return s

    higher = round(full["close"] * 1.04, 2)
    scene.later(60)
    scene.trade(higher)
    moved = eventually(followed, what="the bar comes")
    eventually(lambda: page.screenshot() != painted, what="it is painted")

    box = page.locator(".bk-Figure").first.bounding_box()
    x, y = box["x"] + 300, box["y"] + 100
    page.mouse.move(x, y)
    eventually(lambda: state()["readout"] != moved["readout"], what="the readout follows the pointer")
    page.mouse.down()
    page.mouse.move(x + 400, y, steps=8)
    page.mouse.up()
    eventually(lambda: state()["end"] < 290, what="the hand moves the window")
    picture()  # the hand's last move is drawn
    panned = state()
    scene.later(60)
    scene.trade(higher + 1)
    eventually(
        lambda: (s := state())["newest"] == 301 and s["tag"] == f"{higher + 1:.2f}", what="another bar comes"
    )
    picture()
    assert state()["end"] == panned["end"], "a window that was moved away stays"
    page.get_by_role("button").last.click()
    eventually(lambda: state()["end"] > 301, what="the button leads to the newest bar")

    page.get_by_text("5min", exact=True).click()
    eventually(
        lambda: (s := state())["newest"] == 60 and s["end"] > 60 and s["start"] < 0,
        what="bars of 5 minutes, which are few, at the right end",
    )
    chooser = page.get_by_placeholder("Add indicator")
    chooser.fill("nonsense")
    chooser.press("Enter")
    page.get_by_text("Unknown indicator").wait_for()
    assert not made["pump"].errors
    assert not complaints
    page.close()


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))
