"""The treemap: tiles are fair, colours are sane, and a tick sends nothing but what changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.document import Document
from bokeh.document.events import ColumnDataChangedEvent, ColumnsPatchedEvent
from bokeh.events import Tap
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import Scene
from serving import PATIENCE_S, eventually, free_port

from marketdash.instruments import Instrument, Universe
from marketdash.market import open_market
from marketdash.market.state import STALE
from marketdash.views import theme, treemap
from marketdash.views._mosaic import SMALLEST, labels, shortened
from marketdash.views.pump import Pump
from marketdash.views.squarify import BOTTOM, LEFT, RIGHT, TOP, nested, squarify
from marketdash.views.treemap import Treemap, areas, average_turnover

MORNING = "2024-03-01 10:00:00-05:00"
"""A Friday in New York, half an hour after the open."""

Open = Callable[..., Scene]

sizes = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), max_size=60)
sides = st.floats(10.0, 2000.0)


@pytest.fixture
def scene() -> Iterator[Open]:
    scenes: list[Scene] = []

    def make(universe: Universe, **options: Any) -> Scene:
        scenes.append(Scene(universe, **({"now": MORNING} | options)))
        return scenes[-1]

    yield make
    for made in scenes:
        made.market.close()


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests move the market's clock; the least time between two looks is the wall's.
    monkeypatch.setattr(treemap, "LOOK_S", 0.0)


def universe(*sectors: str, **common: Any) -> Universe:
    """One instrument by sector name given: S0, S1 …"""
    common = {"calendar": "XNYS"} | common
    return Universe(Instrument(i, f"S{i}", name=f"No {i}", sector=s, **common) for i, s in enumerate(sectors))


def yesterday(scene: Scene, volumes: dict[str, float], close: float = 100.0) -> None:
    """A daily bar of the day before for each symbol, with this volume."""
    frame = pd.DataFrame(
        {"time": pd.Timestamp("2024-02-29 09:30", tz="America/New_York"), "width": "1d"},
        index=range(len(volumes)),
    )
    frame["known_at"] = pd.Timestamp("2024-02-29 16:00", tz="America/New_York")
    for name in ("open", "high", "low", "close"):
        frame[name] = close
    frame["volume"] = list(volumes.values())
    frame["instrument_id"] = scene.market.universe.ids(volumes)
    scene.market.feed("bars", frame)


def drawn(market: Any, **options: Any) -> tuple[Treemap, list[Any]]:
    """A treemap in a document, and the list in which the document's events arrive."""
    view = Treemap(market, **options)
    document = Document()
    document.add_root(view.drawn.get_root())
    events: list[Any] = []
    document.on_change(events.append)
    return view, events


def change(view: Treemap, symbol: str) -> float:
    return float(view.mosaic.tiles.data["change"][view.shown.index(symbol)])


# Geometry


@settings(deadline=None)
@given(sizes, sides, sides)
def test_areas_are_proportional_and_nothing_is_lost(sizes: list[float], width: float, height: float) -> None:
    tiles = squarify(sizes, 3.0, 5.0, width, height)
    wanted = np.array(sizes, float)
    kept = wanted > 0
    assert np.isnan(tiles[~kept]).all()
    assert np.isfinite(tiles[kept]).all()
    found = (tiles[kept, RIGHT] - tiles[kept, LEFT]) * (tiles[kept, BOTTOM] - tiles[kept, TOP])
    if kept.any():
        np.testing.assert_allclose(found / (width * height), wanted[kept] / wanted.sum(), rtol=0, atol=1e-9)


@settings(deadline=None)
@given(sizes, sides, sides)
def test_tiles_lie_inside_and_do_not_overlap(sizes: list[float], width: float, height: float) -> None:
    tiles = squarify(sizes, 3.0, 5.0, width, height)
    tiles = tiles[np.isfinite(tiles[:, LEFT])]
    assert (tiles[:, LEFT] >= 3).all()
    assert (tiles[:, TOP] >= 5).all()
    assert (tiles[:, RIGHT] <= 3 + width + 1e-9).all()
    assert (tiles[:, BOTTOM] <= 5 + height + 1e-9).all()
    shared_x = np.minimum.outer(tiles[:, RIGHT], tiles[:, RIGHT]) - np.maximum.outer(
        tiles[:, LEFT], tiles[:, LEFT]
    )
    shared_y = np.minimum.outer(tiles[:, BOTTOM], tiles[:, BOTTOM]) - np.maximum.outer(
        tiles[:, TOP], tiles[:, TOP]
    )
    shared = np.clip(shared_x, 0, None) * np.clip(shared_y, 0, None)
    np.fill_diagonal(shared, 0)
    assert shared.max(initial=0) <= 1e-9 * width * height


