"""The figures of a candle chart: prices, volume, and a pane for each indicator with a scale of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bokeh.core.properties import value
from bokeh.layouts import column
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJS,
    CustomJSTicker,
    CustomJSTickFormatter,
    DataRange1d,
    Div,
    FixedTicker,
    GlyphRenderer,
    Label,
    LinearColorMapper,
    Node,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure
from bokeh.transform import dodge

from marketdash.views import theme
from marketdash.views._candle_readings import Readings, Series
from marketdash.views._candle_rows import ROWS
from marketdash.views._numbers import stylesheet

WINDOW, NARROWEST = 120, 15
"""Bars in view until the browser has told its size, and at the least."""
VOLUME, PANE, AXIS, LEAST = 80, 104, 26, 250
"""Heights in pixels: volume, an indicator's pane, the labels of the axis, and the prices at the least."""
BODY = 0.72
"""Width of a candle, of the distance of two."""


LATEST = "range.tags = [Date.now()]"
"""Code for the browser that goes to the newest bars, given the chart's `range`."""


class Chart:
    """Draws a source of bars; what only the browser needs to know it works out by itself.

    Ranges, crosshair and labels that the browser moves are not sent back: a pointer that wanders over the
    chart, or a hand that drags it, costs the server nothing.
    """

    def __init__(self, source: ColumnDataSource, height: int) -> None:
        self.source, self.height = source, height
        self.rising = LinearColorMapper(palette=[theme.DOWN, theme.UP], low=0, high=1)
        self.sign = LinearColorMapper(palette=[theme.DOWN, theme.UP], low=-1e-300, high=1e-300)
        self.range = Range1d(
            -WINDOW, 0, min_interval=NARROWEST, max_interval=1.1 * ROWS, syncable=False, name="window"
        )
        self.cross = Span(dimension="height", **_hair())
        self.readout = Div(
            text="",
            name="readout",
            syncable=False,
            sizing_mode="stretch_width",
            margin=(0, 0, 2, 0),
            stylesheets=[stylesheet("_numbers.css", "_candle.css")],
        )
        self.price = self._pane("price", 6)
        self.volume = self._pane("volume", 2)
        self._draw_prices()
        self._draw_volume()
        self._base = list(self.price.renderers)
        self.panes: list[figure] = []
        self.layout = column(sizing_mode="stretch_width", spacing=0, margin=0)
        self.callback = self._callback()
        for pane in (self.price, self.volume):
            self._listen(pane)
        self.source.js_on_change("data", self.callback)
        self.source.js_on_change("streaming", self.callback)
        self.source.js_on_change("patching", self.callback)
        # The first paint fits the prices' scale: then sizes are known.
        self.price.y_range.js_on_change("end", self.callback)
        for change in ("start", "end", "tags"):
            self.range.js_on_change(change, self.callback)
        self.readout.js_on_change("tags", self.callback)
        self.arrange()

    def describe(self, facts: dict[str, Any]) -> None:
        """Tell the browser what the columns mean; done before columns change."""
        if self.source.tags != [facts]:
            self.source.tags = [facts]
        digits, border = facts["digits"], max(58, 20 + 7 * facts["characters"])
        self.price.yaxis[0].formatter.update(format=f"0,0.{'0' * digits}" if digits else "0,0")
        for pane in (self.price, self.volume, *self.panes):
            pane.min_border_right = border

    def place(self, number: int) -> None:
        """Put the bar with this number, the newest, at the right end, for as long as no browser is there."""
        end = number + 5.0
        self.range.update(start=end - WINDOW, end=end)

    def drop_series(self) -> None:
        """Take everything away that indicators have drawn; done before their columns go."""
        self.price.renderers = list(self._base)
        self.price.y_range.renderers = list(self._scale)
        self.panes = []
        self.arrange()

    def draw_series(self, readings: Readings) -> None:
        """Draw the readings, whose columns must be there."""
        for spec in readings.specs:
            series = [item for item in readings.series if item.spec is spec]
            marks = [item for item in series if item.is_mark]
            scaled = [item for item in series if not item.is_mark]
            for mark in marks:
                self._draw_marks(mark)
            if spec.overlay:
                drawn = _draw(self.price, [s for s in scaled if s.output.role != "state"], self)
                self.price.y_range.renderers = [*self.price.y_range.renderers, *drawn]
            elif scaled:
                self.panes.append(self._reading_pane(str(spec), scaled, spec.indicator.levels))
        for pane in self.panes:
            pane.min_border_right = self.price.min_border_right
        self.arrange()

    def arrange(self) -> None:
        """Share the height; the lowest pane has the labels of the axis."""
        stack = [self.price, self.volume, *self.panes]
        rest = self.height - AXIS - VOLUME - PANE * len(self.panes)
        for pane in stack:
            lowest = pane is stack[-1]
            size = max(LEAST, rest) if pane is self.price else VOLUME if pane is self.volume else PANE
            pane.xaxis.visible = lowest
            pane.height = size + AXIS * lowest
        if self.layout.children != [self.readout, *stack]:
            self.layout.children = [self.readout, *stack]

    def resize(self, height: int) -> None:
        """Give the figures another height."""
        self.height = height
        self.arrange()

    # Panes

    def _pane(self, name: str, ticks: int, padding: float = 0.12) -> figure:
        zoom = WheelZoomTool(dimensions="width", zoom_on_axis=False)
        pan = PanTool(dimensions="width")
        made = theme.plot(
            name=name,
            x_range=self.range,
            y_range=DataRange1d(range_padding=padding, default_span=1.0, syncable=False),
            window_axis="x",
            tools=[pan, zoom],
            min_border_right=58,
            # Bokeh never clears the outermost pixels, and the labels at both ends need room.
            min_border_left=2,
            min_border_top=6,
            min_border_bottom=6,
            lod_threshold=None,
        )
        made.toolbar.active_drag, made.toolbar.active_scroll = pan, zoom
        made.xgrid.visible = False
        made.xaxis.ticker = CustomJSTicker(
            args={"source": self.source, "figure": made}, major_code=_script("_candle_ticks.js")
        )
        made.xaxis.formatter = CustomJSTickFormatter(
            args={"source": self.source}, code=_script("_candle_text.js", "_candle_label.js")
        )
        made.yaxis.major_tick_out, made.yaxis.major_label_standoff = 0, 6
        made.yaxis.ticker = BasicTicker(desired_num_ticks=ticks, num_minor_ticks=0)
        made.vspan(x="b", source=self.source, line_color=theme.MUTED, line_alpha=0.28, level="underlay")
        made.add_layout(self.cross)
        made.add_layout(Span(dimension="width", name="level", **_hair()))
        return made

    def _listen(self, pane: figure) -> None:
        for event in ("mousemove", "mouseleave", "tap", "doubletap"):
            pane.js_on_event(event, self.callback)

    def _draw_prices(self) -> None:
        colour = {"field": "up", "transform": self.rising}
        pane, source = self.price, self.source
        wicks = pane.segment("i", "h", "i", "l", color=colour, source=source, name="wicks")
        _bars(pane, "o", "c", source, line_color=colour)
        # Where a bar closes as it opened, a dash shows it.
        left, right = dodge("i", -BODY / 2), dodge("i", BODY / 2)
        pane.segment(left, "c", right, "c", line_color=colour, source=source)
        pane.y_range.renderers = self._scale = [wicks]
        pane.yaxis.formatter = NumeralTickFormatter(format="0,0.00")
        self.line = Span(
            location=0,
            dimension="width",
            name="last",
            line_dash=[3, 3],
            line_alpha=0.85,
            level="overlay",
            syncable=False,
            visible=False,
        )
        self.last = Label(name="tag", **_tag())
        self.pointer = Label(name="pointer", background_fill_color="#5d6675", **_tag())
        self.empty = Label(
            x=Node(target="frame", symbol="center"),
            y=Node(target="frame", symbol="center"),
            anchor="center",
            text="No bars yet",
            text_color=theme.MUTED,
            text_font=theme.FONT,
            text_font_size="14px",
            name="empty",
            syncable=False,
        )
        pane.add_layout(self.line)
        pane.add_layout(self.empty)
        # What lies in the centre is cut off where the frame ends; what belongs to a side is not.
        pane.add_layout(self.last, "above")
        pane.add_layout(self.pointer, "below")

    def _draw_volume(self) -> None:
        colour = {"field": "up", "transform": self.rising}
        bars = _bars(self.volume, 0, "v", self.source, line_color=colour, line_alpha=0.45)
        self.volume.y_range.update(start=0, renderers=[bars])
        self.volume.yaxis.formatter = _amounts()
        _caption(self.volume, "Volume")

    def _reading_pane(self, text: str, series: list[Series], levels: tuple[float, ...]) -> figure:
        pane = self._pane(text, 3, padding=0.3)
        pane.yaxis.formatter = _amounts()
        pane.y_range.renderers = _draw(pane, series, self)
        if len(levels) > 1:
            pane.yaxis.ticker = FixedTicker(ticks=list(levels))
        if levels:
            # A segment as long as any chart keeps the levels in sight: a span would not count for the scale.
            guides = ColumnDataSource({"y": list(levels)})
            guide = pane.segment(
                -1e6, "y", 1e8, "y", source=guides, line_color=theme.MUTED, line_alpha=0.45, level="underlay"
            )
            pane.y_range.renderers = [*pane.y_range.renderers, guide]
        _caption(pane, text)
        self._listen(pane)
        return pane

    def _draw_marks(self, series: Series) -> None:
        _, above, below = series.columns
        look: dict[str, Any] = {"text_font_size": "9px", "text_color": series.colour, "text_align": "center"}
        self.price.text(
            "i", above, value("\N{BLACK DOWN-POINTING TRIANGLE}"), y_offset=-4, source=self.source, **look
        )
        look["text_baseline"] = "top"
        self.price.text(
            "i", below, value("\N{BLACK UP-POINTING TRIANGLE}"), y_offset=4, source=self.source, **look
        )

    def _callback(self) -> CustomJS:
        args: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "source",
                "range",
                "price",
                "cross",
                "readout",
                "line",
                "last",
                "pointer",
                "empty",
                "layout",
            )
        }
        args |= {"colours": {"up": theme.UP, "down": theme.DOWN}, "body": BODY}
        return CustomJS(args=args, code=_script("_candle_text.js", "_candle_chart.js"))


