"""The treemap's figure: tiles and their labels, headings of the groups, marks on single tiles."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.core.properties import value
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    CustomJSTransform,
    HoverTool,
    LinearColorMapper,
    Range1d,
)
from bokeh.transform import transform

from marketdash.views import theme
from marketdash.views.squarify import BOTTOM, LEFT, RIGHT, TOP, Floats, has_heading

Shades = npt.NDArray[np.float32]
"""Changes in per cent; NaN where there is nothing to colour."""
Facts = dict[str, Any]
"""Columns of what the tooltip tells, by tile."""

WIDTH, HEIGHT = 860, 560
"""Size in pixels until the browser has told its own."""
STRIP, GAP = 18.0, 4.0
"""Height of a group's heading and the space between groups, in pixels."""
LARGEST, SMALLEST = 44.0, 9.0
"""Sizes of a tile's text in pixels; what would be smaller is left out."""

WIDE = re.compile("[MW]")
EDGES = {"left": LEFT, "top": TOP, "right": RIGHT, "bottom": BOTTOM}


class Mosaic:
    """A figure in which one unit is one pixel; `room` is its size.

    The browser writes the numbers and picks the colour of a text by what is behind it, so that a change costs
    one column of numbers, and another theme nothing.
    """

    def __init__(self, height: int, scale: float, tz: str) -> None:
        self.room = (float(WIDTH), float(height))
        self.figure: Any = theme.plot(
            name="mosaic",
            height=height,
            x_range=Range1d(start=0, end=WIDTH),
            y_range=Range1d(start=height, end=0),
            tools="",
            background_fill_alpha=1.0,  # what is behind a text must be known: the theme's ground, no cell's
        )
        self.figure.axis.visible = False
        self.figure.grid.visible = False
        self.colours = LinearColorMapper(
            palette=theme.diverging(), low=-scale, high=scale, nan_color=theme.MISSING
        )
        self.tiles, self.texts, self.heads, self.old, self.chosen = (ColumnDataSource() for _ in range(5))
        nothing, none = np.zeros((0, 4)), np.zeros(0, np.float32)
        self.show(nothing, none, {name: [] for name in TOLD})
        self.head([], nothing, none)
        _fill(self.old, _edges(nothing))
        _fill(self.chosen, _edges(nothing))
        self._add_glyphs(tz)

    def _add_glyphs(self, tz: str) -> None:
        edges: Any = {name: name for name in EDGES}
        percent = transform("change", CustomJSTransform(v_func=_PERCENTS))
        known = {"plot": self.figure, "mapper": self.colours}
        on_tile = CustomJSTransform(args=known, v_func=_INK + _ON_TILE)
        on_ground = CustomJSTransform(args=known, v_func=_INK + _ON_GROUND)
        tiles = self.figure.quad(
            **edges,
            source=self.tiles,
            line_color=None,
            fill_color=transform("change", self.colours),
            border_radius=2,
        )
        # Apart from the tiles: with a hatch by row the browser makes a pattern per tile and paint: seconds.
        self.figure.quad(
            **edges,
            source=self.old,
            fill_color=None,
            line_color=None,
            hatch_pattern="right_diagonal_line",
            hatch_color=theme.FLAT,
            hatch_alpha=0.55,
            hatch_weight=1,
            hatch_scale=7,
        )
        text: dict[str, Any] = {"text_font": value(theme.FONT), "text_baseline": "middle"}
        on = text | {"source": self.texts, "text_align": "center", "text_color": transform("change", on_tile)}
        self.figure.text("x", "y", "symbol", text_font_size="size", text_font_style="bold", **on)
        self.figure.text("x", "change_y", percent, text_font_size="change_size", **on)
        above = text | {"source": self.heads, "text_color": transform("change", on_ground)}
        self.figure.text("left", "y", "name", text_font_size="12px", text_font_style="bold", **above)
        self.figure.text("right", "y", percent, text_font_size="12px", text_align="right", **above)
        line = {"line_color": transform("left", on_ground), "line_width": 2.5}
        self.figure.quad(**edges, source=self.chosen, fill_color=None, **line)
        self.figure.add_tools(_hover(tiles, tz))
        inked = {"inked": [self.texts, self.heads, self.chosen]}
        again = CustomJS(args=inked, code="for (const source of inked) source.change.emit()")
        self.figure.js_on_change("background_fill_color", again)
        self.figure.js_on_change("inner_width", CustomJS(args={"plot": self.figure}, code=_CELL))

    def show(self, tiles: Floats, shades: Shades, facts: Facts) -> None:
        """Draw these tiles instead of those before."""
        width, height = self.room
        if (self.figure.x_range.end, self.figure.y_range.start) == (width, height):
            # A value that stays is not sent, but a cell that is shown again has the one it began with.
            self.figure.x_range.end = width + 1
        self.figure.x_range.update(start=0, end=width)
        self.figure.y_range.update(start=height, end=0)
        inset = np.minimum(0.75, (tiles[:, RIGHT:] - tiles[:, :RIGHT]) / 4)
        _fill(self.tiles, _edges(tiles + np.hstack([inset, -inset])) | {"change": shades} | facts)
        self._labelled, columns = labels(facts["symbol"], tiles)
        _fill(self.texts, columns | {"change": shades[self._labelled]})

    def head(self, names: list[str], frames: Floats, means: Shades) -> None:
        """Draw these groups' headings, where there is room, instead of those before."""
        self._headed = headed = np.flatnonzero(has_heading(frames, STRIP))
        left, top, right, _ = frames[headed].T
        roomy = right - left > 110
        letters = ((right - left - np.where(roomy, 58, 4)) / 6.6).astype(int)
        columns = {
            "left": left + 2,
            "right": np.where(roomy, right - 2, np.nan),
            "y": top + STRIP / 2,
            "name": [shortened(names[i], most) for i, most in zip(headed, letters, strict=True)],
            "change": means[headed],
        }
        _fill(self.heads, columns)

    def colour(self, shades: Shades, means: Shades) -> None:
        """Patch changes, by tile and by group."""
        _patch(self.tiles, change=shades)
        _patch(self.texts, change=shades[self._labelled])
        _patch(self.heads, change=means[self._headed])

    def inform(self, facts: Facts) -> None:
        """Patch what the tooltip tells."""
        _patch(self.tiles, **facts)

    def mark(self, chosen: Floats, old: Floats, anew: bool = False) -> None:
        """Outline the chosen tiles and hatch the old ones, and no others; `anew` even if they are the same."""
        inside = np.array([1.5, 1.5, -1.5, -1.5])
        for source, tiles in ((self.chosen, chosen + inside), (self.old, old)):
            edges = _edges(tiles)
            if anew or any(not np.array_equal(source.data[name], edges[name]) for name in EDGES):
                _fill(source, edges)

    def rescale(self, scale: float) -> None:
        """Let the colours end at this change, in per cent."""
        if self.colours.high != scale:
            self.colours.update(low=-scale, high=scale)


