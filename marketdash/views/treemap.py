"""The treemap: every instrument is a tile, as large as its turnover and coloured by its change."""

from __future__ import annotations

import time
from html import escape
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import panel as pn
import param
from bokeh.events import Tap
from bokeh.models import ColumnDataSource, CustomJS, CustomJSHover, CustomJSTransform, HoverTool, LinearColorMapper
from bokeh.models import Range1d
from bokeh.plotting import figure
from bokeh.transform import transform

from marketdash.instruments import Instrument
from marketdash.market import Market
from marketdash.market.state import NONE, STALE, STATES
from marketdash.views import theme
from marketdash.views.base import View, view
from marketdash.views.squarify import BOTTOM, LEFT, RIGHT, TOP, has_heading, nested

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAYS = 20
"""Daily bars over which turnover is averaged."""
MOVED = 0.05
"""Part of the area that must belong elsewhere before the tiles are laid out anew."""
LAYOUT_S, STATE_S = 10.0, 1.0
"""Least seconds between two looks at turnover, and between two looks at states and at who has a price."""
WIDTH, HEIGHT = 860, 560
"""Size in pixels until the browser has told how wide the figure is."""
STRIP, GAP = 18.0, 3.0
"""Height of a sector's heading and the space between sectors, in pixels."""
LARGEST, SMALLEST = 44.0, 9.0
"""Sizes of a tile's text, in pixels; what would be smaller is left out."""
SUBUNITS = {"GBp": 0.01, "ZAc": 0.01, "ILA": 0.01}
"""Price units that are a part of their currency."""


class Turnover(NamedTuple):
    """Average daily turnover by instrument (NaN without volume), and whether prices were guessed for it."""

    average: Floats
    typical: bool


def average_turnover(market: Market, days: int = DAYS) -> Turnover:
    """The average over the last daily bars, today's included, each instrument in its own currency.

    Where the source gives no turnover it is the typical price (H+L+C)/3 times the volume.
    """
    bars = market.history("1d", last=days)
    vwap, volume = bars.array("vwap"), bars.array("volume")
    typical = (bars.array("high") + bars.array("low") + bars.array("close")) / 3
    daily = np.where(np.isfinite(vwap), vwap, typical) * volume
    known = np.isfinite(daily)
    total, count = np.where(known, daily, 0.0).sum(axis=0), known.sum(axis=0)
    unit = np.array([item.multiplier * SUBUNITS.get(item.price_unit, 1.0) for item in market.universe])
    average = np.where((count > 0) & (total > 0), total / np.maximum(count, 1), np.nan) * unit
    return Turnover(average, bool((known & ~np.isfinite(vwap) & (volume > 0)).any()))


def areas(turnover: Floats, shown: npt.NDArray[np.bool_], currencies: npt.NDArray[Any]) -> Floats:
    """The share of the area that each instrument gets; 0 where none is shown.

    Turnover is compared within a currency only: each currency gets as much as it has instruments. What trades
    without volume gets the smallest tile of its currency; where no volume is known, all tiles are equal.
    """
    wanted = np.zeros(len(turnover))
    for currency in np.unique(currencies[shown]):
        mine = shown & (currencies == currency)
        known = turnover[mine]
        known = np.where(np.isfinite(known), known, np.nanmin(known) if np.isfinite(known).any() else 1.0)
        wanted[mine] = known / known.sum() * mine.sum()
    return wanted / max(wanted.sum(), 1e-300)