def _draw(pane: figure, series: list[Series], chart: Chart) -> list[GlyphRenderer[Any]]:
    """Draw what has a scale; returns what counts for it."""
    drawn: list[GlyphRenderer[Any]] = []
    source = chart.source
    limits = {item.output.role: item for item in series if item.output.role in ("upper", "lower")}
    if len(limits) == 2:
        upper, lower = limits["upper"], limits["lower"]
        pane.varea("i", lower.column, upper.column, source=source, fill_color=upper.colour, fill_alpha=0.07)
    for item in series:
        name, role = item.column, item.output.role
        if item.output.style == "histogram":
            colour = {"field": name, "transform": chart.sign}
            drawn.append(_bars(pane, 0, name, source, line_color=colour, line_alpha=0.5))
        elif item.output.style == "dots":
            drawn.append(
                pane.scatter("i", name, size=3, source=source, fill_color=item.colour, line_color=None)
            )
        else:
            if item.output.style == "area":
                pane.varea("i", 0, name, source=source, fill_color=item.colour, fill_alpha=0.15)
            dash = [4, 3] if role == "signal" else "solid"
            width, alpha = (1.0, 0.7) if role in ("upper", "lower") else (1.5, 1.0)
            look: dict[str, Any] = {"line_dash": dash, "line_width": width, "line_alpha": alpha}
            drawn.append(pane.line("i", name, source=source, line_color=item.colour, **look))
    return drawn


