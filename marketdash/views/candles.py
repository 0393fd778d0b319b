"""The candle chart: bars of one instrument with volume and indicators, moving with the market."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
import param
from param.parameterized import discard_events

from marketdash.errors import MarketdashError
from marketdash.frames import Bars
from marketdash.indicators import INDICATORS, parse
from marketdash.market import STATES, Market
from marketdash.schema import width_us
from marketdash.views import theme
from marketdash.views._candle_figure import LATEST, Chart
from marketdash.views._candle_readings import Readings, series_of
from marketdash.views._candle_rows import (
    COLUMNS,
    ROWS,
    TAIL,
    Rows,
    bar_columns,
    place_columns,
    price_columns,
    since,
)
from marketdash.views._numbers import caption, pulse, stylesheet
from marketdash.views.base import View, view

CHOICES = ("symbol", "width", "indicators")
FAR = 5 * ROWS
"""Bars that are read for an indicator that needs all there were."""
SMALL = {"fontSize": "12px", "lineHeight": "20px", "textTransform": "none"}
LOOK_S = 1.0
"""Seconds between two looks at the state of the market and of the price."""


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
        default=480, bounds=(240, None), doc="Height of the figures in pixels; panes may add to it."
    )

    def __init__(self, market: Market, **params: Any) -> None:
        super().__init__(market, **params)
        self.rows, self.readings = Rows(), Readings()
        self._redraw, self._touched, self._look_at = True, -1, 0.0
        self._anchor: int | None = None
        self._owed: int | None = None
        self._settle()
        self.param.watch(self._chosen, list(CHOICES))

    # Choices

    def _settle(self) -> None:
        """Complete the choices and write them as the market does; raises if there is one that cannot be."""
        symbols = self.market.universe.symbols
        symbol = self.market.universe.get(self.symbol).symbol if self.symbol else next(iter(symbols), "")
        width = self.width or self.market.default_width
        self.market.graph.store.ring(width)
        names = list(dict.fromkeys(str(parse(text)) for text in self.indicators))
        with discard_events(self):
            self.symbol, self.width, self.indicators = symbol, width, names

    def _chosen(self, *events: Any) -> None:
        try:
            self._settle()
        except MarketdashError:
            with discard_events(self):
                self.param.update({event.name: event.old for event in events})
            raise
        finally:
            if self._drawn is not None:
                self._show_choices()
        self._redraw = True
        self.refresh()

    def _add(self, event: Any) -> None:
        """Draw what was typed or picked in the chooser; what cannot be is told below it."""
        text = (event.new or "").strip()
        if not text:
            return
        try:
            self.indicators = [*self.indicators, text]
        except MarketdashError as error:
            self._tell(str(error))
        else:
            self._tell("")
            self.chooser.value = ""

    def _remove(self, name: str) -> None:
        self.indicators = [other for other in self.indicators if other != name]

    # Drawing

    def draw(self) -> Any:
        self.chart = Chart(self.rows.source, self.height)
        self.param.watch(lambda event: self.chart.resize(event.new), "height")
        sheets = [stylesheet("_numbers.css", "_candle.css")]
        self.heading = pn.pane.HTML("", stylesheets=sheets, margin=0, styles={"margin-right": "auto"})
        self.note = pn.pane.HTML("", stylesheets=sheets, margin=0, visible=False)
        self.switch = pmui.RadioButtonGroup(
            options=list(self.market.widths),
            value=self.width,
            visible=len(self.market.widths) > 1,
            size="small",
            margin=0,
            sx={"& .MuiToggleButton-root": SMALL | {"padding": "1px 7px"}},
        )
        self.chooser = pmui.AutocompleteInput(
            options=list(INDICATORS),
            restrict=False,
            case_sensitive=False,
            min_characters=1,
            placeholder="Add indicator",
            size="small",
            variant="standard",
            width=112,
            margin=0,
            sx={"& .MuiInputBase-input": SMALL},
        )
        self.newest = pmui.IconButton(
            icon="last_page", description="To the newest bar", size="small", color="default", margin=0
        )
        self.newest.js_on_click(args={"range": self.chart.range}, code=LATEST)
        self.switch.param.watch(lambda event: self.param.update(width=event.new), "value")
        self.chooser.param.watch(self._add, "value")
        self.head = pn.FlexBox(margin=0, gap="4px 8px", align_items="center", sizing_mode="stretch_width")
        self._show_choices()
        self._draw_all()
        self.chart.place(self.rows.newest)
        self._look()
        figures = pn.pane.Bokeh(self.chart.layout, sizing_mode="stretch_width", margin=0)
        return pn.Column(
            self.head, self.note, figures, sizing_mode="stretch_width", margin=0, styles={"gap": "2px"}
        )

    def changed(self) -> tuple[int, int]:
        epoch, beat = pulse(self.market)
        return epoch, beat + (self._owed is not None and self.readings.may_compute)

    def update(self) -> None:
        if self._redraw or self.jumped:
            self._draw_all()
        elif self.symbol and (self._touched != self.market.touched(self.symbol) or self._owed is not None):
            self._advance()
        self._look()

    def _draw_all(self) -> None:
        """Draw everything anew: the market was set to another time, or something else was chosen."""
        self._redraw, self._anchor, self._owed = False, None, None
        other = [str(spec) for spec in self.readings.specs] != self.indicators
        if other:
            self.chart.drop_series()
            self.readings = Readings(parse(text) for text in self.indicators)
        columns = dict.fromkeys((*COLUMNS, *self.readings.columns), np.empty(0))
        highest = 0.0
        if self.symbol:
            self._touched = self.market.touched(self.symbol)
            bars = self._read(ROWS)
            columns = bar_columns(bars, self.width, self.market.tz) | self._compute(bars)
            highest = float(bars.high[-ROWS:].max(initial=0.0))
        self.chart.describe(self._facts(highest))
        self.rows.replace({name: values[-ROWS:].copy() for name, values in columns.items()})
        if other:
            self.chart.draw_series(self.readings)
        self._tell(self.readings.problem)
        self._look_at = 0.0

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
        readings: dict[str, Any] = {}
        if grown or self.readings.may_compute:
            readings, self._owed = self._compute(bars), None
        elif self.readings.specs:
            self._owed = bars.number + row
        self._bring(bars, row, readings, grown)

    def _bring(self, bars: Bars, row: int, readings: dict[str, Any], grown: bool) -> None:
        # One row more, since what begins with a bar is seen against the one before.
        begin = max(row - 1, 0)
        part = since(bars, begin)
        columns = price_columns(part) | {name: values[begin:] for name, values in readings.items()}
        self.rows.patch(part, columns)
        if grown:
            self.rows.stream(part, place_columns(part, self.width, self.market.tz) | columns)

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

    def _compute(self, bars: Bars) -> dict[str, Any]:
        return self.readings.compute(self.market, self.symbol, self.width, bars)

    def _facts(self, highest: float) -> dict[str, Any]:
        """What the browser must know of the columns."""
        digits = self.market.universe.get(self.symbol).decimals if self.symbol else 2
        readings = []
        for spec in self.readings.specs:
            series = [item for item in self.readings.series if item.spec is spec]
            values = [
                {
                    "column": item.column,
                    "colour": item.colour,
                    "code": item.output.role in ("pattern", "state"),
                }
                for item in series
            ]
            readings.append({"label": str(spec), "price": spec.overlay, "values": values})
        return {
            "key": f"{self.symbol} {self.width} {self.market.epoch}",
            "width": self.width,
            "daily": self.width == "1d",
            "seconds": width_us(self.width) < width_us("1min"),
            "digits": digits,
            "characters": len(f"{highest:,.{digits}f}"),
            "readings": readings,
        }

    # Around the figures

    def _show_choices(self) -> None:
        self.switch.value = self.width
        colours = {
            str(item.spec): item.colour for item in reversed(series_of(parse(t) for t in self.indicators))
        }
        chips = [self._chip(name, colours[name]) for name in self.indicators]
        self.head.objects = [self.heading, self.switch, *chips, self.chooser, self.newest]

    def _chip(self, name: str, colour: str) -> Any:
        icon = {"order": 1, "margin": "0 6px 0 -4px", "fontSize": "13px !important"}
        look = SMALL | {"height": "22px", "borderColor": colour, "& .MuiChip-icon": icon}
        chip = pmui.Chip(
            name, icon="close", size="small", variant="outlined", color="default", margin=0, sx=look
        )
        chip.on_click(lambda _: self._remove(name))
        return chip

    def _tell(self, text: str) -> None:
        self.note.param.update(object=f'<div class="numbers down">{escape(text)}</div>', visible=bool(text))

    def _look(self) -> None:
        """Show what is drawn, and how far it can be trusted."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        parts = [f"<h3>{escape(self.symbol)}</h3>"]
        about = caption(self.market)
        parts.append(_chip(about["label"], about["state"], about["why"]))
        if self.symbol:
            instrument = self.market.universe.get(self.symbol)
            parts.insert(1, f'<span class="quiet name">{escape(instrument.name)}</span>')
            state = STATES[self.market.values().state[instrument.id]]
            if state not in ("live", "none", about["state"]):
                parts.append(_chip(state, state))
        text = f'<div class="numbers caption">{"".join(parts)}</div>'
        if self.heading.object != text:
            self.heading.object = text


def _chip(label: str, state: str, why: str = "") -> str:
    colour = theme.STATE_COLOURS[state]
    return f'<span class="chip" style="--chip:{colour}" title="{escape(why)}">{escape(label)}</span>'


__all__ = ["Candles"]