@view("treemap")
class Treemap(View):
    """Areas are average daily turnover, colours the change since the previous close on a fixed scale."""

    title = "Treemap"
    reads = ("bars",)

    scale = param.Number(default=3.0, bounds=(0.01, None), doc="Per cent of change at which the colour is full.")
    height = param.Integer(default=HEIGHT, bounds=(120, None), doc="Height of the figure in pixels.")

    def __init__(self, market: Market, **params: Any) -> None:
        super().__init__(market, **params)
        self._currencies = np.array([item.currency for item in market.universe], dtype=str)
        names = [_group(item, len(set(self._currencies)) > 1) for item in market.universe]
        self._groups, self._group = np.unique(np.array(names, dtype=str), return_inverse=True)
        self._ids = np.zeros(0, np.int64)
        self._labelled = np.zeros(0, np.int64)
        self._wanted = np.zeros(len(market.universe))
        self._state = np.zeros(len(market.universe), np.int8)
        self._priced = np.zeros(len(market.universe), np.bool_)
        self._typical = False
        self._next_look = self._next_layout = 0.0
        self._room = (float(WIDTH), float(self.height))
        self._resized = False
        self.param.watch(lambda _: self.refresh(), ["symbol", "scale"])

    def draw(self) -> Any:
        self.tiles, self.labels, self.sectors, self.outline = (ColumnDataSource() for _ in range(4))
        self.colours = LinearColorMapper(theme.diverging(), low=-self.scale, high=self.scale, nan_color=theme.MISSING)
        self.figure = self._figure()
        self.caption = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 0, 8, 0))
        self._look()
        self._lay_out()
        self._describe()
        return pn.Column(self.caption, self.figure, sizing_mode="stretch_width", margin=0)

    def changed(self) -> tuple[int, int]:
        # Nothing tells that a price grows old, so that a silent market is looked at too, once a second.
        return self.market.epoch, self.market.version + int(time.monotonic() / STATE_S)

    def update(self) -> None:
        now, jumped = time.monotonic(), self.jumped
        look = jumped or now >= self._next_look
        if look:
            self._next_look = now + STATE_S
            self._look()
        if jumped or self._resized or self._must_lay_out(now, look):
            self._lay_out()
        else:
            self._colour()
            if look:
                self._tell()
        self._mark()
        if look:
            self._describe()

    # Reading

    def _look(self) -> None:
        """Judge states, which change slowly."""
        self._state = self.market.values().state

    def _shades(self) -> npt.NDArray[np.float32]:
        """Change in per cent by instrument as it is drawn: to the basis point, and NaN where it is stale."""
        change = np.where(self._state == STALE, np.nan, self.market.graph.last.change)
        return np.round(change * 100, 2).astype(np.float32)

    def _must_lay_out(self, now: float, look: bool) -> bool:
        if look and not np.array_equal(self._priced, self._state != NONE):
            return True
        if now < self._next_layout:
            return False
        self._next_layout = now + LAYOUT_S
        return bool(np.abs(self._shares() - self._wanted).sum() / 2 > MOVED)

    def _shares(self) -> Floats:
        turnover, self._typical = average_turnover(self.market)
        # A stale price without any recent turnover belongs to an instrument that is not traded any more.
        shown = (self._state != NONE) & (np.isfinite(turnover) | (self._state != STALE))
        self._turnover = turnover
        return areas(turnover, shown, self._currencies)

    # Drawing

    def _lay_out(self) -> None:
        """Place all tiles anew and send everything."""
        self._resized = False
        self._next_layout = time.monotonic() + LAYOUT_S
        self._priced = self._state != NONE
        self._wanted = self._shares()
        self._ids = ids = np.flatnonzero(self._wanted > 0)
        used, group = np.unique(self._group[ids], return_inverse=True)
        width, height = self._room
        several = len(used) > 1
        strip, gap = (STRIP, GAP) if several else (0.0, 0.0)
        frames, rects = nested(self._wanted[ids], group, width, height, strip=strip, gap=gap)
        self._used, self._member, self._rects = used, group, rects
        self.figure.x_range.update(start=0, end=width)
        self.figure.y_range.update(start=height, end=0)
        shades = self._shades()
        self.tiles.data = self._tile_columns(ids, rects, shades) | self._facts()
        self.labels.data = self._label_columns(ids, rects, shades)
        self.sectors.data = self._sector_columns(frames, shades) if several else self._sector_columns(frames[:0], shades)
