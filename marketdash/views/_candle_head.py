"""What stands over a candle chart: the instrument, how far its price can be trusted, and the choices."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

import panel as pn
import panel_material_ui as pmui

from marketdash.indicators import INDICATORS
from marketdash.market import STATES, Market
from marketdash.views import theme
from marketdash.views._numbers import caption, stylesheet

LOOK_S = 1.0
"""Seconds between two looks at the state of the market and of the price."""

# Drawn, because a notebook does not have the font in which the widgets' icons are letters.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">'
    '<path d="{}" stroke="#000" stroke-width="2.4" fill="none"/></svg>'
)
_CROSS, _TO_THE_END = _ICON.format("M6 6 18 18M18 6 6 18"), _ICON.format("M6 5 13 12 6 19M18 5V19")

_SMALL = {"fontSize": "12px", "lineHeight": "20px", "textTransform": "none"}
_CLOSE = {"order": 1, "margin": "0 6px 0 -4px", "fontSize": "12px"}


class Head:
    """A line that wraps where it is narrow: name and chips, the switch of widths, indicators, the way to now.

    `on_width`, `on_add` and `on_remove` are called with what a person has chosen; `latest` is what the
    browser does at the last button: code, and the models it names.
    """

    def __init__(
        self,
        market: Market,
        *,
        on_width: Callable[[str], Any],
        on_add: Callable[[str], Any],
        on_remove: Callable[[str], Any],
        latest: tuple[str, dict[str, Any]],
    ) -> None:
        self.market, self._on_remove = market, on_remove
        self._look_at = 0.0
        sheets = [stylesheet("_numbers.css", "_candle.css")]
        self.about: Any = pn.pane.HTML("", stylesheets=sheets, margin=0, styles={"margin-right": "auto"})
        self.note: Any = pn.pane.HTML(
            "", stylesheets=sheets, margin=0, visible=False, sizing_mode="stretch_width"
        )
        self.widths: Any = pmui.RadioButtonGroup(
            options=list(market.widths),
            visible=len(market.widths) > 1,
            size="small",
            margin=0,
            sx={"& .MuiToggleButton-root": _SMALL | {"padding": "1px 7px"}},
        )
        self.chooser: Any = pmui.AutocompleteInput(
            options=list(INDICATORS),
            restrict=False,
            case_sensitive=False,
            min_characters=1,
            placeholder="Add indicator",
            size="small",
            variant="standard",
            width=112,
            margin=0,
            sx={"& .MuiInputBase-input": _SMALL},
        )
        self.newest: Any = pmui.IconButton(
            icon=_TO_THE_END, description="To the newest bar", size="small", color="default", margin=0
        )
        code, models = latest
        self.newest.js_on_click(args=models, code=code)
        self.widths.param.watch(lambda event: on_width(event.new), "value")
        self.chooser.param.watch(lambda event: on_add((event.new or "").strip()), "value")
        self.line: Any = pn.FlexBox(
            margin=0, gap="4px 8px", align_items="center", sizing_mode="stretch_width"
        )

    def show_choices(self, width: str, indicators: dict[str, str]) -> None:
        """Show the width, and the indicators with their colours."""
        self.widths.value = width
        chips = [self._chip(name, colour) for name, colour in indicators.items()]
        self.line.objects = [self.about, self.widths, *chips, self.chooser, self.newest]

    def tell(self, problem: str) -> None:
        """Say what is wrong with an indicator; nothing if that is empty."""
        text = f'<div class="numbers down">{escape(problem)}</div>'
        self.note.param.update(object=text, visible=bool(problem))

    def look(self, symbol: str, now: bool = False) -> None:
        """Show the instrument and its state, once in a while or `now`."""
        if not now and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        text = f'<div class="numbers caption">{self._describe(symbol)}</div>'
        if self.about.object != text:
            self.about.object = text

    def _describe(self, symbol: str) -> str:
        chip = caption(self.market)
        parts = [f"<h3>{escape(symbol)}</h3>", _mark(chip["label"], chip["state"], chip["why"])]
        if symbol:
            instrument = self.market.universe.get(symbol)
            parts.insert(1, f'<span class="quiet name">{escape(instrument.name)}</span>')
            state = STATES[self.market.values().state[instrument.id]]
            if state not in ("live", "none", chip["state"]):
                parts.append(_mark(state, state))
        return "".join(parts)

    def _chip(self, name: str, colour: str) -> Any:
        look = _SMALL | {"height": "22px", "borderColor": colour, "& .MuiChip-icon": _CLOSE}
        chip: Any = pmui.Chip(
            name, icon=_CROSS, size="small", variant="outlined", color="default", margin=0, sx=look
        )
        chip.on_click(lambda _: self._on_remove(name))
        return chip


def _mark(label: str, state: str, why: str = "") -> str:
    colour = theme.STATE_COLOURS[state]
    return f'<span class="chip" style="--chip:{colour}" title="{escape(why)}">{escape(label)}</span>'


__all__ = ["Head"]
