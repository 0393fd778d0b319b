"""Bars after splits and dividends: what raw prices and volumes are multiplied by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.calendars import DAY_US, Segments, calendar
from marketdash.errors import SchemaError, UnknownNameError

ADJUSTMENTS = ("raw", "split", "total", "reinvested")
"""`raw` is what was traded. `split` puts all prices on today's shares. `total` also takes each dividend off the
prices before it. `reinvested` buys shares for it instead, at the close of its ex-date."""

PRICES = ("open", "high", "low", "close", "vwap")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Actions(NamedTuple):
    """Splits and dividends, one row for each ex-date of an instrument, by instrument and then by date.

    `ex` is the first moment of the ex-date in microseconds; `split` new shares for an old one, 1 without a split;
    `dividend` cash for a share held before that day, 0 without one.
    """

    instrument: Ints
    ex: Ints
    split: Floats
    dividend: Floats


class Factors(NamedTuple):
    """For each ex-date, by instrument and then by date, what all bars before it are multiplied by."""

    instrument: Ints
    ex: Ints
    price: Floats
    volume: Floats

    def at(self, instrument: npt.NDArray[np.integer], time: Ints) -> tuple[Floats, Floats]:
        """Factors of price and of volume of the bars that start at these moments, 1 after the last ex-date."""
        following = _place(self.instrument, self.ex, instrument, time, "right")
        row = np.minimum(following, max(len(self.ex) - 1, 0))
        if not len(self.ex):
            return np.ones(len(time)), np.ones(len(time))
        earlier = (following < len(self.ex)) & (self.instrument[row] == instrument)
        return np.where(earlier, self.price[row], 1.0), np.where(earlier, self.volume[row], 1.0)


def combine(
    instrument: npt.NDArray[np.integer], ex: Ints, is_split: npt.NDArray[np.bool_], value: Floats
) -> Actions:
    """Sort actions, and make those of one ex-date one: ratios multiply, dividends add up."""
    # By value too, so that sums do not depend on the order in which the rows came.
    order = np.lexsort((value, is_split, ex, instrument))
    ids, ex, is_split, value = instrument[order].astype(np.int64), ex[order], is_split[order], value[order]
    begin = np.flatnonzero(_begins(ids, ex))
    if not len(begin):
        return Actions(ids, ex, value, value)
    split = np.multiply.reduceat(np.where(is_split, value, 1.0), begin)
    dividend = np.add.reduceat(np.where(is_split, 0.0, value), begin)
    return Actions(ids[begin], ex[begin], split, dividend)


def closes_around(
    actions: Actions, instrument: npt.NDArray[np.integer], time: Ints, close: Floats
) -> tuple[Floats, Floats]:
    """For each ex-date the last daily close before it, and the first one from it on; NaN where there is none.

    The raw daily bars are given by instrument and then by start.
    """
    if not len(time):
        return np.full(len(actions.ex), np.nan), np.full(len(actions.ex), np.nan)
    place = _place(instrument.astype(np.int64), time, actions.instrument, actions.ex, "left")
    found = []
    for row in (place - 1, place):
        inside = np.clip(row, 0, len(time) - 1)
        same = (row == inside) & (instrument[inside] == actions.instrument)
        found.append(np.where(same, close[inside], np.nan))
    return found[0], found[1]


def factors(actions: Actions, adjustment: str, before: Floats, after: Floats) -> Factors:
    """What the bars before each ex-date are multiplied by, all later actions included.

    `before` and `after` are the raw closes of `closes_around`. Prices before an ex-date are multiplied,

    * `split`: by 1 / new shares per old share, volumes by the ratio itself, as in CRSP's cumulative factors
      (https://www.crsp.org/wp-content/uploads/guides/CRSP_US_Stock_&_Indexes_Database_Data_Descriptions_Guide.pdf);
    * `total`: further by 1 - dividend / close before, the multiplier that Yahoo publishes
      (https://help.yahoo.com/kb/SLN28256.html) and LEAN's factor files hold. It is known before the ex-date opens;
    * `reinvested`: so that returns over the ex-date are CRSP's holding period return,
      (close · ratio + dividend) / close before - 1. It moves with the close until the ex-date is over, and a
      dividend counts from the first close from its ex-date on.

    A dividend without a close before it, or not smaller than that, makes NaN of all prices before its ex-date:
    a wrong number would be taken for a price. Volumes know nothing of dividends.
    """
    step = 1.0 / actions.split
    paid = np.zeros(len(step), np.bool_) if adjustment == "split" else actions.dividend > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        if adjustment == "total":
            less = step * (1.0 - actions.dividend / before)
        else:
            paid &= ~np.isnan(after) | np.isnan(before)
            less = after / (after * actions.split + actions.dividend)
        step = np.where(paid, np.where(actions.dividend < before, less, np.nan), step)
    return Factors(
        actions.instrument,
        actions.ex,
        _onward(actions.instrument, step),
        _onward(actions.instrument, actions.split),
    )


def applied(fields: Mapping[str, Floats], price: Floats, volume: Floats) -> dict[str, Floats]:
    """The fields of bars times their factors; turnover by both, so that it stays vwap times volume."""
    by = dict.fromkeys(PRICES, price) | {"volume": volume, "turnover": price * volume}
    return {name: values * by[name] for name, values in fields.items() if name in by}


def checked(adjustment: str) -> str:
    """The adjustment called so, or an error with the nearest names."""
    if adjustment not in ADJUSTMENTS:
        raise UnknownNameError("adjustment", adjustment, ADJUSTMENTS)
    return adjustment


def trading_days(calendar_name: str, us: Ints) -> tuple[Ints, Ints]:
    """The trading day (days since 1970) to which each moment belongs, and that day's first moment."""
    segments = _segments(calendar_name, us)
    day = segments.day[segments.find(us)]
    return day, segments.start[np.searchsorted(segments.day, day)]


def ex_moments(calendar_name: str, days: npt.ArrayLike) -> Ints:
    """The first moments of trading days, given as dates: the `time` of actions with these ex-dates.

    >>> ex_moments("24/7", ["2020-08-31"]).astype("M8[us]").tolist()
    [datetime.datetime(2020, 8, 31, 0, 0)]
    """
    wanted = np.asarray(days, "M8[D]").astype(np.int64)
    segments = _segments(calendar_name, wanted * DAY_US)
    row = np.minimum(np.searchsorted(segments.day, wanted), len(segments.day) - 1)
    if (wrong := segments.day[row] != wanted).any():
        raise SchemaError(
            "An ex-date", f"a trading day of {calendar_name}", str(wanted[wrong][0].astype("M8[D]"))
        )
    return segments.start[row]


def _segments(calendar_name: str, us: Ints) -> Segments:
    # Rounded to months, so that the next call finds the same segments in the calendar's cache.
    month = 30 * DAY_US
    return calendar(calendar_name).segments(
        int(us.min()) // month * month, -(-int(us.max()) // month) * month
    )


def _onward(instrument: Ints, steps: Floats) -> Floats:
    """For each row the product of its step and of all later ones of the same instrument."""
    if not len(steps):
        return steps
    first = np.flatnonzero(_begins(instrument))
    count = np.diff(np.append(first, len(steps)))
    block = np.repeat(np.arange(len(first)), count)
    column = np.arange(len(steps)) - np.repeat(first, count)
    table = np.ones((len(first), int(count.max())))
    table[block, column] = steps
    return np.cumprod(table[:, ::-1], axis=1, dtype=np.float64)[:, ::-1][block, column]


def _begins(*columns: Ints) -> npt.NDArray[np.bool_]:
    """Where a row differs from the one before it."""
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed


def _place(
    ids: Ints, times: Ints, wanted: npt.NDArray[np.integer], moments: Ints, side: Literal["left", "right"]
) -> Ints:
    """How many of the pairs (id, time), which are sorted, come before each wanted pair, as in `searchsorted`."""
    known = np.unique(times)
    span = len(known) + 1
    keys = ids * span + np.searchsorted(known, times)
    return np.searchsorted(keys, wanted.astype(np.int64) * span + np.searchsorted(known, moments, side))


__all__ = [
    "ADJUSTMENTS", "PRICES", "Actions", "Factors", "applied", "checked", "closes_around", "combine", "ex_moments",
    "factors", "trading_days",
]  # fmt: skip