def labels(symbols: list[str], tiles: Floats) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
    """Which tiles have room for text, and the columns of those: where it stands and how large it is."""
    width, height = tiles[:, RIGHT] - tiles[:, LEFT], tiles[:, BOTTOM] - tiles[:, TOP]
    letters = np.array([max(len(symbol), 2) + 0.4 * len(WIDE.findall(symbol)) for symbol in symbols])
    # In the broadest of the usual fonts a bold capital is 0.75 sizes wide, and a plain "−12.34%" 4.4 sizes.
    broad = (width - 5) / (0.75 * letters)
    first = np.floor(np.clip(np.minimum(broad, (height - 4) * 0.40), 0, LARGEST))
    second = np.floor(np.minimum(first * 0.75, (width - 4) / 4.4))
    both = (first >= SMALLEST) & (second >= SMALLEST)
    alone = np.floor(np.clip(np.minimum(broad, (height - 3) * 0.8), 0, LARGEST / 2))
    shown = np.flatnonzero(np.where(both, first, alone) >= SMALLEST)
    size, change_size = np.where(both, first, alone)[shown], np.where(both, second, 0.0)[shown]
    middle = (tiles[shown, TOP] + tiles[shown, BOTTOM]) / 2
    return shown, {
        "x": (tiles[shown, LEFT] + tiles[shown, RIGHT]) / 2,
        "y": middle - change_size * 0.6,
        "change_y": np.where(change_size > 0, middle + size * 0.6, np.nan),
        "size": [f"{pixels:.0f}px" for pixels in size],
        "change_size": [f"{pixels:.0f}px" for pixels in change_size],
        "symbol": [symbols[i] for i in shown],
    }


def shortened(name: str, letters: int) -> str:
    """A name in at most so many letters; of several words the first one gives way.

    >>> shortened("Consumer Discretionary", 19), shortened("Consumer Discretionary", 12)
    ('Cons. Discretionary', 'Cons. Discr…')
    """
    first, space, rest = name.partition(" ")
    if len(name) > letters and space and len(first) > 6:
        name = f"{first[:4]}. {rest}"
    return name if len(name) <= letters else name[: max(letters - 1, 0)].rstrip() + "…"


