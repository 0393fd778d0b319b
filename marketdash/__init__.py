"""marketdash: live, replayed and simulated markets in notebooks and on the web.

>>> import marketdash as md
>>> market = md.open("replay:us-2018-11-minute", start="2018-11-16", pace=60)
>>> market.frame("bars", width="5min", symbols=["NVDA"]).shape[1]
12
>>> market.close()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketdash.errors import MarketdashError as MarketdashError
    from marketdash.indicators.base import indicator as indicator
    from marketdash.indicators.checks import check as check
    from marketdash.log import SessionLibrary as SessionLibrary
    from marketdash.market import Market as Market
    from marketdash.market import open_market as open  # noqa: F401
    from marketdash.notebook import candles as candles
    from marketdash.notebook import demo as demo
    from marketdash.notebook import extension as extension
    from marketdash.notebook import heatmap as heatmap
    from marketdash.notebook import sessions as sessions
    from marketdash.notebook import view as view
    from marketdash.notebook import watchlist as watchlist
    from marketdash.sources.base import source as source

__version__ = "0.1.0"

# Looked up on first use (PEP 562), so that importing marketdash costs nothing.
_HOMES = {
    "Market": ("marketdash.market", "Market"),
    "MarketdashError": ("marketdash.errors", "MarketdashError"),
    "SessionLibrary": ("marketdash.log", "SessionLibrary"),
    "candles": ("marketdash.notebook", "candles"),
    "check": ("marketdash.indicators.checks", "check"),
    "demo": ("marketdash.notebook", "demo"),
    "extension": ("marketdash.notebook", "extension"),
    "heatmap": ("marketdash.notebook", "heatmap"),
    "indicator": ("marketdash.indicators.base", "indicator"),
    "open": ("marketdash.market", "open_market"),
    "sessions": ("marketdash.notebook", "sessions"),
    "source": ("marketdash.sources.base", "source"),
    "view": ("marketdash.notebook", "view"),
    "watchlist": ("marketdash.notebook", "watchlist"),
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'marketdash' has no attribute {name!r}") from None
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
