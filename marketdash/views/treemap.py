"""The treemap: every instrument is a tile, as large as its turnover and coloured by its change."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import panel as pn
import param

from marketdash.instruments import Instrument
from marketdash.market import Market
from marketdash.market.state import NONE, STALE, STATES
from marketdash.views._heading import Heading, beat
from marketdash.views._mosaic import GAP, HEIGHT, STRIP, Facts, Mosaic, Shades
from marketdash.views._numbers import SUBUNITS, age_text, compact, rounded_age
from marketdash.views.base import View, view
from marketdash.views.squarify import BOTTOM, LEFT, RIGHT, TOP, Floats, nested

DAYS = 20
"""Daily bars over which turnover is averaged."""
MOVED = 0.08
"""Part of the area that must belong elsewhere before the tiles are laid out anew."""
LEAST = 0.1
"""The smallest tile, in parts of an average one: what is hardly traded can still be seen and tapped."""
LAYOUT_S, LOOK_S = 10.0, 1.0
"""Least seconds between two looks at turnover, and between two looks at states and at who has a price."""


@view("treemap")
class Treemap(View):
    """Areas are average daily turnover, colours the change since the previous close on a fixed scale."""

    title = "Treemap"
    reads = ("bars",)

    scale = param.Number(default=3.0, bounds=(0.01, None), doc="Per cent at both ends of the colours.")
    height = param.Integer(default=HEIGHT, bounds=(120, None), doc="Height of the figure in pixels.")

    def __init__(self, market: Market, **params: Any) -> None:
        super().__init__(market, **params)
        self._currency = np.array([item.currency for item in market.universe], dtype=str)
        several = len(set(self._currency.tolist())) > 1
        names = np.array([_group(item, several) for item in market.universe], dtype=str)
        self._names, self._group = np.unique(names, return_inverse=True)
        self._next_look = self._next_turnover = 0.0
        self._resized = False

    def draw(self) -> Any:
        self.heading = Heading()
        self.mosaic = Mosaic(self.height, self.scale, self.market.tz)
        self.mosaic.figure.on_event("tap", self._tapped)
        self.mosaic.figure.on_change("inner_width", self._measured)
        self._look()
        self._lay_out()
        self._finish(anew=True)
        self.param.watch(lambda _: self.refresh(), ["symbol", "scale"])
        return pn.Column(self.heading.model, self.mosaic.figure, sizing_mode="stretch_width", margin=0)

    def changed(self) -> tuple[int, int]:
        return beat(self.market)

    def update(self) -> None:
        now = time.monotonic()
        if look := self.jumped or now >= self._next_look:
            self._look()
        if self.jumped or self._resized or (look and self._outdated(now)):
            self._lay_out()
        else:
            shades = self._shades()
            self.mosaic.colour(shades[self._layout.ids], self._means(shades))
            if look:
                self.mosaic.inform(self._facts())
        self._finish(anew=self.jumped)

    @property
    def shown(self) -> list[str]:
        """The symbols that have a tile, by their id."""
        return [self.market.universe.symbols[i] for i in self._layout.ids]

    # Reading

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_S
        values = self.market.values()
        self._state, self._age = values.state, rounded_age(values.trading_age)

    def _shades(self) -> Shades:
        """Change in per cent by instrument, to the basis point as it is read; NaN if unknown or stale."""
        change = np.where(self._state == STALE, np.nan, self.market.graph.last.change)
        return np.round(change * 100, 2).astype(np.float32)

    def _means(self, shades: Shades) -> Shades:
        """By group the equal-weight mean of its tiles, but for the stale ones."""
        ids, count = self._layout.ids, len(self._names)
        known = np.isfinite(shades[ids])
        total = np.bincount(self._group[ids], np.where(known, shades[ids], 0.0), count)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = total / np.bincount(self._group[ids], known, count)
        return np.round(means, 2).astype(np.float32)[self._layout.groups]

    def _areas(self) -> tuple[Floats, Floats, bool]:
        turnover, typical = average_turnover(self.market)
        # A stale price without recent turnover belongs to what is not traded any more.
        wanted = (self._state != NONE) & (np.isfinite(turnover) | (self._state != STALE))
        return areas(turnover, wanted, self._currency), turnover, typical

    def _outdated(self, now: float) -> bool:
        if not np.array_equal(self._layout.priced, self._state != NONE):
            return True
        if now < self._next_turnover:
            return False
        self._next_turnover = now + LAYOUT_S
        return bool(np.abs(self._areas()[0] - self._layout.areas).sum() / 2 > MOVED)

    # Drawing

    def _lay_out(self) -> None:
        """Place all tiles anew."""
        self._resized, self._next_turnover = False, time.monotonic() + LAYOUT_S
        wanted, turnover, typical = self._areas()
        ids = np.flatnonzero(wanted)
        group = self._group[ids]
        several = len(np.unique(group)) > 1
        strip, gap = (STRIP, GAP) if several else (0.0, 0.0)
        frames, tiles = nested(wanted[ids], group, *self.mosaic.room, strip, gap)
        groups = np.unique(group) if several else group[:0]
        traded = bool(np.isfinite(turnover[ids]).any())
        self._layout = Layout(wanted, self._state != NONE, ids, groups, tiles, traded, typical)
        universe, shades = self.market.universe, self._shades()
        told: Facts = {
            "symbol": [universe.symbols[i] for i in ids],
            "name": [universe[i].name for i in ids],
            "sector": self._names[group].tolist(),
            "decimals": np.array([universe[i].decimals for i in ids], np.int32),
            "turnover": [compact(turnover[i], universe[i].currency) for i in ids],
        }
        self.mosaic.show(tiles, shades[ids], told | self._facts())
        self.mosaic.head(self._names[groups].tolist(), frames[groups], self._means(shades))

    def _facts(self) -> Facts:
        """What is told about a tile and changes with the market."""
        ids, last = self._layout.ids, self.market.graph.last
        words = [STATES[code] for code in self._state[ids]]
        ages = self._age[ids].tolist()
        return {
            "last": last.prices("last")[ids],
            "moved": np.round(last.change[ids] * 100, 2),
            "time": last.times("time")[ids] / 1000.0,
            "state": [
                f"stale for {age_text(age)}" if word == "stale" else word
                for word, age in zip(words, ages, strict=True)
            ],
        }

    def _finish(self, anew: bool) -> None:
        """Mark tiles and bring the heading up to date; what has not changed is only sent `anew`."""
        layout, symbol, universe = self._layout, str(self.symbol), self.market.universe
        chosen = universe.id(symbol) if universe.__contains__(symbol) else -1
        stale = self._state[layout.ids] == STALE
        self.mosaic.mark(layout.tiles[layout.ids == chosen], layout.tiles[stale], anew)
        self.mosaic.rescale(self.scale)
        title = "Market by sector" if len(layout.groups) else "Market"
        self.heading.tell(self.market, title, self._notes(), self.scale)

    def _notes(self) -> list[str]:
        ids = self._layout.ids
        if not len(ids):
            return ["No prices yet"]
        area = "Area: turnover a day" + (", at typical prices" if self._layout.typical else "")
        currencies = sorted(set(self._currency[ids].tolist()))
        if len(currencies) > 1:
            area += f", compared within each currency only ({', '.join(currencies)})"
        if not self._layout.traded:
            area = "Equal areas: no turnover is known"
        stale = int((self._state[ids] == STALE).sum())
        return [area, "colour: change since the previous close", *([f"{stale} stale"] if stale else [])]

    # Listening

    def _tapped(self, event: Any) -> None:
        tiles, x, y = self._layout.tiles, event.x, event.y
        if x is None or y is None:
            return
        hit = (tiles[:, LEFT] <= x) & (x < tiles[:, RIGHT]) & (tiles[:, TOP] <= y) & (y < tiles[:, BOTTOM])
        if hit.any():
            self.symbol = self.market.universe.symbols[self._layout.ids[hit.argmax()]]

    def _measured(self, attr: str, old: Any, new: Any) -> None:
        # Half a pixel comes and goes with the page's scroll bar.
        if new and abs(new - self.mosaic.room[0]) >= 2:
            self.mosaic.room = (float(new), self.mosaic.room[1])
            self._resized = True
            self.refresh()


class Layout(NamedTuple):
    """Where the tiles lie: by instrument its part of the area, by tile its instrument and its rectangle."""

    areas: Floats
    priced: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    tiles: Floats
    traded: bool
    typical: bool


def average_turnover(market: Market, days: int = DAYS) -> tuple[Floats, bool]:
    """Average turnover of the last daily bars, today's included, by instrument and in its currency.

    NaN where there was none. Where the source knows no turnover it is the typical price (H+L+C)/3 times the
    volume; the second value says whether that was needed.
    """
    bars = market.history("1d", last=days)
    vwap, volume = bars.array("vwap"), bars.array("volume")
    typical = (bars.array("high") + bars.array("low") + bars.array("close")) / 3
    daily = np.where(np.isfinite(vwap), vwap, typical) * volume
    known = np.isfinite(daily)
    total, count = np.where(known, daily, 0.0).sum(axis=0), known.sum(axis=0)
    unit = np.array([item.multiplier * SUBUNITS.get(item.price_unit, 1.0) for item in market.universe])
    average = np.where(total > 0, total / np.maximum(count, 1), np.nan) * unit
    return average, bool((known & ~np.isfinite(vwap) & (volume > 0)).any())


def areas(turnover: Floats, wanted: npt.NDArray[np.bool_], currency: npt.NDArray[np.str_]) -> Floats:
    """The part of the whole area that each instrument gets; 0 for what is not wanted.

    Turnover is compared within a currency only: each currency gets as much as it has instruments. What trades
    without volume gets the least area; where no volume is known, all tiles are equal.

    >>> areas(np.array([3.0, 1.0, 1.0]), np.array([True, True, False]), np.array(["EUR"] * 3)).tolist()
    [0.75, 0.25, 0.0]
    """
    parts = np.zeros(len(turnover))
    for name in np.unique(currency[wanted]):
        mine = wanted & (currency == name)
        known = np.nan_to_num(turnover[mine])
        share = known / known.sum() if known.any() else np.full(len(known), 1 / len(known))
        parts[mine] = np.maximum(share * len(known), LEAST)
    return parts / max(float(parts.sum()), LEAST)


def _group(item: Instrument, several: bool) -> str:
    return f"{item.sector} · {item.currency}" if several else item.sector
