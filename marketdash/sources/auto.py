"""Auto: Yahoo when it answers within three seconds, else a recorded market that is always there."""

from __future__ import annotations

import logging
from typing import Any

from marketdash.errors import MarketdashError
from marketdash.providers.yahoo import YahooClient
from marketdash.settings import load_settings
from marketdash.sources.base import Source, make_source, source

log = logging.getLogger(__name__)

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
            log.warning("Yahoo answered, then failed: %s", error)
            reason = "Yahoo answered, then failed: this is the recorded year of the Flash Crash."
    made = make_source(FALLBACK, **options)
    made.reason = reason
    return made


def choose() -> tuple[str, str]:
    """What `auto` stands for now, and why."""
    answer = YahooClient(base_url=load_settings().yahoo_url).probe(PATIENCE_S)
    if answer:
        return "yahoo", "Yahoo answers."
    log.info("Yahoo cannot be used: %s", answer.reason)
    return (
        FALLBACK,
        f"Yahoo does not answer within {PATIENCE_S:g} s: this is the recorded year of the Flash Crash.",
    )
