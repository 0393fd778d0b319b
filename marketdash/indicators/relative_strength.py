"""Which instruments lead the market, and which lag."""

import pandas as pd

from marketdash.indicators.base import indicator
from marketdash.indicators.history import BarHistory


@indicator(
    "relative_strength",
    scope="market",
    warmup=lambda params: params["n"],
    reach=lambda params: params["n"] + 1,
    limits={"n": (1, 100_000)},
    levels=[0],
    group="Market",
)
def relative_strength(bars: BarHistory, n: int = 20) -> pd.DataFrame:
    """Growth of the close over `n` bars against that of the equal-weight market, minus 1.

    0.01 is one per cent ahead of the market, whose growth is the mean growth of all instruments of the
    history that have a close at both ends. Where there was no bar the last close before counts.
    """
    close = bars.close.ffill()
    growth = close / close.shift(n)
    return growth.div(growth.mean(axis=1), axis=0).sub(1).where(bars.close.notna())
