"""Topics, their schemas, and the door at which rows are made to fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from marketdash.errors import SchemaError, UnknownNameError

SCHEMA_VERSION = 1

_EPOCH, _US = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

_SHORT = 4096
"""Rows of a column of nulls that is kept for the next batches."""

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

ACTIONS = ("split", "dividend", "rename")
"""Values of the `kind` column of actions. The `value` of a split is new shares for an old one, of a dividend the
cash for one share held before, in the instrument's price unit (0 takes an announced one back), of a rename none;
its new symbol is the `text`. Two dividends of one ex-date are one row with their sum.

`time` is the first moment of the ex-date's trading day, `known_at` when it was announced. A moment within the day
counts for the whole day, since the price of no bar of that day changes, but is in effect from that moment on."""

SESSIONS = ("pre", "regular", "post", "overnight")
"""Codes of the `session` column, in order; an int8 in batches."""


@dataclass(frozen=True)
class Topic:
    """A named stream: its schema, and the columns that identify a row."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]

    @property
    def required(self) -> frozenset[str]:
        return frozenset(field.name for field in self.schema if not field.nullable)

    @cached_property
    def never_null(self) -> tuple[int, ...]:
        """Places of the columns that must have a value in every row."""
        return tuple(i for i, field in enumerate(self.schema) if not field.nullable)

    @cached_property
    def columns(self) -> tuple[_Column, ...]:
        """What `conform` needs to know of each column; to ask Arrow costs more than most of its work."""
        return tuple(map(_column, self.schema))


class _Column(NamedTuple):
    """A column of a topic.

    Values that are all of the type `python` need no inference; `number` is numpy's type of such numbers. `nulls` are
    some rows without a value.
    """

    name: str
    kind: pa.DataType
    nullable: bool
    nulls: pa.Array
    python: type | None
    number: np.dtype[Any] | None


