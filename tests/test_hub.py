"""The hub: who shares a market, who owns a replay, and who may see what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import eventually

from marketdash.errors import CapacityError, ClockError, EntitlementError, UnknownNameError
from marketdash.instruments import Universe
from marketdash.server.health import describe
from marketdash.server.hub import Hub, _served_on_loopback
from marketdash.settings import load_settings
from marketdash.sources.base import SOURCES, BaseSource, Entitlement, source

DAILY = "replay:us-2010-daily"


class Mine(BaseSource):
    """A silent source whose data may not be shown to others."""

    name = "mine"
    stall_after = None
    entitlement = Entitlement(redistributable=False, note="for one person")

    def __init__(self, argument: str = "") -> None:
        super().__init__(Universe.of(["A"]))

    async def batches(self):  # type: ignore[no-untyped-def]
        return
        yield


@pytest.fixture
def mine() -> Iterator[str]:
    source("mine")(Mine)
    yield "mine"
    SOURCES.remove("mine")


@pytest.fixture
def make() -> Iterator[type[Hub]]:
    made: list[Hub] = []

    def build(source: str = DAILY, **options: object) -> Hub:
        settings = {name: options.pop(name) for name in ("replays", "licences") if name in options}
        made.append(Hub(load_settings(**settings), source=source, **{"loopback": True, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield build  # type: ignore[misc]
    for hub in made:
        hub.close()


def test_every_viewer_has_a_replay_of_his_own(make) -> None:
    hub = make()
    one, other = hub.take(DAILY, "anonymous"), hub.take(DAILY, "anonymous")
    assert one is not other
    one.clock.pause()
    assert not one.clock.playing
    assert other.clock.playing
    hub.give_back(one, "anonymous")
    assert one.closed
    assert not other.closed
    assert hub.replays == 1


def test_replays_are_capped_and_the_limit_is_told(make) -> None:
    hub = make(replays=2)
    first = hub.take(DAILY, "anonymous")
    hub.take(DAILY, "anonymous")
    with pytest.raises(CapacityError, match="at most 2"):
        hub.take(DAILY, "anonymous")
    hub.give_back(first, "anonymous")
    assert hub.take(DAILY, "anonymous")


def test_a_live_market_is_shared_and_ends_with_its_last_viewer_unless_it_is_the_default(
    make, mine: str
) -> None:
    hub = make()
    one, other = hub.take("mine", "anonymous"), hub.take("mine", "anonymous")
    assert one is other
    hub.give_back(one, "anonymous")
    assert not one.closed
    hub.give_back(other, "anonymous")
    assert one.closed
    default = make("mine")
    market = default.take("mine", "anonymous")
    default.give_back(market, "anonymous")
    assert not market.closed, "the default goes on, so that its history grows"


def test_data_that_may_not_be_shared_is_shown_to_one_person_on_loopback_only(make, mine: str) -> None:
    hub = make("mine")
    market = hub.take("mine", "ann")
    assert hub.take("mine", "ann") is market, "a second window of the same person"
    with pytest.raises(EntitlementError, match="one viewer"):
        hub.take("mine", "bob")
    with pytest.raises(EntitlementError, match=r"127\.0\.0\.1"):
        make("mine", loopback=False).take("mine", "ann")


@pytest.mark.parametrize(
    "name", ["replay:../../etc", "Replay:/etc", "simulated:instruments=5000", "yahoo:AAPL", "<b>", ""]
)
def test_an_address_opens_only_what_can_be_picked(make, name: str) -> None:
    hub = make()
    with pytest.raises(UnknownNameError, match="Unknown market"):
        hub.take(name, "anonymous")
    assert hub.markets == []


def test_a_replay_is_private_however_it_is_written(make) -> None:
    hub = make()
    one, other = hub.take("Replay:US-2010-daily", "ann"), hub.take(DAILY, "bob")
    assert one is not other
    assert hub.replays == 2


def test_auto_is_a_recording_where_yahoo_may_not_be_shown_or_a_start_is_asked_for(make) -> None:
    assert make("auto", loopback=False).default == DAILY
    hub = make("auto", start="2010-05-06 10:00")
    assert hub.default == DAILY
    assert "recording" in hub.reason


def test_a_page_that_cannot_be_drawn_gives_its_market_back(make, monkeypatch: pytest.MonkeyPatch) -> None:
    from marketdash.pages.overview import Overview
    from marketdash.views.treemap import Treemap

    def fail(self: Treemap) -> None:
        raise ValueError("no such thing")

    hub = make()
    monkeypatch.setattr(Treemap, "draw", fail)
    with pytest.raises(ValueError, match="no such thing"):
        Overview(hub)
    assert hub.replays == 0


def test_a_stated_licence_opens_it(make, mine: str) -> None:
    hub = make("mine", loopback=False, licences={"mine": "contract 7 of 2024"})
    assert hub.take("mine", "ann") is hub.take("mine", "bob")


@pytest.mark.parametrize(
    ("argv", "local"),
    [
        (["panel", "serve", "app.py"], False),
        (["panel", "serve", "app.py", "--address", "127.0.0.1"], True),
        (["panel", "serve", "app.py", "--address=localhost"], True),
        (["panel", "serve", "app.py", "--address", "0.0.0.0"], False),
    ],
)
def test_panel_serve_counts_as_local_only_when_it_was_told_so(argv: list[str], local: bool) -> None:
    assert _served_on_loopback(argv) is local


def test_what_is_wrong_with_the_default_is_said_before_anybody_looks(make) -> None:
    with pytest.raises(UnknownNameError, match="us-2010-daily"):
        make("replay:us-2010-dailyy").prepare()
    with pytest.raises(ClockError):
        make(start="the day after").prepare()
    with pytest.raises(ClockError):
        make("simulated", pace=5.0).prepare()


def test_start_and_pace_are_for_the_default_alone(make) -> None:
    hub = make(start="2010-05-06 15:00", pace=2.0)
    market = hub.take(DAILY, "anonymous")
    assert market.now.strftime("%Y-%m-%d") == "2010-05-06"
    assert market.clock.pace == 2.0
    assert hub.take("replay:us-2018-11-minute", "anonymous").clock.pace == 60.0


def test_the_choices_are_the_sessions_the_simulated_market_and_the_default(make, mine: str) -> None:
    names = [choice.source for choice in make("mine").choices()]
    assert names[0] == "mine"
    assert {DAILY, "replay:us-2018-11-minute", "replay:es-2013-09-ticks", "simulated"} <= set(names)
    assert all(choice.title and choice.note for choice in make().choices())


def test_health_of_a_hub_that_nobody_uses_is_idle_and_well(make) -> None:
    report = describe(make())
    assert (report["status"], report["state"], report["source"]) == ("ok", "idle", DAILY)
    assert report["markets"] == []


def test_health_tells_what_a_market_does(make) -> None:
    # By itself this market's days pass in seconds.
    hub = make(start="2010-05-06 16:00", pace=1.0)
    hub.take(DAILY, "anonymous")
    report = eventually(lambda: (r := describe(hub))["state"] == "running" and r, what="running")
    assert report["rows"]["bars"] > 50_000
    assert report["market_time"].startswith("2010-05-0")
    for field in ("version", "viewers", "lag", "pace", "stages"):
        assert field in report


def test_a_view_in_one_small_file_is_on_the_page(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from panel.pane import Str

    from marketdash.pages.overview import Overview
    from marketdash.views.base import VIEWS

    text = """
