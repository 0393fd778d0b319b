"""Faults that a researcher makes without noticing, each planted in an indicator: one check finds each of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import marketdash
from marketdash.errors import IndicatorError
from marketdash.indicators import INDICATORS, BarHistory, checks, indicator

pytestmark = pytest.mark.usefixtures("scratch")

LOOKS_AHEAD = "looks ahead: value of"
EVERY_97TH = 97


def peeks_at_one_instrument(bars: BarHistory) -> pd.DataFrame:
    close = bars.close
    close[bars.symbols[-1]] = close[bars.symbols[-1]].shift(-1)
    return close


def peeks_rarely(bars: BarHistory) -> np.ndarray:
    values = bars.array("close").copy()
    rows = np.arange(50, len(bars) - 1, EVERY_97TH)
    values[rows] = values[rows + 1]
    return values


def peeks_rarely_at_a_cheap_one(bars: BarHistory) -> np.ndarray:
    values = bars.array("close").copy()
    cheap = np.nanmax(values, axis=0, initial=0.0) < 1.0
    rows = np.arange(50, len(bars) - 1, EVERY_97TH)[:, np.newaxis]
    values[rows, cheap] = values[rows + 1, cheap]
    return values


def sums_from_the_end(bars: BarHistory) -> pd.DataFrame:
    return bars.volume.sort_index(ascending=False).cumsum().reindex(bars.times)


def takes_the_close_of_five_minutes_at_their_start(bars: BarHistory) -> pd.DataFrame:
    return bars.close.resample("5min").last().reindex(bars.times, method="ffill")


def has_a_leading_index(bars: BarHistory) -> pd.DataFrame:
    late = bars.close.copy()
    late.index = late.index - pd.Timedelta(minutes=1)
    return late.reindex(bars.times)


AHEAD = {
    "tomorrow": lambda bars: bars.close.shift(-1),
    "centred": lambda bars: bars.close.rolling(5, center=True).mean(),
    "normalised": lambda bars: bars.close / bars.close.mean(),
    "filled_backward": lambda bars: bars.close.bfill(),
    "interpolated": lambda bars: bars.close.interpolate(),
    "one_instrument": peeks_at_one_instrument,
    "rarely": peeks_rarely,
    "from_the_end": sums_from_the_end,
    "resampled": takes_the_close_of_five_minutes_at_their_start,
    "leading": has_a_leading_index,
    "smoothed_both_ways": lambda bars: bars.close.ewm(span=5).mean()[::-1].ewm(span=5).mean()[::-1],
}


@pytest.mark.parametrize("name", AHEAD)
def test_each_way_of_looking_ahead_is_found(name: str, bars: BarHistory):
    indicator(name)(AHEAD[name])
    assert LOOKS_AHEAD in str(checks.check(name, bars))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_that_peeks_rarely_is_found_wherever_it_peeks(seed: int, make_bars):
    @indicator("seldom")
    def seldom(bars: BarHistory) -> np.ndarray:
        values = bars.array("close").copy()
        row = 137 + 389 * seed
        if len(bars) > row + 1:
            values[row] = values[row + 1]
        return values

    long = make_bars(1_200, 2)
    error = checks.lookahead("seldom", long)
    assert error is not None, "a single bar of 1,200 peeks, and nothing was found"
    assert f"(bar {137 + 389 * seed})" in str(error)


def test_the_first_bar_that_looks_ahead_is_named_though_cuts_are_elsewhere(bars: BarHistory):
    indicator("rarely")(peeks_rarely)
    assert "(bar 50)" in str(checks.lookahead("rarely", bars, cuts=3))


def test_a_cheap_instrument_is_not_hidden_by_a_dear_one(bars: BarHistory):
    fields = {name: bars.array(name).copy() for name in ("open", "high", "low", "close")}
    for values in fields.values():
        values[:, 0] *= 1e6
        values[:, 1] *= 1e-6
    apart = BarHistory.from_arrays(bars.times_us, bars.symbols, "1min", **fields)
    indicator("cheap")(peeks_rarely_at_a_cheap_one)
    assert "value of S1" in str(checks.lookahead("cheap", apart))


def test_what_depends_on_its_neighbours_must_say_so(bars: BarHistory):
    indicator("neighbours")(lambda bars: bars.close.sub(bars.close.mean(axis=1), axis=0))
    indicator("sociable", scope="market")(lambda bars: bars.close.sub(bars.close.mean(axis=1), axis=0))
    assert "of scope instrument" in str(checks.check("neighbours", bars))
    assert checks.check("sociable", bars) is None


def test_state_of_any_kind_is_found(bars: BarHistory):
    last, by_length = [0.0], {}

    @indicator("carries_on")
    def carries_on(bars: BarHistory) -> pd.DataFrame:
        mean = bars.close.ewm(span=5).mean() + last[0]
        last[0] = float(np.nanmean(bars.array("close")))
        return mean

    @indicator("remembers")
    def remembers(bars: BarHistory) -> pd.DataFrame:
        return by_length.setdefault(len(bars), bars.close * 2)

    assert "is not a function of its bars" in str(checks.check("carries_on", bars))
    assert checks.check("remembers", bars) is not None


def test_a_change_through_a_back_door_is_found(bars: BarHistory):
    @indicator("stubborn")
    def stubborn(bars: BarHistory) -> pd.DataFrame:
        owner = bars.array("close")
        while owner.base is not None:
            owner = owner.base
        owner.setflags(write=True)
        owner[0] = 1.0
        return bars.close

    copied = bars.select(bars.symbols)
    assert "stubborn changes its bars" in str(checks.check("stubborn", copied))


def test_honest_indicators_pass_on_bars_with_and_without_holes(bars: BarHistory, holed_bars: BarHistory):
    indicator("honest", warmup=19, reach=20)(lambda bars: bars.close.rolling(20).mean())
    indicator("scarce", warmup=19)(
        lambda bars: bars.close.ffill().rolling(20).mean().where(bars.close.notna())
    )
    for name in ("honest", "scarce", "zscore", "ATR(14)"):
        for history in (bars, holed_bars):
            error = checks.lookahead(name, history)
            assert error is None, error


class Trading:
    """What the check needs of a market."""

    def __init__(self, bars: BarHistory) -> None:
        self.bars, self.asked = bars, []

    def history(self, width: str | None = None) -> BarHistory:
        self.asked.append(width)
        return self.bars


def test_a_market_is_checked_in_one_call(bars: BarHistory):
    import marketdash as md

    indicator("tomorrow")(AHEAD["tomorrow"])
    market = Trading(bars)
    assert isinstance(md.check("tomorrow", market, "1min"), IndicatorError)
    assert md.check("SMA(20)", market) is None
    assert market.asked == ["1min", None]
    assert "at least 32 bars" in str(md.check("SMA(30)", Trading(bars.upto(20)))), "nothing was checked"


def test_the_contract_tests_find_a_plugin_and_fail_for_one_that_looks_ahead(tmp_path: Path):
    text = (
        "from marketdash.indicators import indicator\n"
        "@indicator('planted_bad')\ndef bad(bars):\n    'Tomorrow.'\n    return bars.close.shift(-1)\n"
        "@indicator('planted_good')\ndef good(bars):\n    'Today.'\n    return bars.close * 2\n"
    )
    (tmp_path / "planted.py").write_text(text)
    contract = Path(__file__).with_name("test_contract.py")
    command = [sys.executable, "-m", "pytest", str(contract), "-q", "-k", "planted", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command,
        env=os.environ | {"MARKETDASH_PLUGINS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_it_does_not_look_ahead[planted_bad]" in done.stdout
    assert "[planted_good]" not in done.stdout


def shown_examples() -> list[str]:
    """The indicators that the README and the notebooks tell people to copy."""
    root = Path(__file__).parents[2]
    sources = [root.joinpath("README.md").read_text("utf-8")]
    for notebook in sorted(root.joinpath("notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        sources.append("\n".join("".join(cell["source"]) + "\n" for cell in cells))
    return re.findall(r"^@md\.indicator\(.*\n(?:def .*\n)(?:    .*\n)+", "\n".join(sources), re.MULTILINE)


def test_the_indicators_that_people_are_told_to_copy_pass_every_check(bars: BarHistory) -> None:
    examples = shown_examples()
    assert len(examples) >= 2
    for example in examples:
        before = set(INDICATORS)
        exec(example, {"md": marketdash, "pd": pd})
        for name in set(INDICATORS) - before:
            assert checks.check(name, bars) is None, example
            INDICATORS.remove(name)
