"""The watchlist sends what changed and nothing else, and never makes an old price look new."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from scenes import Scene
from serving import PATIENCE_S, eventually, free_port

from marketdash.instruments import Instrument, Universe
from marketdash.market import STATES, Market
from marketdash.views._numbers import Money, age_text, rounded_age
from marketdash.views.pump import Pump
from marketdash.views.watchlist import (
    DEFAULT_ROWS,
    LEVELS,
    POINTS,
    Watchlist,
    decimals,
    largest,
    line,
    nearest,
    price_unit,
    recent_closes,
)

SYMBOLS = ["AAA", "BBB", "CCC"]

Open = Callable[..., Scene]


@pytest.fixture
def scene() -> Iterator[Open]:
    scenes: list[Scene] = []

    def make(symbols: Any = SYMBOLS, **options: Any) -> Scene:
        universe = symbols if isinstance(symbols, Universe) else Universe.of(symbols)
        scenes.append(Scene(universe, **options))
        return scenes[-1]

    yield make
    for made in scenes:
        made.market.close()


def shown(market: Market, **options: Any) -> tuple[Watchlist, list[dict[str, Any]]]:
    """A watchlist whose browser has said that it is there, and the list in which its messages arrive."""
    view = Watchlist(market, **options)
    assert view.drawn is view.table
    sent: list[dict[str, Any]] = []
    assert view.table is not None
    view.table.param.watch(lambda event: sent.append(json.loads(event.new)), "delta")
    view._heard({"ready": True})
    return view, sent


def state(message: dict[str, Any]) -> list[str]:
    return [STATES[code] for code in message["cells"]["state"]]


# What is sent


def test_the_first_message_is_whole_and_agrees_with_the_frame(scene: Open) -> None:
    here = scene()
    here.days(
        pd.DataFrame(
            {"AAA": [9.0, 10.0], "BBB": [19.0, 20.0]}, index=pd.date_range("2024-02-28", periods=2, tz="UTC")
        )
    )
    here.trade({"AAA": 10.5, "BBB": 19.0}, size=300)
    _, sent = shown(here.market, symbols=["BBB", "AAA"])
    frame, cells = here.market.frame("last").loc[["BBB", "AAA"]], sent[-1]["cells"]
    assert [row[0] for row in sent[-1]["rows"]] == ["BBB", "AAA"]
    assert cells["last"] == frame["last"].round(2).tolist() == [19.0, 10.5]
    assert cells["change"] == frame["change"].round(2).tolist() == [-1.0, 0.5]
    assert cells["percent"] == frame["change_pct"].round(2).tolist() == [-5.0, 5.0]
    assert cells["volume"] == frame["volume"].tolist() == [300.0, 300.0]


def test_only_rows_and_fields_that_changed_are_sent(scene: Open) -> None:
    here = scene()
    here.trade({"AAA": 10.0, "BBB": 20.0, "CCC": 30.0})
    view, sent = shown(here.market, symbols=SYMBOLS)
    here.trade({"BBB": 20.5})
    assert view.tick()
    assert "rows" not in sent[-1]
    assert sent[-1]["seq"] == sent[-2]["seq"] + 1
    cells = sent[-1]["cells"]
    assert cells["last"] == [[1], [20.5]]
    assert cells["volume"] == [[1], [200.0]]
    assert {rows[0][0] for rows in cells.values()} == {1}
    assert not {"age", "state", "digits"} & set(cells), "the age of a new price is what it was"


def test_one_tick_is_one_change_of_the_document(scene: Open) -> None:
    from bokeh.document import Document
    from panel.io.state import set_curdoc

    here = scene()
    here.trade({"AAA": 10.0, "BBB": 20.0})
    view, document, events = Watchlist(here.market), Document(), []
    with set_curdoc(document):
        document.add_root(view.drawn.get_root(document))
        view._heard({"ready": True})
        document.on_change(events.append)
        here.clock.move(5)
        here.trade({"AAA": 11.0, "BBB": 21.0})
        view.tick()
    assert [event.attr for event in events] == ["delta"]


def test_nothing_is_sent_when_nothing_changed(scene: Open) -> None:
    here = scene()
    here.trade({"AAA": 10.0})
    view, sent = shown(here.market)
    before = len(sent)
    assert not view.tick()
    view.update()
    here.clock.move(0.3)
    here.trade({"AAA": 10.0}, size=0.0)
    view.tick()
    assert len(sent) == before


def test_a_price_grows_old_on_the_screen_though_nothing_happens(scene: Open) -> None:
    here = scene()
    here.trade({"AAA": 10.0})
    view, sent = shown(here.market, symbols=["AAA"])
    here.clock.move(3)
    assert view.tick()
    assert sent[-1]["cells"] == {"age": [[0], [3]]}


def test_a_browser_that_missed_something_is_told_everything(scene: Open) -> None:
    here = scene()
    here.trade({"AAA": 10.0})
    view, sent = shown(here.market)
    here.trade({"AAA": 11.0})
    view.tick()
    assert "rows" not in sent[-1]
    view._heard({"ready": True})
    assert sent[-1]["cells"]["last"][0] == 11.0
    view.redraw()
    view.tick()
    assert "rows" in sent[-1]


def test_before_the_browser_is_there_the_document_holds_everything(scene: Open) -> None:
    here = scene()
    view = Watchlist(here.market, symbols=["AAA"])
    assert view.drawn.delta
    here.trade({"AAA": 10.0})
    view.tick()
    assert json.loads(view.drawn.delta)["cells"]["last"] == [10.0]
    assert "rows" in json.loads(view.drawn.delta)


# Empty, full, states


def test_empty_full_and_empty_then_full(scene: Open) -> None:
    here = scene()
    view, sent = shown(here.market)
    assert sent[-1]["cells"]["last"] == [None, None, None]
    assert state(sent[-1]) == ["none"] * 3
    assert sent[-1]["cells"]["line"] == ["", "", ""]
    here.trade({"AAA": 10.0, "BBB": 20.0, "CCC": 30.0})
    view.tick()
    rows = [row[0] for row in sent[-1]["rows"]]
    assert dict(zip(rows, sent[-1]["cells"]["last"], strict=True)) == {"AAA": 10.0, "BBB": 20.0, "CCC": 30.0}


def test_a_market_without_instruments_is_an_empty_table(scene: Open) -> None:
    here = scene(Universe([]))
    view, sent = shown(here.market)
    assert sent[-1]["rows"] == []
    view.update()


def test_what_was_not_heard_of_becomes_stale(scene: Open) -> None:
    here = scene()
    here.trade({"AAA": 10.0, "BBB": 20.0})
    view, sent = shown(here.market, symbols=["AAA", "BBB"])
    assert state(sent[-1]) == ["live", "live"]
    here.clock.move(300)
    here.trade({"BBB": 20.0})
    view.tick()
    assert sent[-1]["cells"]["state"] == [[0], [STATES.index("stale")]]
    assert sent[-1]["cells"]["age"] == [[0], [300]]


def test_in_closed_hours_prices_and_caption_are_closed(scene: Open) -> None:
    here = scene(Universe.of(SYMBOLS, calendar="XNYS"), now="2024-03-01 20:59:00+00:00")
    here.trade({"AAA": 10.0})
    here.clock.move(3600 * 20)
    _, sent = shown(here.market, symbols=["AAA"])
    assert state(sent[-1]) == ["closed"]
    assert sent[-1]["caption"]["label"] == "CLOSED"


def test_the_caption_names_every_market_that_is_not_live(scene: Open) -> None:
    assert shown(scene().market)[1][-1]["caption"]["label"] == ""
    assert shown(scene(mode="simulated").market)[1][-1]["caption"]["label"] == "SIMULATED"
    here = scene()
    view, sent = shown(here.market)
    here.market.close()
    assert view.tick()
    assert sent[-1]["caption"]["state"] == "closed"


# Which rows


def universe_of_thirty() -> Universe:
    return Universe(
        Instrument(i, f"S{i:02d}", f"Company {i}", currency="USD" if i < 20 else "JPY") for i in range(30)
    )


def test_the_default_is_the_twelve_largest_by_turnover_in_the_common_currency(scene: Open) -> None:
    here = scene(universe_of_thirty())
    closes = pd.Series({f"S{i:02d}": 1.0 + (i * 7) % 30 for i in range(30)})
    here.days(pd.DataFrame([closes], index=pd.date_range("2024-02-29", periods=1, tz="UTC")))
    expected = closes[[f"S{i:02d}" for i in range(20)]].sort_values(ascending=False).index[:DEFAULT_ROWS]
    assert shown(here.market)[0].shown == expected.tolist()
    assert len(largest(here.market, Money.of(here.market.universe), 25)) == 25, "the others fill it up"


def test_the_default_does_not_change_places_with_every_trade(scene: Open) -> None:
    here = scene(universe_of_thirty())
    here.trade({f"S{i:02d}": 10.0 + i for i in range(20)})
    view, _ = shown(here.market)
    before = view.shown
    here.trade({"S00": 10.0}, size=1e9)
    view.tick()
    assert view.shown == before


def test_symbols_are_found_whatever_their_case_and_listed_once(scene: Open) -> None:
    view, _ = shown(scene().market, symbols=["bbb", "BBB", "aaa"])
    assert view.shown == ["BBB", "AAA"]


def test_symbols_can_be_added_and_removed_by_the_viewer(scene: Open) -> None:
    view, sent = shown(scene().market, symbols=["AAA"])
    view._heard({"add": " ccc "})
    assert view.symbols == ["AAA", "CCC"]
    assert [row[0] for row in sent[-1]["rows"]] == ["AAA", "CCC"]
    view._heard({"add": "AAA"})
    view._heard({"remove": "AAA"})
    assert view.symbols == ["CCC"]


def test_an_unknown_symbol_gives_a_message_with_the_nearest_names(scene: Open) -> None:
    here = scene(Universe([Instrument(0, "AAPL", "Apple Inc."), Instrument(1, "MSFT", "Microsoft")]))
    view, _ = shown(here.market, symbols=["MSFT"])
    assert view.table is not None
    view._heard({"add": "APPL"})
    told = json.loads(view.table.notice)
    assert told["text"].startswith("APPL is not in this market")
    assert told["nearest"] == [["AAPL", "Apple Inc."]]
    view._heard({"add": "APPL"})
    assert json.loads(view.table.notice)["number"] == told["number"] + 1, "the same mistake is answered again"
    view._heard({"add": "AAPL"})
    assert view.table.notice == ""
    assert nearest(here.market.universe, "microso") == [["MSFT", "Microsoft"]]


def test_an_unknown_symbol_in_the_list_is_told_and_the_others_are_shown(scene: Open) -> None:
    view, _ = shown(scene().market, symbols=["AAA", "NOPE", "BBB"])
    assert view.table is not None
    assert view.shown == ["AAA", "BBB"]
    assert "NOPE" in json.loads(view.table.notice)["text"]


@pytest.mark.parametrize(
    "said", [None, 7, "x", [], {"add": 5}, {"select": "NOPE"}, {"remove": ""}, {"add": "x" * 999}]
)
def test_whatever_the_browser_says_is_no_traceback(scene: Open, said: Any) -> None:
    view, _ = shown(scene().market, symbols=["AAA"])
    view._heard(said)
    assert view.symbols == ["AAA"]
    assert view.symbol == ""


def test_selection_goes_both_ways(scene: Open) -> None:
    view, _ = shown(scene().market, symbol="bbb")
    assert view.table is not None
    assert view.table.symbol == "BBB"
    view._heard({"select": "CCC"})
    assert view.symbol == "CCC"
    assert view.table.symbol == "CCC"
    view.symbol = "NOPE"
    assert view.table.symbol == ""


# Lines, digits, ages


def test_the_line_is_the_day_thinned_and_starts_with_the_close_before(scene: Open) -> None:
    here = scene(now="2024-03-01 00:00:30+00:00")
    prices = np.round(100 + np.cumsum(np.random.default_rng(3).normal(size=200)), 2)
    for price in prices:
        here.trade({"AAA": float(price)})
        here.clock.move(60)
    closes = recent_closes(here.market.graph.store.ring("1min"), 0, today=True)
    assert closes.tolist() == [*prices[:-1:4], prices[-1]]
    letters = line(closes, 90.0)
    heights = np.frombuffer(letters.encode(), np.uint8) - ord("0")
    values = np.array([90.0, *closes])
    expected = (values - values.min()) / np.ptp(values) * (LEVELS - 1)
    assert np.abs(heights - expected).max() <= 0.5
    assert len(closes) <= POINTS + 1
    assert not set(letters) & set('"\\/&'), "needs no escape in JSON, and closes no element in HTML"


def test_a_line_without_closes_or_without_change_can_be_drawn() -> None:
    assert line(np.array([]), 5.0) == ""
    assert len(set(line(np.array([2.0, 2.0]), math.nan))) == 1


def test_a_daily_market_shows_its_last_sixty_days(scene: Open) -> None:
    here = scene(["AAA"])
    closes = np.arange(100.0, 200.0)
    here.days(pd.DataFrame({"AAA": closes}, index=pd.date_range("2023-11-01", periods=100, tz="UTC")))
    ring = here.market.graph.store.ring("1d")
    assert recent_closes(ring, 0, today=False).tolist() == closes[-POINTS:].tolist()


@pytest.mark.parametrize(
    ("tick", "price", "digits"),
    [(0.01, 12.0, 2), (0.01, 0.0123, 4), (1.0, 5000.0, 0), (0.00001, 1.1, 5), (0.01, math.nan, 2)],
)
def test_digits_follow_the_tick_size_and_the_price(tick: float, price: float, digits: int) -> None:
    assert decimals(Instrument(0, "X", tick_size=tick), price) == digits


def test_a_price_unit_is_shown_where_it_is_not_the_plain_currency() -> None:
    assert price_unit(Instrument(0, "VOD", currency="GBP", price_unit="GBp"), True) == "GBp"
    assert price_unit(Instrument(0, "AAPL", currency="USD"), False) == ""
    assert price_unit(Instrument(0, "AAPL", currency="USD", price_unit="USD"), False) == ""
    assert price_unit(Instrument(0, "AAPL", currency="USD"), True) == "USD"


def test_ages_are_told_in_one_unit() -> None:
    seconds = [-1e-6, 0, 3.9, 59, 60, 185, 3599, 3600, 86_399, 86_400, 9 * 86_400]
    rounded = rounded_age((np.array(seconds) * 1e6).astype(np.int64))
    assert rounded.tolist() == [-1, 0, 3, 59, 60, 180, 3540, 3600, 82_800, 86_400, 777_600]
    assert [age_text(s).replace("\xa0", " ") for s in rounded.tolist()] == [
        "–", "0 s", "3 s", "59 s", "1 min", "3 min", "59 min", "1 h", "23 h", "1 d", "9 d",
    ]  # fmt: skip


# In a browser


@pytest.fixture
def page_url() -> Iterator[tuple[str, dict[str, Any]]]:
    """A served watchlist, and what the page is made of."""
    made: dict[str, Any] = {}

    def page() -> Any:
        scene = made["scene"] = Scene(
            Universe([Instrument(i, s, f"The {s} Company") for i, s in enumerate(SYMBOLS)])
        )
        scene.trade({"AAA": 10.0, "BBB": 20.0, "CCC": 30.0})
        view = made["view"] = Watchlist(scene.market)
        pump = made["pump"] = Pump([view], hz=20)
        pump.start(pn.state.curdoc)
        return view.drawn

    port = free_port()
    server = pn.serve(page, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
    yield f"http://127.0.0.1:{port}/", made
    server.stop()
    server.join(10)
    if "scene" in made:
        made["scene"].market.close()


def test_rows_paint_select_and_change_in_a_browser(
    chromium: Any, page_url: tuple[str, dict[str, Any]]
) -> None:
    url, made = page_url
    page = chromium.new_page(viewport={"width": 900, "height": 600})
    page.set_default_timeout(PATIENCE_S * 1000)
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if not _is_local(asked.url) else None)
    page.goto(url)
    row = page.locator("tr[data-symbol=BBB]")
    labels = page.locator("tbody .label")
    row.wait_for()
    eventually(lambda: row.locator(".last").inner_text() == "20.00", what="the price")
    row.click()
    eventually(lambda: made["view"].symbol == "BBB", what="the click arrives")
    eventually(lambda: row.get_attribute("aria-selected") == "true", what="the row is marked")
    made["scene"].trade({"BBB": 21.0})
    page.locator("tr[data-symbol=BBB] .last", has_text="21.00").wait_for()
    page.locator("th.last button").click()
    eventually(lambda: labels.all_inner_texts() == ["CCC", "BBB", "AAA"], what="sorted by price")
    page.get_by_role("combobox").fill("the b")
    page.get_by_role("option", name="The BBB Company").wait_for()
    page.get_by_role("combobox").fill("zzz")
    page.get_by_role("combobox").press("Enter")
    page.get_by_text("zzz is not in this market").wait_for()
    page.locator("tr[data-symbol=AAA]").press("Delete")
    eventually(lambda: labels.all_inner_texts() == ["CCC", "BBB"], what="the row leaves")
    page.set_viewport_size({"width": 390, "height": 700})
    page.locator("td.volume").first.wait_for(state="hidden")
    assert not complaints
    page.close()


def _is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))