import panel as pn
from marketdash.views.base import View, view

@view("market_time")
class MarketTime(View):
    title = "Market time"

    def draw(self):
        self.text = pn.pane.Str(f"it is {self.market.now}")
        return self.text

    def update(self):
        self.text.object = f"it is {self.market.now}"
"""
    assert len(text.strip().splitlines()) < 25
    (tmp_path / "market_time.py").write_text(text, encoding="utf-8")
    VIEWS.discover(plugins=[tmp_path])
    try:
        hub = make()
        screen = Overview(hub)
        shown = [pane.object for pane in screen.body.select() if isinstance(pane, Str)]
        assert any(item.startswith("it is 2010-") for item in shown)
        screen.market.clock.step("session")
        screen.pump.tick()
        now = f"it is {screen.market.now}"
        assert now in [pane.object for pane in screen.body.select() if isinstance(pane, Str)]
        screen.close()
    finally:
        VIEWS.remove("market_time")


def test_a_view_that_cannot_be_drawn_is_named_and_the_others_are_shown(make) -> None:
    from marketdash.pages.overview import Overview
    from marketdash.views.base import VIEWS, View, view

    @view("broken")
    class Broken(View):
        def draw(self) -> None:
            raise ValueError("no such thing")

    try:
        screen = Overview(make())
        assert screen.board is not None
        assert "no such thing" in screen.board.problems[0]
        assert "candles" in screen.board.views
        screen.close()
    finally:
        VIEWS.remove("broken")
