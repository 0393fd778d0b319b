"""All functions of TA-Lib as indicators, described by what the library tells about itself.

Formulas: https://ta-lib.org/functions/ and the docstrings of `talib`. What differs from calling it:

* Outputs that TA-Lib calls `real` and `integer` are called `value`; all are float64, and NaN during the
  warm-up, where TA-Lib fills integers with 0.
* A bar that an instrument does not have, or that lacks an input, is left out before the computation and gets
  no value: a hole does not poison what follows, and periods count the instrument's own bars.
* Functions of any series take its field as a parameter (`price=high`); types of average are named
  (`matype=EMA`).
* MAXINDEX and its like give rows of the bar history, so that they mean the same with and without holes.
* MAVP takes its periods from the dominant cycle (HT_DCPERIOD) of the same price.
* The warm-up is TA-Lib's own lookback. The library's settings (unstable periods, candle settings,
  compatibility) belong to the process and must not change after the first use. Unstable periods are 0 unless
  someone sets them: a recursive average has values as soon as it can, and `reach` tells when its beginning
  has faded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import repeat
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np
import talib.abstract

from marketdash.errors import IndicatorError
from marketdash.indicators import talib_hints as hints
from marketdash.indicators.base import INDICATORS, Indicator, Params
from marketdash.indicators.history import FIELDS, BarHistory, Floats
from marketdash.indicators.params import Limits
from marketdash.indicators.windows import Windows

_talib: Any = talib  # the library's type stubs leave out half of what is used here

AVERAGES: dict[str, int] = {
    name: code
    for name, code in vars(type(_talib.MA_Type)).items()
    if name.isupper() and isinstance(code, int)
}
"""Name of a type of moving average → TA-Lib's code of it."""

Numbers = tuple[int | float, ...]

