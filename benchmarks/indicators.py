"""Indicators on a bar close: the readings of many instruments at once, compared with direct calls of TA-Lib."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import numpy.typing as npt
import pandas as pd
import talib
from talib import abstract

from benchmarks.report import Report, seconds
from marketdash.calendars import calendar
from marketdash.clock import to_us
from marketdash.indicators import Spec, parse
from marketdash.instruments import Universe
from marketdash.pipeline import Graph
from marketdash.schema import conform

TWENTY = (
    "SMA", "EMA", "WMA", "RSI", "MACD", "BBANDS", "ATR", "ADX", "CCI", "STOCH", "OBV", "MFI", "ROC", "WILLR", "MOM",
    "STDDEV", "TRIX", "AROON", "PPO", "NATR",
)  # fmt: skip
FIVE = ("SMA", "EMA", "RSI", "MACD", "ATR")
BARS = 2_010
"""Bars before the first that is timed: more than 500 instruments keep, so that each indicator has its reach."""
CLOSES = 9
MINUTE_US = 60_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def indicators(report: Report) -> None:
    """Measure the close of a bar through the graph, and the same readings by a loop over DataFrames."""
    took, graph = asyncio.run(closes(TWENTY, 500, missing=0.0))
    what = (
        "20 TA-Lib indicators × 500 instruments on a bar close, in the frame; exactly those of direct calls"
    )
    report.add("engine.indicators_ms", took * 1e3, "ms", what, at_most=50)
    tables = {i: table(graph, i) for i in range(500)}
    peer = seconds(lambda: loop(tables), 3)
    what = "a loop of talib calls over 500 DataFrames of the same 2,000 bars takes so many times as long"
    report.add("engine.indicators_vs_loop", peer / took, "×", what)
    took, _ = asyncio.run(closes(TWENTY, 500, missing=0.1))
    report.add(
        "engine.indicators_ms.holes", took * 1e3, "ms", "the same where each bar is missing in 10 % of cases"
    )
    took, _ = asyncio.run(closes(FIVE, 2_500, missing=0.0))
    report.add(
        "engine.indicators_ms.2500", took * 1e3, "ms", "5 indicators × 2,500 instruments on a bar close"
    )


async def closes(names: Sequence[str], instruments: int, missing: float) -> tuple[float, Graph]:
    """The median time of a bar close, and the graph after the last one, whose readings have been checked."""
    graph = Graph(Universe.of([f"S{i}" for i in range(instruments)], calendar="XNYS"), finest="1min")
    starts = session_minutes(BARS + CLOSES)
    columns = random_bars(instruments, len(starts))
    there = np.random.default_rng(3).random((len(starts), instruments)) >= missing
    for begin in range(0, BARS, 100):
        rows = np.arange(begin, min(begin + 100, BARS))
        graph.push("bars", batch(columns, starts, there, rows))
    now = int(starts[BARS - 1]) + MINUTE_US
    specs = [parse(name) for name in names]
    for spec in specs:
        graph.add_indicator(spec, "1min", now)
    graph.advance(now)
    times = []
    for i in range(BARS, len(starts)):
        graph.push("bars", batch(columns, starts, there, np.array([i])))
        begin_s = time.perf_counter()
        graph.advance(int(starts[i]) + MINUTE_US)
        times.append(time.perf_counter() - begin_s)
    check(graph, specs, np.flatnonzero(there[-1]), int(starts[-1]))
    return median(times), graph


def session_minutes(count: int) -> Ints:
    """Starts of consecutive one-minute bars of New York's regular sessions."""
    spans = calendar("XNYS").regular(to_us("2024-03-04 12:00"), to_us("2024-03-29 21:00"))
    starts = np.concatenate([np.arange(opened, closed, MINUTE_US) for opened, closed in spans])
    return starts[:count]


def random_bars(instruments: int, count: int) -> dict[str, Floats]:
    """Prices that walk at random in cents, by bar and instrument."""
    rng = np.random.default_rng(5)
    shape = (count, instruments)
    close = (20 + 300 * rng.random(instruments)) * np.exp(np.cumsum(rng.normal(0, 0.001, shape), axis=0))
    opened = close * np.exp(rng.normal(0, 0.0005, shape))
    high = np.maximum(opened, close) * (1 + np.abs(rng.normal(0, 0.0005, shape)))
    low = np.minimum(opened, close) * (1 - np.abs(rng.normal(0, 0.0005, shape)))
    prices = {"open": opened, "high": high, "low": low, "close": close, "vwap": (high + low) / 2}
    return {name: values.round(2) for name, values in prices.items()} | {
        "volume": rng.integers(100, 10_000, shape).astype(np.float64)
    }


def batch(columns: Mapping[str, Floats], starts: Ints, there: npt.NDArray[np.bool_], rows: Ints) -> object:
    """These bars of all instruments that have one, known when they end."""
    row, instrument = np.nonzero(there[rows])
    moments = pd.DatetimeIndex(starts[rows[row]].astype("M8[us]"), tz="UTC")
    return conform(
        "bars",
        {
            "time": moments,
            "known_at": moments + pd.Timedelta(minutes=1),
            "instrument_id": instrument.astype(np.int32),
            "width": pd.Categorical.from_codes(np.zeros(len(row), np.int8), ["1min"]),
            **{name: values[rows[row], instrument] for name, values in columns.items()},
        },
    )


def table(graph: Graph, instrument: int) -> pd.DataFrame:
    """The bars that are kept of an instrument, as a person holds them."""
    bars = graph.store.bars(instrument, "1min")
    names = ("open", "high", "low", "close", "volume")
    return pd.DataFrame({name: getattr(bars, name) for name in names})


def loop(tables: Mapping[int, pd.DataFrame]) -> dict[tuple[int, str], list[float]]:
    """The peer: each function for each DataFrame, one after the other."""
    found = {}
    for i, bars in tables.items():
        for name in TWENTY:
            fields = [bars[field] for field in fields_of(name)]
            results = getattr(talib, name)(*fields)
            found[i, name] = [
                series.iloc[-1] for series in (results if isinstance(results, tuple) else (results,))
            ]
    return found


def fields_of(name: str) -> list[str]:
    """The series that a function of TA-Lib takes."""
    names = abstract.Function(name).info["input_names"].values()
    return [field for item in names for field in (item if isinstance(item, list) else [item])]


def check(graph: Graph, specs: list[Spec], ids: Ints, start: int) -> None:
    """The readings of the last bar are, to the bit, those of TA-Lib on the bars within each one's reach."""
    frame = graph.frames["readings"].table().to_pandas()
    frame = frame[frame["time"] == pd.Timestamp(start, unit="us", tz="UTC")]
    keys = zip(frame["indicator"], frame["output"], frame["instrument_id"], strict=True)
    found = dict(zip(keys, frame["value"], strict=True))
    tables = {int(i): table(graph, int(i)) for i in ids}
    wanted = {}
    for spec in specs:
        function = abstract.Function(spec.indicator.name)
        for i, bars in tables.items():
            window = bars if spec.reach is None else bars.tail(spec.reach)
            results = function({name: window[name].to_numpy(copy=True) for name in window})
            for output, values in zip(
                spec.outputs, results if isinstance(results, list) else [results], strict=True
            ):
                wanted[str(spec), output.name, i] = float(values[-1])
    assert found == wanted, "readings differ from those of TA-Lib"
    assert len(frame) == len(ids) * sum(len(spec.outputs) for spec in specs)
