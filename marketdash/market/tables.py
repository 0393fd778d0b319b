"""Frames as the DataFrames that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.frames import BarStore, LastPrices
from marketdash.frames.bars import DAY
from marketdash.instruments import Universe
from marketdash.market.adjusted import View
from marketdash.market.state import STATES, Values
from marketdash.schema import SESSIONS, TOPICS

BAR_COLUMNS = ("open", "high", "low", "close", "volume", "vwap", "count", "revision")

_NO_TIME = np.iinfo(np.int64).min
_FAR = 250_000_000_000_000_000
"""About the year 9892: what lies beyond was no time, but a number in a wrong unit."""
_CLEANED = tuple(TOPICS[name] for name in ("ticks", "corrections", "quotes", "bars", "actions"))
_SESSION_NAMES = pd.Index(SESSIONS, dtype="str")
_STATE_NAMES = pd.Index(STATES, dtype="str")


def bars_table(
    rows: Mapping[str, npt.NDArray[Any]], universe: Universe, complete_us: int, tz: str
) -> pd.DataFrame:
    """Bars that a store has given, indexed by their start, sorted by time and then as asked for."""
    order = np.argsort(rows["time"], kind="stable")
    rows = {name: values[order] for name, values in rows.items()}
    columns: dict[str, Any] = {"symbol": _symbols(universe, rows["instrument_id"])}
    columns |= {name: rows[name] for name in BAR_COLUMNS}
    columns["count"] = pd.arrays.IntegerArray(rows["count"], rows["count"] < 0)
    columns["session"] = pd.Categorical.from_codes(rows["session"].astype(int), _SESSION_NAMES)
    columns["trading_day"] = _days(rows["trading_day"])
    columns["closed"] = rows["end"] <= complete_us
    return pd.DataFrame(columns, index=_index(rows["time"], tz))


def adjustment_attrs(view: View | None, universe: Universe) -> dict[str, Any]:
    """What an adjusted table says about itself."""
    if view is None:
        return {"as_of": None, "unadjusted": []}
    return {"as_of": view.as_of, "unadjusted": [universe.symbols[i] for i in view.unadjusted]}


def last_table(
    last: LastPrices, store: BarStore, universe: Universe, ids: npt.NDArray[Any], values: Values, tz: str
) -> pd.DataFrame:
    """What each instrument is worth now, indexed by symbol; prices in the instrument's price unit."""
    previous, price = last.prices("previous_close"), last.prices("last")
    columns: dict[str, Any] = {
        "last": price,
        "change": price - previous,
        "change_pct": last.change * 100.0,
        "previous_close": previous,
        **day_columns(store, last),
        "bid": last.prices("bid"),
        "ask": last.prices("ask"),
    }
    columns = {name: column[ids] for name, column in columns.items()}
    for name in ("time", "known_at"):
        times = last.times(name)[ids]
        columns[name] = _times(np.where(times > 0, times, _NO_TIME), tz)
    age = values.age[ids]
    columns["age"] = pd.to_timedelta(np.where(age >= 0, age, _NO_TIME), unit="us")
    columns["state"] = pd.Categorical.from_codes(values.state[ids], _STATE_NAMES)
    # Taking texts costs as much as all the numbers.
    everything = len(ids) == len(universe) and bool((ids[:-1] < ids[1:]).all())
    columns["sector"] = universe.sector_names if everything else universe.sector_names[ids]
    return pd.DataFrame(columns, index=universe.index.view() if everything else universe.index[ids])


def day_columns(store: BarStore, last: LastPrices) -> dict[str, npt.NDArray[np.float64]]:
    """Open, high, low, volume and turnover of each instrument's current day; NaN before its first bar.

    Where a source gives no turnover, it is the typical price (H+L+C)/3 times the volume.
    """
    ring = store.ring("1d")
    newest = (np.arange(len(last)), (ring.total - 1) % ring.capacity)
    today = (ring.total > 0) & (ring.ints[newest][:, DAY] == last.times("day"))
    floats = np.where(today[:, None], ring.floats[newest], np.nan)
    names = ("open", "high", "low", "close", "volume", "turnover")
    columns = {name: floats[:, i].copy() for i, name in enumerate(names)}
    typical = (columns["high"] + columns["low"] + columns.pop("close")) / 3
    columns["turnover"] = np.where(
        np.isnan(columns["turnover"]), typical * columns["volume"], columns["turnover"]
    )
    return columns


