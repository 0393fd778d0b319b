"""Frames as the DataFrames that a person reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from marketdash.frames import BarStore, LastPrices, RollingFrame
from marketdash.frames.bars import DAY
from marketdash.instruments import Universe
from marketdash.market.state import STATES, Values
from marketdash.schema import SESSIONS

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "vwap", "count", "revision")


def bars_table(
    store: BarStore, universe: Universe, width: str, ids: npt.NDArray[Any], last: int | None, now_us: int, tz: str
) -> pd.DataFrame:
    """Bars of some instruments, indexed by their start, sorted by time and then as asked for."""
    rows = store.rows(width, ids, last)
    order = np.argsort(rows["time"], kind="stable")
    rows = {name: values[order] for name, values in rows.items()}
    table = pd.DataFrame({"symbol": _symbols(universe, rows["instrument_id"])})
    for name in BAR_COLUMNS:
        table[name] = rows[name]
    table["count"] = table["count"].where(table["count"] >= 0).astype("Int64")
    table["session"] = pd.Categorical.from_codes(rows["session"].astype(int), list(SESSIONS))
    table["trading_day"] = pd.to_datetime(rows["trading_day"], unit="D")
    table["closed"] = rows["end"] <= now_us
    table.index = pd.DatetimeIndex(_times(rows["time"], tz), name="time")
    return table


def last_table(
    last: LastPrices, store: BarStore, universe: Universe, ids: npt.NDArray[Any], values: Values, tz: str
) -> pd.DataFrame:
    """What each instrument is worth now, indexed by symbol; prices in the instrument's price unit."""
    previous, price = last.prices("previous_close"), last.prices("last")
    table = pd.DataFrame({"last": price, "change": price - previous, "change_pct": last.change * 100.0})
    table["previous_close"] = previous
    for name, column in day_columns(store, last).items():
        table[name] = column
    for name in ("bid", "ask"):
        table[name] = last.prices(name)
    for name in ("time", "known_at"):
        times = last.times(name)
        table[name] = _times(np.where(times > 0, times, np.iinfo(np.int64).min), tz)
    table["age"] = pd.to_timedelta(np.where(values.age >= 0, values.age, np.iinfo(np.int64).min), unit="us")
    table["state"] = pd.Categorical.from_codes(values.state, list(STATES))
    table["sector"] = [item.sector for item in universe]
    table.index = pd.Index(universe.symbols, name="symbol")
    return table.iloc[np.asarray(ids)]


def day_columns(store: BarStore, last: LastPrices) -> dict[str, npt.NDArray[np.float64]]:
    """Open, high, low, volume and turnover of each instrument's current trading day; NaN before its first bar.

    Where a source gives no turnover, it is the typical price (H+L+C)/3 times the volume.
    """
    ring = store.ring("1d")
    newest = (np.arange(len(last)), (ring.total - 1) % ring.capacity)
    today = (ring.total > 0) & (ring.ints[newest][:, DAY] == last.times("day"))
    floats = np.where(today[:, None], ring.floats[newest], np.nan)
    names = ("open", "high", "low", "close", "volume", "turnover")
    columns = {name: floats[:, i].copy() for i, name in enumerate(names)}
    typical = (columns["high"] + columns["low"] + columns.pop("close")) / 3
    columns["turnover"] = np.where(np.isnan(columns["turnover"]), typical * columns["volume"], columns["turnover"])
    return columns


def rolling_table(frame: RollingFrame, universe: Universe, ids: npt.NDArray[Any] | None, tz: str) -> pd.DataFrame:
    """The rows of a rolling frame, indexed by event time, with symbols."""
    return readable(frame.table(), universe, tz, ids)


def readable(rows: Any, universe: Universe, tz: str, ids: npt.NDArray[Any] | None = None) -> pd.DataFrame:
    """A batch or table of any topic as a person reads it: symbols, local times, names of sessions."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    frame = table.to_pandas()
    if ids is not None:
        frame = frame[frame["instrument_id"].isin(ids)]
    if "instrument_id" in frame:
        frame.insert(0, "symbol", _symbols(universe, frame.pop("instrument_id").to_numpy()))
    if "session" in frame:
        codes = frame["session"].fillna(-1).astype(int)
        frame["session"] = pd.Categorical.from_codes(codes, list(SESSIONS))
        frame["trading_day"] = pd.to_datetime(frame["trading_day"])
    frame["known_at"] = frame["known_at"].dt.tz_convert(tz)
    frame.index = pd.DatetimeIndex(frame.pop("time").dt.tz_convert(tz), name="time")
    return frame


def _symbols(universe: Universe, ids: npt.NDArray[Any]) -> pd.Categorical:
    # Categories in order of use, so that a frame of one symbol does not drag all the others along.
    used, codes = np.unique(ids, return_inverse=True)
    return pd.Categorical.from_codes(codes, [universe.symbols[i] for i in used])


def _times(us: npt.NDArray[np.int64], tz: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(us.astype("datetime64[us]")).tz_localize("UTC").tz_convert(tz)
