"""Yahoo's chart answer made into rows of bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from marketdash.calendars import DAY_US, Calendar, Segments, calendar
from marketdash.instruments import Instrument
from marketdash.schema import width_us

PRICES = ("open", "high", "low", "close")

Ints = npt.NDArray[np.int64]


def bars_of(
    chart: Mapping[str, Any], instrument: Instrument, width: str, fetched_us: int, delay_us: int = 0
) -> pd.DataFrame:
    """Rows of the topic bars, oldest first, from the `result` of a chart answer.

    Yahoo's rows without prices are left out, and its separate row for the moment is folded into the bar
    that it belongs to. A daily bar starts at the open of its trading day; a day that the exchange's calendar
    does not know, or that has not begun, is left out. A bar is known at its end plus the feed's delay, an
    unfinished one when it was fetched. Prices are Yahoo's: adjusted for splits, not for dividends.
    """
    hours = calendar(instrument.calendar)
    rows = _rows(chart)
    if width == "1d":
        rows["time"], rows["end"] = _days(rows["time"].to_numpy(), hours, _zone(chart, hours))
        rows = rows[(rows["time"] >= 0) & (rows["time"] <= fetched_us)]
        together = dict.fromkeys((*PRICES, "volume", "end"), "last")  # the last row covers the whole day
    else:
        length = width_us(width)
        rows["time"] = rows["time"] // length * length
        rows["end"] = rows["time"] + length
        together = {"open": "first", "high": "max", "low": "min", "close": "last"}
        together |= {"volume": "sum", "end": "last"}
    rows = rows.groupby("time", as_index=False).agg(together)
    starts = rows["time"].to_numpy()
    session, day = hours.stamp(starts)
    return pd.DataFrame(
        {
            "time": moments(starts),
            "known_at": moments(np.minimum(rows["end"].to_numpy() + delay_us, fetched_us)),
            "source": "yahoo",
            "instrument_id": np.full(len(rows), instrument.id, np.int32),
            "width": width,
            **{name: rows[name].to_numpy() for name in (*PRICES, "volume")},
            "revision": np.zeros(len(rows), np.int32),
            "session": session,
            "trading_day": day,
        }
    )


def moments(us: Ints) -> pd.DatetimeIndex:
    """Microseconds since 1970 as moments with their zone."""
    return pd.DatetimeIndex(us.astype("M8[us]"), tz="UTC")


def _rows(chart: Mapping[str, Any]) -> pd.DataFrame:
    times = chart.get("timestamp") or []
    columns = chart["indicators"]["quote"][0] if times else {}
    rows = pd.DataFrame({"time": np.array(times, np.int64) * 1_000_000})
    for name in (*PRICES, "volume"):
        rows[name] = np.array(columns.get(name) or [None] * len(times), np.float64)
    prices = rows[list(PRICES)].to_numpy()
    rows["volume"] = rows["volume"].where(rows["volume"] > 0, 0.0)
    # Stable, so that the separate row of the moment stays behind the bar that it completes.
    priced: pd.DataFrame = rows.loc[(np.isfinite(prices) & (prices > 0)).all(axis=1)]
    return priced.sort_values("time", kind="stable")


def _zone(chart: Mapping[str, Any], hours: Calendar) -> str:
    return str(chart.get("meta", {}).get("exchangeTimezoneName") or hours.tz)


def _days(times: Ints, hours: Calendar, zone: str) -> tuple[Ints, Ints]:
    """Open and close of the trading day of each daily row, -1 where the calendar has no such day.

    The row's date in Yahoo's zone decides: its time is the open, midnight, or the latest trade.
    """
    if not len(times):
        return times, times
    local = pd.DatetimeIndex(times.astype("M8[us]")).tz_localize("UTC").tz_convert(zone).tz_localize(None)
    dates = local.to_numpy().astype("M8[D]").astype(np.int64)
    segments = _segments(hours, int(times.min()), int(times.max()))
    row = np.searchsorted(segments.day, dates)
    row = np.minimum(row, len(segments.day) - 1)
    found = segments.day[row] == dates
    return np.where(found, segments.day_open[row], -1), np.where(found, segments.day_close[row], -1)


def _segments(hours: Calendar, first_us: int, last_us: int) -> Segments:
    # Rounded to months, so that the next symbol finds the same segments in the calendar's cache.
    month = 30 * DAY_US
    return hours.segments(first_us // month * month, -(-last_us // month) * month)
