"""The indicators of a candle chart: what is drawn of each, and its readings for the chart's rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketdash.errors import MarketdashError
from marketdash.frames import Bars
from marketdash.indicators import BarHistory, Spec
from marketdash.indicators.base import Output
from marketdash.indicators.history import Floats
from marketdash.market import Market
from marketdash.views import theme

SHARE = 0.05
"""Part of the time that readings of the forming bar may take; what costs more is computed less often."""


@dataclass(frozen=True)
class Series:
    """One output of one indicator: its column in the chart's source, and its colour."""

    spec: Spec
    output: Output
    column: str
    colour: str

    @property
    def is_mark(self) -> bool:
        """Whether it marks bars, above or below them, instead of being drawn to a scale."""
        return self.output.role == "pattern"

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns: the value, and of marks the heights at which they stand (NaN where there is none)."""
        return (
            (self.column, f"{self.column}_above", f"{self.column}_below") if self.is_mark else (self.column,)
        )


def series_of(specs: Iterable[Spec]) -> list[Series]:
    """All outputs of some indicators; the limits of a band share the colour of what they enclose."""
    colours = _cycle(theme.SERIES)
    found = []
    for place, spec in enumerate(specs):
        own = next(colours)
        lines = iter([own])
        for number, output in enumerate(spec.outputs):
            colour = own
            if output.style == "histogram":
                colour = theme.MUTED
            elif output.role in ("main", "signal"):
                colour = next(lines, "") or next(colours)
            found.append(Series(spec, output, f"r{place}_{number}", colour))
    return found


class Readings:
    """Computes some indicators for the bars of one instrument."""

    def __init__(self, specs: Iterable[Spec] = ()) -> None:
        self.specs = list(specs)
        self.series = series_of(self.specs)
        self.problem = ""
        """Why an indicator could not be computed; empty if all could."""
        self._free_at = 0.0

    @property
    def reach(self) -> int | None:
        """Number of bars that determine a reading; None if all do."""
        reaches = [spec.reach for spec in self.specs]
        return None if None in reaches else max((reach or 0 for reach in reaches), default=0)

    @property
    def columns(self) -> list[str]:
        """Names of all their columns."""
        return [name for series in self.series for name in series.columns]

    def legend(self) -> list[dict[str, Any]]:
        """What a readout shows of each indicator: its name, and its columns with their colours."""
        return [
            {
                "label": str(spec),
                "price": spec.overlay,
                "values": [
                    {"column": s.column, "colour": s.colour, "code": s.output.role in ("pattern", "state")}
                    for s in self.series
                    if s.spec is spec
                ],
            }
            for spec in self.specs
        ]

    @property
    def may_compute(self) -> bool:
        """Whether the readings of a forming bar are due again."""
        return time.monotonic() >= self._free_at

    def compute(self, market: Market, symbol: str, width: str, bars: Bars) -> dict[str, Floats]:
        """All columns for these bars, NaN where there is no reading."""
        began = time.monotonic()
        columns: dict[str, Floats] = {}
        own: Any = _history(market, symbol, width, bars) if self.specs else None
        self.problem = ""
        for spec in self.specs:
            try:
                if spec.indicator.scope == "market":
                    values = _among_all(spec, market, symbol, width, bars)
                else:
                    values = {name: table[:, 0] for name, table in spec.compute(own).items()}
            except MarketdashError as error:
                self.problem, values = str(error), {}
            for series in self.series:
                if series.spec is spec:
                    columns |= _drawn(series, values.get(series.output.name), bars)
        took = time.monotonic() - began
        self._free_at = began + took / SHARE
        return columns


def _history(market: Market, symbol: str, width: str, bars: Bars) -> BarHistory:
    fields: dict[str, Any] = {
        name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")
    }
    return BarHistory.from_arrays(bars.time, [symbol], width, market.tz, copy=False, vwap=bars.vwap, **fields)


def _among_all(spec: Spec, market: Market, symbol: str, width: str, bars: Bars) -> dict[str, Floats]:
    """Readings of an indicator that compares instruments, at the times of one instrument's bars."""
    history = market.history(width, None, len(bars))
    column = history.symbols.index(symbol)
    row = np.searchsorted(history.times_us, bars.time)
    found = row < len(history)
    found[found] = history.times_us[row[found]] == bars.time[found]
    values = {}
    for name, table in spec.compute(history).items():
        values[name] = np.full(len(bars), np.nan)
        values[name][found] = table[row[found], column]
    return values


def _drawn(series: Series, values: Floats | None, bars: Bars) -> dict[str, Floats]:
    value = np.full(len(bars), np.nan) if values is None else np.array(values, dtype=np.float64)
    if not series.is_mark:
        return {series.column: value}
    names = series.columns
    with np.errstate(invalid="ignore"):
        above, below = np.where(value < 0, bars.high, np.nan), np.where(value > 0, bars.low, np.nan)
    return dict(zip(names, (value, above, below), strict=True))


def _cycle(colours: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from colours


__all__ = ["Readings", "Series", "series_of"]
