"""Arrow batches as the numpy columns that kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def ints(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """A time column in microseconds, without copying; it must have no nulls."""
    return batch.column(name).view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def ids(batch: pa.RecordBatch) -> npt.NDArray[np.int32]:
    return batch.column("instrument_id").to_numpy()  # type: ignore[no-any-return]


def known(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Known-at; where a source gave none, the event time."""
    column = batch.column("known_at")
    if column.null_count:
        column = column.fill_null(0).view(pa.int64()).to_numpy()
        return np.where(column == 0, ints(batch, "time"), column)
    return column.view(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def floats(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    """A number column; nulls become NaN."""
    return batch.column(name).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def counts(batch: pa.RecordBatch, name: str) -> npt.NDArray[np.int64]:
    """An integer column; nulls become -1."""
    column = batch.column(name)
    if column.null_count:
        column = column.fill_null(-1)
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def with_columns(batch: pa.RecordBatch, **columns: Any) -> pa.RecordBatch:
    """The batch with some columns replaced."""
    arrays = [
        pa.array(columns[field.name], type=field.type) if field.name in columns else batch.column(i)
        for i, field in enumerate(batch.schema)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
