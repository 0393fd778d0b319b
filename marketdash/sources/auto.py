"""Auto: Yahoo when it answers within three seconds, else a recorded market that is always there."""

from __future__ import annotations

from typing import Any

from marketdash.errors import MarketdashError
from marketdash.providers.yahoo import YahooClient
from marketdash.settings import load_settings
from marketdash.sources.base import Source, make_source, source

PATIENCE_S = 3.0
FALLBACK = "replay:us-2010-daily"


@source("auto")
def auto(_: str = "", **options: Any) -> Source:
    """Make a Yahoo source or, when Yahoo does not answer, a replay; `reason` says which and why."""
    spec, reason = choose()
    if spec != FALLBACK:
        try:
            made = make_source(spec)
            made.reason = reason
            return made
        except MarketdashError as error:
            reason = f"Yahoo failed: {error} Replaying a recorded market instead."
    made = make_source(FALLBACK, **options)
    made.reason = reason
    return made


def choose() -> tuple[str, str]:
    """What `auto` stands for now, and why."""
    answer = YahooClient(base_url=load_settings().yahoo_url).probe(PATIENCE_S)
    if answer:
        return "yahoo", "Yahoo answers."
    why = answer.reason.rstrip(".")
    return FALLBACK, f"Yahoo cannot be used: {why}. Replaying the recorded year of the Flash Crash instead."
