"""A market: one clock, its source, one graph and its frames. Data and streams, no pictures."""

from marketdash.market.market import Market
from marketdash.market.opening import open_market
from marketdash.market.state import STATES, Status, Values

__all__ = ["STATES", "Market", "Status", "Values", "open_market"]