@settings(deadline=None)
@given(sizes, st.randoms())
def test_the_same_sizes_give_the_same_tiles_in_any_order(sizes: list[float], random: Any) -> None:
    order = list(range(len(sizes)))
    random.shuffle(order)
    once, again = squarify(sizes, 0, 0, 860, 560), squarify(sizes, 0, 0, 860, 560)
    np.testing.assert_array_equal(once, again)
    shuffled = squarify([sizes[i] for i in order], 0, 0, 860, 560)
    np.testing.assert_allclose(np.sort(shuffled, axis=0), np.sort(once, axis=0), atol=1e-6)


def test_tiles_are_nearly_square() -> None:
    tiles = squarify(np.random.default_rng(1).pareto(1.2, 500), 0, 0, 860, 560)
    width, height = tiles[:, RIGHT] - tiles[:, LEFT], tiles[:, BOTTOM] - tiles[:, TOP]
    assert np.median(np.maximum(width / height, height / width)) < 1.3


def test_extreme_sizes_stay_finite() -> None:
    for hard in ([1e-300, 1e300, 1.0], [1e-18] * 50 + [1.0], [math.inf, 1.0], [math.nan, -1.0], []):
        tiles = squarify(hard, 0, 0, 100, 50)
        assert len(tiles) == len(hard)
        assert not np.isinf(tiles).any()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 4)), min_size=1, max_size=80))
def test_tiles_lie_in_their_group_below_its_heading(rows: list[tuple[float, int]]) -> None:
    group = np.array([number for _, number in rows])
    frames, tiles = nested([size for size, _ in rows], group, 860, 560, strip=18, gap=4)
    roomy = np.nonzero((frames[:, RIGHT] - frames[:, LEFT] > 0) & (frames[:, BOTTOM] - frames[:, TOP] > 0))[0]
    for frame, tile in zip(frames[group], tiles, strict=True):
        if np.isfinite(tile).all():
            assert (tile[:2] >= frame[:2] - 1e-6).all()
            assert (tile[2:] <= frame[2:] + 1e-6).all()
    assert len(roomy) >= 1


def test_text_fits_its_tile_or_is_left_out() -> None:
    tiles = squarify(np.random.default_rng(2).pareto(1.1, 300), 0, 0, 360, 560)
    symbols = [f"SYM{i}" for i in range(300)]
    shown, columns = labels(symbols, tiles)
    assert 10 < len(shown) < 300
    pixels = np.array([float(size[:-2]) for size in columns["size"]])
    assert (pixels >= SMALLEST).all()
    width = tiles[shown, RIGHT] - tiles[shown, LEFT]
    assert (pixels * 0.7 * np.array([len(symbol) for symbol in columns["symbol"]]) <= width).all()


def test_long_names_give_way() -> None:
    assert shortened("Energy", 20) == "Energy"
    assert shortened("Telecommunications Services", 14) == "Tele. Services"
    assert len(shortened("Telecommunications Services", 9)) <= 9


# What is shown


def test_areas_follow_turnover_within_one_currency_only() -> None:
    turnover = np.array([30.0, 10.0, 5e6, 5e6, np.nan])
    currency = np.array(["USD", "USD", "JPY", "JPY", "JPY"])
    found = areas(turnover, np.array([True] * 5), currency)
    assert found[0] == pytest.approx(3 * found[1])
    assert found[2] == found[3]
    assert found[:2].sum() == pytest.approx(2 / 5, rel=0.05)
    assert 0 < found[4] < found[3]
    assert areas(np.full(3, np.nan), np.array([True, True, False]), currency[:3]).tolist() == [0.5, 0.5, 0.0]


