"""Return of the close over some bars."""

import pandas as pd

from marketdash.indicators.base import indicator
from marketdash.indicators.history import BarHistory


@indicator(
    "returns",
    warmup=lambda params: params["n"],
    reach=lambda params: params["n"] + 1,
    limits={"n": (1, 100_000)},
    levels=[0],
    group="Statistics",
)
def returns(bars: BarHistory, n: int = 1) -> pd.DataFrame:
    """Simple return of the close over `n` bars, close / close n bars before − 1 (0.01 is one per cent).

    Where there was no bar then, the last close before counts.
    """
    return bars.close.ffill().pct_change(n).where(bars.close.notna())
