"""At the door rows are made to fit their topic, or refused by name."""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.schema import NAME, TOPICS, WIDTHS, conform, topic, width_us

TIMES = pd.to_datetime(["2018-11-16 15:00", "2018-11-16 15:01"], utc=True)
GOOD = {"time": TIMES, "instrument_id": [0, 1], "price": [1.5, 2.5]}


def column(name: str, values: object) -> list[object]:
    return conform("ticks", {**GOOD, name: values}).column(name).to_pylist()


def refusal(name: str, values: object) -> str:
    with pytest.raises(SchemaError) as caught:
        conform("ticks", {**GOOD, name: values})
    return str(caught.value)


@pytest.mark.parametrize(
    "rows",
    [
        GOOD,
        pd.DataFrame(GOOD),
        pd.DataFrame(GOOD).assign(price=["1.5", "2.5"]),
        pa.table(GOOD),
        pa.concat_tables([pa.table(pd.DataFrame(GOOD).iloc[i : i + 1]) for i in range(2)]),
        pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in GOOD.items()}),
        {**GOOD, "time": TIMES.tz_convert("Asia/Tokyo")},
        {**GOOD, "time": list(TIMES), "price": np.array([1.5, 2.5], np.float32)},
        {**GOOD, "time": [time.to_pydatetime() for time in TIMES]},
        {**GOOD, "time": TIMES.as_unit("ns"), "instrument_id": pd.array([0, 1], dtype="Int64")},
        {**GOOD, "time": ["2018-11-16T15:00:00Z", "2018-11-16T10:01:00-05:00"]},
        {**GOOD, "price": pa.chunked_array([[1.5], [2.5]])},
    ],
)
def test_rows_of_every_kind_become_the_same_batch(rows: object):
    batch = conform("ticks", rows)
    assert batch.schema.equals(TOPICS["ticks"].schema)
    assert batch.equals(conform("ticks", GOOD))
    assert batch.column("known_at").null_count == 2


def test_a_batch_that_fits_is_returned_as_it_is():
    batch = conform("ticks", GOOD)
    assert conform("ticks", batch) is batch
    assert conform("ticks", batch.slice(1)).num_rows == 1


def test_a_batch_with_the_right_schema_is_still_looked_at_for_nulls():
    batch = conform("ticks", GOOD)
    with_null = batch.set_column(
        batch.schema.get_field_index("price"), batch.schema.field("price"), pa.array([1.0, None])
    )
    with pytest.raises(SchemaError, match="'price'.*none in row 1"):
        conform("ticks", with_null)


def test_rows_that_do_not_fit_are_refused_by_name():
    assert "column 'price'" in refusal("price", [1.0, None])
    assert "none in row 1" in refusal("price", [1.0, None])
    assert "'x'" in refusal("price", ["1.5", "x"])
    assert "lengths [1, 2]" in refusal("price", [1.0])
    assert "got colour. The columns of ticks are time" in refusal("colour", [1, 2])
    assert "a list or an array, got 3.0" in refusal("price", 3.0)
    assert "a list or an array, got 'ab'" in refusal("source", "ab")
    assert "truncated" in refusal("instrument_id", [0.5, 1])
    assert "none in row 1" in refusal("instrument_id", [0.0, float("nan")])
    assert "2147483647" in refusal("instrument_id", [2**40, 1])
    assert "int64" in refusal("source", [1, 2])
    with pytest.raises(SchemaError, match="no such column. It needs instrument_id, price, time"):
        conform("ticks", {})
    with pytest.raises(SchemaError, match="price twice"):
        conform("ticks", pd.concat([pd.DataFrame(GOOD), pd.DataFrame(GOOD)[["price"]]], axis=1))
    with pytest.raises(SchemaError, match="got list"):
        conform("ticks", [1, 2])
    with pytest.raises(SchemaError, match="^source mine of ticks"):
        conform("ticks", {**GOOD, "price": [None, None]}, "source mine")
    with pytest.raises(UnknownNameError, match="Did you mean ticks"):
        conform("tick", GOOD)


@pytest.mark.parametrize(
    "times",
    [
        TIMES.tz_localize(None),
        TIMES.tz_localize(None).to_numpy(),
        [dt.datetime(2018, 11, 16)] * 2,  # noqa: DTZ001 - that is the point
        ["2018-11-16 15:00", "2018-11-16 15:01"],
        [1542380400, 1542380460],
        [1542380400.0, 1542380460.0],
        [dt.date(2018, 11, 16)] * 2,
        [pd.NaT, TIMES[0]],
    ],
)
def test_a_time_that_does_not_say_when_is_refused(times: object):
    assert "column 'time'" in refusal("time", times)


def test_what_is_finer_than_a_microsecond_is_cut_off():
    times = pd.DatetimeIndex([pd.Timestamp("2018-11-16 15:00:00.123456789", tz="UTC")] * 2)
    assert column("time", times)[0].microsecond == 123456


