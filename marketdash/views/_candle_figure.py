"""The figures of a candle chart: prices, volume, and a pane for each indicator with a scale of its own."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column
from bokeh.models import CustomJS, LinearColorMapper, NumeralTickFormatter, Range1d
from bokeh.models.annotations import Label, Span
from bokeh.models.widgets import Div
from bokeh.transform import dodge

from marketdash.views import theme
from marketdash.views._candle_pane import BODY, BORDER, Pane, frame, hair, script
from marketdash.views._candle_readings import Readings
from marketdash.views._candle_rows import ROWS
from marketdash.views._numbers import stylesheet

WINDOW, NARROWEST = 120, 15
"""Bars in view until the browser has told its size, and at the least."""
VOLUME, READING, AXIS, LEAST = 80, 104, 26, 250
"""Heights in pixels: volume, an indicator's pane, the labels of the axis, and the prices at the least."""
LATEST = "range.tags = [Date.now()]"
"""Code for the browser that goes to the newest bars, given the chart's `range`."""


class Chart:
    """Draws a source of bars. What only the browser needs to know it works out there, and does not send back.

    So a pointer that wanders over the chart, or a hand that drags it, costs the server nothing, and a new bar
    is one message whatever follows from it: the window moves on, the last price's line, the readout.
    """

    def __init__(self, source: Any, height: int) -> None:
        self.source, self.height = source, height
        self.range = Range1d(
            start=-WINDOW,
            end=0,
            min_interval=NARROWEST,
            max_interval=1.1 * ROWS,
            syncable=False,
            name="window",
        )
        self.cross = hair("height", name="cross")
        self.readout = Div(
            text="",
            name="readout",
            syncable=False,
            sizing_mode="stretch_width",
            margin=0,
            stylesheets=[stylesheet("_numbers.css", "_candle.css")],
        )
        self.callback = CustomJS(code=script("_candle_text.js", "_candle_chart.js"))
        self.prices = self._pane("price", ticks=6)
        self.volume = self._pane("volume", ticks=2)
        self.readings: list[Pane] = []
        self._draw_prices()
        self._draw_volume()
        self._own = list(self.prices.figure.renderers), list(self.prices.scale.renderers)
        self.layout = column(sizing_mode="stretch_width", spacing=0, margin=0)
        self._listen()
        self.arrange()

    def describe(self, facts: dict[str, Any]) -> None:
        """Tell the browser what the columns mean; done before columns change."""
        self.source.tags = [facts]
        digits = facts["digits"]
        self.prices.figure.yaxis[0].formatter.format = f"0,0.{'0' * digits}" if digits else "0,0"
        for pane in self._panes:
            pane.figure.min_border_right = max(BORDER, 20 + 7 * facts["characters"])

    def place(self, number: int) -> None:
        """Put the bar with this number, the newest, at the right end, for as long as no browser is there."""
        end = number + 5.0
        self.range.update(start=end - WINDOW, end=end)
        for pane in self._panes:
            pane.nothing.visible = number < 0

    def resize(self, height: int) -> None:
        """Give the figures another height."""
        self.height = height
        self.arrange()

    def drop_readings(self) -> None:
        """Take away all that indicators have drawn; done before their columns go."""
        renderers, scale = self._own
        self.prices.figure.renderers = list(renderers)
        self.prices.scale.renderers = list(scale)
        self.readings = []
        self.arrange()

    def draw_readings(self, readings: Readings) -> None:
        """Draw the readings, whose columns must be there."""
        for spec in readings.specs:
            series = [item for item in readings.series if item.spec is spec]
            scaled = [item for item in series if not item.is_mark]
            for mark in series:
                if mark.is_mark:
                    self.prices.mark(mark)
            if spec.overlay:
                self.prices.draw([item for item in scaled if item.output.role != "state"])
            elif scaled:
                pane = self._pane(str(spec), ticks=3, padding=0.3)
                pane.draw(scaled)
                pane.guide(spec.indicator.levels)
                pane.caption(str(spec))
                pane.figure.min_border_right = self.prices.figure.min_border_right
                pane.nothing.visible = self.prices.nothing.visible
                self.readings.append(pane)
        self.arrange()

    def arrange(self) -> None:
        """Share the height; the lowest pane has the labels of the axis."""
        rest = self.height - AXIS - VOLUME - READING * len(self.readings)
        sizes = [max(LEAST, rest), VOLUME, *(READING for _ in self.readings)]
        figures = [pane.figure for pane in self._panes]
        for made, size in zip(figures, sizes, strict=True):
            made.xaxis.visible = lowest = made is figures[-1]
            made.height = size + AXIS * lowest
        if self.layout.children != [self.readout, *figures]:
            self.layout.children = [self.readout, *figures]

    @property
    def _panes(self) -> list[Pane]:
        return [self.prices, self.volume, *self.readings]

    def _pane(self, name: str, *, ticks: int, padding: float = 0.12) -> Pane:
        made = Pane(name, self.source, self.range, self.cross, ticks=ticks, padding=padding)
        for event in ("mousemove", "mouseleave", "tap", "doubletap"):
            made.figure.js_on_event(event, self.callback)
        return made

    def _draw_prices(self) -> None:
        pane, colour = self.prices, _direction()
        own = {"source": self.source, "line_color": colour}
        pane.fit(pane.figure.segment("i", "h", "i", "l", name="wick", **own))
        pane.bars("o", "c", line_color=colour)
        # Where a bar closes as it opened, a dash shows it.
        pane.figure.segment(dodge("i", -BODY / 2), "c", dodge("i", BODY / 2), "c", name="dash", **own)
        pane.figure.yaxis.formatter = NumeralTickFormatter(format="0,0.00")
        look: dict[str, Any] = {"line_dash": [3, 3], "line_alpha": 0.85, "level": "overlay"}
        self.line = Span(location=0, dimension="width", name="line", visible=False, syncable=False, **look)
        self.last, self.pointer = _tag("last"), _tag("pointer", background_fill_color="#5d6675")
        words: dict[str, Any] = {"text_color": theme.MUTED, "text_font": theme.FONT, "text_font_size": "14px"}
        middle: dict[str, Any] = {"x": frame("center"), "y": frame("center"), "anchor": "center"}
        self.empty = Label(text="No bars yet", name="empty", syncable=False, **middle, **words)
        pane.figure.add_layout(self.line)
        pane.figure.add_layout(self.empty)
        # What lies in the centre is cut off where the frame ends; what belongs to a side is not.
        pane.figure.add_layout(self.last, "above")
        pane.figure.add_layout(self.pointer, "below")

    def _draw_volume(self) -> None:
        self.volume.scale.start = 0
        self.volume.fit(self.volume.bars(0, "v", line_color=_direction(), line_alpha=0.45))
        self.volume.caption("Volume")

    def _listen(self) -> None:
        """Call the browser's script when bars come, when the window moves and when sizes become known."""
        names = ("source", "range", "cross", "readout", "line", "last", "pointer", "empty", "layout")
        own = {
            "price": self.prices.figure,
            "body": BODY,
            "colours": {"up": theme.UP, "down": theme.DOWN},
        }
        self.callback.args = {name: getattr(self, name) for name in names} | own
        for model, changes in (
            (self.source, ("data", "streaming", "patching")),
            (self.range, ("start", "end", "tags")),
            (self.prices.scale, ("end",)),
            (self.readout, ("tags",)),
        ):
            for change in changes:
                model.js_on_change(change, self.callback)


def _direction() -> dict[str, Any]:
    return {"field": "up", "transform": LinearColorMapper(palette=[theme.DOWN, theme.UP], low=0, high=1)}


def _tag(name: str, **options: Any) -> Label:
    """A label on the scale, which nobody sees until the browser gives it a place."""
    edge: dict[str, Any] = {"x": frame("right"), "y": 0, "x_offset": 1, "anchor": "center_left"}
    look: dict[str, Any] = {"text_color": "#ffffff", "text_font": theme.FONT, "text_font_size": "12px"}
    look |= {"padding": (3, 8, 3, 5), "border_radius": 3, "level": "overlay"}
    unseen: dict[str, Any] = {"text": "0", "text_alpha": 0.0, "background_fill_alpha": 0.0}
    return Label(name=name, syncable=False, **edge, **look, **unseen, **options)


__all__ = ["LATEST", "Chart"]