def rejected_table(rejects: Sequence[Mapping[str, Any]], universe: Universe, tz: str) -> pd.DataFrame:
    """Rows that cleaning has stopped, with topic and reason, indexed by event time (NaT if that is none)."""
    ids = [row["instrument_id"] for row in rejects]
    columns: dict[str, Any] = {
        "symbol": pd.array(
            [universe.symbols[i] if 0 <= i < len(universe) else None for i in ids], dtype="str"
        )
    }
    for name in ("topic", "reason"):
        columns[name] = pd.array([row[name] for row in rejects], dtype="str")
    for field in {field.name: field for topic in _CLEANED for field in topic.schema}.values():
        values = [row.get(field.name) for row in rejects]
        if pa.types.is_timestamp(field.type):
            us = np.array([_NO_TIME if v is None or abs(v) > _FAR else v for v in values], np.int64)
            columns[field.name] = _times(us, tz)
        elif pa.types.is_date(field.type):
            columns[field.name] = pd.array(values, dtype="datetime64[s]")
        else:
            kind = (
                "Int64"
                if pa.types.is_integer(field.type)
                else "float64"
                if field.type == pa.float64()
                else "str"
            )
            columns[field.name] = pd.array(values, dtype=kind)  # type: ignore[call-overload]
    return pd.DataFrame(columns).set_index("time")


def readable(rows: Any, universe: Universe, tz: str, ids: npt.NDArray[Any] | None = None) -> pd.DataFrame:
    """A batch or table of any topic as a person reads it: symbols, local times, names of sessions."""
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    if ids is not None:
        table = table.filter(pc.is_in(table["instrument_id"], pa.array(np.asarray(ids, np.int32))))
    frame: pd.DataFrame = table.to_pandas(date_as_object=False)
    frame.index = _index(table["time"].cast(pa.int64()).to_numpy(), tz)
    del frame["time"]
    frame["known_at"] = frame["known_at"].dt.tz_convert(tz)
    for name in frame.columns[frame.dtypes == "category"]:
        # Sorted, so that the same rows read alike however they came.
        frame[name] = frame[name].cat.set_categories(
            sorted(frame[name].cat.remove_unused_categories().cat.categories)
        )
    for name in ("conditions", "count", "revision"):
        if name in frame:
            frame[name] = frame[name].astype("Int64")
    if "instrument_id" in frame:
        symbols = _symbols(universe, frame.pop("instrument_id").to_numpy())
        frame.insert(0, "symbol", pd.Series(symbols, index=frame.index))
    if "session" in frame:
        codes = frame["session"].fillna(-1).astype(int)
        frame["session"] = pd.Categorical.from_codes(codes, _SESSION_NAMES)
        frame["trading_day"] = frame["trading_day"].astype("datetime64[s]")
    return frame


def _symbols(universe: Universe, ids: npt.NDArray[Any]) -> pd.Categorical:
    # Categories in order of id, used ones only, so that a frame of one symbol does not drag all others along.
    used, codes = np.unique(ids, return_inverse=True)
    return pd.Categorical.from_codes(codes, pd.Index([universe.symbols[i] for i in used], dtype="str"))


def _days(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    return numbers.astype("datetime64[D]").astype("datetime64[s]")


def _times(us: npt.NDArray[np.int64], tz: str) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(us.astype("datetime64[us]")).tz_localize("UTC").tz_convert(tz)


def _index(us: npt.NDArray[np.int64], tz: str) -> pd.DatetimeIndex:
    return _times(us, tz).rename("time")
