"""Small recorded markets to test with, and what must be the same however they are played."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marketdash.calendars import calendar
from marketdash.clock import to_us
from marketdash.instruments import Instrument, Universe
from marketdash.log import SessionLibrary, SessionLog, open_session, write_session
from marketdash.market import Market

GOLDEN = ("us-2018-11-minute", "us-2010-daily", "es-2013-09-ticks")
"""The sessions that travel with the package."""

DAY = "2018-11-23"
"""A half day in New York: much happens around its close at 13:00."""


def golden(name: str) -> SessionLog:
    """Open one of the shipped sessions."""
    return SessionLibrary().open(name)


def few_instruments(count: int = 4, calendars: Sequence[str] = ("XNYS",)) -> Universe:
    """Instruments A0, B1, C2 … on these calendars in turn."""
    names = (f"{chr(ord('A') + i % 26)}{i}" for i in range(count))
    return Universe(
        Instrument(i, name, calendar=calendars[i % len(calendars)], sector=f"Sector {i % 3}")
        for i, name in enumerate(names)
    )


def random_ticks(
    universe: Universe, first: object, last: object, rows: int, seed: int = 0, *, late: float = 0.1
) -> pd.DataFrame:
    """Trades between two moments, in the order in which they were known; a part of them comes late.

    Prices walk on a grid of cents and sizes are whole, so that sums do not depend on their order.
    """
    rng = np.random.default_rng(seed)
    start, end = to_us(first, "UTC"), to_us(last, "UTC")
    known = np.sort(rng.integers(start, end, rows))
    delay = np.where(rng.random(rows) < late, rng.exponential(90e6, rows), rng.exponential(5e3, rows))
    steps = rng.integers(-5, 6, rows)
    return pd.DataFrame(
        {
            "time": _utc(known - delay.astype(np.int64)),
            "known_at": _utc(known),
            "instrument_id": rng.integers(0, len(universe), rows).astype(np.int32),
            "price": (10_000 + np.cumsum(steps)).clip(1) / 64,
            "size": rng.integers(0, 500, rows).astype(np.float64),
        }
    )


def random_quotes(universe: Universe, first: object, last: object, rows: int, seed: int = 0) -> pd.DataFrame:
    """Best bids and asks between two moments; some sides are empty."""
    ticks = random_ticks(universe, first, last, rows, seed, late=0.0)
    rng = np.random.default_rng(seed + 1)
    quotes = ticks[["time", "known_at", "instrument_id"]].assign(
        bid=ticks["price"] - 0.25,
        ask=ticks["price"] + 0.25,
        bid_size=ticks["size"],
        ask_size=ticks["size"] + 1,
    )
    quotes.loc[rng.random(rows) < 0.05, "bid"] = np.nan
    return quotes


def random_bars(
    universe: Universe, width: str, first: object, last: object, seed: int = 0, *, missing: float = 0.2
) -> pd.DataFrame:
    """Ready-made bars of the regular sessions, known when they end; some are missing, some come again, changed."""
    rng = np.random.default_rng(seed)
    length = pd.Timedelta(width) if width != "1d" else pd.Timedelta(days=1)
    parts = []
    for name, ids in universe.by_calendar.items():
        for opened, closed in calendar(name).regular(to_us(first), to_us(last)):
            step = closed - opened if width == "1d" else int(length.total_seconds() * 1e6)
            starts = np.arange(opened, closed, step)
            if width != "1d":
                starts = starts[(starts >= to_us(first)) & (starts < to_us(last))]
            time, which = np.repeat(starts, len(ids)), np.tile(ids, len(starts))
            parts.append(
                pd.DataFrame(
                    {"time": time, "known_at": np.minimum(time + step, closed), "instrument_id": which}
                )
            )
    bars = pd.concat(parts, ignore_index=True)
    bars = bars[rng.random(len(bars)) >= missing]
    again = bars.sample(frac=0.05, random_state=seed)
    again = again.assign(known_at=again["known_at"] + rng.integers(0, 20, len(again)) * 60_000_000)
    bars = pd.concat([bars, again]).sort_values(["known_at", "time", "instrument_id"], ignore_index=True)
    close = 100 + rng.integers(-300, 300, len(bars)) / 64
    up, down = rng.integers(0, 20, len(bars)) / 64, rng.integers(0, 20, len(bars)) / 64
    volume = rng.integers(0, 1000, len(bars)).astype(np.float64)
    return bars.assign(
        time=_utc(bars["time"].to_numpy()),
        known_at=_utc(bars["known_at"].to_numpy()),
        instrument_id=bars["instrument_id"].astype(np.int32),
        width=width,
        open=close - down / 2,
        high=close + up,
        low=close - down,
        close=close,
        volume=volume,
        vwap=close,
    )


def write_log(folder: Path, universe: Universe, topics: dict[str, Any], **about: Any) -> SessionLog:
    """Write rows as a session log and open it; the first instrument's calendar rules it."""
    exchange = calendar(universe[0].calendar)
    write_session(folder, universe, topics, calendar=exchange.name, tz=exchange.tz, **about)
    return open_session(folder)


def snapshot(market: Market) -> dict[str, pd.DataFrame]:
    """All that can be read from a market: bars of every width, last prices, ticks, quotes, readings, rejected rows."""
    frames = {f"bars {width}": market.frame("bars", width=width) for width in market.widths}
    return frames | {name: market.frame(name) for name in ("last", "ticks", "quotes", "readings", "rejected")}


def assert_same(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame], where: str = "") -> None:
    """Compare two snapshots bit for bit: values, types, order and categories."""
    assert left.keys() == right.keys()
    for name, frame in left.items():
        pd.testing.assert_frame_equal(frame, right[name], check_exact=True, obj=f"{where} {name}".strip())


def _utc(us: Any) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(np.asarray(us, np.int64).astype("datetime64[us]"), tz="UTC")
