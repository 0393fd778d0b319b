"""The sector heat map: how every sector moved in each of the last days or minutes."""

from __future__ import annotations

from typing import Any, NamedTuple

import holoviews as hv
import holoviews.plotting.bokeh  # registers the renderer; importing HoloViews alone does not
import numpy as np
import numpy.typing as npt
import pandas as pd
import panel as pn
import param
from bokeh.models import HoverTool
from holoviews.streams import Pipe

from marketdash.market import Market
from marketdash.schema import width_us
from marketdash.views import theme
from marketdash.views._heading import Heading, beat
from marketdash.views._mosaic import shortened
from marketdash.views._numbers import signed
from marketdash.views.base import View, view
from marketdash.views.squarify import Floats

Ints = npt.NDArray[np.int64]

SCALES = {"1d": 3.0, "1h": 1.0, "15min": 0.6, "5min": 0.4, "1min": 0.2, "5s": 0.1, "1s": 0.1}
"""Change in per cent at the ends of the colours, by width: what a sector hardly ever exceeds."""
FEW = 12
"""So many instruments, or fewer, have a row each."""
ENOUGH = 12
"""Bars of 15 minutes from which on they are shown rather than those of 5."""
ROW, ALL, AXIS = 23, 80, 26
"""Height of a row, of all rows at least, and of the axis below, in pixels."""
LETTERS = 17
LABELS = 5
"""Most labels on the time axis, so that they do not touch on a phone."""
ROUND = (15, 30, 60, 120, 180, 240, 360, 720, 1440)
"""Distances of labels, in minutes."""
PAUSE = 0.35
"""Space between two days, or weeks, in columns."""


@view("sector_heatmap")
class SectorHeatmap(View):
    """Rows are sectors, or the instruments where there are few; columns are bars; colours are changes."""

    title = "Sectors over time"
    reads = ("bars",)
    period = 5.0

    width = param.String(default="", doc="Width of a column; empty for one that fits the market.")
    bins = param.Integer(default=40, bounds=(1, 500), doc="Columns, that is bars.")

    def draw(self) -> Any:
        self.heading = Heading()
        self._width = self._fitting_width()
        self._pipe = Pipe(data=read(self.market, self._width, self.bins))
        self.param.watch(lambda _: self.redraw(), ["width", "bins"])
        self._tell()
        # A new picture for every change costs ten times as much: the figure stays, its source changes.
        moving = hv.DynamicMap(self._picture, streams=[self._pipe])
        self.pane: Any = pn.pane.HoloViews(moving, backend="bokeh", sizing_mode="stretch_width", margin=0)
        return pn.Column(self.heading.model, self.pane, sizing_mode="stretch_width", margin=0)

    def changed(self) -> tuple[int, int]:
        return beat(self.market)

    def update(self) -> None:
        if self.jumped:
            self._width = self._fitting_width()
        heat = read(self.market, self._width, self.bins)
        if self.jumped or not heat.same(self._pipe.data):
            self._pipe.send(heat)
        self._tell()

    @property
    def heat(self) -> Heat:
        """What is shown."""
        return self._pipe.data  # type: ignore[no-any-return]

    def _fitting_width(self) -> str:
        widths = self.market.widths
        if self.width:
            self.market.graph.store.ring(self.width)  # an unknown one is an error that names the others
            return str(self.width)
        if "15min" not in widths:
            return next((width for width in ("1h", "1d") if width in widths), widths[-1])
        many = int(self.market.graph.store.ring("15min").total.max(initial=0)) >= ENOUGH
        return "15min" if many or "5min" not in widths else "5min"

    def _tell(self) -> None:
        each = {"1d": "day", "1h": "hour"}.get(self._width, self._width.replace("min", " min"))
        what = f"Mean change of a sector's instruments in each {each}"
        if not self.heat.sectors:
            what = f"Change in each {each}"
        zone = [] if self._width == "1d" else [f"times in {self.market.now:%Z}"]
        notes = [what, *zone] if self.heat.when else ["No bars yet"]
        title = self.title if self.heat.sectors else "Instruments over time"
        self.heading.tell(self.market, title, notes, SCALES[self._width])

    def _picture(self, data: Heat) -> Any:
        return picture(data, SCALES[self._width])