_last = itemgetter(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class TalibIndicator(Indicator):
    """A function of TA-Lib; `inputs` are fields, or parameters that name one."""

    inputs: tuple[str, ...]

    def limits(self, param: str) -> Limits | None:
        return None if isinstance(self.params[param], str) else _limits(self.name, param)

    def choices(self, param: str) -> tuple[str, ...]:
        if not isinstance(self.params[param], str):
            return ()
        return FIELDS if param in self.inputs else _averages(self.name, param)

    def series(self, params: Params | None = None) -> tuple[str, ...]:
        given = self.params if params is None else params
        return tuple(given.get(name, name) for name in self.inputs)

    def _converted(self, param: str, value: Any) -> Any:
        if param not in self.inputs and isinstance(self.params[param], str) and type(value) is int:
            value = next((name for name, code in AVERAGES.items() if code == value), value)
        return super()._converted(param, value)

    def _is_allowed(self, params: Params) -> bool:
        # TA-Lib judges all parameters together, since a limit may depend on another parameter. Beyond the
        # extremes a number would overflow, or stand for the default.
        numbers = [value for value in params.values() if not isinstance(value, str)]
        return all(abs(value) <= _extreme(value) for value in numbers) and self._warmup(params) >= 0

    def _warmup(self, params: Params) -> int:
        return _lookback(self.name, self._options(params))

    def _reach(self, params: Params) -> int | None:
        return hints.reach(self.name, self._warmup(params), params)

    def _options(self, params: Params) -> Numbers:
        options = (value for name, value in params.items() if name not in self.inputs)
        return tuple(AVERAGES[value] if isinstance(value, str) else value for value in options)

    def _values(self, bars: BarHistory, params: Params) -> dict[str, Floats]:
        function, options, warmup = _function(self.name), self._options(params), self._warmup(params)
        fields = [bars.array(name) for name in self.series(params)]
        there = np.logical_and.reduce([np.isfinite(field) for field in fields])
        counts = there.sum(axis=0)
        values = {output.name: np.full(bars.shape, np.nan, order="F") for output in self.outputs}
        arrays = list(values.values())
        # TA-Lib takes one series at a time, hence the loop over instruments. SMA(20) of 2,500 instruments
        # with 390 bars takes 10 ms (3.6 ms of it in TA-Lib; 22 ms with holes), pandas' rolling mean 58 ms.
        for j in np.flatnonzero(counts > warmup).tolist():
            rows = None if counts[j] == len(bars) else np.flatnonzero(there[:, j])
            columns = [field[:, j] if rows is None else field[rows, j] for field in fields]
            try:
                results = function(*columns, *options)
            except Exception as error:  # TA-Lib raises nothing more precise
                raise IndicatorError(
                    f"Indicator {self.name} of {bars.symbols[j]}", "a result", str(error)
                ) from error
            for array, result in zip(
                arrays, results if isinstance(results, tuple) else (results,), strict=True
            ):
                if rows is None:
                    array[warmup:, j] = result[warmup:]
                elif self.name in hints.ROWS:
                    array[rows[warmup:], j] = rows[result[warmup:]]
                else:
                    array[rows[warmup:], j] = result[warmup:]
        return values

    def _newest(self, windows: Windows, params: Params) -> dict[str, Floats]:
        fields, warmup = self.series(params), self._warmup(params)
        columns, places = [windows.rows(field) for field in fields], np.flatnonzero(windows.counts > warmup)
        good = windows.are_finite(fields)[places]
        broken, places = places[~good].tolist(), places[good].tolist()
        if len(places) < len(windows.symbols):
            columns = [[column[j] for j in places] for column in columns]
        rows = {}
        for j in broken:
            series = [windows.rows(field)[j] for field in fields]
            there = np.logical_and.reduce([np.isfinite(values) for values in series])
            if there[-1] and there.sum() > warmup:
                rows[len(places)] = np.flatnonzero(there)
                places.append(j)
                for column, values in zip(columns, series, strict=True):
                    column.append(values[there])
        newest = np.full((len(windows.symbols), len(self.outputs)), np.nan)
        found: list[Any] = []
        try:
            # 1.5 µs for each instrument and function if few bars are needed, nearly all of it in TA-Lib.
            results = map(_function(self.name), *columns, *map(repeat, self._options(params)))
            single = len(self.outputs) == 1
            found.extend(map(_last, results) if single else (tuple(map(_last, each)) for each in results))
        except Exception as error:  # TA-Lib raises nothing more precise
            where = f"Indicator {self.name} of {windows.symbols[places[len(found)]]}"
            raise IndicatorError(where, "a result", str(error)) from error
        if found:
            newest[places] = np.array(found).reshape(len(found), -1)
        if self.name in hints.ROWS:
            for i, own in rows.items():
                newest[places[i]] = own[newest[places[i]].astype(int)]
        return {output.name: newest[np.newaxis, :, i] for i, output in enumerate(self.outputs)}


def _register(name: str) -> None:
    info = _talib.abstract.Function(name).info
    series = {
        key: field for key, field in info["input_names"].items() if isinstance(field, str) and field in FIELDS
    }
    inputs = [
        field
        for key, fields in info["input_names"].items()
        for field in ([key] if key in series else fields if isinstance(fields, list) else [])
    ]
    averages = {code: kind for kind, code in AVERAGES.items()}
    options = {
        key: averages[value] if key.endswith("matype") else value for key, value in info["parameters"].items()
    }
    indicator = TalibIndicator(
        name,
        info["group"],
        f"{info['display_name']}: {name}({', '.join([*options, *series])}) of TA-Lib.",
        MappingProxyType(options | series),
        hints.outputs(name, info["group"], info["output_flags"]),
        hints.overlay(name, info["group"], info["function_flags"]),
        levels=hints.LEVELS.get(name, ()),
        inputs=tuple(inputs),
    )
    INDICATORS.add(name, indicator)


def _extreme(number: float) -> float:
    return 2**31 - 1 if isinstance(number, int) else 3e37


def _mavp(price: Floats, minperiod: int, maxperiod: int, matype: int) -> Floats:
    periods = _talib.HT_DCPERIOD(price)
    return _talib.MAVP(price, periods, minperiod, maxperiod, matype)  # type: ignore[no-any-return]


@cache
def _function(name: str) -> Callable[..., Any]:
    # The wrapper that also takes pandas and polars costs 1.4 µs, the function behind it 1.3 µs for 390 bars.
    return _mavp if name == "MAVP" else inspect.unwrap(getattr(_talib, name))


@lru_cache(maxsize=4096)
def _lookback(name: str, options: Numbers) -> int:
    """Ask TA-Lib for the number of bars before the first value; below 0 if it does not take the options."""
    function = _talib.abstract.Function(name)
    function.parameters = dict(zip(function.parameters, options, strict=True))
    cycle = _lookback("HT_DCPERIOD", ()) if name == "MAVP" else 0
    lookback = int(function.lookback)
    return lookback + cycle if lookback >= 0 else lookback


@cache
def _limits(name: str, param: str) -> Limits:
    """Find the range of a parameter, which TA-Lib does not tell: its lookback refuses what is outside."""
    defaults = _talib.abstract.Function(name).parameters
    default = defaults[param]
    extreme = _extreme(default)

    def is_valid(value: float) -> bool:
        return _lookback.__wrapped__(name, tuple((defaults | {param: value}).values())) >= 0

    def outermost(inside: float, outside: float) -> float:
        if is_valid(outside):
            return outside
        for _ in range(200):
            middle = (inside + outside) // 2 if isinstance(default, int) else (inside + outside) / 2
            if middle in (inside, outside):
                break
            inside, outside = (middle, outside) if is_valid(middle) else (inside, middle)
        return inside

    # Zero is a common limit, which bisection would only come near.
    zero = [type(default)(0)] if is_valid(type(default)(0)) else []
    return outermost(min([default, *zero]), -extreme), outermost(max([default, *zero]), extreme)


@cache
def _averages(name: str, param: str) -> tuple[str, ...]:
    defaults = _talib.abstract.Function(name).parameters
    return tuple(
        kind
        for kind, code in AVERAGES.items()
        if _lookback(name, tuple((defaults | {param: code}).values())) >= 0
    )


for _name in _talib.get_functions():
    _register(_name)

__all__ = ["AVERAGES", "TalibIndicator"]
