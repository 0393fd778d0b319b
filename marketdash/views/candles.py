"""The candle chart: bars of one instrument with volume and indicators, moving with the market."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import param
from param.parameterized import discard_events

from marketdash.errors import MarketdashError
from marketdash.frames import Bars
from marketdash.indicators import parse
from marketdash.market import Market
from marketdash.schema import width_us
from marketdash.views._candle_figure import LATEST, Chart
from marketdash.views._candle_head import Head
from marketdash.views._candle_readings import Readings, series_of
from marketdash.views._candle_rows import (
    COLUMNS,
    ROWS,
    TAIL,
    Floats,
    Rows,
    bar_columns,
    place_columns,
    price_columns,
    since,
)
from marketdash.views._numbers import pulse
from marketdash.views.base import View, view

CHOICES = ("symbol", "width", "indicators")
FAR = 5 * ROWS
"""Bars that are read for an indicator that needs all there were."""


@view("candles")
class Candles(View):
    """Candles on an axis without gaps, with volume, indicators and a readout of the bar under the pointer.

    The symbol, the width (one of `market.widths`) and the indicators (as traders write them, `"SMA(20)"` or
    `"MACD(12,26,9)"`) may be set at any time. What nobody knows raises `UnknownNameError` and leaves the
    chart as it was.
    """

    title = "Candles"
    reads = ("bars",)

    width = param.String(default="", doc="Width of a bar; empty is the market's usual one.")
    indicators = param.List(default=[], item_type=str, doc="What is drawn over the prices and below them.")
    height = param.Integer(
        default=552, bounds=(240, None), doc="Height of the figures in pixels; indicators may add to it."
    )

    def __init__(self, market: Market, **params: Any) -> None:
        super().__init__(market, **params)
        self.rows, self.readings = Rows(), Readings()
        self._outdated, self._touched, self._turn = True, -1, 0
        self._anchor: int | None = None
        self._owed: int | None = None
        self._settle()
        self.param.watch(self._chosen, list(CHOICES))

    # Choices

    def _settle(self) -> None:
        """Complete the choices and write them as the market does; raises if there is one that cannot be."""
        universe = self.market.universe
        symbol = universe.get(self.symbol).symbol if self.symbol else next(iter(universe.symbols), "")
        width = self.width or self.market.default_width
        self.market.graph.store.ring(width)
        names = list(dict.fromkeys(str(parse(text)) for text in self.indicators))
        with discard_events(self):
            self.symbol, self.width, self.indicators = symbol, width, names

    def _chosen(self, *events: Any) -> None:
        try:
            self._settle()
            self._outdated = True
            self.refresh()
        except MarketdashError:
            with discard_events(self):
                self.param.update({event.name: event.old for event in events})
            raise
        finally:
            if self._drawn is not None:
                self._show_choices()

    def _show_choices(self) -> None:
        colours = {str(s.spec): s.colour for s in reversed(series_of(map(parse, self.indicators)))}
        self.head.show_choices(self.width, {name: colours[name] for name in self.indicators})

    def _add(self, text: str) -> None:
        if not text:
            return
        try:
            self.indicators = [*self.indicators, text]
        except MarketdashError as error:
            self.head.tell(str(error))
        else:
            self.head.tell("")
            self.head.chooser.value = ""

    def _remove(self, name: str) -> None:
        self.indicators = [other for other in self.indicators if other != name]

    # Drawing

    def draw(self) -> Any:
        self.chart = Chart(self.rows.source, self.height)
        self.head = Head(
            self.market,
            on_width=lambda width: self.param.update(width=width),
            on_add=self._add,
            on_remove=self._remove,
            latest=(LATEST, {"range": self.chart.range}),
        )
        self._draw_all()
        self._show_choices()
        self.chart.place(self.rows.newest)
        self.param.watch(lambda event: self.chart.resize(event.new), "height")
        figures: Any = pn.pane.Bokeh(self.chart.layout, sizing_mode="stretch_width", margin=0)
        parts = (self.head.line, self.head.note, figures)
        return pn.Column(*parts, sizing_mode="stretch_width", margin=0, styles={"gap": "2px"})

    def changed(self) -> tuple[int, int]:
        epoch, beat = pulse(self.market)
        return epoch, beat + (self._owed is not None and self.readings.may_compute)

    def update(self) -> None:
        if self._outdated or self.jumped:
            self._draw_all()
        elif self.symbol and (self._touched != self.market.touched(self.symbol) or self._owed is not None):
            self._advance()
        self.head.look(self.symbol)

    def _draw_all(self) -> None:
        """Draw everything anew: the market was set to another time, or something else was chosen."""
        other = [str(spec) for spec in self.readings.specs] != self.indicators
        if other:
            self.chart.drop_readings()
            self.readings = Readings(map(parse, self.indicators))
        self._outdated, self._anchor, self._owed = False, None, None
        columns = dict.fromkeys((*COLUMNS, *self.readings.columns), np.empty(0))
        if self.symbol:
            self._touched = self.market.touched(self.symbol)
            bars = self._read(ROWS)
            columns = bar_columns(bars, self.width, self.market.tz) | self._compute(bars)
        columns = {name: values[-ROWS:].copy() for name, values in columns.items()}
        self.chart.describe(self._facts(float(columns["h"].max(initial=0.0))))
        self.rows.replace(columns)
        if other:
            self.chart.draw_readings(self.readings)
        self.head.tell(self.readings.problem)
        self.head.look(self.symbol, now=True)

    def _advance(self) -> None:
        """Patch the bars that have changed and stream the new ones."""
        touched = self.market.touched(self.symbol)
        bars = self._read(TAIL)
        if not self.rows.is_continued_by(bars) or (self._anchor is not None and bars.number > self._anchor):
            self._draw_all()
            return
        self._touched = touched
        row = self.rows.first_change(bars)
        if self._owed is not None:
            row = min(row, max(self._owed - bars.number, 0))
        if row == len(bars):
            return
        grown = bars.number + len(bars) - 1 > self.rows.newest
        readings: dict[str, Floats] = {}
        if grown or self.readings.may_compute:
            readings, self._owed = self._compute(bars), None
        elif self.readings.specs:
            self._owed = bars.number + row
        self._bring(bars, row, readings, grown)

    def _bring(self, bars: Bars, row: int, readings: dict[str, Floats], grown: bool) -> None:
        # One row more, since what begins with a bar is seen against the one before.
        begin = max(row - 1, 0)
        part = since(bars, begin)
        columns = price_columns(part) | {name: values[begin:] for name, values in readings.items()}
        self.rows.patch(part, columns)
        if grown:
            self.rows.stream(part, place_columns(part, self.width, self.market.tz) | columns)

    # Reading the market

    def _read(self, count: int) -> Bars:
        """The last `count` bars, and as many before as the indicators need."""
        reach = self.readings.reach
        if reach is not None:
            return self.market.bars(self.symbol, self.width, count + reach)
        if self._anchor is None:
            bars = self.market.bars(self.symbol, self.width, FAR)
            self._anchor = bars.number
            return bars
        # A sum over all bars stays the same only if it always begins with the same one.
        bars = self.market.bars(self.symbol, self.width, self.rows.newest + 1 - self._anchor + count)
        return since(bars, self._anchor - bars.number)

    def _compute(self, bars: Bars) -> dict[str, Floats]:
        return self.readings.compute(self.market, self.symbol, self.width, bars)

    def _facts(self, highest: float) -> dict[str, Any]:
        """What the browser must know of the columns."""
        digits = self.market.universe.get(self.symbol).decimals if self.symbol else 2
        self._turn += 1
        return {
            "key": f"{self.symbol} {self.width} {self.market.epoch}",
            # Told anew each time, since a browser that was not there has not heard of what is unchanged.
            "turn": self._turn,
            "width": self.width,
            "daily": self.width == "1d",
            "seconds": width_us(self.width) < width_us("1min"),
            "digits": digits,
            "characters": len(f"{highest:,.{digits}f}"),
            "readings": self.readings.legend(),
        }


__all__ = ["Candles"]
