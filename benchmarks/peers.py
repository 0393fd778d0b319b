"""Others on the same ticks: polars, Perspective and streamz.dataframe, each by what comes nearest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # the graph uses one thread, and so does its peer

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.expected import PLAIN, Expected
from marketdash.schema import WIDTHS

TICKS = 200_000
"""Ticks for those to which a whole day would be an hour's work."""
BATCH = 1_000
WARM_UP = 20
"""Batches before the first that is timed."""


def polars_ticks_per_s(ticks: pa.RecordBatch, wanted: Expected) -> float:
    """Ticks a second of CPU time for the bars of all widths, all rows at once; they are the same bars."""
    import polars as pl

    frame = pl.from_arrow(pa.Table.from_batches([ticks.select(["time", "instrument_id", "price", "size"])]))
    assert isinstance(frame, pl.DataFrame)
    polars_bars(frame.head(10_000))
    begin = time.process_time()
    found = polars_bars(frame)
    spent = time.process_time() - begin
    for width, bars in found.items():
        rows = bars.sort("instrument_id", "time")
        for name in PLAIN:
            if name != "time":  # it knows no sessions: its first bar may begin before the market has opened
                np.testing.assert_array_equal(
                    rows[name].to_numpy(), wanted.bars[width][name], f"{name} of {width}"
                )
    return len(frame) / spent


def polars_bars(frame: Any) -> dict[str, Any]:
    """Bars by width."""
    import polars as pl

    price, size = pl.col("price"), pl.col("size")
    values = {"open": price.first(), "high": price.max(), "low": price.min(), "close": price.last()}
    values |= {"volume": size.sum(), "turnover": (price * size).sum(), "count": pl.len()}
    return {
        width: frame.group_by("instrument_id", pl.col("time").dt.truncate(f"{us}us")).agg(**values)
        for width, us in WIDTHS.items()
    }


def perspective_ticks_per_s(ticks: pa.RecordBatch) -> tuple[float, float, str]:
    """Ticks a second of CPU time into one-minute bars, how many cores were busy, and the version."""
    import perspective

    part = ticks.slice(0, TICKS)
    stamp = pa.array(part.column("time").view(pa.int64()).to_numpy() // 1_000).view(pa.timestamp("ms"))
    columns = {"instrument": part.column("instrument_id"), "time": stamp}
    rows = pa.table(columns | {name: part.column(name) for name in ("price", "size")})
    kinds = {"instrument": "integer", "time": "datetime", "price": "float", "size": "float"}
    table = perspective.Server().new_local_client().table(kinds)
    fields = ("open", "high", "low", "close")
    view = table.view(
        group_by=["instrument", "minute"],
        columns=[*fields, "volume"],
        expressions={"minute": "bucket(\"time\", 'm')", "volume": '"size"'}
        | dict.fromkeys(fields, '"price"'),
        aggregates={"open": "first", "high": "high", "low": "low", "close": "last", "volume": "sum"},
    )

    def push(batch: bytes) -> None:
        table.update(batch)
        view.num_rows()  # which lets it work off what waits

    rate, cores = _rate(push, [_stream(rows.slice(i, BATCH)) for i in range(0, TICKS, BATCH)])
    _check_perspective(view, part)
    return rate, cores, perspective.__version__


def _check_perspective(view: Any, ticks: pa.RecordBatch) -> None:
    found = pa.ipc.open_stream(view.to_arrow()).read_all().to_pandas()
    names = ["open", "high", "low", "close", "volume"]
    rows = pd.DataFrame({name: ticks.column(name).to_numpy() for name in ("instrument_id", "price", "size")})
    minute = ticks.column("time").view(pa.int64()).to_numpy() // 60_000_000
    groups = rows.groupby([rows["instrument_id"], minute])
    price = groups["price"].agg(open="first", high="max", low="min", close="last")
    bars = price.assign(volume=groups["size"].sum())
    leaves = found[found.iloc[:, :2].notna().all(axis=1)]
    np.testing.assert_array_equal(leaves[names].to_numpy(np.float64), bars[names].to_numpy())


def streamz_ticks_per_s(ticks: pa.RecordBatch) -> float:
    """Ticks a second of CPU time into the mean price of each instrument over the last 300 s."""
    from streamz import Stream
    from streamz.dataframe import DataFrame

    rows = pa.Table.from_batches(
        [ticks.slice(0, TICKS).select(["time", "instrument_id", "price"])]
    ).to_pandas()
    rows = rows.rename(columns={"instrument_id": "instrument"}).set_index("time")
    source, means = Stream(), []
    means_of_window = (
        DataFrame(source, example=rows.iloc[:0]).window("300s").groupby("instrument").price.mean()
    )
    means_of_window.stream.sink(means.append)
    rate, _ = _rate(source.emit, [rows.iloc[i : i + BATCH] for i in range(0, TICKS, BATCH)])
    window = rows[rows.index > rows.index[-1] - pd.Timedelta("300s")]
    wanted = window.groupby("instrument")["price"].mean()
    np.testing.assert_allclose(means[-1].reindex(wanted.index), wanted, rtol=1e-9)
    return rate


def _rate(push: Callable[[Any], Any], batches: Sequence[Any]) -> tuple[float, float]:
    """Ticks a second of CPU time, and how many cores were busy."""
    for batch in batches[:WARM_UP]:
        push(batch)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches[WARM_UP:]:
        push(batch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return (len(batches) - WARM_UP) * BATCH / cpu, cpu / wall


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
