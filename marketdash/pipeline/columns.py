"""Arrow batches as the numpy columns that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from marketdash.schema import WIDTHS

_WIDTHS_US = np.array([*WIDTHS.values(), 0], np.int64)
_PLACES = {width: i for i, width in enumerate(WIDTHS)}


def ints(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A time column in microseconds, without copying; it must have no nulls."""
    return batch.column(name).view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def ids(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    return batch.column("instrument_id").to_numpy()  # type: ignore[no-any-return]


def known(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Known-at; where a source gave none, the event time, and the end of a bar."""
    column = batch.column("known_at")
    if not column.null_count:
        return column.view(pa.int64()).to_numpy()  # type: ignore[no-any-return]
    happened = ints(batch, "time")
    if "width" in batch.schema.names:
        happened = happened + _WIDTHS_US[widths(batch)]
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
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def widths(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """The place of each row's width in WIDTHS, -1 for a width that is not there."""
    column = batch.column("width")
    places = np.array([_PLACES.get(name, -1) for name in column.dictionary.to_pylist()], np.int64)
    return places[column.indices.to_numpy()]


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
    arrays = batch.columns
    for name, values in columns.items():
        place = batch.schema.get_field_index(name)
        kind = batch.schema.field(place).type
        array = values if isinstance(values, pa.Array) else pa.array(values)
        arrays[place] = array if array.type == kind else array.view(kind)
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
