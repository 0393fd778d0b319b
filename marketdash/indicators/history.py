"""The bars of some instruments, aligned in time: what an indicator is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.clock import to_timestamp, to_us
from marketdash.errors import SchemaError, UnknownNameError
from marketdash.schema import WIDTHS, width_us

FIELDS = ("open", "high", "low", "close", "volume", "vwap")
"""What a bar history knows of a bar: prices in the instrument's price unit, volume in units traded."""

Floats = npt.NDArray[np.float64]


class BarHistory:
    """T bars of N instruments: tables of time by instrument, with NaN where an instrument has no bar.

    `bars.close` is a DataFrame whose index is `bars.times` (the bars' starts) and whose columns are
    `bars.symbols`; `bars.array("close")` is the same as a read-only float64 array of shape (T, N).
    Nobody can change a history through either: writing into an array raises, and each DataFrame is a
    copy of its own (made lazily, so that it costs 10 µs and no memory).
    """

    def __init__(
        self,
        times_us: npt.NDArray[np.int64],
        symbols: tuple[str, ...],
        width: str,
        tz: str,
        fields: dict[str, Floats],
    ) -> None:
        # Checked and frozen by the constructors below; slices share the arrays.
        self.times_us, self.symbols, self.width, self.tz = times_us, symbols, width, tz
        self._fields = fields
        self._frames: dict[str, pd.DataFrame] = {}

    @classmethod
    def from_arrays(
        cls,
        times_us: npt.ArrayLike,
        symbols: Sequence[str],
        width: str,
        tz: str = "UTC",
        *,
        copy: bool = True,
        **fields: npt.ArrayLike,
    ) -> BarHistory:
        """Make a history of the bars' starts (increasing microseconds since 1970) and fields of shape (T, N).

        A field of one instrument may have shape (T,); one that is left out has no values. With
        `copy=False` the arrays are used as they are, and the caller promises never to change them;
        columns that lie together in memory (`order="F"`) are computed faster.
        Times, shapes or names that do not fit raise `SchemaError`, an unknown width `UnknownNameError`.
        """
        width_us(width)
        moments = np.array(times_us, dtype=np.int64).reshape(-1)
        names = tuple(str(symbol) for symbol in symbols)
        if len(moments) > 1 and not (np.diff(moments) > 0).all():
            raise SchemaError(
                "The times of a bar history", "increasing starts of bars", "unordered or repeated ones"
            )
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SchemaError("The symbols of a bar history", "each symbol once", ", ".join(twice[:5]))
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise SchemaError("A bar history", f"the fields {', '.join(FIELDS)}", ", ".join(unknown))
        moments.setflags(write=False)
        shape = (len(moments), len(names))
        frozen = {name: _frozen(name, values, shape, copy) for name, values in fields.items()}
        return cls(moments, names, width, tz, frozen)

    @classmethod
    def from_frame(
        cls,
        bars: pd.DataFrame,
        width: str | None = None,
        *,
        symbols: Sequence[str] | None = None,
        tz: str | None = None,
    ) -> BarHistory:
        """Make a history of a long table: a row per bar, with the columns symbol, time and fields.

        Times carry a zone; the last of several rows of one bar counts. Instruments come in the order of
        `symbols`, else in that of their first rows; `tz` is the times' zone unless it is given. The width is
        `width`, else the column of that name, else the one nearest to the smallest distance of two bars.
        A table that does not fit raises `SchemaError`.
        """
        _check_columns(bars)
        instruments = bars["symbol"].astype("str")
        names = list(instruments.unique()) if symbols is None else [str(symbol) for symbol in symbols]
        column = pd.Index(names).get_indexer(pd.Index(instruments))
        kept = bars[column >= 0]
        moments = kept["time"].to_numpy(dtype="datetime64[us]").astype(np.int64)
        times, row = np.unique(moments, return_inverse=True)
        fields: dict[str, npt.ArrayLike] = {}
        for name in FIELDS:
            if name in kept:
                table = np.full((len(times), len(names)), np.nan, order="F")
                table[row, column[column >= 0]] = kept[name].to_numpy(dtype=np.float64, na_value=np.nan)
                fields[name] = table
        zone = str(bars["time"].dt.tz) if tz is None else tz
        return cls.from_arrays(times, names, width or _width(kept, times), zone, copy=False, **fields)

    def __len__(self) -> int:
        return len(self.times_us)

    def __repr__(self) -> str:
        what = f"{len(self.symbols)} instruments × {len(self)} bars of {self.width}"
        if not len(self):
            return f"<BarHistory {what}>"
        first, last = (to_timestamp(int(us), self.tz) for us in (self.times_us[0], self.times_us[-1]))
        return f"<BarHistory {what}, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M %Z}>"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of bars and of instruments: (T, N)."""
        return len(self.times_us), len(self.symbols)

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """The bars' starts, in the zone `tz`."""
        return pd.DatetimeIndex(self.times_us.view("M8[us]")).tz_localize("UTC").tz_convert(self.tz)

    @property
    def open(self) -> pd.DataFrame:
        """First prices."""
        return self._frame("open")

    @property
    def high(self) -> pd.DataFrame:
        """Highest prices."""
        return self._frame("high")

    @property
    def low(self) -> pd.DataFrame:
        """Lowest prices."""
        return self._frame("low")

    @property
    def close(self) -> pd.DataFrame:
        """Last prices."""
        return self._frame("close")

    @property
    def volume(self) -> pd.DataFrame:
        """Units traded."""
        return self._frame("volume")

    @property
    def vwap(self) -> pd.DataFrame:
        """Volume-weighted average price of each bar by itself."""
        return self._frame("vwap")

    def array(self, field: str) -> Floats:
        """A field as a read-only array of shape (T, N); an unknown name raises `UnknownNameError`."""
        if field not in self._fields:
            if field not in FIELDS:
                raise UnknownNameError("field", field, FIELDS)
            self._fields[field] = _frozen(field, np.full(self.shape, np.nan), self.shape, copy=True)
        return self._fields[field]

    def last(self, n: int) -> BarHistory:
        """The last `n` bars, or all if there are fewer."""
        return self._rows(slice(max(len(self) - n, 0), None))

    def upto(self, end: object) -> BarHistory:
        """The first `end` bars, or those that start at the time `end` (without a zone: in `tz`) or before."""
        if isinstance(end, int | np.integer):
            return self._rows(slice(0, max(int(end), 0)))
        count = np.searchsorted(self.times_us, to_us(end, self.tz), side="right")
        return self._rows(slice(0, int(count)))

    def select(self, symbols: Iterable[str]) -> BarHistory:
        """The history of these instruments, in this order."""
        names = tuple(symbols)
        places = {symbol: j for j, symbol in enumerate(self.symbols)}
        if missing := [name for name in names if name not in places]:
            raise UnknownNameError("symbol", missing[0], self.symbols)
        columns = [places[name] for name in names]
        shape = (len(self), len(names))
        fields = {
            name: _frozen(name, values[:, columns], shape, copy=True) for name, values in self._fields.items()
        }
        return BarHistory(self.times_us, names, self.width, self.tz, fields)

    def _rows(self, rows: slice) -> BarHistory:
        fields = {name: values[rows] for name, values in self._fields.items()}
        return BarHistory(self.times_us[rows], self.symbols, self.width, self.tz, fields)

    def _frame(self, field: str) -> pd.DataFrame:
        if field not in self._frames:
            columns = pd.Index(self.symbols, dtype="str")
            self._frames[field] = pd.DataFrame(
                self.array(field), index=self.times, columns=columns, copy=False
            )
        # pandas copies on write: what is done to this one is not seen in the next.
        return self._frames[field].copy(deep=False)


