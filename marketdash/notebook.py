"""The facade for a notebook: views of a market, shown in a cell."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import panel as pn

from marketdash.log import SessionLibrary
from marketdash.market import Market, open_market
from marketdash.pages.board import Board
from marketdash.pages.controls import Controls
from marketdash.sources.replay import ReplaySource
from marketdash.views.base import VIEWS, View
from marketdash.views.cell import in_cell
from marketdash.views.pump import Pump


def extension() -> None:
    """Load Panel into this notebook, from this machine alone; called by every view, loading once."""
    if "IPython" in sys.modules and not pn.extension._loaded:
        # inline: without it Panel fetches its scripts from a content network.
        pn.extension(inline=True)


def demo(source: str = "replay:us-2010-daily", **options: Any) -> Demo:
    """The overview of a market, moving: by default the days before the Flash Crash of 2010, one a second."""
    if source == "replay:us-2010-daily":
        options.setdefault("start", "2010-04-12")
    return Demo(open_market(source, **options))


class Demo(pn.viewable.Viewer):
    """A market with all its views; `demo.market` is the market, `demo.market.close()` ends it."""

    def __init__(self, market: Market) -> None:
        extension()
        super().__init__()
        self.market = market
        self.pump: Pump | None = None
        self._cell: Any = None
        self.board = Board(market)
        parts: list[Any] = [self.board.drawn]
        self.controls: Controls | None = None
        if isinstance(market.source, ReplaySource):
            self.controls = Controls(market, market.source.clock)
            parts.insert(0, self.controls.drawn)
        self.drawn = pn.Column(*parts, sizing_mode="stretch_width")

    def tick(self) -> bool:
        moved = self.controls.tick() if self.controls is not None else False
        return self.board.tick() or moved

    def redraw(self) -> None:
        self.board.redraw()

    def __panel__(self) -> Any:
        if self._cell is None:
            self._cell = in_cell(self)
        return self._cell


def view(name: str, market: Market, **options: Any) -> View:
    """A registered view of a market, as a live Panel object: show it in a cell, or put it in a layout."""
    extension()
    return VIEWS.get(name)(market, **options)


def candles(market: Market, symbol: str, width: str | None = None, indicators: Sequence[str] = ()) -> View:
    """A live candle chart: `md.candles(market, "NVDA", "5min", indicators=["SMA(20)", "RSI(14)"])`."""
    market.universe.id(symbol)
    chosen = width or market.default_width
    market.graph.store.ring(chosen)
    return view("candles", market, symbol=symbol, width=chosen, indicators=list(indicators))


def heatmap(market: Market, **options: Any) -> View:
    """A live treemap by sector: area is turnover, colour is change."""
    return view("treemap", market, **options)


def watchlist(market: Market, symbols: Iterable[str] | None = None, **options: Any) -> View:
    """A live table of some instruments: last price, change, the day's line, age and state."""
    names = [market.universe.get(symbol).symbol for symbol in symbols or ()]
    return view("watchlist", market, symbols=names, **options)


def sessions() -> pd.DataFrame:
    """The recorded sessions that can be replayed, indexed by name."""
    rows = [
        {"session": m.name, "title": m.title, "first": m.first, "last": m.last, "note": m.note}
        for m in SessionLibrary().manifests()
    ]
    return pd.DataFrame(rows, columns=["session", "title", "first", "last", "note"]).set_index("session")
