"""What bars a day of ticks must make, by plain numpy, and whether the graph has made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.day import INSTRUMENTS
from marketdash import conditions
from marketdash.calendars import calendar
from marketdash.pipeline import Graph
from marketdash.schema import WIDTHS

Column = npt.NDArray[Any]
PLAIN = ("instrument_id", "time", "open", "high", "low", "close", "volume", "count")


@dataclass(frozen=True)
class Expected:
    """By width, the columns of all bars of one regular session by instrument and time; the last prices."""

    tape: str
    bars: Mapping[str, Mapping[str, Column]]
    last: Column


def expected(ticks: pa.RecordBatch, tape: str = "none") -> Expected:
    """The bars of ticks of one regular session in order of time, each of which makes all prices or none.

    The volume of what makes none belongs to the bar of its time; if there is none, to the instrument's bar before,
    or to its first. What comes after an instrument's last bar, within the newest bar's time, waits.
    """
    order = np.argsort(ticks.column("instrument_id").to_numpy(), kind="stable")
    ids, price, size = (ticks.column(name).to_numpy()[order] for name in ("instrument_id", "price", "size"))
    times = ticks.column("time").view(pa.int64()).to_numpy()[order]
    changed = conditions.effects(ticks.column("conditions").to_numpy()[order], tape)
    priced = (changed & conditions.OPEN) > 0
    assert (changed[priced] == conditions.ALL).all()
    assert (changed[~priced] == conditions.VOLUME).all()
    opened = calendar("XNYS").regular(int(times.min()), int(times.max()))[0][0]
    bars = {}
    for width, us in WIDTHS.items():
        starts = np.full(len(times), opened) if width == "1d" else np.maximum(times // us * us, opened)
        bars[width] = _bars(ids, starts, opened, price, size, priced)
    last = np.full(INSTRUMENTS, np.nan)
    last[ids[priced]] = price[priced]  # of several the last one counts
    return Expected(tape, bars, last)


def _bars(
    ids: Column, starts: Column, opened: int, price: Column, size: Column, priced: Column
) -> Mapping[str, Column]:
    keys = ids * np.int64(10**6) + (starts - opened) // 1_000_000
    first = np.flatnonzero(np.diff(keys[priced], prepend=-1))
    last = np.append(first[1:], priced.sum()) - 1
    known, paid = keys[priced][first], price[priced]
    bar = np.searchsorted(known, keys, side="right") - 1
    earlier = (bar < 0) | (known[bar] // 10**6 != ids)
    bar[earlier] += 1
    newest = np.append(np.flatnonzero(np.diff(ids)), len(ids) - 1)
    newest_key = np.zeros(INSTRUMENTS, np.int64)
    newest_key[ids[newest]] = keys[newest]
    here = np.minimum(bar, len(known) - 1)
    counted = (known[here] // 10**6 == ids) & ((known[here] == keys) | (keys != newest_key[ids]))
    bar, size, turnover = bar[counted], size[counted], (price * size)[counted]
    return {
        "instrument_id": ids[priced][first],
        "time": starts[priced][first],
        "open": paid[first],
        "high": np.maximum.reduceat(paid, first),
        "low": np.minimum.reduceat(paid, first),
        "close": paid[last],
        "volume": np.bincount(bar, size, len(first)),
        "count": np.bincount(bar, minlength=len(first)),
        "turnover": np.bincount(bar, turnover, len(first)),
    }


def check(graph: Graph, ticks: pa.RecordBatch, wanted: Expected) -> None:
    """All bars of all widths that are kept, all last prices and the frame of ticks are what they must be."""
    assert not sum(graph.cleaners["ticks"].rejected.values())
    np.testing.assert_array_equal(graph.last.prices("last"), wanted.last)
    for width, bars in wanted.bars.items():
        ring = graph.store.ring(width)
        counts = np.bincount(bars["instrument_id"], minlength=INSTRUMENTS)
        np.testing.assert_array_equal(ring.total, counts)
        to_come = np.repeat(np.cumsum(counts), counts) - np.arange(counts.sum())
        kept, found = to_come <= ring.limit, graph.store.rows(width, np.arange(INSTRUMENTS))
        for name in PLAIN:
            np.testing.assert_array_equal(found[name], bars[name][kept], f"{name} of {width}")
        vwap = bars["turnover"][kept] / bars["volume"][kept]
        np.testing.assert_allclose(found["vwap"], vwap, rtol=1e-12, err_msg=f"vwap of {width}")
    frame = graph.frames["ticks"].table()
    for name in ("seq", "price", "size"):
        newest = ticks.column(name).slice(ticks.num_rows - frame.num_rows)
        assert frame[name].combine_chunks().equals(newest), f"{name} of the frame of ticks"
