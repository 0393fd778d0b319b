"""The bar of a page: which market this is, how late it is there, and which other markets there are."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import panel as pn
import panel_material_ui as pmui

from marketdash.market import Market
from marketdash.pages.desk import Choice
from marketdash.views.pump import Pump
from marketdash.views.theme import STATE_COLOURS

_BADGE = (
    '<span style="background:{colour}22;color:{colour};border:1px solid {colour}66;border-radius:6px;'
    'padding:2px 8px;font-weight:600;font-size:12px;letter-spacing:.04em;white-space:nowrap">{text}</span>'
)
_CLOCK = (
    '<span style="font-variant-numeric:tabular-nums;font-size:13px;white-space:nowrap">'
    '<span class="day">{day} </span>{time}</span>'
)
_NARROW = "@media (max-width: 600px) { .day { display: none } }"


class Bar:
    """Badge, market clock and session picker: `parts` for a page's header, `picker` for its toolbar."""

    def __init__(self, choices: list[Choice], chosen: str, pick: Callable[[str], None]) -> None:
        self.pump: Pump | None = None
        self.market: Market | None = None
        self._text = ("", "")
        self.badge = pn.pane.HTML("", margin=(0, 6), align="center", styles={"line-height": "24px"})
        self.clock = pn.pane.HTML(
            "", margin=(0, 6), align="center", styles={"line-height": "24px"}, stylesheets=[_NARROW]
        )
        self.picker = pmui.Select(
            label="Market",
            options={_line(choice): choice.source for choice in choices},
            value=chosen,
            size="small",
            variant="outlined",
            width=250,
            margin=0,
        )
        self.picker.param.watch(lambda event: pick(event.new), "value")
        self.parts = [self.badge, self.clock]

    def tick(self) -> bool:
        """Bring badge and clock up to date; returns whether they changed."""
        if self.market is None:
            return False
        text = (self.market.label, clock_text(self.market))
        if text == self._text:
            return False
        if text[0] != self._text[0]:
            colour = STATE_COLOURS.get(self.market.source.mode, STATE_COLOURS["none"])
            self.badge.object = _BADGE.format(colour=colour, text=escape(text[0]))
        day, _, time = text[1].partition("  ")
        self.clock.object = _CLOCK.format(day=escape(day), time=escape(time))
        self._text = text
        return True


def _line(choice: Choice) -> str:
    return f"{choice.title} — {choice.note}" if choice.note else choice.title


def clock_text(market: Market) -> str:
    """The market's time as a person reads it, in the exchange's zone."""
    return f"{market.now:%a %-d %b %Y  %H:%M:%S %Z}"
