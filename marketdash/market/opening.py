"""Open a market by the name of its source."""

from __future__ import annotations

from typing import Any

from marketdash.errors import ClockError
from marketdash.market.market import Market
from marketdash.settings import load_settings
from marketdash.sources.base import Source, make_source


def open_market(
    source: str | Source | None = None,
    *,
    start: object = None,
    pace: float | None = None,
    principal: str = "anonymous",
    **options: Any,
) -> Market:
    """Open a market and start it.

    `source` is `replay:SESSION`, `simulated`, `yahoo:SYM,SYM`, `auto`, the name of a source of your own, or a
    source object; without one, the setting `source`. `start` and `pace` are for replays: where to begin
    (what carries no zone is in the exchange's) and how many seconds of the market pass in one second.
    Other options go to the source.

    >>> import marketdash as md
    >>> with md.open("replay:us-2018-11-minute", start="2018-11-16 10:30", pace=60) as market:
    ...     bool(market.frame("bars", width="5min", symbols=["NVDA"]).close.iloc[-1] > 0)
    True
    """
    return make_market(source, start=start, pace=pace, principal=principal, **options).start()


def make_market(
    source: str | Source | None = None,
    *,
    start: object = None,
    pace: float | None = None,
    principal: str = "anonymous",
    **options: Any,
) -> Market:
    """As `open_market`, but not started: what is attached before `start()` hears the very first row."""
    settings = load_settings()
    spec = source if source is not None else settings.source
    if isinstance(spec, str):
        kind = spec.partition(":")[0].casefold()
        timing = {name: value for name, value in (("start", start), ("pace", pace)) if value is not None}
        if timing and kind not in ("replay", "auto"):
            given = " and ".join(timing)
            raise ClockError(f"{spec!r} with {given}", "a replay", "a source whose clock is the system's")
        made = make_source(spec, **timing, **options)
    else:
        made = spec
    return Market(made, rows=settings.bars, principal=principal, snapshots_mb=settings.snapshots_mb)