def _edges(tiles: Floats) -> dict[str, Any]:
    return {name: tiles[:, i].astype(np.float32) for name, i in EDGES.items()}


def _fill(source: ColumnDataSource, columns: dict[str, Any]) -> None:
    """Send all columns."""
    # An array of no bytes gets lost on its way to a notebook, and everything that is sent after it.
    source.data = {name: values if len(values) else [] for name, values in columns.items()}


def _patch(source: ColumnDataSource, **columns: Any) -> None:
    """Send the columns that differ, each as one slice."""
    changed = {}
    for name, values in columns.items():
        before = source.data[name]
        listed = isinstance(values, list)
        if not (before == values if listed else np.array_equal(before, values, equal_nan=True)):
            changed[name] = [(slice(0, len(values)), values)]
    if changed:
        source.patch(changed)


def _hover(tiles: Any, tz: str) -> HoverTool:
    written: Any = {
        "@last": CustomJSHover(args={"tiles": tiles.data_source}, code=_PRICE),
        "@moved": CustomJSHover(code=_PERCENT),
        "@time": CustomJSHover(args={"zone": tz}, code=_TIME),
    }
    return HoverTool(
        renderers=[tiles], tooltips=_TIP, formatters=written, point_policy="follow_mouse", show_arrow=False
    )


TOLD = ("symbol", "name", "sector", "decimals", "turnover", "last", "moved", "time", "state")

_TIP = """
<div style="margin:-5px;padding:7px 10px;font-size:12px;line-height:1.5;max-width:260px;
  color:var(--mui-palette-text-primary, var(--tooltip-text));
  background:var(--mui-palette-background-paper, var(--tooltip-color))">
  <div><b>@symbol</b> @name</div>
  <div style="opacity:.7">@sector</div>
  <div><b>@last{custom}</b>&ensp;@moved{custom}</div>
  <div style="opacity:.7">turnover a day @turnover<br>@time{custom} · @state</div>
</div>
"""

# What follows runs in the browser.

_SIGNED = """
const signed = (x) => (x > 0 ? "+" : x < 0 ? "−" : "") + Math.abs(x).toFixed(2) + "%"
"""
_PERCENTS = _SIGNED + "return Array.from(xs, (x) => (isNaN(x) ? '' : signed(x)))"
_PERCENT = _SIGNED + "return isNaN(value) ? '–' : signed(value)"

_PRICE = """
const digits = tiles.data.decimals[special_vars.index]
const style = {minimumFractionDigits: digits, maximumFractionDigits: digits}
return isNaN(value) ? "–" : value.toLocaleString("en-US", style)
"""

_TIME = """
const style = {timeZone: zone, day: "numeric", month: "short", year: "numeric",
               hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short"}
return new Intl.DateTimeFormat("en-GB", style).format(new Date(value))
"""

_INK = """
const rgba = (text) => text.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16))
const back = String(plot.background_fill_color).replace(/^#(.)(.)(.)$/, "#$1$1$2$2$3$3")
const ground = /^#[0-9a-f]{6}/i.test(back) ? rgba(back) : [255, 255, 255]
const linear = (part) => Math.pow(part / 255, 2.2)
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) > 0.27
"""
# A notebook tells nobody its theme, but its page has the colour.
_CELL = """
const style = getComputedStyle(document.body)
const back = style.getPropertyValue("--jp-layout-color0").trim()
if (back) {
  const context = document.createElement("canvas").getContext("2d")
  context.fillStyle = back
  plot.background_fill_color = context.fillStyle
}
"""
_ON_TILE = """
const {palette, low, high} = mapper
const inks = palette.map((colour) => {
  const [r, g, b, a = 255] = rgba(colour)
  return light([r, g, b].map((part, i) => (part * a + ground[i] * (255 - a)) / 255)) ? "#10151c" : "#ffffff"
})
const quiet = light(ground) ? "#5d6673" : "#9aa3b0"
return Array.from(xs, (x) => {
  const i = Math.floor(((x - low) / (high - low)) * palette.length)
  return isNaN(x) ? quiet : inks[Math.max(0, Math.min(palette.length - 1, i))]
})
"""
_ON_GROUND = """
const ink = light(ground) ? "#3a4350" : "#c3cad4"
return Array.from(xs, () => ink)
"""
