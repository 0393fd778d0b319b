"""A trading day like those that US exchanges print: heavy-tailed over instruments, and in bursts.

Of the trades of a recorded day, 4.7 (IBM) to 15 (SPY) share their second with others of the same stock, since an
order that sweeps the book prints many times within milliseconds. Trades that fell evenly over the day would open
a new one-second bar nearly each time, and measure the memory instead of the engine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa

from marketdash import conditions
from marketdash.calendars import calendar
from marketdash.clock import to_us
from marketdash.schema import conform

INSTRUMENTS = 2_500
BURST = 5.0
"""Trades of one burst, on average."""
WITHIN_US = 150_000
"""How long a burst takes, on average."""


@lru_cache(maxsize=1)
def trading_day(
    count: int, instruments: int = INSTRUMENTS, seed: int = 5, date: str = "2024-03-12"
) -> pa.RecordBatch:
    """`count` trades of the regular session of a day, in the order in which they are known; without conditions."""
    rng = np.random.default_rng(seed)
    exchange = calendar("XNYS")
    opened, closed = exchange.regular(to_us(f"{date} 12:00"), to_us(f"{date} 21:00"))[0]
    weight = rng.pareto(1.2, instruments) + 0.1
    sizes = rng.geometric(1 / BURST, int(count / BURST * 1.2))
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), count) + 1]
    # Twice as busy at the open and the close as at noon.
    moment = rng.random(len(sizes))
    begin = opened + (moment + np.sin(2 * np.pi * moment) / (3 * np.pi)) * (closed - opened)
    burst = np.repeat(np.arange(len(sizes)), sizes)[:count]
    ids = rng.choice(instruments, len(sizes), p=weight / weight.sum()).astype(np.int32)[burst]
    times = np.minimum(begin[burst] + rng.exponential(WITHIN_US, count), closed - 1).astype(np.int64)
    order = np.argsort(times, kind="stable")
    times, ids = times[order], ids[order]
    price = _prices(rng, ids, instruments)
    session, day = exchange.stamp(times)
    stamp = pa.timestamp("us", "UTC")
    columns = {
        "time": pa.array(times, stamp),
        "known_at": pa.array(times, stamp),
        "seq": np.arange(count),
        "source": pa.DictionaryArray.from_arrays(np.zeros(count, np.int16), pa.array(["benchmark"])),
        "instrument_id": ids,
        "price": price,
        "size": np.where(
            rng.random(count) < 0.25, rng.integers(1, 100, count), 100.0 * rng.integers(1, 9, count)
        ),
        "conditions": np.zeros(count, np.uint32),
        "session": session,
        "trading_day": pa.array(day, pa.int32()).cast(pa.date32()),
    }
    return conform("ticks", columns)


def with_conditions(ticks: pa.RecordBatch, seed: int = 6) -> pa.RecordBatch:
    """The same trades as a US tape marks them: odd lots, a third of all intermarket sweeps, some average prices."""
    rng, size = np.random.default_rng(seed), ticks.column("size").to_numpy()
    marks = {"odd lot": size < 100, "intermarket sweep": rng.random(len(size)) < 1 / 3}
    marks["average price"] = rng.random(len(size)) < 0.001
    masks = np.zeros(len(size), np.uint32)
    for name, marked in marks.items():
        masks |= np.where(marked, np.uint32(conditions.bit(name)), np.uint32(0))
    place = ticks.schema.get_field_index("conditions")
    return ticks.set_column(place, ticks.schema.field(place), pa.array(masks))


def _prices(rng: np.random.Generator, ids: np.ndarray, instruments: int) -> np.ndarray:
    """A walk of whole cents for each instrument."""
    by_instrument = np.argsort(ids, kind="stable")
    steps = rng.integers(-1, 2, len(ids)) * (rng.random(len(ids)) < 0.3)
    starts = np.flatnonzero(np.diff(ids[by_instrument], prepend=-1))
    walk = np.cumsum(steps)
    cents = walk - np.repeat(walk[starts] - steps[starts], np.diff(starts, append=len(ids)))
    first = rng.integers(2_000, 30_000, instruments)[ids[by_instrument]]
    price = np.empty(len(ids))
    price[by_instrument] = np.maximum(first + cents, 100) / 100
    return price