class Heat(NamedTuple):
    """Changes in per cent: `cells[column, row]`, NaN where there is no bar.

    `gaps` counts, by column, the days (for columns of a day: weeks) that ended before it; `ticks` are the
    labelled columns.
    """

    rows: list[str]
    when: list[str]
    gaps: Ints
    ticks: list[tuple[int, str]]
    cells: Floats
    sectors: bool

    def same(self, other: Heat) -> bool:
        """Whether the other one looks the same."""
        return self.when == other.when and np.array_equal(self.cells, other.cells, equal_nan=True)


def read(market: Market, width: str, bins: int) -> Heat:
    """The changes of the last `bins` bars of a width.

    A bar's change is that of its close against the close before, of whatever age; where an instrument has no
    bar it has no change. A sector's is the mean of its members' with equal weight. Time in which the exchange
    was open and no bar came is columns without cells.
    """
    history = market.history(width, last=2 * bins)
    universe = market.universe
    keys, grid = _columns(market, width, history.times_us)
    change = changes(history.array("close"))
    if len(keys):
        grid = grid[grid > keys[0]][-bins:]
    cells = np.full((len(grid), len(universe)), np.nan)
    bar, instrument = np.nonzero(np.isfinite(change) & np.isin(keys, grid)[:, None])
    cells[np.searchsorted(grid, keys[bar]), instrument] = change[bar, instrument]
    sectors = universe.sectors if len(universe.sectors) > 1 and len(universe) > FEW else ()
    if sectors:
        rows = list(sectors)
        cells = means(cells, np.array([rows.index(item.sector) for item in universe]), len(rows))
    else:
        worth = np.nansum(history.array("close") * history.array("volume"), axis=0)
        largest = np.sort(np.argsort(-worth, kind="stable")[:FEW])
        rows, cells = [universe.symbols[i] for i in largest], cells[:, largest]
    return Heat(rows, *_labels(grid, width, market.tz), cells, bool(sectors))


def changes(close: Floats) -> Floats:
    """Change in per cent of each close (by time and instrument) against the last one before it."""
    rows = np.where(np.isfinite(close), np.arange(len(close))[:, None], 0)
    filled = np.take_along_axis(close, np.maximum.accumulate(rows, axis=0), axis=0)
    before = np.full_like(close, np.nan)
    before[1:] = filled[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(before > 0, (close / before - 1) * 100, np.nan)


def means(cells: Floats, group: Ints, count: int) -> Floats:
    """By column and group the mean of what is known."""
    member = np.equal.outer(group, np.arange(count)).astype(np.float64)
    known = np.isfinite(cells)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, cells, 0.0) @ member / (known @ member))


