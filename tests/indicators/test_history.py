"""Bar histories: aligned, sliced, and not to be changed by those who read them."""

import numpy as np
import pandas as pd
import pytest

from marketdash.errors import SchemaError, UnknownNameError
from marketdash.indicators import BarHistory
from marketdash.indicators.history import FIELDS


def long_table() -> pd.DataFrame:
    times = pd.to_datetime(["2024-01-02 09:30", "2024-01-02 09:31", "2024-01-02 09:31", "2024-01-02 09:32"])
    return pd.DataFrame(
        {
            "symbol": ["B", "B", "A", "A"],
            "time": times.tz_localize("America/New_York"),
            "open": [1.0, 2.0, 3.0, 4.0],
            "high": [1.0, 2.0, 3.0, 4.0],
            "low": [1.0, 2.0, 3.0, 4.0],
            "close": [1.5, 2.5, 3.5, 4.5],
            "volume": [10, 20, 30, 40],
        }
    )


def test_a_table_of_bars_is_aligned_with_nan_where_there_is_no_bar():
    bars = BarHistory.from_frame(long_table())
    assert bars.symbols == ("B", "A")
    assert (bars.width, bars.tz) == ("1min", "America/New_York")
    assert bars.close.columns.tolist() == ["B", "A"]
    np.testing.assert_array_equal(bars.array("close"), [[1.5, np.nan], [2.5, 3.5], [np.nan, 4.5]])
    np.testing.assert_array_equal(bars.volume["A"], [np.nan, 30, 40])
    assert bars.vwap.isna().all(axis=None)
    assert str(bars.times[0]) == "2024-01-02 09:30:00-05:00"


def test_order_of_rows_does_not_matter_but_the_last_row_of_a_bar_counts():
    shuffled = BarHistory.from_frame(long_table().iloc[::-1], symbols=["B", "A"])
    pd.testing.assert_frame_equal(shuffled.close, BarHistory.from_frame(long_table()).close)
    revised = pd.concat([long_table(), long_table().iloc[[1]].assign(close=9.0)])
    assert BarHistory.from_frame(revised).close["B"].tolist()[:2] == [1.5, 9.0]


def test_symbols_choose_and_order_the_instruments():
    bars = BarHistory.from_frame(long_table(), symbols=["A", "C"], tz="UTC", width="5min")
    assert bars.shape == (2, 2)
    assert bars.close["C"].isna().all()
    assert (bars.width, str(bars.times.tz)) == ("5min", "UTC")


def test_a_day_that_is_an_hour_shorter_is_still_a_day():
    times = pd.to_datetime(["2024-03-09", "2024-03-10", "2024-03-11"]).tz_localize("America/New_York")
    daily = pd.DataFrame({"symbol": "A", "time": times, "close": 1.0})
    assert BarHistory.from_frame(daily).width == "1d"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (lambda t: t.drop(columns="symbol"), "no symbol"),
        (lambda t: t.drop(columns=["symbol", "time"]), "no symbol and no time"),
        (lambda t: t.assign(time=t["time"].dt.tz_localize(None)), "times with a zone"),
        (lambda t: t.assign(width=["1min", "1min", "1h", "1h"]), "got 1min, 1h"),
        (lambda t: t.iloc[:1], "1 bars without a column width"),
    ],
)
def test_a_table_that_does_not_fit_says_why(table, expected: str):
    with pytest.raises(SchemaError) as caught:
        BarHistory.from_frame(table(long_table()))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"times_us": [2, 1]}, "increasing starts"),
        ({"times_us": [1, 1]}, "increasing starts"),
        ({"symbols": ["A", "A"]}, "each symbol once"),
        ({"close": [[1.0]]}, r"shape \(2, 2\), bars by instruments"),
        ({"closing": [[1.0]]}, "the fields open, high"),
        ({"width": "7min"}, "Unknown width"),
    ],
)
def test_arrays_that_do_not_fit_say_why(change: dict[str, object], expected: str):
    given = {"times_us": [1, 2], "symbols": ["A", "B"], "width": "1s", "close": np.ones((2, 2))} | change
    with pytest.raises((SchemaError, UnknownNameError), match=expected):
        BarHistory.from_arrays(**given)


def test_slices_share_what_they_show(bars: BarHistory):
    assert bars.last(5).close.equals(bars.close.iloc[-5:])
    assert bars.last(10_000).shape == bars.shape
    assert bars.last(0).shape == (0, 3)
    assert bars.upto(7).close.equals(bars.close.iloc[:7])
    assert len(bars.upto(-1)) == 0
    assert bars.upto(bars.times[7]).close.equals(bars.close.iloc[:8])
    assert bars.upto("2024-01-02 14:32").close.equals(bars.close.iloc[:3])
    assert np.shares_memory(bars.last(5).array("close"), bars.array("close"))
    assert bars.last(5).array("close")[:, 1].flags.c_contiguous, "TA-Lib would have to copy each column"


def test_instruments_can_be_selected(bars: BarHistory):
    assert bars.select(["S2", "S0"]).close.equals(bars.close[["S2", "S0"]])
    with pytest.raises(UnknownNameError, match="symbol 'S9'"):
        bars.select(["S9"])


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_the_same_as_array_and_table(bars: BarHistory, field: str):
    np.testing.assert_array_equal(getattr(bars, field), bars.array(field))
    assert getattr(bars, field).index.equals(bars.times)


def test_an_unknown_field_names_the_nearest(bars: BarHistory):
    with pytest.raises(UnknownNameError, match="Did you mean close"):
        bars.array("closing")


def test_arrays_cannot_be_written_to(bars: BarHistory):
    for history in (bars, bars.last(3), bars.select(["S1"])):
        with pytest.raises(ValueError, match="read-only"):
            history.array("close")[0, 0] = 1.0
        with pytest.raises(ValueError, match="WRITEABLE"):
            history.array("close").setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            history.times_us[0] = 0


def test_what_is_done_to_a_table_is_not_seen_by_others(make_bars):
    bars = make_bars(50, 2)
    before = bars.close.copy(deep=True)
    table = bars.close
    table.iloc[0, 0] = -1.0
    table["new"] = 1.0
    table.index.name = "mine"
    table.fillna(0.0, inplace=True)
    table *= 2
    pd.testing.assert_frame_equal(bars.close, before)
    assert bars.times.name is None


def test_later_changes_of_the_given_arrays_are_not_seen():
    close = np.ones((2, 1))
    times = np.array([1, 2])
    bars = BarHistory.from_arrays(times, ["A"], "1s", close=close)
    close[:], times[:] = 5.0, 9
    assert bars.close["A"].tolist() == [1.0, 1.0]
    assert bars.times_us.tolist() == [1, 2]


def test_arrays_can_be_taken_without_a_copy():
    close = np.ones((2, 2), order="F")
    bars = BarHistory.from_arrays([1, 2], ["A", "B"], "1s", close=close, copy=False)
    assert np.shares_memory(bars.array("close"), close)
    assert close.flags.writeable, "the caller's own array stays as it was"


def test_a_history_introduces_itself(bars: BarHistory):
    assert (
        repr(bars)
        == "<BarHistory 3 instruments × 320 bars of 1min, 2024-01-02 14:30 to 2024-01-02 19:49 UTC>"
    )
    assert repr(bars.upto(0)) == "<BarHistory 3 instruments × 0 bars of 1min>"
