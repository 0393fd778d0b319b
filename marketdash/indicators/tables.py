"""Between arrays of bars by instruments and the tables that a person reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from marketdash.errors import IndicatorError
from marketdash.indicators.history import BarHistory, Floats


def to_table(values: Mapping[str, Floats], bars: BarHistory) -> pd.DataFrame:
    """Label arrays: time by instrument for one output, else columns (symbol, output)."""
    if len(values) == 1:
        (single,) = values.values()
        columns: pd.Index[Any] = pd.Index(bars.symbols, dtype="str", name="symbol")
        return pd.DataFrame(single, index=bars.times, columns=columns)
    columns = pd.MultiIndex.from_product([bars.symbols, values], names=["symbol", "output"])
    side_by_side = np.stack(list(values.values()), axis=2).reshape(len(bars), -1)
    return pd.DataFrame(side_by_side, index=bars.times, columns=columns)


def from_table(table: Any, bars: BarHistory, where: str) -> Floats:
    """Take the values of a table like `bars.close`.

    An array of that shape will do, and for one instrument a Series; all else raises `IndicatorError`, which
    begins with `where`.
    """
    expected = f"a table of {len(bars)} bars × {len(bars.symbols)} instruments, like bars.close"
    if isinstance(table, pd.Series) and len(bars.symbols) == 1:
        table = table.to_frame(bars.symbols[0])
    if not isinstance(table, pd.DataFrame | np.ndarray):
        hint = "Does the function return what it computed?" if table is None else ""
        raise IndicatorError(where, expected, f"a {type(table).__name__}", hint)
    if table.shape != bars.shape:
        raise IndicatorError(where, expected, f"shape {table.shape} instead of {bars.shape}")
    if isinstance(table, pd.DataFrame):
        if not table.index.equals(bars.times):
            raise IndicatorError(where, "the index of bars.close", _difference(table.index, bars.times))
        if tuple(table.columns) != bars.symbols:
            raise IndicatorError(where, "the columns of bars.close", ", ".join(map(str, table.columns[:5])))
    try:
        # A copy: what an indicator returns may be the bars themselves.
        return np.array(table, dtype=np.float64, order="F")
    except (TypeError, ValueError) as error:
        raise IndicatorError(where, "numbers", str(error)) from error


def _difference(index: pd.Index[Any], times: pd.DatetimeIndex) -> str:
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        return f"an index of type {index.dtype}"
    place = int(np.argmax(np.asarray(index != times)))
    return f"{index[place]} in row {place} instead of {times[place]}"


__all__ = ["from_table", "to_table"]
