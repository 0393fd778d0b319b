"""The controls of a replay: play and pause, step, pace, and a scrubber over the whole session."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import panel as pn
import panel_material_ui as pmui
import param

from marketdash.clock import ReplayClock
from marketdash.log import Manifest
from marketdash.market import Market
from marketdash.sources.replay import ReplaySource
from marketdash.views.pump import Pump

SCRUBBER_STEPS = 2000
DAY_S = 23_400.0
GO_TO = "Go to …"


def _icon(path: str) -> str:
    # Drawn, not named: the font that a name stands for is not loaded in a notebook.
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="22" height="22" fill="currentColor">'
    return f'{head}<path d="{path}"/></svg>'


PLAY, PAUSE, NEXT = (
    _icon("M8 5v14l11-7z"),
    _icon("M6 5h4v14H6zM14 5h4v14h-4z"),
    _icon("M6 6v12l9-6zM16 6h2v12h-2z"),
)

_INTRADAY = (1.0, 10.0, 60.0, 300.0, 1000.0, 3600.0)
_DAILY = (DAY_S / 4, DAY_S, DAY_S * 2, DAY_S * 5, DAY_S * 20)


class Controls(pn.viewable.Viewer):
    """Moves one viewer's replay clock."""

    def __init__(self, market: Market, clock: ReplayClock) -> None:
        super().__init__()
        self.market, self.clock = market, clock
        self.pump: Pump | None = None
        self._shown = 0.0
        self._dragging = False
        self._seen: tuple[Any, ...] = ()
        # Two buttons that take turns, since one keeps showing the icon that it was first given.
        self.play = pmui.IconButton(icon=PLAY, description="Play", visible=not clock.playing, margin=0)
        self.pause = pmui.IconButton(icon=PAUSE, description="Pause", visible=clock.playing, margin=0)
        self.step = pmui.IconButton(icon=NEXT, size="medium", description="Step to the next bar", margin=0)
        options = paces(clock.pace, daily=market.widths == ("1d",))
        self.pace = pmui.Select(
            label="Pace",
            options=options,
            value=clock.pace,
            size="small",
            variant="outlined",
            width=118,
            margin=0,
        )
        self.scrubber = pmui.FloatSlider(
            start=0, end=1, step=1 / SCRUBBER_STEPS, value=0, show_value=False, size="small",
            tooltips=False, sizing_mode="stretch_width", margin=(0, 10), min_width=150,
            styles={"flex": "1 1 200px", "width": "auto"},
        )  # fmt: skip
        self.moments = pmui.Select(
            options={GO_TO: "", **self._moments()}, value="", size="small", variant="outlined", width=150, margin=0,
        )  # fmt: skip
        self.play.param.watch(lambda _: self._do(clock.play), "clicks")
        self.pause.param.watch(lambda _: self._do(clock.pause), "clicks")
        self.step.param.watch(lambda _: self._step(), "clicks")
        self.pace.param.watch(self._paced, "value")
        self.scrubber.param.watch(self._moved, "value")
        self.scrubber.param.watch(self._released, "value_throttled")
        self._arm()
        self.moments.param.watch(self._went, "value")
        self.parts: list[Any] = [self.play, self.pause, self.step, self.pace, self.scrubber]
        if len(self.moments.options) > 1:
            self.parts.append(self.moments)
        self.drawn = toolbar(self.parts)
        self.tick()

    @property
    def note(self) -> str:
        """What is special about this session."""
        return self._manifest.note

    @property
    def _manifest(self) -> Manifest:
        assert isinstance(self.market.source, ReplaySource)
        return self.market.source.log.manifest

    def _moments(self) -> dict[str, str]:
        return {f"{moment.time[:10]}  {moment.text}": moment.time for moment in self._manifest.highlights}

    def tick(self) -> bool:
        """Show where the clock is; returns whether something changed."""
        playing, pace = self.clock.playing, self.clock.pace
        length = max(self.clock.timeline.length, 1)
        place = (
            round(self.clock.timeline.active(self.clock.now_us()) / length * SCRUBBER_STEPS) / SCRUBBER_STEPS
        )
        state = (playing, self.clock.finished, pace, place)
        if state == self._seen:
            return False
        self._seen = state
        self.play.visible, self.pause.visible = not playing, playing
        if pace in self.pace.options.values() and self.pace.value != pace:
            self.pace.value = pace
        if not self._dragging and place != self._shown:
            self._shown = place
            self.scrubber.value = place
        return True

    def _do(self, command: Callable[[], None]) -> None:
        command()
        self._refresh()

    def _step(self) -> None:
        self.clock.step("session" if self.market.widths == ("1d",) else "bar")
        self._refresh()

    def _paced(self, event: Any) -> None:
        if event.new != self.clock.pace:
            self.clock.pace = event.new

    def _moved(self, event: Any) -> None:
        # The slider tells of every pixel of a drag: only its end is a seek.
        self._dragging = event.new != self._shown

    def _released(self, event: Any) -> None:
        if event.new is None:
            return
        self._dragging = False
        self._shown = event.new
        self.clock.seek(self.clock.timeline.at(int(event.new * self.clock.timeline.length)))
        self._arm()
        self._refresh()

    def _arm(self) -> None:
        # The browser tells only of a value that differs from the one before: without this, letting go twice
        # at the same place (or first at the very start) would be no event.
        with param.edit_constant(self.scrubber):
            self.scrubber.value_throttled = None

    def _went(self, event: Any) -> None:
        if event.new:
            self.clock.seek(event.new)
            self._refresh()
            # Back to the empty choice, so that the same moment can be gone to again.
            self.moments.value = ""

    def _refresh(self) -> None:
        if self.pump is not None:
            self.pump.wake()

    def __panel__(self) -> Any:
        return self.drawn


def toolbar(parts: list[Any]) -> Any:
    """Controls side by side, in more rows where there is no room."""
    return pn.FlexBox(
        *parts, align_items="center", flex_wrap="wrap", gap="8px 10px", sizing_mode="stretch_width", margin=0
    )


def paces(current: float, *, daily: bool) -> dict[str, float]:
    """The paces to choose from, and the current one, by label.

    >>> paces(60, daily=False)["60×"]
    60.0
    """
    values = sorted({*(_DAILY if daily else _INTRADAY), float(current)})
    return {pace_text(value, daily=daily): value for value in values}


def pace_text(pace: float, *, daily: bool) -> str:
    """A pace as a person says it: times as fast, or trading days a second.

    >>> pace_text(46800, daily=True)
    '2 days/s'
    """
    if math.isinf(pace):
        return "fastest"
    if daily:
        days = pace / DAY_S
        return f"{days:g} day/s" if days <= 1 else f"{days:g} days/s"
    return f"{pace:g}×"
