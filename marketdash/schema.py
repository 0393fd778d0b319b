"""Topics, their schemas, and the door at which rows are made to fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from marketdash.errors import SchemaError, UnknownNameError

SCHEMA_VERSION = 1

Batch = pa.RecordBatch
"""Some rows of one topic, in that topic's schema."""

Event = tuple[str, pa.RecordBatch]
"""What crosses every boundary: a topic and a batch."""

TIME = pa.timestamp("us", tz="UTC")
NAME = pa.dictionary(pa.int16(), pa.utf8())

WIDTHS: Mapping[str, int] = {
    "1s": 1_000_000,
    "5s": 5_000_000,
    "1min": 60_000_000,
    "5min": 300_000_000,
    "15min": 900_000_000,
    "1h": 3_600_000_000,
    "1d": 86_400_000_000,
}
"""Width of a bar → its nominal length in microseconds; a day is the exchange's trading day."""

SESSIONS = ("pre", "regular", "post", "overnight")
"""Codes of the `session` column, in order; an int8 in batches."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A named stream: its schema, and the columns that identify a row."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]

    @property
    def required(self) -> frozenset[str]:
        return frozenset(field.name for field in self.schema if not field.nullable)


def _topic(name: str, key: tuple[str, ...], **columns: pa.DataType | tuple[pa.DataType]) -> Topic:
    # A type in a tuple marks a column that a source may leave out.
    common = {"time": TIME, "known_at": (TIME,), "seq": (pa.int64(),), "source": (NAME,)}
    fields = [
        pa.field(field, kind[0] if isinstance(kind, tuple) else kind, nullable=isinstance(kind, tuple))
        for field, kind in (common | columns).items()
    ]
    return Topic(name, pa.schema(fields, {"topic": name, "version": str(SCHEMA_VERSION)}), key)


_MARKET_TIME = {"session": (pa.int8(),), "trading_day": (pa.date32(),)}
_ID = {"instrument_id": pa.int32()}

TOPICS: Mapping[str, Topic] = {
    topic.name: topic
    for topic in (
        _topic(
            "ticks",
            ("instrument_id", "seq"),
            **_ID,
            price=pa.float64(),
            size=(pa.float64(),),
            conditions=(pa.uint32(),),
            **_MARKET_TIME,
        ),
        _topic(
            "quotes",
            ("instrument_id", "seq"),
            **_ID,
            bid=pa.float64(),
            ask=pa.float64(),
            bid_size=(pa.float64(),),
            ask_size=(pa.float64(),),
            **_MARKET_TIME,
        ),
        _topic(
            "bars",
            ("instrument_id", "width", "time"),
            **_ID,
            width=NAME,
            open=pa.float64(),
            high=pa.float64(),
            low=pa.float64(),
            close=pa.float64(),
            volume=pa.float64(),
            vwap=(pa.float64(),),
            count=(pa.int64(),),
            revision=(pa.int32(),),
            **_MARKET_TIME,
        ),
        _topic(
            "readings",
            ("instrument_id", "width", "indicator", "output", "time"),
            **_ID,
            width=NAME,
            indicator=NAME,
            output=NAME,
            value=pa.float64(),
        ),
        _topic("health", ("stage", "time"), stage=NAME, state=NAME, message=(pa.utf8(),)),
    )
}


def topic(name: str) -> Topic:
    """The topic called `name`, or an error with the nearest names."""
    try:
        return TOPICS[name]
    except KeyError:
        raise UnknownNameError("topic", name, TOPICS) from None


def width_us(width: str) -> int:
    """The nominal length of a bar in microseconds, or an error with the nearest widths.

    >>> width_us("5min")
    300000000
    """
    try:
        return WIDTHS[width]
    except (KeyError, TypeError):
        raise UnknownNameError("width", width, WIDTHS, f"Widths: {' '.join(WIDTHS)}.") from None


def conform(name: str, rows: Any, where: str = "A batch") -> pa.RecordBatch:
    """Fit rows to the schema of topic `name`: columns ordered, types cast, absent optional ones null.

    `rows` may be a RecordBatch, a Table, a DataFrame or a mapping of columns. A missing column, an
    unknown one, a value that cannot be cast or a null where none may be raises `SchemaError` naming
    the column. A batch that already fits is returned as it is.
    """
    wanted = topic(name)
    if isinstance(rows, pa.RecordBatch) and rows.schema.equals(wanted.schema):
        return rows
    columns = _columns(rows, where)
    if unknown := sorted(set(columns) - set(wanted.schema.names)):
        hint = f"The columns of {name} are {', '.join(wanted.schema.names)}."
        raise SchemaError(f"{where} of {name}", "only columns of the topic", ", ".join(unknown), hint)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise SchemaError(f"{where} of {name}", "columns of one length", f"lengths {sorted(lengths)}")
    length = lengths.pop() if lengths else 0
    arrays = [_array(wanted, field, columns.get(field.name), length, where) for field in wanted.schema]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted.schema)


def _columns(rows: Any, where: str) -> dict[str, Any]:
    if isinstance(rows, pa.Table):
        rows = rows.combine_chunks()
        return {
            name: column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for name, column in zip(rows.column_names, rows.columns, strict=True)
        }
    if isinstance(rows, pa.RecordBatch):
        return dict(zip(rows.schema.names, rows.columns, strict=True))
    if isinstance(rows, pd.DataFrame | Mapping):
        return {str(name): rows[name] for name in rows}
    raise SchemaError(where, "a RecordBatch, a Table, a DataFrame or a mapping of columns", type(rows).__name__)


def _array(topic: Topic, field: pa.Field, values: Any, length: int, where: str) -> pa.Array:
    spot = f"{where} of {topic.name}, column {field.name!r}"
    if values is None:
        if not field.nullable:
            hint = f"It needs {', '.join(sorted(topic.required))}."
            raise SchemaError(spot, f"{field.type} values", "no such column", hint)
        return _nulls(field.type, length)
    try:
        array = _cast(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError) as error:
        raise SchemaError(spot, f"{field.type} values", str(error).splitlines()[0]) from error
    if not field.nullable and array.null_count:
        row = next(i for i in range(len(array)) if not array[i].is_valid)
        raise SchemaError(spot, "a value in every row", f"none in row {row}")
    return array


def _cast(values: Any, kind: pa.DataType) -> pa.Array:
    array = values if isinstance(values, pa.Array) else _from_python(values)
    if array.type == kind:
        return array
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(array.type):
        array = array.cast(pa.utf8()).dictionary_encode()
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(array.type) and array.type.tz is None:
        raise ValueError("times without a zone; make them UTC")
    return array.cast(kind)


def _from_python(values: Any) -> pa.Array:
    # NaN stays a number: clean decides about it. Only None and NaT are absent.
    if isinstance(values, pd.Series) and values.dtype.kind == "f":
        return pa.array(values.to_numpy(), from_pandas=False)
    array = pa.array(values, from_pandas=None if not isinstance(values, np.ndarray) else False)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


@cache
def _null_template(kind: pa.DataType) -> pa.Array:
    return pa.nulls(4096, kind)


def _nulls(kind: pa.DataType, length: int) -> pa.Array:
    return _null_template(kind).slice(0, length) if length <= 4096 else pa.nulls(length, kind)
