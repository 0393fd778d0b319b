"""Arrow batches as the numpy columns that kernels take."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.schema import NAME, TOPICS, WIDTHS

_WIDTHS_US = np.array([*WIDTHS.values(), 0], np.int64)
_PLACES = {width: i for i, width in enumerate(WIDTHS)}
_SHORT = 4096
"""Rows of a column of one name that is kept for the next batches."""


def ints(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A time column in microseconds, without copying; it must have no nulls."""
    return batch.column(name).view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def ids(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    """The instruments, without copying."""
    return batch.column("instrument_id").to_numpy()  # type: ignore[no-any-return]


def known(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Known-at; where a source gave none, the event time, and the end of a bar."""
    column = batch.column("known_at")
    if not column.null_count:
        return column.view(pa.int64()).to_numpy()  # type: ignore[no-any-return]
    happened = ints(batch, "time")
    if "width" in batch.schema.names:
        happened = happened + _WIDTHS_US[widths(batch)]
    if column.null_count == len(column):
        return happened
    given = column.view(pa.int64()).fill_null(0).to_numpy()
    return np.where(column.is_null().to_numpy(zero_copy_only=False), happened, given)


def floats(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    """A number column; nulls become NaN."""
    return batch.column(name).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def counts(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """An integer column; nulls become -1."""
    column = batch.column(name)
    if column.null_count:
        column = column.fill_null(-1)
    if column.type != pa.int64():
        column = column.cast(pa.int64())
    return column.to_numpy()  # type: ignore[no-any-return]


def ticks(batch: pa.RecordBatch) -> tuple[npt.NDArray[Any], ...]:
    """Instruments, times, known-at, numbers (-1 for none), prices and sizes of ticks; known-at has no nulls."""
    return (
        ids(batch), ints(batch, "time"), ints(batch, "known_at"), counts(batch, "seq"), floats(batch, "price"),
        floats(batch, "size"),
    )  # fmt: skip


def conditions(batch: pa.RecordBatch) -> npt.NDArray[np.uint32]:
    """The conditions of ticks; none is 0."""
    column = batch.column("conditions")
    if column.null_count == len(column):
        return np.zeros(len(column), np.uint32)
    return (column.fill_null(0) if column.null_count else column).to_numpy()  # type: ignore[no-any-return]


def widths(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """The place of each row's width in WIDTHS, -1 for a width that is not there."""
    column = batch.column("width")
    names: list[str] = column.dictionary.to_pylist()
    places = np.array([_PLACES.get(name, -1) for name in names], np.int64)
    found: npt.NDArray[np.int64] = places[column.indices.to_numpy()]
    return found


def bars(batch: pa.RecordBatch) -> npt.NDArray[np.float64]:
    """A row of open, high, low, close, volume and turnover for each bar; no volume is a volume of 0."""
    names = ("open", "high", "low", "close", "volume", "vwap")
    values = np.column_stack([floats(batch, name) for name in names])
    volume = values[:, 4] = np.where(np.isnan(values[:, 4]), 0.0, values[:, 4])
    # Unknown stays unknown; where nothing was traded, that nothing was paid is known.
    values[:, 5] = np.where(volume > 0, values[:, 5] * volume, 0.0 * values[:, 5])
    return values


def with_columns(batch: pa.RecordBatch, **columns: Any) -> pa.RecordBatch:
    """The batch with some columns replaced; numpy columns are taken as they lie in memory."""
    for name, values in columns.items():
        place = batch.schema.get_field_index(name)
        field = batch.schema.field(place)
        array = values if isinstance(values, pa.Array) else pa.array(values)
        # 3 µs each; a new batch of all the columns takes 20.
        batch = batch.set_column(place, field, array if array.type == field.type else array.view(field.type))
    return batch


def same(name: str, rows: int) -> pa.Array:
    """A column of one name."""
    return _short(name).slice(0, rows) if rows <= _SHORT else _names(name, rows)


def _names(name: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int16), pa.array([name])).cast(NAME)


@lru_cache(maxsize=64)
def _short(name: str) -> pa.Array:
    return _names(name, _SHORT)


def batch_of(topic: str, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """A batch of columns that are known to fit: `conform` would take longer than most of what makes them."""
    schema = TOPICS[topic].schema
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in schema.names], schema=schema)


def completed(
    batch: pa.RecordBatch, topic: str, now_us: int, source: str, first_seq: int, *, live: bool
) -> pa.RecordBatch:
    """The batch with what its source has left out: known-at, a sequence number and the source's name.

    Rows without known-at were known now if they are `live`, else when they happened; a bar when it ended.
    Nothing that is here is known later than now.
    """
    if not (rows := batch.num_rows):
        return batch
    changed: dict[str, Any] = {}
    column, numbers, names = (batch.column(name) for name in ("known_at", "seq", "source"))
    heard_now = live and topic != "bars"
    # Most sources leave a column out altogether, which costs a tenth of filling its gaps.
    if heard_now and column.null_count == rows:
        changed["known_at"] = np.full(rows, now_us)
    elif column.null_count or known(batch).max() > now_us:
        known_at = known(batch)
        if heard_now:
            known_at = np.where(column.is_null().to_numpy(zero_copy_only=False), now_us, known_at)
        changed["known_at"] = np.minimum(known_at, now_us)
    if numbers.null_count:
        own = pa.array(np.arange(first_seq, first_seq + rows))
        changed["seq"] = own if numbers.null_count == rows else pc.coalesce(numbers, own)
    if names.null_count == rows:
        changed["source"] = same(source, rows)
    elif names.null_count:
        changed["source"] = names.cast(pa.utf8()).fill_null(source).dictionary_encode().cast(NAME)
    return with_columns(batch, **changed) if changed else batch
