"""The controls of a replay: play and pause, step, pace, and a scrubber over the whole session."""

from __future__ import annotations

import math
from typing import Any

import panel as pn
import panel_material_ui as pmui

from marketdash.clock import ReplayClock
from marketdash.market import Market
from marketdash.sources.replay import ReplaySource
from marketdash.views.pump import Pump

SCRUBBER_STEPS = 2000
DAY_S = 23_400.0

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
        self.play = pmui.IconButton(icon="pause", size="medium", description="Play or pause")
        self.step = pmui.IconButton(icon="skip_next", size="medium", description="Step to the next bar")
        options = paces(clock.pace, daily=market.widths == ("1d",))
        self.pace = pmui.Select(
            label="Pace", options=options, value=clock.pace, size="small", variant="outlined", width=130, margin=(0, 8)
        )
        self.scrubber = pmui.FloatSlider(
            start=0, end=1, step=1 / SCRUBBER_STEPS, value=0, show_value=False, size="small",
            tooltips=False, sizing_mode="stretch_width", margin=(0, 12), min_width=160,
        )  # fmt: skip
        self.span = pn.pane.HTML("", margin=(0, 4))
        self.play.param.watch(lambda _: self._toggle(), "clicks")
        self.step.param.watch(lambda _: self._step(), "clicks")
        self.pace.param.watch(self._paced, "value")
        self.scrubber.param.watch(self._moved, "value")
        self.scrubber.param.watch(self._released, "value_throttled")
        self.drawn = pn.Column(
            pn.FlexBox(
                self.play, self.step, self.pace, self.scrubber, align_items="center", flex_wrap="nowrap",
                sizing_mode="stretch_width",
            ),
            pn.FlexBox(*self._highlights(), gap="6px", flex_wrap="wrap", sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
            margin=0,
        )  # fmt: skip
        self.tick()

    def _highlights(self) -> list[Any]:
        assert isinstance(self.market.source, ReplaySource)
        manifest = self.market.source.log.manifest
        note = pn.pane.HTML(
            f'<span style="font-size:12.5px;opacity:.75">{manifest.note}</span>', margin=(2, 8), sizing_mode=None
        )
        chips: list[Any] = []
        for moment in manifest.highlights:
            chip = pmui.Button(label=moment.text, size="small", variant="outlined", margin=2)
            chip.param.watch(lambda _, time=moment.time: self._seek(time), "clicks")
            chips.append(chip)
        return [note, *chips]

    def tick(self) -> bool:
        """Show where the clock is; returns whether something changed."""
        playing, pace = self.clock.playing, self.clock.pace
        length = max(self.clock.timeline.length, 1)
        place = round(self.clock.timeline.active(self.clock.now_us()) / length * SCRUBBER_STEPS) / SCRUBBER_STEPS
        state = (playing, self.clock.finished, pace, place)
        if state == self._seen:
            return False
        self._seen = state
        self.play.icon = "pause" if playing else "replay" if self.clock.finished else "play_arrow"
        if pace in self.pace.options.values() and self.pace.value != pace:
            self.pace.value = pace
        if not self._dragging and place != self._shown:
            self._shown = place
            self.scrubber.value = place
        return True

    def _toggle(self) -> None:
        if self.clock.playing:
            self.clock.pause()
        else:
            self.clock.play()
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
        self._dragging = False
        if event.new is not None and event.new != self._shown:
            self._shown = event.new
            self.clock.seek(self.clock.timeline.at(int(event.new * self.clock.timeline.length)))
            self._refresh()

    def _seek(self, moment: str) -> None:
        self.clock.seek(moment)
        self._refresh()

    def _refresh(self) -> None:
        if self.pump is not None:
            self.pump.wake()

    def __panel__(self) -> Any:
        return self.drawn


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