def test_turnover_is_in_the_currency_and_uses_the_typical_price_where_it_must(scene: Open) -> None:
    made = scene(universe("A", multiplier=50.0, price_unit="GBp", currency="GBP"))
    yesterday(made, {"S0": 10.0})
    average, typical = average_turnover(made.market)
    assert average[0] == pytest.approx(100.0 * 10.0 * 50.0 * 0.01)
    assert typical


def test_a_currency_of_its_own_has_a_group_of_its_own_and_the_heading_says_so(scene: Open) -> None:
    made = scene(Universe([*universe("A"), Instrument(1, "S1", sector="A", currency="EUR", calendar="XNYS")]))
    made.trade({"S0": 10.0, "S1": 10.0})
    view, _ = drawn(made.market)
    assert set(view.mosaic.tiles.data["sector"]) == {"A · USD", "A · EUR"}
    assert "compared within each currency only (EUR, USD)" in view.heading.model.text


def test_only_what_has_a_price_has_a_tile(scene: Open) -> None:
    made = scene(universe("A", "A", "B"))
    view, _ = drawn(made.market)
    assert view.shown == []
    assert "No prices yet" in view.heading.model.text
    made.trade({"S0": 10.0})
    view.tick()
    assert view.shown == ["S0"]
    made.trade({"S1": 10.0, "S2": 5.0})
    view.tick()
    assert view.shown == ["S0", "S1", "S2"]
    assert list(view.mosaic.heads.data["name"]) == ["A", "B"]


def test_one_instrument_fills_the_figure_without_a_heading(scene: Open) -> None:
    made = scene(universe("Unclassified"))
    yesterday(made, {"S0": 10.0})
    made.trade({"S0": 101.0})
    view, _ = drawn(made.market)
    tiles = view.mosaic.tiles.data
    assert (tiles["right"][0] - tiles["left"][0]) > 850
    assert len(view.mosaic.heads.data["name"]) == 0
    assert view.mosaic.texts.data["symbol"] == ["S0"]
    assert change(view, "S0") == pytest.approx(1.0)
    assert "<h3>Market</h3>" in view.heading.model.text


def test_a_stale_price_is_hatched_without_colour_and_leaves_the_mean(scene: Open) -> None:
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1.0, "S1": 1.0, "S2": 1.0})
    made.trade({"S0": 101.0, "S1": 104.0, "S2": 99.0})
    view, _ = drawn(made.market)
    assert view.mosaic.heads.data["change"].tolist() == [2.5, -1.0]
    made.clock.move(600)
    made.trade({"S0": 101.0, "S2": 99.0})
    view.tick()
    assert made.market.values().state[1] == STALE
    assert math.isnan(change(view, "S1"))
    assert len(view.mosaic.old.data["left"]) == 1
    assert view.mosaic.heads.data["change"].tolist() == [1.0, -1.0]
    assert "1 stale" in view.heading.model.text
    assert view.mosaic.tiles.data["state"][1].startswith("stale for 10")
    made.trade({"S1": 105.0})
    view.tick()
    assert change(view, "S1") == pytest.approx(5.0)
    assert len(view.mosaic.old.data["left"]) == 0


def test_silence_alone_makes_a_tile_stale(scene: Open) -> None:
    made = scene(universe("A", "B"))
    made.trade({"S0": 101.0, "S1": 104.0})
    view, _ = drawn(made.market)
    view.tick()
    made.clock.move(600)
    assert view.tick()
    assert len(view.mosaic.old.data["left"]) == 2


# What is sent


def test_a_tick_sends_one_slice_of_each_column_that_changed(scene: Open) -> None:
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1.0, "S1": 1.0, "S2": 1.0})
    made.trade({"S0": 101.0, "S1": 104.0, "S2": 99.0})
    view, events = drawn(made.market)
    view.tick()
    events.clear()
    made.trade({"S1": 105.0})
    view.tick()
    assert {type(event) for event in events} == {ColumnsPatchedEvent}
    for event in events:
        for patches in event.patches.values():
            ((where, _),) = patches
            assert isinstance(where, slice)
    touched = {name for event in events for name in event.patches}
    assert touched == {"change", "last", "moved"}
    assert change(view, "S1") == pytest.approx(5.0)


