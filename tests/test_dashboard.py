"""The dashboard in a real browser: what a viewer sees, what viewers share, and what stays behind when they leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import PATIENCE_S, ROOT, Served, eventually, marketdash_serve, panel_serve

OFFLINE = {"MARKETDASH_YAHOO_URL": "http://127.0.0.1:9"}  # the discard port: refused at once
# A session is unused, too, from the answer with its page until the browser has loaded the scripts and opened the
# socket: the lifetime must be longer than that ever takes.
QUICK = ("--unused-session-lifetime", "8000", "--check-unused-sessions", "500")

MODELS = """
const models = []
for (const doc of (window.Bokeh ? window.Bokeh.documents : [])) models.push(...doc._all_models.values())
"""
CANDLES = f"""() => {{ {MODELS}
  const source = models.find((m) => m.name === "bars" && m.type === "ColumnDataSource")
  return source && source.data.i.length
    ? JSON.stringify([Array.from(source.data.i).slice(-2), Array.from(source.data.c).slice(-2)]) : null
}}"""
TILES = f"""() => {{ {MODELS}
  const sizes = models.filter((m) => m.type === "ColumnDataSource" && "left" in m.data).map((m) => m.data.left.length)
  return Math.max(0, ...sizes)
}}"""
TEXT = """() => {
  const seen = []
  const walk = (node) => {
    if (node.nodeType === Node.TEXT_NODE) seen.push(node.textContent)
    if (node.shadowRoot) walk(node.shadowRoot)
    for (const child of node.childNodes) if (!["STYLE", "SCRIPT"].includes(child.nodeName)) walk(child)
  }
  walk(document.body)
  return seen.join(" ")
}"""


class Screen:
    """A page in a browser of its own, which notes every error and every request that leaves the machine."""

    def __init__(self, chromium: Any, url: str, width: int = 1440, height: int = 900) -> None:
        self.context = chromium.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(PATIENCE_S * 1000)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)
        self.page.goto(url)

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("http://localhost", "http://127.0.0.1", "data:", "blob:")):
            self.foreign.append(request.url)

    def wait(self, script: str, **options: Any) -> Any:
        return self.page.wait_for_function(script, **options).json_value()

    def moved(self, script: str = CANDLES) -> str:
        """Wait until what the script gives is there and has changed once; returns the new state."""
        before = self.wait(script)
        changed = f"(before) => {{ const now = ({script})(); return now !== before ? now : null }}"
        return str(self.wait(changed, arg=before))

    @property
    def text(self) -> str:
        return str(self.page.evaluate(TEXT))

    def says(self, words: str) -> bool:
        return words in self.text

    def close(self) -> None:
        self.context.close()


@contextmanager
def screen(chromium: Any, url: str, **size: int) -> Iterator[Screen]:
    shown = Screen(chromium, url, **size)
    try:
        yield shown
    finally:
        shown.close()


@pytest.fixture(scope="module")
def recorded() -> Iterator[Served]:
    """The default dashboard on a machine without a network."""
    with marketdash_serve(**OFFLINE) as served:
        yield served


@pytest.fixture(scope="module")
def simulated() -> Iterator[Served]:
    with marketdash_serve("--source", "simulated:instruments=40,rate=300") as served:
        yield served


def test_the_first_screen_moves_and_says_what_it_is(recorded: Served, chromium: Any) -> None:
    with screen(chromium, recorded.url) as shown:
        first = shown.wait(CANDLES)
        assert shown.moved() != first
        shown.wait(f"() => ({TILES})() >= 300")
        eventually(lambda: shown.says("REPLAY 2010-0"), what="the badge")
        eventually(lambda: shown.says("Yahoo does not answer"), what="why it is a replay")
        assert not shown.errors
        assert not shown.foreign


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_fits_a_wide_screen_and_a_phone_dark_and_light(
    recorded: Served, chromium: Any, width: int
) -> None:
    with screen(chromium, recorded.url, width=width, height=844) as shown:
        shown.wait(CANDLES)
        shown.wait(f"() => ({TILES})() >= 300")
        # What has just been drawn may be laid out once more before it has its place.
        shown.wait("(width) => document.documentElement.scrollWidth <= width", arg=width)
        ground = "() => getComputedStyle(document.body).backgroundColor"
        dark = shown.page.evaluate(ground)
        shown.page.get_by_label("Toggle theme").click()
        shown.wait(f"(dark) => ({ground})() !== dark", arg=dark)
        assert shown.moved(), "the chart must go on in the other theme"
        assert not shown.errors


def test_play_pause_and_seek_move_this_viewers_market(recorded: Served, chromium: Any) -> None:
    def paused() -> list[str]:
        # The markets of viewers who have just left play on for a while: the one that stands still is ours.
        return [market["market_time"] for market in recorded.health()["markets"] if not market["playing"]]

    with screen(chromium, recorded.url) as shown:
        shown.moved()
        assert not paused()
        shown.page.get_by_label("Pause", exact=True).click()
        (before,) = eventually(paused, what="paused")
        slider = shown.page.locator("input[type=range]").first
        slider.focus()
        slider.press("Home")
        (start,) = eventually(lambda: (now := paused()) and now[0] < before and now, what="a jump back")
        assert start.startswith("2009-08-21"), "the start of the session"
        shown.page.get_by_label("Play", exact=True).click()
        eventually(lambda: not paused(), what="playing again")


def test_a_session_is_picked_and_the_address_follows(recorded: Served, chromium: Any) -> None:
    with screen(chromium, f"{recorded.url}/?source=replay:us-2018-11-minute&symbol=NVDA") as shown:
        shown.wait(CANDLES)
        eventually(lambda: shown.says("REPLAY 2018-11-16"), what="the badge of the session in the address")
        eventually(lambda: shown.says("NVIDIA Corporation"), what="the symbol in the address")
        shown.page.locator(".MuiSelect-select").first.click()
        shown.page.get_by_text("E-mini", exact=False).first.click()
        eventually(lambda: shown.says("REPLAY 2013-09-0"), what="the badge of the picked session")
        eventually(lambda: "es-2013-09-ticks" in shown.page.evaluate("location.href"), what="the address")
        assert shown.moved()
        assert not shown.errors


def test_an_unknown_session_in_the_address_is_told_with_the_nearest(recorded: Served, chromium: Any) -> None:
    with screen(chromium, f"{recorded.url}/?source=replay:us-2018-11-minut&symbol=NVDA") as shown:
        eventually(lambda: shown.says("Did you mean replay:us-2018-11-minute"), what="the hint")
        assert shown.wait(CANDLES), "the default market is shown instead"
        assert not shown.errors


def test_an_address_cannot_smuggle_a_script_in(recorded: Served, chromium: Any) -> None:
    with screen(chromium, f"{recorded.url}/?source=<img src=x onerror=window.smuggled=1>") as shown:
        eventually(lambda: shown.says("Unknown market '<img src=x"), what="the text as it is")
        assert shown.page.evaluate("window.smuggled") is None
        assert not shown.errors


def test_two_viewers_of_a_simulated_market_see_the_same(simulated: Served, chromium: Any) -> None:
    with screen(chromium, simulated.url) as one, screen(chromium, simulated.url) as other:
        one.moved()
        other.moved()
        bars = "() => { const s = JSON.parse((" + CANDLES + ")()); return s[0][0] + ':' + s[1][0] }"
        eventually(
            lambda: one.page.evaluate(bars) == other.page.evaluate(bars), what="the same last complete bar"
        )
        eventually(lambda: one.says("SIMULATED") and other.says("SIMULATED"), what="the badges")
        eventually(lambda: simulated.health()["viewers"] == 2, what="two viewers")
        assert one.page.get_by_label("Pause", exact=True).count() == 0, "a live market has no controls"


def test_panel_serve_gives_each_browser_its_own_replay_and_frees_it(chromium: Any) -> None:
    app = ROOT / "apps" / "dashboard.py"
    with panel_serve(app, "--plugins", "marketdash.server.health", *QUICK, **OFFLINE) as served:
        url = f"{served.url}/dashboard"
        with screen(chromium, url) as one:
            one.moved()
            with screen(chromium, url) as other:
                other.moved()
                eventually(lambda: served.health()["replays"] == 2, what="two replays")
                one.page.get_by_label("Pause", exact=True).click()
                eventually(
                    lambda: not all(m["playing"] for m in served.health()["markets"]), what="one paused"
                )
                times = {market["playing"]: market["market_time"] for market in served.health()["markets"]}
                assert set(times) == {True, False}
                paused = times[False]
                other.moved()
                assert {m["playing"]: m["market_time"] for m in served.health()["markets"]}[False] == paused
                assert not other.foreign
                assert not other.errors
            eventually(
                lambda: served.health()["replays"] == 1, what="the replay of the one who left is freed"
            )
            assert not one.errors
        report = eventually(lambda: (r := served.health())["replays"] == 0 and r, what="all replays freed")
        assert report["viewers"] == 0
        assert report["markets"] == []
        eventually(lambda: served.health()["sessions"] == 0, what="all sessions freed")


FAILING = """
import asyncio
from pathlib import Path
from marketdash.instruments import Universe
from marketdash.sources.base import BaseSource, source

