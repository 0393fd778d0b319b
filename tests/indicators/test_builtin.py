"""The indicators of our own against plain computations."""

import numpy as np
import pandas as pd
import pytest

from marketdash.errors import IndicatorError, UnknownNameError
from marketdash.indicators import BarHistory, compute, parse, table
from marketdash.indicators.history import FIELDS


def test_returns_compare_the_close_with_the_one_n_bars_before(bars: BarHistory):
    close = bars.array("close")
    np.testing.assert_allclose(
        compute("returns(5)", bars)["value"][5:], close[5:] / close[:-5] - 1, rtol=1e-12
    )


def test_returns_over_a_hole_start_from_the_last_close_known():
    bars = BarHistory.from_arrays([1, 2, 3], ["A"], "1s", close=[100.0, np.nan, 110.0])
    assert table("returns", bars)["A"].tolist() == pytest.approx([np.nan, np.nan, 0.1], nan_ok=True)


def test_zscore_is_in_standard_deviations_of_the_window(bars: BarHistory):
    window = bars.array("close")[100:160, 1]
    wanted = (window[-1] - window.mean()) / window.std(ddof=1)
    assert compute("zscore(60)", bars)["value"][159, 1] == pytest.approx(wanted)


def test_zscore_of_a_price_that_stands_still_has_no_value():
    bars = BarHistory.from_arrays(range(10), ["A"], "1s", close=[7.1] * 10)
    assert np.isnan(compute("zscore(3)", bars)["value"]).all()


def test_relative_strength_is_measured_against_the_mean_of_all(bars: BarHistory):
    values = compute("relative_strength(20)", bars)["value"]
    close = bars.array("close")
    growth = close[60] / close[40]
    np.testing.assert_allclose(values[60], growth / growth.mean() - 1, rtol=1e-12)
    np.testing.assert_allclose(values[20:].mean(axis=1), 0, atol=1e-12)


def two_days() -> BarHistory:
    times = pd.date_range("2024-01-02 20:30", "2024-01-03 15:30", freq="30min", tz="UTC")
    count = len(times)
    price = np.linspace(100, 110, count)
    fields = dict.fromkeys(FIELDS, price) | {"volume": np.arange(1.0, count + 1)}
    times_us = times.as_unit("us").asi8
    return BarHistory.from_arrays(times_us, ["A"], "1min", **fields)


def test_day_vwap_begins_anew_with_each_trading_day():
    bars = two_days()
    values = table("day_vwap", bars)["A"]
    price, volume = bars.close["A"], bars.volume["A"]
    # In New York the post-market ends at 20:00, 01:00 UTC; what follows belongs to the next trading day.
    second = price.index >= pd.Timestamp("2024-01-03 01:00", tz="UTC")
    for day in (~second, second):
        wanted = (price[day] * volume[day]).cumsum() / volume[day].cumsum()
        assert values[day].tolist() == pytest.approx(wanted.tolist())


def test_day_vwap_follows_the_calendar_that_is_named():
    bars = two_days()
    values = table("day_vwap(calendar='24/7')", bars)["A"]
    midnight = pd.Timestamp("2024-01-03", tz="UTC")
    assert values[midnight] == pytest.approx(bars.close["A"][midnight])
    with pytest.raises(UnknownNameError, match="XNYZ"):
        compute("day_vwap(calendar=XNYZ)", bars)


def test_day_vwap_waits_for_the_first_trade_and_falls_back_on_the_typical_price():
    bars = BarHistory.from_arrays(
        two_days().times_us[:3],
        ["A"],
        "1min",
        high=[3.0] * 3,
        low=[1.0] * 3,
        close=[2.0] * 3,
        volume=[0.0, 5, 5],
    )
    assert table("day_vwap", bars)["A"].tolist() == pytest.approx([np.nan, 2.0, 2.0], nan_ok=True)


@pytest.mark.parametrize("text", ["returns(0)", "returns(-1)", "zscore(1)", "relative_strength(0)"])
def test_a_period_that_would_look_ahead_or_divide_by_nothing_is_refused(text: str):
    with pytest.raises(IndicatorError, match="a whole number from"):
        parse(text)