def test_nothing_is_sent_when_nothing_changed(scene: Open) -> None:
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1.0, "S1": 1.0, "S2": 1.0})
    made.trade({"S0": 101.0, "S1": 104.0, "S2": 99.0})
    view, events = drawn(made.market)
    view.tick()
    events.clear()
    assert not view.tick()
    made.clock.move(1.0)
    assert view.tick()
    made.trade({"S0": 101.0})
    view.tick()
    assert [event for event in events if "time" not in getattr(event, "patches", {})] == []


def test_between_two_looks_only_colours_and_numbers_on_tiles_are_sent(
    scene: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1.0, "S1": 1.0, "S2": 1.0})
    made.trade({"S0": 101.0, "S1": 104.0, "S2": 99.0})
    monkeypatch.setattr(treemap, "LOOK_S", 1000.0)
    view, events = drawn(made.market)
    made.trade({"S1": 105.0})
    view.tick()
    assert {name for event in events for name in event.patches} == {"change"}
    assert len(events) == 3


def test_the_layout_stays_until_turnover_has_moved_much(scene: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treemap, "LAYOUT_S", 0.0)
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1000.0, "S1": 1000.0, "S2": 1000.0})
    made.trade({"S0": 100.0, "S1": 100.0, "S2": 100.0}, size=100.0)
    view, events = drawn(made.market)
    before = view.mosaic.tiles.data["left"].tolist()
    made.trade({"S0": 100.0}, size=20.0)
    view.tick()
    assert view.mosaic.tiles.data["left"].tolist() == before
    assert not any(isinstance(event, ColumnDataChangedEvent) for event in events)
    made.trade({"S0": 100.0}, size=9000.0)
    view.tick()
    assert view.mosaic.tiles.data["left"].tolist() != before


# What the viewer does


def test_a_tap_selects_and_a_choice_from_outside_is_outlined(scene: Open) -> None:
    made = scene(universe("A", "A", "B"))
    yesterday(made, {"S0": 1.0, "S1": 2.0, "S2": 3.0})
    made.trade({"S0": 101.0, "S1": 104.0, "S2": 99.0})
    view, _ = drawn(made.market)
    assert len(view.mosaic.chosen.data["left"]) == 0
    tiles, place = view.mosaic.tiles.data, view.shown.index("S1")
    x = float(tiles["left"][place] + tiles["right"][place]) / 2
    y = float(tiles["top"][place] + tiles["bottom"][place]) / 2
    view.mosaic.figure._trigger_event(Tap(view.mosaic.figure, x=x, y=y))
    assert view.symbol == "S1"
    assert view.tick()
    outline = view.mosaic.chosen.data
    assert outline["left"][0] < x < outline["right"][0]
    view.symbol = "S2"
    view.tick()
    assert outline_of(view) != outline_of(view, "S1")
    assert outline_of(view) == outline_of(view, "S2")
    view.mosaic.figure._trigger_event(Tap(view.mosaic.figure, x=x, y=3.0))  # a heading
    assert view.symbol == "S2"
    view.symbol = "nobody"
    view.tick()
    assert len(view.mosaic.chosen.data["left"]) == 0


def outline_of(view: Treemap, symbol: str = "") -> list[int]:
    """Where the outline is, or where that of a symbol would be, in steps of four pixels."""
    columns = view.mosaic.tiles.data if symbol else view.mosaic.chosen.data
    place = view.shown.index(symbol) if symbol else 0
    return [round(float(columns[name][place]) / 4) for name in ("left", "top", "right", "bottom")]


def test_the_tiles_fill_what_the_browser_has_room_for(scene: Open) -> None:
    made = scene(universe("A", "B"))
    made.trade({"S0": 101.0, "S1": 104.0})
    view, _ = drawn(made.market)
    view._measured("inner_width", 0, 362)
    assert view.tick()
    assert view.mosaic.figure.x_range.end == 362
    assert view.mosaic.tiles.data["right"].max() == pytest.approx(362 - 2.75)
    view._measured("inner_width", 362, 363)
    assert not view.tick()


def test_the_scale_can_be_chosen(scene: Open) -> None:
    made = scene(universe("A"))
    made.trade({"S0": 101.0})
    view, _ = drawn(made.market)
    view.scale = 0.5
    view.tick()
    assert (view.mosaic.colours.low, view.mosaic.colours.high) == (-0.5, 0.5)
    assert "+0.5%" in view.heading.model.text


# Colours


