"""The volume-weighted average price since a trading day began."""

import numpy as np
import pandas as pd

from marketdash.calendars import calendar as exchange_calendar
from marketdash.indicators.base import indicator
from marketdash.indicators.history import BarHistory


@indicator("day_vwap", overlay=True, group="Volume")
def day_vwap(bars: BarHistory, calendar: str = "XNYS") -> pd.DataFrame:
    """Money traded divided by units traded, from the trading day's first bar in the history to this one.

    A bar's price is its own VWAP, or (high + low + close) / 3 where that is missing. `calendar` names the
    exchange calendar that says when a trading day begins (`24/7` for days in UTC).
    """
    _, days = exchange_calendar(calendar).stamp(bars.times_us)
    price = bars.vwap.fillna((bars.high + bars.low + bars.close) / 3)
    volume = bars.volume.where(price.notna())
    money = (price * volume).groupby(days).cumsum()
    return money / volume.groupby(days).cumsum().replace(0, np.nan)
