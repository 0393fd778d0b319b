"""What a chart needs to know of TA-Lib's functions and the library's flags do not all tell."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from marketdash.indicators.base import VALUE, Output, Role, Style

LEVELS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "RSI": (30, 70),
        "IMI": (30, 70),
        "ULTOSC": (30, 70),
        "CMO": (-50, 50),
        "CMOU": (-50, 50),
        "MFI": (20, 80),
        "STOCH": (20, 80),
        "STOCHF": (20, 80),
        "STOCHRSI": (20, 80),
        "KDJ": (20, 80),
        "WILLR": (-80, -20),
        "CCI": (-100, 100),
        "SMI": (-40, 40),
        "ADX": (25,),
        "ADXR": (25,),
    }
    | dict.fromkeys(
        ("AROONOSC", "BOP", "MOM", "ROC", "ROCP", "TRIX", "APO", "PPO", "PVO", "CMF", "TSI"), (0,)
    )
    | dict.fromkeys(("AC", "AO", "COPPOCK", "DPO", "EFI", "ERI", "FOSC", "QSTICK", "ADOSC"), (0,))
    | dict.fromkeys(("MACD", "MACDEXT", "MACDFIX"), (0,))
)
"""Customary guide lines."""

ROWS = frozenset({"MAXINDEX", "MININDEX", "MINMAXINDEX"})
"""Functions whose outputs are rows of what they were given."""

_DRAWN: Mapping[tuple[str, str], tuple[Style, Role]] = MappingProxyType(
    {
        ("FRACTAL", "swinghigh"): ("dots", "pattern"),
        ("FRACTAL", "swinglow"): ("dots", "pattern"),
        ("SAR", "real"): ("dots", "main"),
        ("SAREXT", "real"): ("dots", "main"),
        ("STOCH", "slowk"): ("line", "main"),
        ("SUPERTREND", "trend"): ("line", "state"),
    }
)
# Deviations are in the price's unit, but lie far from any price.
_NOT_PRICES = frozenset({"AVGDEV", "STDDEV", "VAR"})

# TA-Lib flags some of these and not others; the tests compare this with what each function does.
_FROM_THE_START = ROWS | {
    "AD", "CUMSUM", "NVI", "OBV", "PVI", "PVT", "SAR", "SAREXT", "SUPERTREND", "VWAP", "WAD"
}  # fmt: skip
_FADING = frozenset(
    {
        "ADOSC", "ADX", "ADXR", "ATR", "CMO", "CVI", "DEMA", "DX", "EFI", "EMA", "ERI", "HA", "HT_DCPERIOD",
        "HT_DCPHASE", "HT_PHASOR", "HT_SINE", "HT_TRENDLINE", "HT_TRENDMODE", "KAMA", "KC", "MACD", "MACDFIX",
        "MAMA", "MASSI", "MAVP", "MINUS_DI", "MINUS_DM", "NATR", "PLUS_DI", "PLUS_DM", "RMA", "RSI", "RVI",
        "SMI", "STOCHRSI", "T3", "TEMA", "TRIX", "TSI", "ZLEMA",
    }
)  # fmt: skip
_FINITE_AVERAGES = frozenset({"SMA", "WMA", "TRIMA", "HMA", "DISABLED"})
# Wilder's average, the slowest with a fixed rate, forgets all but a fraction exp(-1) in one warm-up; the
# adaptive averages have a rate per bar that they never go below. A millionth is exp(-14).
_FADING_WARMUPS = 20
_KAMA_BARS = 14 / (2 / 31) ** 2
_MAMA_BARS = 14


def outputs(name: str, group: str, flags: Mapping[str, Any]) -> tuple[Output, ...]:
    """Name a function's outputs and say how they ask to be drawn."""
    drawn = {output: _DRAWN.get((name, output)) or _drawn(group, flags[output] or []) for output in flags}
    return tuple(
        Output(VALUE if output in ("real", "integer") else output, style, role)
        for output, (style, role) in drawn.items()
    )


def _drawn(group: str, flags: list[str]) -> tuple[Style, Role]:
    text = " ".join(flags)
    if group == "Pattern Recognition":
        return "dots", "pattern"
    if "upper limit" in text:
        return "line", "upper"
    if "lower limit" in text:
        return "line", "lower"
    return "histogram" if "Histogram" in flags else "line", "signal" if "Dashed Line" in flags else "main"


def overlay(name: str, group: str, flags: list[str] | None) -> bool:
    """Tell whether a function of prices gives prices."""
    if name in _NOT_PRICES:
        return False
    return group == "Overlap Studies" or "Output scale same as input" in (flags or [])


def reach(name: str, warmup: int, params: Mapping[str, Any]) -> int | None:
    """Count the bars that determine the last value; None if all do."""
    if name in _FROM_THE_START:
        return None
    averages = {value for param, value in params.items() if param.endswith("matype")}
    if name not in _FADING and averages <= _FINITE_AVERAGES:
        return warmup + 1
    slowest = _KAMA_BARS if name == "KAMA" or "KAMA" in averages else 0.0
    if name == "MAMA":
        slowest = _MAMA_BARS / params["slowlimit"]
    return warmup + max(_FADING_WARMUPS * (warmup + 1), int(slowest))