def test_the_ends_differ_in_lightness_and_the_middle_lets_the_ground_through() -> None:
    colours = theme.diverging()
    parts = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5, 7)] for colour in colours])
    assert parts[len(parts) // 2, 3] < 50
    assert (np.diff(parts[: len(parts) // 2 + 1, 3]) <= 0).all()
    assert (np.diff(parts[len(parts) // 2 :, 3]) >= 0).all()
    luminance = (parts[:, :3] / 255) ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert luminance[-1] > 1.7 * luminance[0]
    # Without red and green there is still blue.
    assert parts[-1, 2] > parts[-1, 0]
    assert parts[0, 0] > parts[0, 2]


def test_the_day_of_the_flash_crash_is_red() -> None:
    with open_market("replay:us-2010-daily", start="2010-05-06 16:00:01", pace=1e-6) as market:
        view, events = drawn(market)
        found = view.mosaic.tiles.data["change"]
        assert len(view.shown) > 490
        assert np.nanmean(found < 0) > 0.95
        assert -4 < np.nanmedian(found) < -2.5
        assert change(view, "PG") == pytest.approx(market.frame("last").loc["PG", "change_pct"], abs=0.006)
        assert (view.mosaic.heads.data["change"] < 0).all()
        assert not events
        begun = time.thread_time()  # what other threads do does not count
        for _ in range(20):
            view.update()
        assert (time.thread_time() - begun) / 20 < 0.05
        assert not events


# In a browser


@pytest.fixture
def page_url() -> Iterator[tuple[str, dict[str, Any]]]:
    """A served treemap of the Flash Crash, and what the page is made of."""
    made: dict[str, Any] = {}

    def page() -> Any:
        market = made["market"] = open_market("replay:us-2010-daily", start="2010-05-06 16:00:01", pace=1e-6)
        view = made["view"] = Treemap(market)
        pump = made["pump"] = Pump([view], hz=20)
        pump.start(pn.state.curdoc)
        return view.drawn

    port = free_port()
    server = pn.serve(page, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
    yield f"http://127.0.0.1:{port}/", made
    server.stop()
    server.join(10)
    if "market" in made:
        made["market"].close()


PAINTED = """(canvas) => {
  if (!canvas.width || !canvas.height) return 0  // while it takes another size
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true})
  copy.drawImage(canvas, 0, 0)
  const {data} = copy.getImageData(0, 0, canvas.width, canvas.height)
  let red = 0
  for (let i = 0; i < data.length; i += 4) red += data[i] > 1.5 * data[i + 1] && data[i + 3] > 100
  return red / (data.length / 4)
}"""


def test_tiles_paint_and_select_in_a_browser(chromium: Any, page_url: tuple[str, dict[str, Any]]) -> None:
    url, made = page_url
    page = chromium.new_page(viewport={"width": 900, "height": 700})
    page.set_default_timeout(PATIENCE_S * 1000)
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: None if is_local(asked.url) else complaints.append(asked.url))
    page.goto(url)
    canvas = page.locator("canvas.bk-layer").first
    canvas.wait_for()
    view = made["view"]
    width = "() => Bokeh.documents[0].get_model_by_name('mosaic').x_range.end"
    eventually(
        lambda: (
            abs(view.mosaic.room[0] - canvas.bounding_box()["width"]) < 3
            and page.evaluate(width) == view.mosaic.room[0]
        ),
        what="its width is told, and the tiles are laid out for it",
    )
    eventually(lambda: canvas.evaluate(PAINTED) > 0.6, what="most of it is red")
    assert len(view.shown) > 300
    place = view.shown.index("C")
    tile = {name: float(view.mosaic.tiles.data[name][place]) for name in ("left", "top")}
    page.locator(".bk-events").first.click(position={"x": tile["left"] + 10, "y": tile["top"] + 10})
    eventually(lambda: view.symbol == "C", what="the tap arrives")
    eventually(lambda: len(view.mosaic.chosen.data["left"]) == 1, what="it is outlined")
    page.set_viewport_size({"width": 390, "height": 800})
    eventually(lambda: view.mosaic.room[0] <= 390, what="the tiles are laid out for a phone")
    eventually(lambda: canvas.evaluate(PAINTED) > 0.6, what="and painted")
    assert made["pump"].errors == 0
    assert not complaints
    page.close()


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))