def _column(field: pa.Field) -> _Column:
    python: type | None = None
    number: np.dtype[Any] | None = None
    if field.type == TIME:
        python = datetime
    elif pa.types.is_integer(field.type) or pa.types.is_float64(field.type):
        number = np.dtype(field.type.to_pandas_dtype())
        python = float if number.kind == "f" else int
    return _Column(field.name, field.type, field.nullable, pa.nulls(_SHORT, field.type), python, number)


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
            "corrections",
            ("instrument_id", "seq"),
            **_ID,
            original_seq=pa.int64(),
            price=(pa.float64(),),
            size=(pa.float64(),),
            conditions=(pa.uint32(),),
        ),
        _topic(
            "quotes",
            ("instrument_id", "seq"),
            **_ID,
            bid=pa.float64(),
            ask=pa.float64(),
            bid_size=(pa.float64(),),
            ask_size=(pa.float64(),),
            exchange=(NAME,),
            conditions=(pa.uint32(),),
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
        _topic(
            "actions",
            ("instrument_id", "kind", "time"),
            **_ID,
            kind=NAME,
            value=(pa.float64(),),
            text=(pa.utf8(),),
        ),
        _topic("health", ("stage", "time"), stage=NAME, state=NAME, message=(pa.utf8(),)),
    )
}
"""Topics by name.

A row of `corrections` speaks of the tick of its instrument whose `seq` is `original_seq`: without a price (null or NaN)
that trade is cancelled, else the price is the true one, and so are the size and the conditions where they are given.
`time` is when it was corrected.

`conditions` of ticks and of quotes are masks of the bits that `marketdash.conditions` names. Of quotes, `exchange` is
the participant whose own quote the row is, and null where the row is the best of all already. A side that is NaN is
not told in this row and stays as it was; a price or a size of 0 withdraws it.
"""


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

    `rows` may be a RecordBatch, a Table, a DataFrame or a mapping of columns. Times carry a zone; what is
    finer than a microsecond is cut off. A missing column, an unknown one, a value that cannot be cast or a
    null where none may be raises `SchemaError` naming the column. A batch that already fits is returned
    as it is.
    """
    wanted = topic(name)
    if isinstance(rows, pa.RecordBatch) and rows.schema.equals(wanted.schema):
        for i in wanted.never_null:
            if rows.column(i).null_count:
                _refuse_null(f"{where} of {name}, column {wanted.schema.names[i]!r}", rows.column(i))
        return rows
    columns = _columns(rows, f"{where} of {name}")
    if unknown := sorted(set(columns) - set(wanted.schema.names)):
        hint = f"The columns of {name} are {', '.join(wanted.schema.names)}."
        raise SchemaError(f"{where} of {name}", "only columns of the topic", ", ".join(unknown), hint)
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise SchemaError(f"{where} of {name}", "columns of one length", f"lengths {sorted(lengths)}")
    length = lengths.pop() if lengths else 0
    arrays = [_array(wanted, column, columns.get(column.name), length, where) for column in wanted.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted.schema)


def _columns(rows: Any, where: str) -> dict[str, Any]:
    if isinstance(rows, pa.RecordBatch | pa.Table):
        names, values = rows.schema.names, rows.columns
    elif isinstance(rows, pd.DataFrame):
        names, values = [str(name) for name in rows], [rows.iloc[:, i] for i in range(rows.shape[1])]
    elif isinstance(rows, Mapping):
        names, values = [str(name) for name in rows], list(rows.values())
    else:
        expected = "a RecordBatch, a Table, a DataFrame or a mapping of columns"
        raise SchemaError(where, expected, type(rows).__name__)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SchemaError(where, "each column once", f"{', '.join(twice)} twice")
    for name, column in zip(names, values, strict=True):
        if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
            raise SchemaError(f"{where}, column {name!r}", "a list or an array", repr(column)[:60])
    return dict(zip(names, values, strict=True))


def _array(topic: Topic, column: _Column, values: Any, length: int, where: str) -> pa.Array:
    kind = column.kind
    if values is None and column.nullable:
        return column.nulls.slice(0, length) if length <= _SHORT else pa.nulls(length, kind)
    if type(values) is list and (array := _plain(column, values)) is not None:
        return array
    spot = f"{where} of {topic.name}, column {column.name!r}"
    if values is None:
        hint = f"It needs {', '.join(sorted(topic.required))}."
        raise SchemaError(spot, f"{kind} values", "no such column", hint)
    try:
        array = _cast(_from_python(values), kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SchemaError(spot, f"{kind} values", reason) from error
    if not column.nullable and array.null_count:
        _refuse_null(spot, array)
    return array


def _plain(column: _Column, values: list[Any]) -> pa.Array | None:
    """Python's numbers or times in UTC, all of the column's own type: without inferring it, in half the time."""
    if column.python is None or set(map(type, values)) != {column.python}:
        return None
    if column.python is datetime:
        if {value.tzinfo for value in values} != {UTC}:
            return None
        return pa.array(np.array([(value - _EPOCH) // _US for value in values])).view(column.kind)
    try:
        return pa.array(np.array(values, column.number))
    except OverflowError:  # told as any other value that does not fit
        return None


def _refuse_null(spot: str, array: pa.Array) -> None:
    row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
    raise SchemaError(spot, "a value in every row", f"none in row {row}")


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_dictionary(kind):
        values = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
        if not (pa.types.is_string(values) or pa.types.is_large_string(values) or pa.types.is_null(values)):
            raise TypeError(f"values of type {values}")
        if not pa.types.is_dictionary(array.type):
            array = array.cast(pa.utf8()).dictionary_encode()
    elif pa.types.is_timestamp(kind) and not pa.types.is_null(array.type):
        return _times(array, kind)
    elif pa.types.is_date(kind) and pa.types.is_timestamp(array.type):
        # The date on the clock of the zone that the times carry, not the one in Greenwich.
        array = array if array.type.tz is None else pc.local_timestamp(array)
        return array.cast(kind, safe=False)
    elif pa.types.is_integer(kind) and pa.types.is_floating(array.type):
        # What pandas makes of whole numbers when one is missing.
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array.cast(kind)


def _times(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array.cast(kind)  # refuses texts without a zone
    if not pa.types.is_timestamp(array.type):
        raise ValueError(f"{array.type}, which does not say when; use timestamps with a zone")
    if array.type.tz is None:
        raise ValueError("times without a zone; make them UTC")
    return array.cast(kind, safe=False)


def _from_python(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        array = values
    elif isinstance(values, pa.Array):
        return values
    elif isinstance(values, pd.Series) and isinstance(values.dtype, np.dtype) and values.dtype.kind == "f":
        # NaN stays a number: clean decides about it. Only None and NaT are absent.
        array = pa.array(values.to_numpy(), from_pandas=False)
    else:
        array = pa.array(values, from_pandas=None if not isinstance(values, np.ndarray) else False)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
