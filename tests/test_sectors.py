"""The sector heat map: the means are those of plain pandas, and nothing is drawn that nobody traded."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.client import pull_session
from bokeh.document import Document
from bokeh.plotting import figure
from scenes import Scene
from serving import eventually, free_port

from marketdash.errors import UnknownNameError
from marketdash.instruments import Instrument, Universe
from marketdash.market import Market, open_market
from marketdash.views.pump import Pump
from marketdash.views.sectors import FEW, SectorHeatmap, changes, read

Open = Callable[..., Scene]


@pytest.fixture
def scene() -> Iterator[Open]:
    scenes: list[Scene] = []

    def make(universe: Universe, **options: Any) -> Scene:
        scenes.append(Scene(universe, **options))
        return scenes[-1]

    yield make
    for made in scenes:
        made.market.close()


@pytest.fixture(scope="module")
def crash() -> Iterator[Market]:
    """The evening of the Flash Crash, standing still."""
    with open_market("replay:us-2010-daily", start="2010-05-06 16:00:01", pace=1e-6) as market:
        yield market


def universe(sectors: int, each: int = 8, calendar: str = "XNYS") -> Universe:
    return Universe(
        Instrument(i, f"S{i}", sector=f"Sector {i % sectors}", calendar=calendar)
        for i in range(sectors * each)
    )


def minutes(scene: Scene, closes: dict[str, float], at: str, width: str = "5min") -> None:
    """One bar by symbol that begins at this time of Friday, 1 March 2024, in New York."""
    frame = pd.DataFrame({"close": closes.values()})
    for name in ("open", "high", "low"):
        frame[name] = frame["close"]
    frame["time"] = pd.Timestamp(f"2024-03-01 {at}", tz="America/New_York")
    frame["known_at"] = frame["time"] + pd.Timedelta(width)
    frame["width"], frame["volume"] = width, 100.0
    frame["instrument_id"] = scene.market.universe.ids(closes)
    scene.market.feed("bars", frame)


def drawn(view: SectorHeatmap) -> tuple[Any, list[Any]]:
    """The view's figure, and the list in which the document's events arrive."""
    root = view.drawn.get_root()
    document = Document()
    document.add_root(root)
    events: list[Any] = []
    document.on_change(events.append)
    return next(iter(root.select({"type": figure}))), events


def cells_drawn(plot: Any) -> int:
    return len(plot.renderers[0].data_source.data["left"])


# Numbers


def test_sector_means_are_those_of_plain_pandas(crash: Market) -> None:
    heat = read(crash, "1d", 40)
    close = crash.history("1d", last=80).close
    moved = (close / close.ffill().shift() - 1) * 100
    sector = {item.symbol: item.sector for item in crash.universe}
    expected = moved.T.groupby(sector).mean().T
    expected.index = expected.index.tz_localize(None).normalize()
    found = pd.DataFrame(heat.cells, pd.to_datetime(heat.when, format="%a %d %b %Y"), heat.rows)
    common = found.dropna(how="all").index
    assert len(common) == 40
    pd.testing.assert_frame_equal(
        found.loc[common].sort_index(axis=1),
        expected.loc[common].sort_index(axis=1),
        check_freq=False,
        check_names=False,
        check_index_type=False,
    )
    assert (found.loc["2010-05-06"] < -1.5).all()


def test_sessions_that_are_missing_are_columns_without_cells() -> None:
    with open_market("replay:us-2010-daily", start="2009-11-10 16:00:01", pace=1e-6) as market:
        heat = read(market, "1d", 40)
    empty = [when for when, row in zip(heat.when, heat.cells, strict=True) if np.isnan(row).all()]
    assert len(empty) == 5
    assert "Thu 5 Nov 2009" not in empty
    assert "Wed 4 Nov 2009" in empty
    assert not any(when.startswith(("Sat", "Sun")) for when in heat.when)


def test_a_change_is_against_the_last_close_of_whatever_age() -> None:
    close = np.array([[10.0, np.nan], [np.nan, 5.0], [11.0, np.nan], [np.nan, np.nan], [22.0, 10.0]])
    expected = np.array([[np.nan] * 2, [np.nan] * 2, [10.0, np.nan], [np.nan] * 2, [100.0, 100.0]])
    np.testing.assert_allclose(changes(close), expected)


def test_a_bin_in_which_nothing_came_stays_empty_and_the_night_is_no_column(scene: Open) -> None:
    made = scene(universe(2), now="2024-03-01 12:00:00-05:00")
    all_of_them = {f"S{i}": 100.0 for i in range(16)}
    for at in ("09:30", "09:35", "09:50"):
        minutes(made, all_of_them, at)
        all_of_them = {symbol: price * 1.01 for symbol, price in all_of_them.items()}
    heat = read(made.market, "5min", 40)
    assert heat.when == [f"Fri 1 Mar 09:{minute}" for minute in (35, 40, 45, 50)]
    np.testing.assert_allclose(heat.cells[[0, 3]], 1.0)
    assert np.isnan(heat.cells[[1, 2]]).all()


def test_a_member_without_a_bar_does_not_count(scene: Open) -> None:
    made = scene(universe(2), now="2024-03-01 12:00:00-05:00")
    minutes(made, {f"S{i}": 100.0 for i in range(16)}, "09:30")
    minutes(made, {"S0": 102.0, "S2": 101.0}, "09:35")
    heat = read(made.market, "5min", 40)
    assert heat.cells[0, 0] == pytest.approx(1.5)
    assert np.isnan(heat.cells[0, 1])


def test_few_instruments_or_one_sector_have_a_row_for_each_instrument(scene: Open) -> None:
    few = scene(universe(2, each=3), now="2024-03-01 12:00:00-05:00").market
    assert read(few, "5min", 40).rows == [f"S{i}" for i in range(6)]
    many = scene(universe(1, each=30), now="2024-03-01 12:00:00-05:00")
    minutes(many, {f"S{i}": 100.0 + i for i in range(30)}, "09:30")
    heat = read(many.market, "5min", 40)
    assert heat.rows == [f"S{i}" for i in range(30 - FEW, 30)]
    assert not heat.sectors


def test_two_exchanges_share_a_day(scene: Open) -> None:
    both = Universe(
        Instrument(i, f"S{i}", sector=f"Sector {i % 2}", calendar="XLON" if i < 8 else "XNYS")
        for i in range(16)
    )
    made = scene(both, now="2024-03-01 18:00:00-05:00")
    for day in ("2024-02-28", "2024-02-29", "2024-03-01"):
        for ids, at, tz in (
            (range(8), "08:00", "Europe/London"),
            (range(8, 16), "09:30", "America/New_York"),
        ):
            frame = pd.DataFrame({"instrument_id": list(ids), "width": "1d", "volume": 1.0})
            frame["time"] = pd.Timestamp(f"{day} {at}", tz=tz)
            frame["known_at"] = frame["time"] + pd.Timedelta(hours=8)
            for name in ("open", "high", "low", "close"):
                frame[name] = 100.0
            made.market.feed("bars", frame)
    heat = read(made.market, "1d", 40)
    assert [when[:5] for when in heat.when] == ["Thu 2", "Fri 1"]
    assert (heat.cells == 0).all()


# Picture


def test_it_draws_empty_and_then_full(scene: Open) -> None:
    made = scene(universe(2), now="2024-03-01 12:00:00-05:00")
    view = SectorHeatmap(made.market, width="5min")
    plot, _ = drawn(view)
    assert cells_drawn(plot) == 0
    assert "No bars yet" in view.heading.model.text
    prices = {f"S{i}": 100.0 for i in range(16)}
    for minute in range(30, 59, 5):
        minutes(made, prices, f"09:{minute}")
    assert view.tick()
    assert cells_drawn(plot) == 2 * 5
    assert plot.x_range.end > 4
    assert "No bars yet" not in view.heading.model.text
    labels = set(plot.yaxis[0].major_label_overrides.values())
    assert labels == {"Sector 0", "Sector 1"}
    assert plot.y_range.start > plot.y_range.end


def test_an_update_without_news_sends_nothing_and_news_replace_the_cells_only(scene: Open) -> None:
    made = scene(universe(2), now="2024-03-01 12:00:00-05:00")
    prices = {f"S{i}": 100.0 for i in range(16)}
    minutes(made, prices, "09:30")
    minutes(made, prices, "09:35")
    view = SectorHeatmap(made.market, width="5min")
    plot, events = drawn(view)
    view.tick()
    view.update()
    events.clear()
    view.update()
    assert events == []
    minutes(made, prices | {"S0": 108.0}, "09:40")
    view.update()
    assert events
    assert not any(type(event).__name__ in ("RootAddedEvent", "RootRemovedEvent") for event in events)
    assert not any(getattr(event, "attr", "") == "children" for event in events)
    assert plot.renderers[0].data_source.data["change"].max() == pytest.approx(0.4)  # clipped to the scale
    assert "+1.00%" in list(plot.renderers[0].data_source.data["text"])


def test_it_waits_between_two_updates(scene: Open) -> None:
    made = scene(universe(2), now="2024-03-01 12:00:00-05:00")
    view = SectorHeatmap(made.market)
    drawn(view)
    minutes(made, {"S0": 1.0}, "09:30")
    assert view.tick()
    minutes(made, {"S0": 1.0}, "09:35")
    assert not view.tick()


def test_the_width_fits_the_market(crash: Market, scene: Open) -> None:
    daily = SectorHeatmap(crash)
    drawn(daily)
    assert daily.heat.when[-1] == "Thu 6 May 2010"
    assert "in each day" in daily.heading.model.text
    quiet = SectorHeatmap(scene(universe(2)).market)
    drawn(quiet)
    assert "+0.4%" in quiet.heading.model.text  # the scale of 5 minutes
    with pytest.raises(UnknownNameError, match="1d"):
        drawn(SectorHeatmap(crash, width="5min"))


def test_labels_are_in_exchange_time_and_apart() -> None:
    with open_market("replay:us-2018-11-minute", start="2018-11-16 12:30", pace=1e-6) as market:
        heat = read(market, "15min", 40)
    assert heat.when[-1] == "Fri 16 Nov 12:15"
    assert (heat.gaps[0], heat.gaps[-1]) == (0, 2)
    assert ("16 Nov") in [text for _, text in heat.ticks]
    columns = [column for column, _ in heat.ticks]
    assert columns == sorted(columns)
    assert np.diff(columns).min() >= 6


def test_one_future_through_the_night() -> None:
    with open_market("replay:es-2013-09-ticks", start="2013-09-03 10:00", pace=1e-6) as market:
        view = SectorHeatmap(market)
        plot, _ = drawn(view)
        assert view.heat.rows == ["ES"]
        assert cells_drawn(plot) == 40
        assert "Instruments over time" in view.heading.model.text
        assert "CDT" in view.heading.model.text


def test_reading_five_hundred_instruments_is_quick(crash: Market) -> None:
    read(crash, "1d", 40)
    begun = time.thread_time()  # what other threads do does not count
    for _ in range(10):
        read(crash, "1d", 40)
    # 6 ms on a desk; the bound leaves room for a busy machine.
    assert (time.thread_time() - begun) / 10 < 0.04


def test_a_session_that_ended_leaves_no_view_behind(crash: Market) -> None:
    views: list[weakref.ref[SectorHeatmap]] = []

    def page() -> Any:
        view = SectorHeatmap(crash)
        views.append(weakref.ref(view))
        pump = Pump([view])
        pump.start(pn.state.curdoc)
        pn.state.on_session_destroyed(lambda context: pump.stop())
        return view.drawn

    def come_and_go() -> bool:
        try:
            pull_session(url=f"http://127.0.0.1:{port}/").close()
        except OSError:
            return False
        return True

    def gone() -> bool:
        gc.collect()
        return [view() for view in views if view() is not None] == []

    port = free_port()
    # A session that is unused for so long before its visitor has even come in would be taken away from him.
    soon = {"unused_session_lifetime_milliseconds": 1000, "check_unused_sessions_milliseconds": 100}
    server = pn.serve(page, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False, **soon)
    try:
        eventually(come_and_go, what="the server answers")
        assert come_and_go()
        assert len(views) >= 2, "a view for each visit"
        eventually(gone, what="the views are forgotten")
    finally:
        server.stop()
        server.join(10)
