"""The bounded recent past of each topic."""

from marketdash.frames.bars import Bars, BarStore
from marketdash.frames.last import LastPrices
from marketdash.frames.rolling import RollingFrame

__all__ = ["BarStore", "Bars", "LastPrices", "RollingFrame"]
