"""The schema: whatever comes in, one table goes out."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.schema import SESSIONS, TIME, TOPICS, WIDTHS, conform, topic, width_us

US = 1_542_382_200_123_456
NOON = pd.Timestamp(US, unit="us", tz="UTC")

TICKS: Mapping[str, Any] = {
    "price": [1.5, 2.5],
    "instrument_id": [0, 1],
    "time": [NOON, NOON + pd.Timedelta(microseconds=1)],
    "size": [100, None],
}

MAKERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "mapping": dict,
    "arrays": lambda rows: {name: pa.array(values) for name, values in rows.items()},
    "frame": pd.DataFrame,
    "record batch": lambda rows: pa.RecordBatch.from_pydict(dict(rows)),
    "table": lambda rows: pa.table(dict(rows)),
    "chunked table": lambda rows: pa.concat_tables([pa.table(dict(rows)).slice(i, 1) for i in range(2)]),
}


def refusal(rows: Any, name: str = "ticks") -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        conform(name, rows, "The test")
    return caught.value


def without(*columns: str, **changed: Any) -> dict[str, Any]:
    return {name: values for name, values in TICKS.items() if name not in columns} | changed


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_whatever_holds_the_rows_the_batch_is_the_same(make: Callable[[Mapping[str, Any]], Any]):
    batch = conform("ticks", make(TICKS))
    assert batch.schema.equals(TOPICS["ticks"].schema, check_metadata=True)
    assert batch.column("time").cast(pa.int64()).to_pylist() == [US, US + 1]
    assert batch.column("price").to_pylist() == [1.5, 2.5]
    assert batch.column("size")[0].as_py() == 100.0
    assert batch.column("instrument_id").to_pylist() == [0, 1]


@pytest.mark.parametrize("name", TOPICS)
def test_absent_optional_columns_are_null_and_required_ones_are_asked_for(name: str):
    wanted = topic(name)
    examples = {TIME: NOON, pa.int32(): 1, pa.int64(): 1, pa.float64(): 1.0}
    rows = {field.name: [examples.get(field.type, "x")] for field in wanted.schema if not field.nullable}
    batch = conform(name, rows)
    assert batch.schema.names == wanted.schema.names
    for field in wanted.schema:
        assert batch.column(field.name).null_count == (1 if field.nullable else 0)
    for missing in wanted.required:
        error = refusal({column: values for column, values in rows.items() if column != missing}, name)
        assert repr(missing) in error.where
        assert str(error).startswith(f"The test of {name}, column")
        assert missing in error.hint


def test_a_batch_that_fits_is_returned_as_it_is():
    batch = conform("ticks", TICKS)
    assert conform("ticks", batch) is batch
    assert conform("ticks", pa.Table.from_batches([batch])).equals(batch)


def test_a_batch_that_fits_but_lacks_a_value_is_refused():
    batch = conform("ticks", TICKS)
    nulls = batch.set_column(batch.schema.names.index("price"), "price", pa.array([1.0, None]))
    nulls = pa.RecordBatch.from_arrays(nulls.columns, schema=batch.schema)
    error = refusal(nulls)
    assert "'price'" in error.where
    assert error.got == "none in row 1"


def test_values_are_cast_to_what_the_topic_holds():
    batch = conform(
        "bars",
        {
            "time": ["2018-11-16T15:30:00Z"],
            "instrument_id": np.array([3], np.int64),
            "width": pd.Series(["1min"], dtype="category"),
            "open": [1],
            "high": np.array([2], np.float32),
            "low": pd.Series([1], dtype="Int64"),
            "close": ["1.5"],
            "volume": pd.Series([10]),
            "count": [7.0],
            "session": [float("nan")],
            "trading_day": [date(2018, 11, 16)],
        },
    )
    row = batch.to_pylist()[0]
    assert row["time"] == datetime(2018, 11, 16, 15, 30, tzinfo=UTC)
    assert (row["width"], row["open"], row["high"], row["low"], row["close"]) == ("1min", 1.0, 2.0, 1.0, 1.5)
    assert (row["count"], row["session"], row["trading_day"]) == (7, None, date(2018, 11, 16))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("price", ["dear", "cheap"]),
        ("price", [b"1", {}]),
        ("instrument_id", [2**31, 0]),
        ("instrument_id", [0.5, 1.0]),
        ("source", [1, 2]),
        ("time", [US, US]),
        ("time", [1.5, 2.5]),
        ("time", ["soon", "later"]),
        ("session", [300, 1]),
    ],
)
def test_a_value_that_cannot_be_cast_is_refused_with_its_column(column: str, values: list[Any]):
    error = refusal(without(**{column: values}))
    assert error.where == f"The test of ticks, column {column!r}"
    assert "values" in error.expected
    assert error.got


@pytest.mark.parametrize("column", ["price", "instrument_id", "time"])
def test_a_null_where_none_may_be_is_refused_with_its_row(column: str):
    error = refusal(without(**{column: [TICKS[column][0], None]}))
    assert error.where == f"The test of ticks, column {column!r}"
    assert error.got == "none in row 1"


def test_unknown_columns_are_refused_with_the_known_ones():
    error = refusal(without(prise=[1.0, 2.0], bid=[1.0, 2.0]))
    assert error.got == "bid, prise"
    assert "price" in error.hint


@pytest.mark.parametrize(
    "times",
    [
        [datetime(2018, 11, 16, 15), datetime(2018, 11, 16, 16)],  # noqa: DTZ001
        np.array(["2018-11-16T15", "2018-11-16T16"], "M8[us]"),
        pd.Series(pd.to_datetime(["2018-11-16", "2018-11-17"])),
        ["2018-11-16 15:00", "2018-11-16 16:00"],
    ],
    ids=["datetimes", "numpy", "pandas", "texts"],
)
def test_times_without_a_zone_are_refused(times: Any):
    error = refusal(without(time=times))
    assert "'time'" in error.where
    assert "zone" in str(error.got)


def test_times_keep_their_moment_from_any_zone_and_lose_what_is_below_a_microsecond():
    there = NOON.tz_convert("Asia/Kolkata").as_unit("ns") + pd.Timedelta(nanoseconds=999)
    batch = conform("ticks", without(time=pd.Series([there, there])))
    assert batch.column("time").cast(pa.int64()).to_pylist() == [US, US]


def test_a_trading_day_given_as_times_is_the_date_on_their_own_clock():
    days = pd.Series([pd.Timestamp("2018-11-16 00:00", tz="Asia/Tokyo")] * 2)
    batch = conform("ticks", without(trading_day=days))
    assert batch.column("trading_day").to_pylist() == [date(2018, 11, 16)] * 2


def test_columns_of_unequal_length_are_refused():
    error = refusal(without(price=[1.0]))
    assert error.got == "lengths [1, 2]"


@pytest.mark.parametrize("values", ["ab", b"ab", 3.0, None, iter([1.0])])
def test_a_column_that_is_no_list_is_refused(values: Any):
    error = refusal(without(price=values))
    assert error.where == "The test of ticks, column 'price'"
    assert error.expected == "a list or an array"


@pytest.mark.parametrize("rows", [None, 3, "ticks", [1.0], object()])
def test_what_holds_no_columns_is_refused_by_its_type(rows: Any):
    assert refusal(rows).got == type(rows).__name__


def test_a_column_that_comes_twice_is_refused():
    frame = pd.DataFrame(TICKS)
    assert refusal(pd.concat([frame, frame[["price"]]], axis=1)).got == "price twice"


@pytest.mark.parametrize(
    "prices",
    [
        [float("nan"), 1.0],
        np.array([np.nan, 1.0]),
        pd.Series([np.nan, 1.0]),
        pa.array([float("nan"), 1.0]),
    ],
    ids=["list", "numpy", "pandas", "arrow"],
)
def test_a_price_that_is_not_a_number_stays_one_for_cleaning_to_judge(prices: Any):
    column = conform("ticks", without(price=prices)).column("price")
    assert column.null_count == 0
    assert np.isnan(column.to_numpy()[0])


@pytest.mark.parametrize("name", TOPICS)
def test_no_rows_make_an_empty_batch(name: str):
    empty = TOPICS[name].schema.empty_table()
    assert conform(name, empty).num_rows == 0
    assert conform(name, {column: [] for column in TOPICS[name].schema.names}).num_rows == 0
    long = pa.Table.from_pylist([], schema=empty.schema).to_pandas()
    assert conform(name, long).schema == TOPICS[name].schema


def test_absent_columns_of_many_rows_are_as_long_as_the_others():
    rows = 10_000
    batch = conform(
        "ticks", {"time": pa.array([US] * rows, TIME), "instrument_id": [0] * rows, "price": [1.0] * rows}
    )
    assert batch.column("size").null_count == rows
    batch.validate(full=True)


moments = st.integers(0, 4_000_000_000_000_000).map(lambda us: pd.Timestamp(us, unit="us", tz="UTC"))
# NaN in an optional column comes back from pandas as it went; null and NaN are one there.
numbers = st.floats(allow_nan=False, width=64)
maybe = st.none() | numbers
days = st.none() | st.dates(date(1970, 1, 1), date(2100, 1, 1))
common = {
    "time": moments,
    "known_at": st.none() | moments,
    "seq": st.none() | st.integers(0, 2**53),
    "source": st.none() | st.sampled_from(["a", "b"]),
    "instrument_id": st.integers(0, 2**31 - 1),
    "session": st.none() | st.integers(0, len(SESSIONS) - 1),
    "trading_day": days,
}
ticks = common | {
    "price": numbers,
    "size": maybe,
    "conditions": st.none() | st.integers(0, 2**32 - 1),
}
bars = common | {
    "width": st.sampled_from(list(WIDTHS)),
    **dict.fromkeys(("open", "high", "low", "close", "volume"), numbers),
    "vwap": maybe,
    "count": st.none() | st.integers(0, 2**53),
    "revision": st.none() | st.integers(0, 9),
}


def rows_of(columns: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries(dict(columns)), min_size=1, max_size=5)


@pytest.mark.parametrize(("name", "columns"), [("ticks", ticks), ("bars", bars)])
@settings(deadline=None)
@given(data=st.data())
def test_a_batch_comes_back_from_pandas_as_it_went(
    name: str, columns: Mapping[str, st.SearchStrategy[Any]], data: st.DataObject
):
    rows = data.draw(rows_of(columns))
    batch = conform(name, {column: [row[column] for row in rows] for column in columns})
    frame = batch.to_pandas()
    back = conform(name, frame[sorted(frame)])
    back.validate(full=True)
    read, written = back.to_pylist(), batch.to_pylist()
    for row in (*read, *written):
        for column, value in row.items():
            if isinstance(value, float) and np.isnan(value):
                row[column] = None
    assert read == written


zones = st.sampled_from([UTC, timezone(timedelta(0)), timezone(timedelta(hours=5.5)), None])
loose = {
    "time": st.lists(st.datetimes(timezones=zones), min_size=1)
    | st.lists(st.datetimes(timezones=st.just(UTC))),
    "instrument_id": st.lists(st.integers(0, 2**31 + 1)) | st.lists(st.booleans() | st.integers(-2, 3)),
    "seq": st.lists(st.integers(0, 2**64)) | st.lists(st.none() | st.integers(0, 9)),
    "conditions": st.lists(st.integers(-1, 2**32)) | st.lists(st.integers(2**31, 2**32 - 1)),
    "price": st.lists(st.floats()) | st.lists(st.floats() | st.integers() | st.none()),
}


@pytest.mark.parametrize("column", loose)
@settings(deadline=None)
@given(data=st.data())
def test_a_list_is_read_as_what_arrow_makes_of_it(column: str, data: st.DataObject):
    values = data.draw(loose[column])
    absent: dict[str, Any] = {"time": NOON, "instrument_id": 0, "price": 1.0}
    rows: dict[str, Any] = {name: pa.array([value] * len(values)) for name, value in absent.items()}

    def read(given: Any) -> Any:
        try:
            return conform("ticks", rows | {column: given}).column(column)
        except SchemaError as error:
            return str(error)

    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        assert isinstance(read(values), str)
        return
    found, wanted = read(values), read(array)
    assert type(found) is type(wanted), (found, wanted)
    if isinstance(found, pa.Array):
        found.validate(full=True)
        assert found.type == wanted.type
        assert found.is_null().equals(wanted.is_null())
        assert found.equals(wanted) or np.array_equal(
            found.to_numpy(False), wanted.to_numpy(False), equal_nan=True
        )
    else:
        assert found == wanted


def test_unknown_topics_and_widths_come_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"Unknown topic 'tick'\. Did you mean ticks"):
        conform("tick", {})
    with pytest.raises(UnknownNameError) as caught:
        width_us("1m")
    assert caught.value.nearest[0] == "1min"
    assert all(width in caught.value.hint for width in WIDTHS)
    with pytest.raises(UnknownNameError):
        width_us(["1min"])  # type: ignore[arg-type]


def test_widths_grow_and_each_divides_the_day():
    lengths = [width_us(width) for width in WIDTHS]
    assert lengths == sorted(set(lengths))
    assert all(WIDTHS["1d"] % length == 0 for length in lengths)


@pytest.mark.parametrize("name", TOPICS)
def test_the_key_of_a_topic_is_made_of_its_columns(name: str):
    assert set(topic(name).key) <= set(topic(name).schema.names)
    assert topic(name).schema.metadata == {b"topic": name.encode(), b"version": b"1"}
