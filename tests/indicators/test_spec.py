"""Indicators written as text."""

import pickle

import numpy as np
import pandas as pd
import pytest

from marketdash.errors import IndicatorError, UnknownNameError
from marketdash.indicators import BarHistory, compute, parse, table


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("SMA(20)", "SMA(20)"),
        ("SMA", "SMA(30)"),
        ("sma()", "SMA(30)"),
        ("macd(12, 26, 9)", "MACD(12,26,9)"),
        ("MACD(signalperiod=7)", "MACD(12,26,7)"),
        ("BBANDS(timeperiod=20, nbdevup=2.5)", "BBANDS(20,2.5)"),
        ("bbands(20, 2, 2)", "BBANDS(20)"),
        ("SMA(20.0)", "SMA(20)"),
        ("SMA(20, price=high)", "SMA(20,price=high)"),
        ("SMA(20, 'HIGH')", "SMA(20,price=high)"),
        ("SAR", "SAR"),
        ("SAR(0.03)", "SAR(0.03)"),
        (" CDLDOJI ", "CDLDOJI"),
        ("day_vwap(calendar='24/7')", "day_vwap(calendar='24/7')"),
        ("BETA(5, price1=open)", "BETA(5,price1=open)"),
    ],
)
def test_a_spec_has_one_short_text(text: str, label: str):
    spec = parse(text)
    assert str(spec) == label
    assert parse(label) == spec
    assert hash(parse(label)) == hash(spec)


def test_specs_differ_by_their_parameters():
    assert parse("SMA(20)") != parse("SMA(21)")
    assert parse("SMA(20)") != "SMA(20)"
    assert len({parse("SMA"), parse("SMA(30)"), parse("EMA")}) == 2


def test_a_spec_is_its_own_text_for_other_processes():
    spec = parse("SMA(20)")
    assert parse(pickle.loads(pickle.dumps(str(spec)))) == spec
    assert parse(spec) is spec


def test_an_unknown_indicator_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean SMA") as caught:
        parse("SMMA(20)")
    assert caught.value.kind == "indicator"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "SMA(tmeperiod=3)",
            "expected parameters timeperiod, price, got tmeperiod. Did you mean timeperiod?",
        ),
        ("SMA(20, high, 3)", "expected at most 2 parameters (timeperiod, price), got 3."),
        ("CDLDOJI(3)", "expected at most 0 parameters, got 1."),
        ("CDLDOJI(n=3)", "expected no parameters, got n."),
        ("SMA(20.5)", "expected a whole number from 1 to 100000, got 20.5."),
        ("SMA(twenty)", "got 'twenty'."),
        ("SMA(True)", "got True."),
        ("SMA(1e999)", "got inf."),
        (f"SAR({10**150})", "parameter acceleration: expected a number from 0 to"),
        ("SMA(20, timeperiod=20)", "expected each parameter once, got timeperiod twice."),
        ("SMA(timeperiod=20, timeperiod=30)", "a parameter twice"),
        ("SMA(20", "Write it like SMA(20)"),
        ("SMA(None)", "None, which is neither a number nor a name"),
        ("SMA([20])", "[20], which is neither a number nor a name"),
        ("SMA(*x)", "neither a number nor a name"),
        ("SMA(**x)", "starred"),
        ("SMA(20)(30)", "not a name with parameters"),
        ("SMA(20).real", "not a name with parameters"),
        ("SMA > 3", "not a name with parameters"),
        ("SMA(20); import os", "invalid syntax"),
        ("SMA(__import__('os').system('ls'))", "neither a number nor a name"),
        ("SMA(" * 60, "240 characters"),
        ("SMA(" + "(" * 150, "parentheses"),
        ("SMA(\0)", "null bytes"),
        ("", "expected its name"),
        ("   ", "expected its name"),
    ],
)
def test_a_text_that_cannot_be_read_says_why(text: str, expected: str):
    with pytest.raises(IndicatorError) as caught:
        parse(text)
    assert expected in str(caught.value)


def test_only_texts_and_specs_are_read():
    with pytest.raises(IndicatorError, match="got 20"):
        parse(20)  # type: ignore[arg-type]


def test_a_table_is_time_by_instrument_or_has_an_output_below_each(bars: BarHistory):
    single = table("RSI(14)", bars)
    assert list(single.columns) == ["S0", "S1", "S2"]
    assert single.index.equals(bars.times)
    several = table("MACD", bars)
    assert several.columns.names == ["symbol", "output"]
    for output, array in compute("MACD", bars).items():
        np.testing.assert_array_equal(several.xs(output, axis=1, level="output"), array)
    pd.testing.assert_frame_equal(parse("MACD").indicator(bars, fastperiod=12), several)