def _columns(market: Market, width: str, times: Ints) -> tuple[Ints, Ints]:
    """The column of each bar, and all columns from the first bar to the last, as days or as moments."""
    if not len(times):
        return times, times
    first, last = int(times[0]), int(times[-1])
    if width == "1d":
        keys = market.calendar.stamp(times)[1].astype(np.int64)
        # No trading day is shorter than six hours, nights included.
        steps = np.arange(first, last, width_us("1h") * 6)
        grid = market.calendar.stamp(steps)[1].astype(np.int64)
        return keys, np.union1d(keys, grid[(grid >= keys[0]) & (grid <= keys[-1])])
    step = width_us(width)
    regular = market.calendar.regular(first, last + 1)
    opened = [np.arange(max(start, first) // step * step, min(end, last + 1), step) for start, end in regular]
    return times, np.unique(np.concatenate([times, *opened]))


def _labels(grid: Ints, width: str, tz: str) -> tuple[list[str], Ints, list[tuple[int, str]]]:
    """What is told about each column, how many days or weeks ended before it, and labels for some."""
    daily = width == "1d"
    moments = pd.DatetimeIndex(grid.view("M8[D]" if daily else "M8[us]").astype("M8[us]"))
    local = moments if daily else moments.tz_localize("UTC").tz_convert(tz).tz_localize(None)
    minute = local.asi8 // 60_000_000
    stretch = (minute // 1440 + 3) // 7 if daily else minute // 1440  # weeks begin on Mondays
    ended = np.cumsum(np.diff(stretch, prepend=stretch[:1]) > 0).astype(np.int64)
    when = local.strftime("%a %-d %b %Y" if daily else "%a %-d %b %H:%M").tolist()
    starts = np.flatnonzero(np.diff(ended, prepend=0))
    labels = list(zip(starts.tolist(), local[starts].strftime("%-d %b"), strict=True))
    if not daily:
        round_ones = next(
            (at for step in ROUND if len(at := np.flatnonzero(minute % step == 0)) <= LABELS), starts
        )
        labels += zip(round_ones.tolist(), local[round_ones].strftime("%H:%M"), strict=True)
    return when, ended, _apart(labels, len(grid) / (LABELS + 1))


def _apart(labels: list[tuple[int, str]], least: float) -> list[tuple[int, str]]:
    kept: list[tuple[int, str]] = []
    for column, text in labels:
        if all(abs(column - other) >= least for other, _ in kept):
            kept.append((column, text))
    return sorted(kept)


def picture(heat: Heat, scale: float) -> Any:
    """The heat map, one rectangle for each cell that is known."""
    columns, rows = np.nonzero(np.isfinite(heat.cells))
    change = heat.cells[columns, rows]
    centres = np.arange(len(heat.when)) + PAUSE * heat.gaps
    x = centres[columns]
    count = len(heat.rows)
    cells = (
        *(x - 0.47, rows - 0.45, x + 0.47, rows + 0.45, np.clip(change, -scale, scale)),
        [heat.rows[row] for row in rows],
        [heat.when[column] for column in columns],
        [signed(value, unit="%") for value in change.tolist()],
    )
    return hv.Rectangles(cells, ["left", "bottom", "right", "top"], ["change", "row", "when", "text"]).opts(
        backend="bokeh",
        color="change",
        cmap=theme.diverging(),
        clim=(-scale, scale),
        line_color=None,
        tools=[HoverTool(tooltips=_TIP, show_arrow=False, point_policy="follow_mouse")],
        hooks=[_calm],
        framewise=True,
        responsive=True,
        height=max(count * ROW, ALL) + AXIS,
        toolbar=None,
        show_frame=False,
        show_grid=False,
        xlabel="",
        ylabel="",
        xlim=(-0.6, max(float(centres[-1]) if len(centres) else 0.0, 1.0) + 0.6),
        ylim=(count - 0.4, -0.6),
        xticks=[(float(centres[column]), text) for column, text in heat.ticks] or [(-9, "")],
        yticks=[(row, shortened(name, LETTERS)) for row, name in enumerate(heat.rows)] or [(-9, "")],
    )


def _calm(plot: Any, element: Any) -> None:
    figure = plot.state
    figure.update(min_border_top=0, min_border_bottom=0, min_border_left=0, min_border_right=0)
    figure.update(outline_line_color=None, border_fill_alpha=0.0, background_fill_alpha=0.0)
    figure.output_backend = "canvas"
    for axis in figure.axis:
        axis.update(axis_line_color=None, major_tick_line_color=None, minor_tick_line_color=None)
        axis.update(major_label_text_color=theme.MUTED, major_label_text_font_size="11px")


_TIP = """
<div style="margin:-5px;padding:7px 10px;font-size:12px;line-height:1.5;
  color:var(--mui-palette-text-primary, var(--tooltip-text));
  background:var(--mui-palette-background-paper, var(--tooltip-color))">
  <div><b>@row</b>&ensp;@text</div><div style="opacity:.7">@when</div>
</div>
"""
