"""How unusual the close is."""

import pandas as pd

from marketdash.indicators.base import indicator
from marketdash.indicators.history import BarHistory


@indicator(
    "zscore",
    warmup=lambda params: params["n"] - 1,
    reach=lambda params: params["n"],
    limits={"n": (2, 100_000)},
    levels=[-2, 0, 2],
    group="Statistics",
)
def zscore(bars: BarHistory, n: int = 60) -> pd.DataFrame:
    """Distance of the close from its mean over the last `n` bars, in their standard deviations (of a sample).

    Where there is no bar the last close before counts in the mean; closes that are all alike give no value.
    """
    close = bars.close.ffill()
    deviation = close.rolling(n).std()
    return ((close - close.rolling(n).mean()) / deviation.where(deviation > 0)).where(bars.close.notna())