def seen(what):
    return Path(__file__).with_name(what).exists()

@source("failing")
class Failing(BaseSource):
    name, stall_after = "failing", 0.3
    def __init__(self, argument=""):
        super().__init__(Universe.of(["GOOD", "BAD"]))
    async def batches(self):
        for price in range(100, 110):
            row = {"time": [self.clock.now()], "instrument_id": [0], "price": [float(price)], "size": [1.0]}
            yield "ticks", row
        if not seen("error"):
            raise ConnectionError("the provider hung up")
        if not seen("nonsense"):
            yield "ticks", {"nonsense": [1]}
        while not seen("stall"):
            await asyncio.sleep(3600)
        while True:
            yield "ticks", row
            await asyncio.sleep(0.05)
"""


def test_a_source_that_fails_is_seen_and_tried_again(chromium: Any, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING, encoding="utf-8")
    options = {"MARKETDASH_PLUGINS": str(tmp_path)}

    def seen(what: str) -> None:
        """Tell the source to go on to its next fault: each lasts until it was seen, however long that takes."""
        (tmp_path / what).touch()

    with marketdash_serve("--source", "failing", **options) as served, screen(chromium, served.url) as shown:

        def told(state: str, words: str) -> bool:
            report = served.health()
            return (report["status"], report["state"]) == ("degraded", state) and words in report["message"]

        # While it is tried again it runs for a moment: screen and report are each looked at until they tell.
        eventually(lambda: shown.says("the provider hung up"), what="the error on screen")
        eventually(lambda: told("retrying", "the provider hung up"), what="the error in the report")
        seen("error")
        eventually(lambda: told("retrying", "nonsense"), what="nonsense is told")
        seen("nonsense")
        eventually(lambda: told("stalled", "silence"), what="silence is a stall")
        eventually(lambda: shown.says("failing is stalled"), what="the stall on screen")
        report = eventually(
            lambda: (r := served.health())["restarts"] >= 4 and r, what="tried again and again"
        )
        assert report["rows"]["ticks"] >= 30, "what came between the failures is kept"
        seen("stall")
        eventually(lambda: served.health()["status"] == "ok", what="all is well again")
        eventually(lambda: not shown.says("failing is stalled"), what="no trouble on screen")
        assert not shown.errors