def _frozen(name: str, values: npt.ArrayLike, shape: tuple[int, int], copy: bool) -> Floats:
    # Columns together in memory: so TA-Lib reads them without a copy, and so pandas holds them itself.
    array = np.array(values, dtype=np.float64, order="F") if copy else np.asarray(values, dtype=np.float64)
    if array.ndim == 1 and shape[1] == 1:
        array = array[:, np.newaxis]
    if array.shape != shape:
        raise SchemaError(
            f"The {name} of a bar history", f"shape {shape}, bars by instruments", f"shape {array.shape}"
        )
    if copy:
        array.setflags(write=False)
    array = array[:]  # the caller's own array stays writable
    array.setflags(write=False)
    return array


def _check_columns(bars: pd.DataFrame) -> None:
    if missing := [name for name in ("symbol", "time") if name not in bars]:
        raise SchemaError(
            "A table of bars", "columns symbol, time and fields", f"no {' and no '.join(missing)}"
        )
    if not isinstance(bars["time"].dtype, pd.DatetimeTZDtype):
        raise SchemaError("A table of bars", "times with a zone", f"times of type {bars['time'].dtype}")


def _width(bars: pd.DataFrame, times: npt.NDArray[np.int64]) -> str:
    widths = [str(width) for width in bars["width"].unique()] if "width" in bars else []
    if len(widths) == 1:
        return widths[0]
    if widths or len(times) < 2:
        got = ", ".join(widths) or f"{len(times)} bars without a column width"
        raise SchemaError(
            "A table of bars", "bars of one known width", got, "Pass width=, and bars of it only."
        )
    # A day with a change of the clock is an hour shorter, hence the nearest and not the next lower one.
    step = np.log(float(np.diff(times).min()))
    return min(WIDTHS, key=lambda name: abs(np.log(WIDTHS[name]) - step))


__all__ = ["FIELDS", "BarHistory", "Floats"]
