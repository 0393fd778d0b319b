"""Frames keep the recent past: bounded, and the same however it came."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels import Bench

from marketdash.errors import UnknownNameError
from marketdash.frames import BarStore, LastPrices, RollingFrame
from marketdash.frames.bars import CLOSE, TIME
from marketdash.schema import TOPICS, WIDTHS, conform
from marketdash.testing.golden import few_instruments, random_ticks

TICKS = conform(
    "ticks",
    random_ticks(few_instruments(2), "2018-11-23 15:00", "2018-11-23 16:00", 900).assign(seq=range(900)),
)


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 900), max_size=30), rows=st.sampled_from([1, 7, 300, 5000]))
def test_a_rolling_frame_keeps_exactly_the_last_rows_however_they_were_cut(cuts: list[int], rows: int):
    frame = RollingFrame("ticks", rows)
    edges = [0, *sorted(cuts), 900]
    for start, stop in itertools.pairwise(edges):
        frame.append(TICKS.slice(start, stop - start))
    assert len(frame) == min(rows, 900)
    expected = pa.Table.from_batches([TICKS.slice(max(900 - rows, 0))])
    assert frame.table().equals(expected)


def test_a_frame_of_thousands_of_single_rows_is_joined_on_the_way():
    frame = RollingFrame("ticks", 600)
    for i in range(900):
        frame.append(TICKS.slice(i, 1))
    assert frame.table().column("price").num_chunks < 300
    assert frame.table().equals(pa.Table.from_batches([TICKS.slice(300)]))


def test_a_rolling_frame_counts_its_changes_and_can_forget():
    frame = RollingFrame("ticks", 10)
    frame.append(TICKS.slice(0, 0))
    assert frame.version == 0
    frame.append(TICKS.slice(0, 3))
    assert (frame.version, len(frame)) == (1, 3)
    frame.reset()
    assert (frame.version, len(frame), frame.table().num_rows) == (2, 0, 0)
    assert frame.table().schema.names == TOPICS["ticks"].schema.names
    with pytest.raises(UnknownNameError):
        RollingFrame("tick")


def test_a_snapshot_keeps_the_last_row_of_each_key():
    rows = pd.DataFrame(
        {
            "time": [pd.Timestamp("2018-11-23 15:00", tz="UTC")] * 3,
            "instrument_id": [0, 0, 1],
            "seq": [1, 1, 1],
            "price": [1.0, 2.0, 3.0],
        }
    )
    frame = RollingFrame("ticks")
    frame.append(conform("ticks", rows))
    assert frame.snapshot()["price"].tolist() == [2.0, 3.0]
    assert frame.table().num_rows == 3


def test_names_from_different_batches_come_together():
    frame = RollingFrame("ticks")
    for name in ("b", "a", "b"):
        frame.append(
            conform(
                "ticks",
                {
                    "time": [pd.Timestamp("2018-11-23", tz="UTC")],
                    "instrument_id": [0],
                    "price": [1.0],
                    "source": [name],
                },
            )
        )
    assert frame.table().column("source").to_pylist() == ["b", "a", "b"]


# ---- bars


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(few_instruments(3, ("24/7",)), ("1s", "1min", "1h", "1d")).push(
        "ticks",
        random_ticks(few_instruments(2, ("24/7",)), "2018-11-24 08:00", "2018-11-24 10:00", 3000, late=0),
    )


def test_memory_is_bounded_whatever_the_number_of_instruments():
    assert BarStore(1, ["1min"]).limits.max() == 20_000
    assert BarStore(2_500, ["1min"]).limits.max() == 400
    assert BarStore(100_000, ["1min"]).limits.max() == 250
    assert BarStore(10, ["1min"], rows=5000).limits.max() == 500
    store = BarStore(100, tuple(WIDTHS))
    assert store.nbytes == sum(r.nbytes for r in store.rings.values()) + 100 * (2 * 7 * 160 + 128)


def test_a_width_that_is_not_built_is_refused(bench: Bench):
    with pytest.raises(UnknownNameError, match="bars of 1s, 1min, 1h, 1d"):
        bench.store.ring("5min")
    with pytest.raises(UnknownNameError, match="Widths: 1s 5s"):
        bench.store.ring("7min")


def test_the_newest_bar_is_found_in_the_ring_too(bench: Bench):
    for width in ("1s", "1min", "1h", "1d"):
        ring, bars = bench.store.ring(width), bench.store.bars(0, width)
        slots = ring.slots(0)
        np.testing.assert_array_equal(ring.floats[0, slots, CLOSE], bars.close)
        np.testing.assert_array_equal(ring.ints[0, slots, TIME], bars.time)
        assert ring.ints[0, slots[-1], TIME] == bench.store.heads[0, list(WIDTHS).index(width), TIME]


def test_bars_are_copies_that_the_caller_owns(bench: Bench):
    bars = bench.store.bars(0, "1min", last=5)
    assert len(bars) == 5
    assert bars.number + 5 == bench.store.ring("1min").total[0]
    before = bars.close.copy()
    bars.close[:] = -1
    np.testing.assert_array_equal(bench.store.bars(0, "1min", last=5).close, before)
    assert len(bench.store.bars(0, "1min", last=0)) == 0
    assert len(bench.store.bars(2, "1min")) == 0


def test_a_table_aligns_several_instruments_by_start(bench: Bench):
    starts, fields = bench.store.table("1s", np.array([1, 0, 2]))
    mine = [bench.store.bars(i, "1s") for i in (1, 0)]
    assert starts.tolist() == sorted({*mine[0].time, *mine[1].time})
    for column, bars in enumerate(mine):
        rows = np.searchsorted(starts, bars.time)
        for name in ("open", "high", "low", "close", "volume", "turnover"):
            np.testing.assert_array_equal(fields[name][rows, column], getattr(bars, name))
        others = np.ones(len(starts), bool)
        others[rows] = False
        assert np.isnan(fields["close"][others, column]).all()
    assert np.isnan(fields["close"][:, 2]).all()


@pytest.mark.parametrize("last", [0, 1, 7, 10**6])
def test_the_last_rows_of_a_table_are_those_of_the_whole(bench: Bench, last: int):
    starts, fields = bench.store.table("1s", last=last)
    every, all_fields = bench.store.table("1s")
    cut = max(len(every) - last, 0)
    np.testing.assert_array_equal(starts, every[cut:])
    for name, values in fields.items():
        np.testing.assert_array_equal(values, all_fields[name][cut:])


def test_rows_are_long_columns_by_instrument_and_time(bench: Bench):
    rows = bench.store.rows("1min", np.array([1, 2, 0]), last=3)
    assert rows["instrument_id"].tolist() == [1, 1, 1, 0, 0, 0]
    assert (np.diff(rows["time"].reshape(2, 3)) > 0).all()
    np.testing.assert_array_equal(rows["close"][3:], bench.store.bars(0, "1min", last=3).close)


def test_a_bar_is_found_by_its_start(bench: Bench):
    bars = bench.store.bars(0, "1s")
    for i in (0, 17, len(bars) - 1):
        assert bench.store.find("1s", 0, int(bars.time[i])) == bars.number + i
    assert bench.store.find("1s", 0, int(bars.time[0]) + 1) == -1
    assert bench.store.find("1s", 2, int(bars.time[0])) == -1


def test_complete_counts_the_bars_that_have_ended(bench: Bench):
    for width in ("1s", "1min"):
        for moment in (*bench.store.bars(0, width).end[[0, 5, -1]], 0):
            expected = [(bench.store.bars(i, width).end <= moment).sum() for i in range(3)]
            assert bench.store.complete(width, int(moment)).tolist() == expected


def test_reset_forgets_all_and_says_so():
    bench = Bench(few_instruments(1, ("24/7",))).push("ticks", TICKS.slice(0, 0))
    bench.push("ticks", random_ticks(few_instruments(1), "2018-11-23 15:00", "2018-11-23 16:00", 50))
    before = bench.store.touched.copy()
    bench.store.reset()
    assert (bench.store.touched > before).all()
    assert all(not len(bench.store.bars(0, width)) for width in WIDTHS)
    again = random_ticks(few_instruments(1), "2018-11-22 15:00", "2018-11-22 16:00", 50, late=0)
    bench.push("ticks", again)
    assert bench.store.bars(0, "1d").count.sum() == 50
    assert bench.build["ticks"].late.tolist()[0] >= 0


def test_last_prices_are_nan_until_something_comes():
    last = LastPrices(2)
    assert np.isnan(last.prices("last")).all()
    assert np.isnan(last.change).all()
    assert last.times("time").tolist() == [0, 0]
    last.floats[0, :2] = 11.0, 10.0
    assert last.change[0] == pytest.approx(0.1)
    before = last.version
    last.reset()
    assert last.version > before
    assert np.isnan(last.change).all()
