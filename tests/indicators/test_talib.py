"""TA-Lib's functions: all there, with the library's own numbers, and those of the textbook."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import talib
from talib import abstract

from marketdash.errors import IndicatorError
from marketdash.indicators import INDICATORS, BarHistory, compute, parse, table
from marketdash.indicators.history import FIELDS
from marketdash.indicators.talib import TalibIndicator

DRAWN_OVER_PRICES = ["SMA(20)", "BBANDS(20)", "SAR", "VWAP", "MIDPRICE(14)", "LINEARREG(14)", "DONCHIAN(20)"]
DRAWN_APART = [
    "RSI(14)",
    "MACD(12,26,9)",
    "CDLDOJI",
    "STDDEV(5)",
    "AVGDEV(14)",
    "OBV",
    "SMA(20,price=volume)",
]


def test_every_function_of_the_library_is_an_indicator():
    assert set(talib.get_functions()) <= set(INDICATORS)
    assert len(talib.get_functions()) > 150


def test_values_are_those_of_the_library(bars: BarHistory):
    inputs = {field: np.ascontiguousarray(bars.array(field)[:, 1]) for field in FIELDS}
    for name in sorted(set(talib.get_functions()) - {"MAVP"}):
        expected = abstract.Function(name)(inputs)
        arrays, warmup = compute(name, bars).values(), parse(name).warmup
        for array, wanted in zip(arrays, expected if isinstance(expected, list) else [expected], strict=True):
            assert np.isnan(array[:warmup]).all(), name
            assert np.array_equal(array[warmup:, 1], wanted[warmup:].astype(float), equal_nan=True), name


def test_periods_count_an_instruments_own_bars(holed_bars: BarHistory):
    there = np.isfinite(holed_bars.array("close")[:, 2])
    fields = {field: holed_bars.array(field)[there, 2] for field in FIELDS}
    own = BarHistory.from_arrays(holed_bars.times_us[there], ["S2"], "1min", **fields)
    for name in talib.get_functions():
        alone = compute(name, own)
        for output, array in compute(name, holed_bars).items():
            wanted = alone[output][:, 0]
            if name in ("MAXINDEX", "MININDEX", "MINMAXINDEX"):
                rows, known = np.flatnonzero(there), np.isfinite(wanted)
                wanted[known] = rows[wanted[known].astype(int)]
            assert np.array_equal(array[there, 2], wanted, equal_nan=True), f"{output} of {name}"


def test_sma_is_the_rolling_mean(bars: BarHistory):
    pd.testing.assert_frame_equal(table("SMA(20)", bars), bars.close.rolling(20).mean(), check_names=False)
    pd.testing.assert_frame_equal(
        table("SMA(20, price=high)", bars), bars.high.rolling(20).mean(), check_names=False
    )


def test_bbands_are_deviations_around_the_mean(bars: BarHistory):
    bands = compute("BBANDS(20, 2.5, 1.5)", bars)
    mean, deviation = bars.close.rolling(20).mean(), bars.close.rolling(20).std(ddof=0)
    np.testing.assert_allclose(bands["upperband"], mean + 2.5 * deviation, rtol=1e-9)
    np.testing.assert_allclose(bands["lowerband"], mean - 1.5 * deviation, rtol=1e-9)


def test_rsi_is_wilders(bars: BarHistory):
    close = bars.array("close")[:, 0]
    changes = np.diff(close)
    gain, loss = np.maximum(changes, 0), np.maximum(-changes, 0)
    average_gain, average_loss = gain[:14].mean(), loss[:14].mean()
    wanted = [100 * average_gain / (average_gain + average_loss)]
    for up, down in zip(gain[14:], loss[14:], strict=True):
        average_gain = (13 * average_gain + up) / 14
        average_loss = (13 * average_loss + down) / 14
        wanted.append(100 * average_gain / (average_gain + average_loss))
    np.testing.assert_allclose(compute("RSI(14)", bars)["value"][14:, 0], wanted, rtol=1e-10)


def test_macd_is_the_difference_of_two_exponential_averages(long_bars: BarHistory):
    def average(series: pd.DataFrame, period: int) -> pd.DataFrame:
        return series.ewm(span=period, adjust=False).mean()

    macd = average(long_bars.close, 12) - average(long_bars.close, 26)
    signal = average(macd, 9)
    found = compute("MACD(12, 26, 9)", long_bars)
    # Their beginnings differ; what remains of that after 1,000 bars is below rounding.
    np.testing.assert_allclose(found["macd"][1000:], macd[1000:], atol=1e-10)
    np.testing.assert_allclose(found["macdsignal"][1000:], signal[1000:], atol=1e-10)
    np.testing.assert_allclose(found["macdhist"][1000:], (macd - signal)[1000:], atol=1e-10)


def test_integers_become_floats_that_are_nan_before_the_first_pattern_can_be(bars: BarHistory):
    engulfing = compute("CDLENGULFING", bars)["value"]
    assert np.isnan(engulfing[:2]).all()
    assert {-100.0, 0.0, 100.0} <= set(np.unique(engulfing[2:])) <= {-100.0, -80.0, 0.0, 80.0, 100.0}


def test_mavp_follows_the_dominant_cycle(bars: BarHistory):
    close = np.ascontiguousarray(bars.array("close")[:, 0])
    wanted = talib.MAVP(close, talib.HT_DCPERIOD(close), 5, 25, 0)
    spec = parse("MAVP(5, 25)")
    assert spec.warmup == int(np.isfinite(wanted).argmax())
    np.testing.assert_array_equal(spec.compute(bars)["value"][:, 0], wanted)


def test_two_series_can_be_chosen(bars: BarHistory):
    np.testing.assert_array_equal(
        compute("SUB(price0=close, price1=open)", bars)["value"], bars.array("close") - bars.array("open")
    )


def test_averages_are_named_or_numbered(bars: BarHistory):
    named, numbered = parse("BBANDS(20, 2, 2, ema)"), parse("BBANDS(20, 2, 2, 1)")
    assert named == numbered
    assert str(named) == "BBANDS(20,matype=EMA)"
    np.testing.assert_array_equal(
        named.compute(bars)["middleband"][:, 0],
        talib.BBANDS(np.ascontiguousarray(bars.array("close")[:, 0]), 20, 2.0, 2.0, talib.MA_Type.EMA)[1],
    )


@pytest.mark.parametrize("text", DRAWN_OVER_PRICES)
def test_prices_are_drawn_over_prices(text: str):
    assert parse(text).overlay


@pytest.mark.parametrize("text", DRAWN_APART)
def test_what_is_no_price_is_drawn_apart(text: str):
    assert not parse(text).overlay


def test_charts_are_told_how_outputs_ask_to_be_drawn():
    def drawn(name: str) -> dict[str, tuple[str, str]]:
        return {output.name: (output.style, output.role) for output in INDICATORS.get(name).outputs}

    assert drawn("MACD") == {
        "macd": ("line", "main"),
        "macdsignal": ("line", "signal"),
        "macdhist": ("histogram", "main"),
    }
    assert drawn("BBANDS")["upperband"] == ("line", "upper")
    assert drawn("CDLHAMMER") == {"value": ("dots", "pattern")}
    assert INDICATORS.get("RSI").levels == (30, 70)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SMA(0)", "Indicator SMA, parameter timeperiod: expected a whole number from 1 to 100000, got 0."),
        ("SMA(-2147483648)", "from 1 to 100000, got -2147483648."),
        ("SMA(2147483648)", "from 1 to 100000, got 2147483648."),
        (f"SMA({10**40})", "from 1 to 100000"),
        ("BBANDS(20, -4e37)", "a number from -3e+37 to 3e+37, got -4e+37."),
        ("MAMA(0.5, 2)", "parameter slowlimit: expected a number from 0.01 to 0.99, got 2.0."),
        ("T3(5, 1.5)", "parameter vfactor: expected a number from 0 to 1, got 1.5."),
        ("MAVP(40)", "parameter minperiod: expected a whole number from 1 to 30, got 40."),
        ("SMA(20, price=hgh)", "expected one of open, high, low, close, volume, vwap, got 'hgh'."),
        ("BBANDS(20, matype=99)", "parameter matype: expected one of SMA, EMA, WMA"),
    ],
)
def test_what_the_library_would_refuse_is_refused_with_its_limits(text: str, expected: str):
    with pytest.raises(IndicatorError) as caught:
        parse(text)
    assert expected in str(caught.value)


def test_limits_may_depend_on_another_parameter():
    assert str(parse("MAVP(40, 60)")) == "MAVP(40,60)"


def test_threads_do_not_disturb_each_other(bars: BarHistory):
    texts = [f"RSI({period})" for period in range(5, 45)]
    alone = [compute(text, bars)["value"] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: compute(text, bars)["value"], texts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_hot_path_calls_the_function_behind_the_librarys_wrapper():
    assert inspect.unwrap(talib.SMA) is not talib.SMA
    assert isinstance(INDICATORS.get("SMA"), TalibIndicator)