def test_missing_whole_numbers_that_pandas_made_fractions_are_nulls():
    assert column("seq", [1.0, float("nan")]) == [1, None]
    assert column("seq", pd.Series([1.0, np.nan])) == [1, None]
    assert column("size", pd.Series([1.0, np.nan]))[0] == 1.0
    assert np.isnan(column("size", pd.Series([1.0, np.nan]))[1]), "of a price NaN is for clean to judge"


def test_a_trading_day_is_the_date_where_the_time_was_told():
    midnight = pd.to_datetime(["2018-11-16", "2018-11-17"]).tz_localize("Asia/Tokyo")
    assert column("trading_day", midnight) == [dt.date(2018, 11, 16), dt.date(2018, 11, 17)]


def test_names_come_as_texts_categories_or_dictionaries():
    for values in (
        ["a", None],
        pd.Categorical(["a", None]),
        pd.Series(["a", None]),
        pa.array(["a", None]).dictionary_encode(),
    ):
        batch = conform("ticks", {**GOOD, "source": values})
        assert batch.column("source").type == NAME
        assert batch.column("source").to_pylist() == ["a", None]


def test_an_empty_frame_fits_if_its_columns_do():
    assert conform("ticks", pd.DataFrame(GOOD).iloc[:0]).num_rows == 0
    assert conform("ticks", TOPICS["ticks"].schema.empty_table()).num_rows == 0
    assert conform("ticks", {"time": TIMES[:0], "instrument_id": [], "price": []}).num_rows == 0


def test_a_million_rows_fit():
    rows = 1_000_000
    times = pd.DatetimeIndex(np.arange(rows).astype("M8[us]"), tz="UTC")
    batch = conform(
        "ticks", {"time": times, "instrument_id": np.zeros(rows, np.int64), "price": np.ones(rows)}
    )
    assert batch.num_rows == rows
    assert batch.column("conditions").null_count == rows


MOMENTS = st.datetimes(dt.datetime(1970, 1, 2), dt.datetime(2099, 1, 1))  # noqa: DTZ001 - zones come below
PRICES = st.floats(allow_nan=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "time": MOMENTS,
            "known_at": st.none() | MOMENTS,
            "seq": st.none() | st.integers(-(2**63), 2**63 - 1),
            "source": st.none() | st.sampled_from(["a", "b", ""]),
            "instrument_id": st.integers(-(2**31), 2**31 - 1),
            "price": PRICES,
            "size": PRICES,
            "conditions": st.none() | st.integers(0, 2**32 - 1),
            "session": st.none() | st.integers(0, 3),
            "trading_day": st.none() | st.dates(dt.date(1970, 1, 1)),
        }
    ),
    min_size=1,
    max_size=20,
)


# Without these pandas makes fractions of whole numbers beside which one is missing, and rounds the large ones.
WHOLE = {pa.int64(): pd.Int64Dtype(), pa.uint32(): pd.UInt32Dtype(), pa.int8(): pd.Int8Dtype()}


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, zone=st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"]), order=st.randoms())
def test_every_row_comes_out_as_it_went_in(rows: list[dict], zone: str, order: object):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    for name in ("time", "known_at"):
        columns[name] = [t and t.replace(tzinfo=dt.UTC).astimezone(ZoneInfo(zone)) for t in columns[name]]
        if not any(columns[name]):
            columns[name] = pd.Series(columns[name], dtype=f"datetime64[us, {zone}]")
    names = list(columns)
    order.shuffle(names)
    batch = conform("ticks", {name: columns[name] for name in names})
    assert batch.schema.equals(TOPICS["ticks"].schema)
    for name, values in columns.items():
        expected = [None if value is pd.NaT else value for value in values]
        assert batch.column(name).to_pylist() == expected
    assert conform("ticks", batch.to_pandas(types_mapper=WHOLE.get)).equals(batch), "through pandas and back"
    assert conform("ticks", pa.Table.from_batches([batch])).equals(batch), "through a table and back"


def test_every_topic_has_times_and_a_key_of_its_own_columns():
    for name, item in TOPICS.items():
        assert item.name == name
        assert {"time", "known_at", "seq", "source"} <= set(item.schema.names)
        assert set(item.key) <= set(item.schema.names)
        assert item.schema.metadata[b"version"] == b"1"
        assert topic(name) is item


def test_widths_are_named_in_order_and_unknown_ones_refused():
    assert list(WIDTHS.values()) == sorted(WIDTHS.values())
    assert width_us("1h") == 3_600_000_000
    for wrong in ("2min", "1H", 60, None, ["1min"]):
        with pytest.raises(UnknownNameError, match="Widths: 1s 5s 1min"):
            width_us(wrong)  # type: ignore[arg-type]
