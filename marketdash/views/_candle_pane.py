"""One pane of a candle chart: a figure on the shared axis of bar numbers, and what can be drawn in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bokeh.core.properties import value
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTicker,
    CustomJSTickFormatter,
    DataRange1d,
    FixedTicker,
    LinearColorMapper,
    Node,
    PanTool,
    Range1d,
    WheelZoomTool,
)
from bokeh.models.annotations import Label, Span

from marketdash.views import theme
from marketdash.views._candle_readings import Series

BODY = 0.72
"""Width of a candle, of the distance of two."""
BORDER = 58
"""Least pixels for the labels of the scale."""


class Pane:
    """A figure whose scale fits what is in view, with a crosshair whose upright line all panes share."""

    def __init__(
        self, name: str, source: ColumnDataSource, window: Range1d, cross: Span, *, ticks: int, padding: float
    ) -> None:
        self.source = source
        # What follows the window is the browser's own business: unsynced, it costs the server nothing.
        self.scale: Any = DataRange1d(
            range_padding=padding, default_span=1.0, only_visible=True, syncable=False
        )
        zoom, pan = WheelZoomTool(dimensions="width", zoom_on_axis=False), PanTool(dimensions="width")
        self.figure: Any = theme.plot(
            name=name,
            x_range=window,
            y_range=self.scale,
            window_axis="x",
            tools=[pan, zoom],
            active_drag=pan,
            active_scroll=zoom,
            min_border_right=BORDER,
            # Bokeh never clears the outermost pixels, and the labels at both ends need room.
            min_border_left=2,
            min_border_top=6,
            min_border_bottom=6,
            lod_threshold=None,
            stylesheets=[":host { --outline-width: 0px; }"],
        )
        self._style_axes(ticks)
        # A scale cannot be painted without numbers; this counts for as long as there are no bars.
        self.nothing = self.figure.segment(-1, 0, 0, 1, line_alpha=0, name="nothing")
        self.fit(self.nothing)
        self.figure.vspan(x="b", source=source, line_color=theme.MUTED, line_alpha=0.28, level="underlay")
        self.figure.add_layout(cross)
        self.figure.add_layout(hair("width", name="level"))

    def _style_axes(self, ticks: int) -> None:
        made, source = self.figure, self.source
        made.xgrid.visible = False
        made.xaxis.ticker = CustomJSTicker(
            args={"source": source, "figure": made}, major_code=script("_candle_ticks.js")
        )
        made.xaxis.formatter = CustomJSTickFormatter(
            args={"source": source}, code=script("_candle_text.js", "_candle_label.js")
        )
        made.yaxis.major_tick_out, made.yaxis.major_label_standoff = 0, 6
        made.yaxis.ticker = BasicTicker(desired_num_ticks=ticks, num_minor_ticks=0)
        code = script("_candle_text.js") + "\nreturn rounded(tick)"
        made.yaxis.formatter = CustomJSTickFormatter(code=code)

    def fit(self, *drawn: Any) -> None:
        """Let the scale fit these too."""
        self.scale.renderers = [*(r for r in self.scale.renderers if r != "auto"), *drawn]

    def bars(self, foot: str | float, top: str, **look: Any) -> Any:
        """Draw thick bars between two columns."""
        # Segments whose thickness the browser fits to the zoom: Bokeh cuts its own bars off at the frame, and
        # all that lie outside leave a line there.
        return self.figure.segment("i", foot, "i", top, source=self.source, line_width=5, name="bar", **look)

    def draw(self, series: list[Series]) -> None:
        """Draw what has a scale, and let the pane's scale fit it."""
        limits = {item.output.role: item for item in series if item.output.role in ("upper", "lower")}
        if len(limits) == 2:
            self._area(limits["lower"].column, limits["upper"], 0.07)
        for item in series:
            self.fit(self._draw(item))

    def _draw(self, item: Series) -> Any:
        name, role, source = item.column, item.output.role, self.source
        if item.output.style == "histogram":
            sign = LinearColorMapper(palette=[theme.DOWN, theme.UP], low=-1e-300, high=1e-300)
            return self.bars(0, name, line_color={"field": name, "transform": sign}, line_alpha=0.5)
        if item.output.style == "dots":
            return self.figure.scatter(
                "i", name, size=3, source=source, fill_color=item.colour, line_color=None
            )
        if item.output.style == "area":
            self._area(0, item, 0.15)
        look = {"line_width": 1.0, "line_alpha": 0.7} if role in ("upper", "lower") else {"line_width": 1.5}
        dash = [4, 3] if role == "signal" else "solid"
        return self.figure.line("i", name, source=source, line_color=item.colour, line_dash=dash, **look)

    def _area(self, foot: str | float, item: Series, alpha: float) -> None:
        self.figure.varea(
            "i", foot, item.column, source=self.source, fill_color=item.colour, fill_alpha=alpha
        )

    def mark(self, series: Series) -> None:
        """Draw an arrow over or under each bar that the indicator has found."""
        _, above, below = series.columns
        look = {"text_font_size": "9px", "text_color": series.colour, "text_align": "center"}
        for column, sign, offset, base in (
            (above, "\N{BLACK DOWN-POINTING TRIANGLE}", -4, "bottom"),
            (below, "\N{BLACK UP-POINTING TRIANGLE}", 4, "top"),
        ):
            self.figure.text(
                "i", column, value(sign), y_offset=offset, text_baseline=base, source=self.source, **look
            )

    def guide(self, levels: tuple[float, ...]) -> None:
        """Draw guide lines, and keep them in sight."""
        if len(levels) > 1:
            self.figure.yaxis.ticker = FixedTicker(ticks=list(levels))
        if levels:
            # As long as any chart; a span would not count for the scale.
            lines = ColumnDataSource({"y": list(levels)})
            look = {"line_color": theme.MUTED, "line_alpha": 0.45, "level": "underlay"}
            self.fit(self.figure.segment(-1e6, "y", 1e8, "y", source=lines, **look))

    def caption(self, text: str) -> None:
        """Name the pane in its corner."""
        look: dict[str, Any] = {"text_color": theme.MUTED, "text_font": theme.FONT, "text_font_size": "11px"}
        corner: dict[str, Any] = {"x": frame("left"), "y": frame("top"), "anchor": "top_left"}
        self.figure.add_layout(Label(text=text, x_offset=4, y_offset=-4, **corner, **look))


def hair(dimension: Any, **options: Any) -> Span:
    """A line of the crosshair; the browser moves it."""
    look: dict[str, Any] = {
        "line_color": theme.MUTED,
        "line_dash": [2, 3],
        "line_width": 1,
        "line_alpha": 0.9,
    }
    return Span(dimension=dimension, location=None, level="overlay", syncable=False, **look, **options)


def frame(symbol: str) -> Node:
    """A place on the frame in which a pane draws."""
    return Node(target="frame", symbol=symbol)


@cache
def script(*names: str) -> str:
    """The scripts of these names, which lie beside this file, one after another."""
    return "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in names)


__all__ = ["BODY", "BORDER", "Pane", "frame", "hair", "script"]
