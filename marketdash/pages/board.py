"""The board: all views of one market in a grid that goes from a phone to a wide screen."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
import param

from marketdash.errors import MarketdashError
from marketdash.market import Market
from marketdash.views.base import VIEWS, View
from marketdash.views.pump import Pump

CORE = ("strip", "treemap", "candles", "watchlist", "sector_heatmap")
"""The views that have a place of their own; every other registered view follows below them."""

CARD = {"borderRadius": "14px", "padding": "12px 14px", "minWidth": 0, "overflow": "hidden"}


_MARKDOWN = re.compile(r"([\\\\`*_{}\[\]()#+!|~>:-])")

LATER = ("sector_heatmap",)
"""Below the first screen: drawn when the rest is there, so that a page paints sooner."""


class Board(pn.viewable.Viewer):
    """Draws one market with every view, which share the selected symbol.

    With `hurry` the views below the first screen are drawn after the browser shows the others.
    """

    symbol = param.String(default="", doc="The instrument that is selected on this screen.")

    def __init__(self, market: Market, *, hurry: bool = False, **params: Any) -> None:
        self.market = market
        self._waiting: dict[str, Any] = {}
        self._later = LATER if hurry else ()
        self.pump: Pump | None = None
        params["symbol"] = params.get("symbol") or default_symbol(market)
        super().__init__(**params)
        self.views: dict[str, View] = {name: self._make(name) for name in CORE}
        self.problems: list[str] = []
        for name in VIEWS:
            if name not in CORE:
                self._try(name)
        for view in self.views.values():
            view.param.watch(self._picked, "symbol")
        self.param.watch(self._select, "symbol")
        self.drawn = self._arrange()

    def _make(self, name: str) -> View:
        return VIEWS.get(name)(self.market, symbol=self.symbol)

    def _try(self, name: str) -> None:
        # A view that somebody added must not take the board down with it.
        try:
            view = self._make(name)
            _ = view.drawn
            self.views[name] = view
        except Exception as error:
            text = str(error) if isinstance(error, MarketdashError) else f"{type(error).__name__}: {error}"
            self.problems.append(f"The view {name!r} cannot be drawn: {text}")

    def _picked(self, event: Any) -> None:
        if event.new in self.market.universe:
            self.symbol = event.new

    def _select(self, event: Any) -> None:
        for view in self.views.values():
            view.symbol = event.new

    def _arrange(self) -> Any:
        cards = {name: _card(self._placed(name, view)) for name, view in self.views.items()}
        strip = cards.pop("strip")
        top = _grid([cards.pop("treemap"), cards.pop("candles")])
        below = _grid([cards.pop("watchlist"), cards.pop("sector_heatmap")])
        rest = [_grid(list(cards.values()))] if cards else []
        notes = [
            pmui.Alert(plain(text), severity="warning", sizing_mode="stretch_width") for text in self.problems
        ]
        return pn.Column(
            strip, top, below, *rest, *notes, sizing_mode="stretch_width", styles={"gap": "12px"}, margin=0
        )

    def _placed(self, name: str, view: View) -> Any:
        if name not in self._later:
            return view.drawn
        self._waiting[name] = pn.Column(sizing_mode="stretch_width", min_height=260, margin=0)
        return self._waiting[name]

    def tick(self) -> bool:
        """Tick every view; returns whether one of them changed something."""
        changed = False
        if self._waiting and pn.state.loaded:
            name, place = self._waiting.popitem()
            place.objects = [self.views[name].drawn]
            changed = True
        failure: Exception | None = None
        for view in self.views.values():
            try:
                changed = view.tick() or changed
            except Exception as error:  # the others go on; the pump counts and names it
                failure = error
        if failure is not None:
            raise failure
        return changed

    def redraw(self) -> None:
        """Draw everything anew at the next tick."""
        for view in self.views.values():
            view.redraw()

    def __panel__(self) -> Any:
        return self.drawn


def plain(text: str) -> str:
    """A text that an Alert shows as it is: an Alert takes Markdown with HTML in it, and a text may hold anything."""
    return _MARKDOWN.sub(r"\\\1", escape(text, quote=False))  # quotes are harmless, their entities are not


def default_symbol(market: Market) -> str:
    """The instrument with the largest turnover today, else the first one."""
    if not len(market.universe):
        return ""
    turnover = market.day()["turnover"]
    return market.universe.symbols[int(np.nanargmax(turnover)) if np.isfinite(turnover).any() else 0]


def _card(content: Any) -> Any:
    return pmui.Paper(
        content, elevation=0, variant="outlined", sx=CARD, sizing_mode="stretch_width", margin=0
    )


def _grid(cards: list[Any]) -> Any:
    # As many columns as fit at 520 px each, one on a phone; no media queries, so it works in a cell too.
    styles = {
        "display": "grid",
        "gap": "12px",
        "max-height": "none",  # Panel's 100 % would cut off the second card where there is one column
        "grid-template-columns": "repeat(auto-fit, minmax(min(520px, 100%), 1fr))",
    }
    return pn.Column(*cards, sizing_mode="stretch_width", styles=styles, margin=0)
