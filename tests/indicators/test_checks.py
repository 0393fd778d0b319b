"""The checks find what they are for."""

import itertools

import numpy as np
import pytest

from marketdash.indicators import BarHistory, checks, indicator

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tomorrow", lambda bars: bars.close.shift(-1)),
        ("centred", lambda bars: bars.close.rolling(5, center=True).mean()),
        ("normalised", lambda bars: bars.close / bars.close.mean()),
        ("ranked", lambda bars: bars.close.rank(pct=True)),
        ("filled", lambda bars: bars.close.rolling(20).mean().bfill()),
    ],
)
def test_looking_ahead_is_found(name: str, function, bars: BarHistory):
    indicator(name)(function)
    error = checks.lookahead(name, bars)
    assert error is not None
    assert f"{name} looks ahead: value of S" in str(error)
    assert "shift(-1)" in error.hint


def test_looking_ahead_is_pointed_at(bars: BarHistory):
    # Only one bar peeks, and only the one cut before bar 300 tells.
    @indicator("peek_once")
    def peek_once(bars: BarHistory):
        values = bars.array("close").copy()
        if len(bars) > 300:
            values[299, 1] = values[300, 1]
        return values

    error = checks.lookahead("peek_once", bars, cuts=len(bars))
    assert error is not None
    assert "value of S1 at 2024-01-02 19:29:00+00:00 (bar 299)" in str(error)


def test_an_output_that_looks_ahead_is_named(bars: BarHistory):
    @indicator("half", outputs=["good", "bad"])
    def half(bars: BarHistory):
        return {"good": bars.close, "bad": bars.close.shift(-2)}

    error = checks.lookahead("half", bars)
    assert error is not None
    assert "bad of S0" in str(error)


def test_randomness_and_memory_are_found(bars: BarHistory):
    random = np.random.default_rng(1)
    calls = itertools.count()
    indicator("noisy")(lambda bars: bars.close + random.normal())
    indicator("counting")(lambda bars: bars.close * 0 + next(calls))
    for name in ("noisy", "counting"):
        error = checks.purity(name, bars)
        assert error is not None
        assert f"{name} is not a function of its bars" in str(error)


def test_writing_into_the_bars_is_found(bars: BarHistory):
    @indicator("careless")
    def careless(bars: BarHistory):
        np.nan_to_num(bars.array("close"), copy=False)
        return bars.close

    error = checks.purity("careless", bars)
    assert error is not None
    assert "work on a copy" in str(error)


def test_a_value_within_the_warm_up_is_found(bars: BarHistory):
    indicator("eager", warmup=19)(lambda bars: bars.close.rolling(20, min_periods=1).mean())
    error = checks.warmup("eager", bars)
    assert error is not None
    assert "expected no value before it, got value of S0 at 2024-01-02 14:30:00+00:00 (bar 0)" in str(error)


def test_a_reach_that_is_too_short_is_found(bars: BarHistory):
    indicator("smooth", reach=20)(lambda bars: bars.close.ewm(span=20).mean())
    indicator("smooth_enough", reach=200)(lambda bars: bars.close.ewm(span=20).mean())
    error = checks.reach("smooth", bars)
    assert error is not None
    assert "smooth with reach 20: expected the value of the whole history" in str(error)
    assert checks.reach("smooth_enough", bars) is None


def test_one_call_makes_all_checks(bars: BarHistory):
    indicator("late", reach=1)(lambda bars: bars.close.shift(1))
    indicator("broken")(lambda bars: 1 / 0)
    assert "late with reach 1" in str(checks.check("late", bars))
    assert "ZeroDivisionError" in str(checks.check("broken", bars))
    assert checks.check("RSI(14)", bars) is None


def test_the_checks_pass_where_there_is_nothing_to_check(make_bars):
    for count, instruments in [(0, 2), (1, 2), (2, 0)]:
        assert checks.check("SMA(20)", make_bars(count, instruments)) is None