def _bars(pane: figure, foot: str | float, top: str, source: ColumnDataSource, **look: Any) -> Any:
    # Segments whose thickness the browser fits to the zoom: Bokeh cuts its own bars at the frame, and those
    # that lie outside leave a line there.
    return pane.segment("i", foot, "i", top, source=source, line_width=5, name="bar", **look)


def _caption(pane: figure, text: str) -> None:
    at = {"x": Node(target="frame", symbol="left"), "y": Node(target="frame", symbol="top")}
    look: dict[str, Any] = {"text_color": theme.MUTED, "text_font": theme.FONT, "text_font_size": "11px"}
    pane.add_layout(Label(**at, x_offset=4, y_offset=-4, anchor="top_left", text=text, **look))


def _hair() -> dict[str, Any]:
    hair = {"line_color": theme.MUTED, "line_dash": [2, 3], "line_width": 1, "line_alpha": 0.9}
    return {"location": None, "location_units": "data", "level": "overlay", "syncable": False} | hair


def _tag() -> dict[str, Any]:
    """A label on the axis, which nobody sees until the browser gives it a place."""
    edge = {"x": Node(target="frame", symbol="right"), "y": 0, "x_offset": 1, "anchor": "center_left"}
    look = {"text_color": "#ffffff", "text_font": theme.FONT, "text_font_size": "12px", "text": "0"}
    unseen = {"text_alpha": 0.0, "background_fill_alpha": 0.0, "level": "overlay", "syncable": False}
    return edge | look | unseen | {"padding": [3, 8, 3, 5], "border_radius": 3}


def _amounts() -> CustomJSTickFormatter:
    return CustomJSTickFormatter(code=_script("_candle_text.js") + "\nreturn rounded(tick)")


@cache
def _script(*names: str) -> str:
    return "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in names)


__all__ = ["LATEST", "Chart"]
