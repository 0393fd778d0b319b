"""The strip adds up only what may be added up, and says of how many and how old."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import panel as pn
import pytest
from scenes import Scene
from serving import PATIENCE_S, eventually, free_port

from marketdash.instruments import Instrument, Universe
from marketdash.market import STATES, Values, open_market
from marketdash.views._numbers import Money, compact, signed
from marketdash.views.pump import Pump
from marketdash.views.strip import Strip, Summary, exchanges, summarize, tell

LIVE, STALE, CLOSED, NONE = (STATES.index(name) for name in ("live", "stale", "closed", "none"))
MINUTE_US = 60_000_000


def table(rows: int, **columns: Any) -> pd.DataFrame:
    """Instruments that are all priced today and live, but for what is given."""
    usual: dict[str, Any] = {
        "change": np.linspace(-0.02, 0.03, rows),
        "turnover": np.arange(1.0, rows + 1),
        "day": 20_000,
        "priced": True,
        "age": MINUTE_US,
        "state": LIVE,
        "calendar": "24/7",
        "currency": "USD",
        "price_unit": "",
        "multiplier": 1.0,
    }
    return pd.DataFrame(usual | columns, index=pd.RangeIndex(rows))


def universe_of(rows: pd.DataFrame) -> Universe:
    names = ["calendar", "currency", "price_unit", "multiplier"]
    return Universe(Instrument(i, f"S{i}", **row) for i, row in rows[names].to_dict("index").items())


def summary_of(rows: pd.DataFrame) -> Summary:
    universe = universe_of(rows)
    age = np.where(rows["priced"], rows["age"], -1)
    values = Values(age, age, np.where(rows["priced"], rows["state"], NONE).astype(np.int8))
    columns = [rows[name].to_numpy() for name in ("change", "turnover", "day", "priced")]
    return summarize(*columns, values, exchanges(universe), Money.of(universe))


def told(rows: pd.DataFrame) -> dict[str, Any]:
    universe = universe_of(rows)
    return tell(summary_of(rows), universe, Money.of(universe))


# Arithmetic


def test_the_numbers_are_those_of_plain_pandas() -> None:
    random = np.random.default_rng(5)
    rows = table(
        400,
        change=np.where(random.random(400) < 0.1, np.nan, random.normal(0, 0.02, 400).round(3)),
        turnover=np.where(random.random(400) < 0.1, np.nan, random.uniform(0, 1e9, 400)),
        day=np.where(random.random(400) < 0.2, 19_999, 20_000),
        priced=random.random(400) < 0.9,
        age=random.integers(0, 10 * MINUTE_US, 400),
        state=np.where(random.random(400) < 0.2, STALE, LIVE),
        calendar=np.where(random.random(400) < 0.3, "XLON", "XNYS"),
        currency=np.where(random.random(400) < 0.3, "GBP", "USD"),
    )
    found = summary_of(rows)
    known = rows[rows["priced"]]
    today = known[known["day"] == known.groupby("calendar")["day"].transform("max")]
    used = today[(today["state"] == LIVE) & today["change"].notna()]
    sold = today[(today["currency"] == "USD") & today["turnover"].notna()]
    assert (found.total, found.priced, found.stale) == (400, len(today), (today["state"] == STALE).sum())
    assert found.breadth.count == len(used) > 100
    assert found.breadth.age == used["age"].max()
    assert found.change == pytest.approx(used["change"].mean())
    assert found.advancers == (used["change"] > 0).sum() > 0
    assert found.decliners == (used["change"] < 0).sum() > 0
    assert found.unchanged == (used["change"] == 0).sum() > 0
    assert found.turnover == pytest.approx(sold["turnover"].sum())
    assert found.traded_stale == (sold["state"] == STALE).sum() > 0
    assert found.best is not None
    assert found.worst is not None
    assert (found.best.change, found.worst.change) == (used["change"].max(), used["change"].min())


def test_what_is_not_of_the_newest_day_of_its_exchange_is_not_counted() -> None:
    days = [20_000, 19_999, 19_999, 19_998]
    rows = table(4, day=days, calendar=["XNYS", "XNYS", "XTKS", "XTKS"])
    assert summary_of(rows).priced == 2


def test_stale_prices_are_left_out_until_they_are_the_majority() -> None:
    few = summary_of(table(10, state=[STALE] * 3 + [LIVE] * 7))
    assert (few.breadth.count, few.breadth.state, few.stale) == (7, "live", 3)
    assert few.worst is not None
    assert few.worst.id == 3
    most = summary_of(table(10, state=[STALE] * 6 + [LIVE] * 4))
    assert (most.breadth.count, most.breadth.state) == (10, "stale"), (
        "few fresh prices must not pass for the market"
    )


def test_turnover_keeps_what_was_traded_and_says_what_is_stale() -> None:
    rows = table(10, turnover=1.0, state=[STALE] * 3 + [LIVE] * 7, age=[60 * MINUTE_US] * 3 + [0] * 7)
    found = summary_of(rows)
    assert (found.turnover, found.traded.state, found.traded.age) == (10.0, "live", 60 * MINUTE_US)
    assert told(rows)["turnover"]["note"] == "10 of 10, 3 stale"


def test_an_aggregate_is_as_old_and_as_closed_as_its_worst_input() -> None:
    rows = table(4, state=[LIVE, CLOSED, LIVE, LIVE], age=[0, 7 * MINUTE_US, 0, 1])
    number = told(rows)["index"]
    assert (number["state"], number["age"]) == ("closed", "7\xa0min")
    assert number["note"] == "4 of 4"


def test_only_the_most_common_currency_is_added_up_and_it_is_said() -> None:
    rows = table(
        5, turnover=100.0, currency=["GBP", "GBP", "GBP", "USD", "USD"], price_unit=["GBp", "", "", "", ""]
    )
    assert summary_of(rows).turnover == pytest.approx(201.0)
    number = told(rows)["turnover"]
    assert (number["text"], number["note"]) == ("£201", "GBP only, 3 of 3")


def test_a_contract_counts_with_its_multiplier() -> None:
    assert summary_of(table(1, turnover=2.0, multiplier=50.0)).turnover == 100.0


def test_one_instrument_is_not_both_extremes() -> None:
    found = summary_of(table(1, change=0.01))
    assert found.best is not None
    assert found.worst is None


def test_summing_up_2500_instruments_takes_less_than_a_millisecond() -> None:
    rows = table(2500, calendar=["XNYS", "XLON"] * 1250)
    universe = universe_of(rows)
    age = rows["age"].to_numpy()
    values = Values(age, age, rows["state"].to_numpy().astype(np.int8))
    columns = [rows[name].to_numpy().copy() for name in ("change", "turnover", "day", "priced")]
    rest = (values, exchanges(universe), Money.of(universe))
    took = []
    for _ in range(50):
        begin = time.thread_time()  # what others do on the same cores does not count
        summarize(*columns, *rest)
        took.append(time.thread_time() - begin)
    assert min(took) < 1e-3


# Texts


@pytest.mark.parametrize(
    ("value", "currency", "text"),
    [
        (1_234_000_000, "USD", "$1.2B"),
        (999_600, "USD", "$1.0M"),
        (999_400, "USD", "$999K"),
        (12_340, "EUR", "€12.3K"),
        (99_960, "JPY", "¥100K"),
        (950, "CHF", "CHF\xa0950"),
        (0, "USD", "$0"),
        (-2_500_000, "GBP", "−£2.5M"),
        (3.2e16, "", "32,000T"),
        (math.nan, "USD", "–"),
        (None, "USD", "–"),
    ],
)
def test_amounts_are_told_in_three_digits(value: float | None, currency: str, text: str) -> None:
    assert compact(value, currency) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.005, "+1.00%"),
        (-0.4213, "−0.42%"),
        (0.001, "0.00%"),
        (-0.001, "0.00%"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_changes_carry_their_sign(value: float, text: str) -> None:
    assert signed(value, unit="%") == text


@pytest.mark.parametrize(
    "rows",
    [
        table(3, priced=False, change=np.nan, turnover=np.nan, day=0),
        table(3, change=np.nan, turnover=np.nan),
        table(0),
    ],
    ids=["no price", "no close before", "no instruments"],
)
def test_what_is_undefined_is_a_dash(rows: pd.DataFrame) -> None:
    numbers = told(rows)
    assert {numbers[name]["text"] for name in ("index", "turnover", "best", "worst")} == {"–"}
    assert numbers["breadth"]["counts"] == []
    assert "NaN" not in json.dumps(numbers, allow_nan=False)


# The view


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene(Universe.of([f"S{i:02d}" for i in range(40)]))
    yield made
    made.market.close()


def numbers_of(view: Strip) -> dict[str, Any]:
    assert view.drawn is view.numbers
    return dict(json.loads(view.drawn.numbers))


def prices(seed: int) -> dict[str, float]:
    return {
        f"S{i:02d}": price
        for i, price in enumerate(np.random.default_rng(seed).uniform(90, 110, 40).round(2))
    }


def test_the_view_agrees_with_the_frame_of_a_recorded_day() -> None:
    with open_market("replay:us-2010-daily", start="2010-05-06 17:00", pace=1) as market:
        frame, numbers = market.frame("last"), numbers_of(Strip(market))
        today = frame[frame["time"] == frame["time"].max()]
        assert numbers["index"]["text"] == signed(today["change_pct"].mean(), unit="%")
        assert numbers["turnover"]["text"] == compact(today["turnover"].sum(), "USD")
        assert numbers["best"]["symbol"] == today["change_pct"].idxmax()
        assert numbers["worst"]["symbol"] == today["change_pct"].idxmin()
        assert numbers["index"]["note"] == f"{today['change_pct'].count()} of 524"
        assert {numbers[name]["state"] for name in ("index", "breadth", "turnover", "best")} == {"replay"}
        assert numbers["caption"]["label"] == market.label


def test_an_empty_market_then_fills(scene: Scene) -> None:
    view = Strip(scene.market)
    assert numbers_of(view)["index"]["text"] == "–"
    scene.days(pd.DataFrame([prices(1)], index=pd.date_range("2024-02-29", periods=1, tz="UTC")))
    scene.trade(prices(2), size=3.0)
    assert view.tick()
    numbers, frame = numbers_of(view), scene.market.frame("last")
    assert numbers["index"]["text"] == signed(frame["change_pct"].mean(), unit="%")
    assert numbers["turnover"]["text"] == compact(3 * sum(prices(2).values()), "USD")
    assert sum(numbers["breadth"]["counts"]) == 40


def test_a_tick_is_one_change_and_none_without_news(scene: Scene) -> None:
    scene.days(pd.DataFrame([prices(1)], index=pd.date_range("2024-02-29", periods=1, tz="UTC")))
    view, sent = Strip(scene.market), []
    view.drawn.param.watch(sent.append, "numbers")
    scene.trade(prices(2))
    view.tick()
    assert len(sent) == 1
    assert not view.tick()
    view.update()
    assert len(sent) == 1


def test_a_market_that_fell_silent_is_stale_on_the_screen(scene: Scene) -> None:
    scene.days(pd.DataFrame([prices(1)], index=pd.date_range("2024-02-29", periods=1, tz="UTC")))
    scene.trade(prices(2))
    view = Strip(scene.market)
    assert numbers_of(view)["index"]["state"] == "live"
    scene.clock.move(600)
    view.tick()
    numbers = numbers_of(view)
    assert {
        numbers[name]["state"] for name in ("index", "breadth", "turnover", "priced", "best", "worst")
    } == {"stale"}
    assert (numbers["index"]["note"], numbers["index"]["age"]) == ("40 of 40", "10\xa0min")


def test_a_click_on_a_mover_selects_it(scene: Scene) -> None:
    view = Strip(scene.market)
    for said in (None, {"select": 7}, {"select": "NOPE"}, {"select": "s07"}):
        view._heard(said)
    assert view.symbol == "S07"


# In a browser


@pytest.fixture
def page_url() -> Iterator[tuple[str, dict[str, Any]]]:
    made: dict[str, Any] = {}

    def page() -> Any:
        market = made["market"] = open_market("replay:us-2010-daily", start="2010-05-06 17:00", pace=1)
        view = made["view"] = Strip(market)
        Pump([view]).start(pn.state.curdoc)
        return view.drawn

    port = free_port()
    server = pn.serve(page, port=port, address="127.0.0.1", show=False, threaded=True, verbose=False)
    yield f"http://127.0.0.1:{port}/", made
    server.stop()
    server.join(10)
    if "market" in made:
        made["market"].close()


def test_numbers_paint_and_change_in_a_browser(chromium: Any, page_url: tuple[str, dict[str, Any]]) -> None:
    url, made = page_url
    page = chromium.new_page(viewport={"width": 390, "height": 600})
    page.set_default_timeout(PATIENCE_S * 1000)
    complaints: list[str] = []
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if _is_foreign(asked.url) else None)
    page.goto(url)
    index = page.locator(".index .value")
    index.wait_for()
    eventually(lambda: index.inner_text().startswith("−"), what="the Flash Crash")
    page.wait_for_function("() => document.documentElement.scrollWidth <= 390")
    worst = page.locator("button.worst b").inner_text()
    page.locator("button.worst").click()
    eventually(lambda: made["view"].symbol == worst, what="the click arrives")
    made["market"].clock.seek("2010-05-10 17:00")
    eventually(lambda: index.inner_text().startswith("+"), what="the rebound")
    assert not complaints
    page.close()


def _is_foreign(url: str) -> bool:
    return url.startswith("http") and not url.startswith("http://127.0.0.1")
