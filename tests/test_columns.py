"""What a source has left out is filled in, row by row, however much of a column that is."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketdash.pipeline import columns
from marketdash.schema import TIME, TOPICS, conform, width_us

NOW = 1_700_000_000_000_000
MINUTE = width_us("1min")

rows = st.lists(
    st.tuples(
        st.integers(NOW - 5 * MINUTE, NOW + MINUTE),
        st.none() | st.integers(NOW - 5 * MINUTE, NOW + 5 * MINUTE),
        st.none() | st.integers(0, 99),
        st.none() | st.sampled_from(["theirs", "others"]),
    ),
    max_size=4,
)
NOTHING = [(NOW, None, None, None), (NOW - MINUTE, None, None, None)]
EVERYTHING = [(NOW, NOW, 7, "theirs"), (NOW - MINUTE, NOW, 8, "others")]


def batch_of(topic: str, given_rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    time, known_at, seq, source = ([row[i] for row in given_rows] for i in range(4))
    found: dict[str, Any] = {"time": pa.array(time, TIME), "known_at": pa.array(known_at, TIME)}
    found |= {"seq": pa.array(seq, pa.int64()), "source": pa.array(source, pa.utf8())}
    found["instrument_id"] = np.zeros(len(given_rows), np.int32)
    prices = ("open", "high", "low", "close", "volume") if topic == "bars" else ("price",)
    found |= dict.fromkeys(prices, np.ones(len(given_rows)))
    if topic == "bars":
        found["width"] = pa.array(["1min"] * len(given_rows), pa.utf8())
    return conform(topic, found)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("topic", ["ticks", "bars"])
@settings(deadline=None)
@given(given_rows=rows)
@example(given_rows=NOTHING)
@example(given_rows=EVERYTHING)
@example(given_rows=NOTHING + EVERYTHING)
@example(given_rows=[])
def test_what_a_source_has_left_out_is_filled_in(topic: str, live: bool, given_rows: list[tuple[Any, ...]]):
    batch = batch_of(topic, given_rows)
    found = columns.completed(batch, topic, NOW, "mine", 40, live=live)
    found.validate(full=True)
    assert found.schema.equals(TOPICS[topic].schema, check_metadata=True)
    wanted = []
    for place, (time, known_at, seq, source) in enumerate(given_rows):
        happened = time + MINUTE if topic == "bars" else time
        heard = NOW if live and topic == "ticks" else happened
        known = min(heard if known_at is None else known_at, NOW)
        wanted.append((known, 40 + place if seq is None else seq, "mine" if source is None else source))
    told = (found.column("known_at").cast(pa.int64()), found.column("seq"), found.column("source"))
    assert list(zip(*(column.to_pylist() for column in told), strict=True)) == wanted
    untouched = [name for name in batch.schema.names if name not in ("known_at", "seq", "source")]
    assert found.select(untouched).equals(batch.select(untouched))


@pytest.mark.parametrize("length", [0, 1, 4_096, 4_097])
def test_a_column_of_one_name_is_as_long_as_asked_for(length: int):
    assert columns.same("mine", length).to_pylist() == ["mine"] * length
