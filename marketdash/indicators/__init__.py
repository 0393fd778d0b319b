"""Indicators: pure functions of bar histories, each file here adds some.

from marketdash.indicators import BarHistory, indicator, table

@indicator("spread_z", warmup=59)
def spread_z(bars: BarHistory):
    spread = bars.high - bars.low
    return (spread - spread.rolling(60).mean()) / spread.rolling(60).std()
"""

from marketdash.indicators.base import INDICATORS, Indicator, Output, indicator
from marketdash.indicators.history import BarHistory
from marketdash.indicators.spec import Spec, compute, parse, table

__all__ = [
    "INDICATORS",
    "BarHistory",
    "Indicator",
    "Output",
    "Spec",
    "compute",
    "indicator",
    "parse",
    "table",
]
