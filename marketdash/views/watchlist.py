"""A watchlist: some instruments, what they are worth, and how far that can be trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import param

from marketdash.errors import UnknownNameError
from marketdash.frames.bars import CLOSE, DAY, Ring
from marketdash.instruments import Instrument, Universe
from marketdash.market import Market
from marketdash.views._numbers import Money, TextComponent, caption, pulse, rounded_age, spelled, stylesheet
from marketdash.views.base import View, view

DEFAULT_ROWS = 12
POINTS = 60
TURNOVER_DAYS = 5
LONGEST_TEXT = 40

LEVELS = 44
"""Heights that a line can have: two per pixel, and as letters from 0 to [ they need no escape in JSON."""
_FIRST_LETTER = ord("0")

Columns = dict[str, list[Any]]


class WatchlistTable(TextComponent):
    """The table in the browser. It keeps the rows; `delta` brings all of them or what changed of them.

    `delta` is one text of JSON, which Bokeh encodes four times as fast as nested columns. With `rows` it
    is whole, else it follows the one numbered `seq - 1`. The browser says `ready` when it has drawn or
    missed something, and `select`, `add`, `remove` and `names` when the person does.
    """

    _esm = Path(__file__).with_name("_watchlist.js")
    texts = frozenset({"delta", "names", "notice", "symbol"})

    delta = param.String(doc="What changed since the last one, as JSON.")
    names = param.String(doc="Symbols and names to choose from, as JSON; sent when somebody looks for one.")
    notice = param.String(doc="Why a symbol was not added, and the nearest ones, as JSON.")
    symbol = param.String(doc="The selected row.")


@view("watchlist")
class Watchlist(View):
    """A live table of instruments; `symbols` may be changed at any time, here or by the viewer."""

    title = "Watchlist"
    reads = ("last", "bars")

    symbols = param.List(default=[], item_type=str, doc="The instruments, in order; empty: the largest.")

    def __init__(self, market: Market, **params: Any) -> None:
        self._money = Money.of(market.universe)
        self._default: list[int] = []
        self._traded = 0
        self._ids: list[int] = []
        self._sent: Columns = {}
        self._caption: dict[str, str] = {}
        self._lines: dict[int, tuple[str, int]] = {}
        self._seq = self._notices = 0
        self._ready = False
        self.table: WatchlistTable | None = None
        super().__init__(market, **params)
        self.param.watch(self._relisted, "symbols")
        self.param.watch(self._selected, "symbol")

    @property
    def shown(self) -> list[str]:
        """The symbols of the rows: those asked for that exist here, else the largest by turnover."""
        return [self.market.universe.symbols[i] for i in self._listed()]

    def changed(self) -> tuple[int, int]:
        return pulse(self.market)

    def draw(self) -> Any:
        self.table = WatchlistTable(
            symbol=spelled(self.market.universe, self.symbol),
            stylesheets=[stylesheet("_numbers.css", "_watchlist.css")],
            sizing_mode="stretch_width",
            margin=0,
        )
        self.table.on_msg(lambda event: self._heard(event.data))
        self._send(whole=True)
        self._refuse(self.symbols)
        return self.table

    def update(self) -> None:
        self._send(whole=self.jumped or not self._ready)

    # What is sent

    def _send(self, whole: bool) -> None:
        assert self.table is not None
        ids, head = self._listed(), caption(self.market)
        columns = self._columns(ids)
        whole = whole or ids != self._ids
        message: dict[str, Any] = {}
        if whole or head != self._caption:
            message["caption"] = {"title": self.title, **head}
        if whole:
            message |= {"line": self._line_title, "rows": self._rows(ids), "cells": columns}
        elif cells := changes(self._sent, columns):
            message["cells"] = cells
        if not message:
            return
        self._ids, self._sent, self._caption = ids, columns, head
        self._seq += 1
        self.table.delta = json.dumps({"seq": self._seq, **message}, separators=(",", ":"), allow_nan=False)

    def _rows(self, ids: list[int]) -> list[list[str]]:
        several = self._money.currencies > 1
        items = [self.market.universe[i] for i in ids]
        return [[item.symbol, item.name, price_unit(item, several)] for item in items]

    def _columns(self, ids: list[int]) -> Columns:
        last, chosen = self.market.graph.last, np.array(ids, np.int64)
        prices, previous = last.prices("last")[chosen], last.prices("previous_close")[chosen]
        percent, volume = last.change[chosen] * 100.0, self.market.day()["volume"][chosen]
        values = self.market.values()
        digits = [decimals(self.market.universe[i], p) for i, p in zip(ids, prices.tolist(), strict=True)]
        return {
            "last": [_rounded(p, d) for p, d in zip(prices.tolist(), digits, strict=True)],
            "change": [_rounded(c, d) for c, d in zip((prices - previous).tolist(), digits, strict=True)],
            "percent": [_rounded(value, 2) for value in percent.tolist()],
            "digits": digits,
            "volume": [_rounded(value, 0) for value in volume.tolist()],
            "age": rounded_age(values.age[chosen]).tolist(),
            "state": values.state[chosen].tolist(),
            "line": self._lines_of(ids, previous.tolist()),
        }

    @property
    def _daily(self) -> bool:
        return self.market.default_width == "1d"

    @property
    def _line_title(self) -> str:
        return f"{POINTS} days" if self._daily else "Today"

    def _lines_of(self, ids: list[int], bases: list[float]) -> list[str]:
        store, daily = self.market.graph.store, self._daily
        ring = store.ring(self.market.default_width)
        for instrument, base, touched in zip(ids, bases, store.touched[ids].tolist(), strict=True):
            if self._lines.get(instrument, ("", -1))[1] != touched:
                closes = recent_closes(ring, instrument, today=not daily)
                self._lines[instrument] = (line(closes, math.nan if daily else base), touched)
        return [self._lines[instrument][0] for instrument in ids]

    # Which rows

    def _listed(self) -> list[int]:
        universe = self.market.universe
        if self.symbols:
            known = [name for symbol in self.symbols if (name := spelled(universe, symbol))]
            return list(dict.fromkeys(universe.id(name) for name in known))
        traded = int((self.market.graph.last.times("time") > 0).sum())
        if not self._default or traded >= 2 * max(self._traded, 1):
            # Chosen again only when twice as many have traded: rows must not change places under the eye.
            self._default, self._traded = largest(self.market, self._money), traded
        return self._default

    def _relisted(self, event: Any) -> None:
        if self.table is not None:
            self._send(whole=not self._ready)
            self._refuse(event.new)

    def _selected(self, event: Any) -> None:
        if self.table is not None:
            self.table.symbol = spelled(self.market.universe, event.new)

    # What the browser says

    def _heard(self, said: Any) -> None:
        if not isinstance(said, dict) or self.table is None:
            return
        if said.get("ready"):
            self._ready = True
            self._send(whole=True)
        elif said.get("names"):
            items = [[item.symbol, item.name] for item in self.market.universe]
            self.table.names = json.dumps(items, separators=(",", ":"))
        for name, act in (("select", self._select), ("add", self._add), ("remove", self._remove)):
            text = said.get(name)
            if isinstance(text, str) and text.strip():
                act(text.strip()[:LONGEST_TEXT])

    def _select(self, symbol: str) -> None:
        if name := spelled(self.market.universe, symbol):
            self.symbol = name

    def _add(self, symbol: str) -> None:
        name, listed = spelled(self.market.universe, symbol), self.shown
        self._refuse([symbol])
        if name and name not in listed:
            self.symbols = [*listed, name]

    def _remove(self, symbol: str) -> None:
        self.symbols = [name for name in self.shown if name != spelled(self.market.universe, symbol)]

    def _refuse(self, symbols: Iterable[str]) -> None:
        universe = self.market.universe
        unknown = [symbol for symbol in symbols if not spelled(universe, symbol)]
        if not unknown:
            self._tell(None)
        elif len(unknown) > 1:
            self._tell({"text": f"Not in this market: {', '.join(unknown)}.", "nearest": []})
        else:
            near = nearest(universe, unknown[0])
            hint = " Did you mean" if near else " No name comes near it."
            self._tell({"text": f"{unknown[0]} is not in this market.{hint}", "nearest": near})

    def _tell(self, notice: dict[str, Any] | None) -> None:
        # Numbered, so that the same mistake is answered again.
        assert self.table is not None
        self._notices += notice is not None
        self.table.notice = json.dumps({"number": self._notices, **notice}) if notice else ""


def changes(old: Columns, new: Columns) -> dict[str, list[list[Any]]]:
    """By column, the rows that differ and their new values."""
    found: dict[str, list[list[Any]]] = {}
    for name, values in new.items():
        rows = [i for i, (a, b) in enumerate(zip(old[name], values, strict=True)) if a != b]
        if rows:
            found[name] = [rows, [values[i] for i in rows]]
    return found


def decimals(instrument: Instrument, price: float) -> int:
    """Digits after the point that a price of this instrument is shown with: cheap ones get more."""
    cheap = 4 if abs(price) < 1 else 0
    return max(instrument.decimals, cheap)


def price_unit(instrument: Instrument, several_currencies: bool) -> str:
    """What must stand beside a price: a unit unlike its currency, the currency where there are several."""
    unit = instrument.price_unit
    if unit and unit != instrument.currency:
        return unit
    return instrument.currency if several_currencies else ""


def recent_closes(ring: Ring, instrument: int, *, today: bool) -> npt.NDArray[np.float64]:
    """Closes for a line: an instrument's current trading day thinned to 60 points, or its last 60 bars."""
    slots = ring.slots(instrument, None if today else POINTS)
    closes = ring.floats[instrument, slots, CLOSE]
    if today and len(slots):
        days = ring.ints[instrument, slots, DAY]
        closes = closes[days == days[-1]]
        # Counted from the day's first bar, so that old points stay while new ones come.
        step = -(-len(closes) // POINTS)
        closes = np.append(closes[:-1:step], closes[-1])
    return closes[np.isfinite(closes)]  # type: ignore[no-any-return]


def line(closes: npt.NDArray[np.float64], base: float) -> str:
    """Heights as letters, that of the base first: the close before or, without one, the first close."""
    if not len(closes):
        return ""
    values = np.insert(closes, 0, base if math.isfinite(base) else closes[0])
    low, high = values.min(), values.max()
    share = (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
    letters = np.rint(share * (LEVELS - 1) + _FIRST_LETTER).astype(np.uint8)
    return str(letters.tobytes(), "ascii")


def largest(market: Market, money: Money, rows: int = DEFAULT_ROWS) -> list[int]:
    """Ids of those with the largest turnover of the last days in the most common currency, then of others."""
    bars = market.graph.store.table("1d", last=TURNOVER_DAYS)[1]
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3 * bars["volume"]
    daily = np.where(np.isnan(bars["turnover"]), typical, bars["turnover"])
    turnover = np.where(money.counted, np.nansum(daily, axis=0) * money.scale, -1.0)
    return np.argsort(-turnover, kind="stable")[:rows].tolist()  # type: ignore[no-any-return]


def nearest(universe: Universe, text: str, most: int = 3) -> list[list[str]]:
    """Symbols and names that somebody who typed this may have meant: by symbol, or by a part of the name."""
    wanted = text.casefold()
    named = [item.symbol for item in universe if len(wanted) > 2 and wanted in item.name.casefold()]
    close = UnknownNameError("symbol", text, universe.symbols).nearest
    found = list(dict.fromkeys(named[:most] + close))[:most]
    return [[symbol, universe.get(symbol).name] for symbol in found]


def _rounded(value: float, digits: int) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
