"""The door through which a function becomes an indicator."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marketdash.errors import IndicatorError
from marketdash.indicators import INDICATORS, BarHistory, Output, checks, compute, indicator, parse, table

pytestmark = pytest.mark.usefixtures("scratch")

PLUGIN = '''
"""Spread of a bar against its recent spreads."""

import pandas as pd

from marketdash.indicators import BarHistory, indicator


@indicator("spread_z", warmup=lambda params: params["n"] - 1, levels=[-2, 2])
def spread_z(bars: BarHistory, n: int = 60) -> pd.DataFrame:
    """Bars that are unusually wide: (high - low) against its mean, in standard deviations."""
    spread = bars.high - bars.low
    return (spread - spread.rolling(n).mean()) / spread.rolling(n).std()
'''


def test_a_file_in_a_plugin_folder_adds_an_indicator(tmp_path: Path, bars: BarHistory):
    assert len(PLUGIN.strip().splitlines()) < 25
    (tmp_path / "spread_z.py").write_text(PLUGIN)
    INDICATORS.discover(plugins=[tmp_path])
    assert "spread_z" in INDICATORS
    spec = parse("SPREAD_Z(30)")
    assert str(spec) == "spread_z(30)"
    assert spec.warmup == 29
    assert spec.indicator.levels == (-2, 2)
    assert spec.indicator.doc.startswith("Bars that are unusually wide")
    assert table(spec, bars).iloc[29:].notna().all(axis=None)
    assert checks.check(spec, bars) is None


def test_the_decorated_name_computes_a_table(bars: BarHistory):
    @indicator("middle", overlay=True)
    def middle(bars: BarHistory, weight: float = 0.5) -> pd.DataFrame:
        return bars.high * weight + bars.low * (1 - weight)

    pd.testing.assert_frame_equal(middle(bars, weight=1), bars.high, check_names=False)
    assert middle.params == {"weight": 0.5}
    assert middle.outputs == (Output("value", "line", "main"),)
    assert middle.overlay


def test_several_outputs_are_named_and_styled(bars: BarHistory):
    @indicator("range_parts", outputs=["body", "shadow"], styles={"body": "histogram"})
    def range_parts(bars: BarHistory) -> dict[str, pd.DataFrame]:
        body = (bars.close - bars.open).abs()
        return {"shadow": bars.high - bars.low - body, "body": body}

    assert [output.style for output in range_parts.outputs] == ["histogram", "line"]
    assert list(compute("range_parts", bars)) == ["body", "shadow"]


def test_a_series_will_do_for_one_instrument_and_an_array_for_any(bars: BarHistory):
    @indicator("as_series")
    def as_series(bars: BarHistory) -> pd.Series:
        return bars.close.iloc[:, 0]

    @indicator("as_array")
    def as_array(bars: BarHistory) -> np.ndarray:
        return np.log(bars.array("close"))

    assert compute("as_series", bars.select(["S1"]))["value"].shape == (320, 1)
    assert compute("as_array", bars)["value"].shape == (320, 3)
    with pytest.raises(IndicatorError, match=r"like bars\.close, got a Series"):
        compute("as_series", bars)


def test_booleans_and_whole_numbers_become_floats(bars: BarHistory):
    @indicator("rising")
    def rising(bars: BarHistory) -> pd.DataFrame:
        return bars.close > bars.open

    assert set(np.unique(compute("rising", bars)["value"])) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda bars: None, "got a NoneType. Does the function return what it computed?"),
        (lambda bars: 3.0, "got a float"),
        (lambda bars: bars.close.iloc[1:], "like bars.close, got shape (319, 3) instead of (320, 3)"),
        (lambda bars: bars.close.mean(), "got a Series"),
        (lambda bars: bars.close.reset_index(drop=True), "index of bars.close, got an index of type int64"),
        (lambda bars: bars.close.shift(1, freq="1min"), "14:31:00+00:00 in row 0 instead of 2024-01-02 14"),
        (lambda bars: bars.close[["S2", "S1", "S0"]], "expected the columns of bars.close, got S2, S1, S0"),
        (lambda bars: bars.close.astype(str) + "x", "expected numbers"),
        (lambda bars: {"a": bars.close}, "outputs value, got a. Name them in @indicator(…, outputs=…)."),
        (lambda bars: 1 / 0, "got ZeroDivisionError: division by zero"),
        (lambda bars: bars.closing, "AttributeError"),
    ],
)  # fmt: skip
def test_a_result_that_does_not_fit_says_which_and_why(result, expected: str, bars: BarHistory):
    indicator("odd")(lambda bars: result(bars))
    with pytest.raises(IndicatorError) as caught:
        compute("odd", bars)
    assert "Indicator odd" in str(caught.value)
    assert expected in str(caught.value)


def test_writing_into_the_bars_is_refused_and_says_what_to_do(bars: BarHistory):
    @indicator("careless")
    def careless(bars: BarHistory) -> np.ndarray:
        close = bars.array("close")
        close[0] = 0.0
        return close

    with pytest.raises(IndicatorError, match="work on a copy"):
        compute("careless", bars)


def test_returning_the_bars_does_not_give_them_away(bars: BarHistory):
    indicator("same")(lambda bars: bars.array("close"))
    values = compute("same", bars)["value"]
    values[:] = 0.0
    assert (bars.array("close") > 0).all()


def without_default(bars: BarHistory, n: int) -> pd.DataFrame: ...
def with_star(bars: BarHistory, *periods: int) -> pd.DataFrame: ...
def with_keywords(bars: BarHistory, **params: int) -> pd.DataFrame: ...


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        (without_default, {}, "parameter n: expected a default"),
        (with_star, {}, "named parameters after the bars, got *periods: int"),
        (with_keywords, {}, "named parameters after the bars, got **params: int"),
        (lambda: None, {}, "a function of bars"),
        (lambda bars: bars.close, {"styles": "circle"}, "styles line, histogram, dots, area, got circle"),
        (lambda bars: bars.close, {"styles": {"vale": "line"}}, "styles of outputs value, got vale"),
    ],
)
def test_a_function_that_cannot_be_an_indicator_is_refused_at_once(function, options, expected: str):
    with pytest.raises(IndicatorError) as caught:
        indicator("odd", **options)(function)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["my-signal", "", "20days", "lambda", "a.b"])
def test_a_name_that_could_not_be_parsed_is_refused(name: str):
    with pytest.raises(IndicatorError, match="letters, digits and underscores"):
        indicator(name)(lambda bars: bars.close)


def test_a_forgotten_name_is_not_passed_over():
    with pytest.raises(IndicatorError, match="Write @indicator"):

        @indicator  # type: ignore[arg-type]
        def nameless(bars: BarHistory) -> pd.DataFrame:
            return bars.close


def test_parameters_are_converted_to_the_kind_of_their_defaults(bars: BarHistory):
    @indicator("kinds", limits={"n": (1, 9)})
    def kinds(bars: BarHistory, n: int = 3, factor: float = 1.0, label: str = "x", quiet: bool = False):
        assert [type(value) for value in (n, factor, label, quiet)] == [int, float, str, bool]
        return bars.close

    compute("kinds(3.0, 2, y, True)", bars)
    assert str(parse("kinds(quiet=True)")) == "kinds(3,1,x,True)"
    with pytest.raises(IndicatorError):
        kinds.bind({"n": 10**400})
    for text, expected in [
        ("kinds(10)", "a whole number from 1 to 9, got 10"),
        ("kinds(3, high)", "parameter factor: expected a number, got 'high'"),
        ("kinds(label=3)", "parameter label: expected a text, got 3"),
        (f"kinds({10**180})", "a whole number from 1 to 9"),
        ("kinds(quiet=1)", "parameter quiet: expected True or False, got 1"),
    ]:
        with pytest.raises(IndicatorError) as caught:
            parse(text)
        assert expected in str(caught.value)


def test_the_last_one_of_a_name_wins_so_that_a_cell_can_run_again(bars: BarHistory):
    for factor in (1, 2):
        indicator("again")(lambda bars, factor=factor: bars.close * factor)
    assert table("again", bars).iloc[0, 0] == bars.close.iloc[0, 0] * 2
