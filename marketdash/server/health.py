"""`GET /health`: what this process serves, and whether it is well."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from typing import Any

import tornado.web
from bokeh.server.views.auth_request_handler import AuthRequestHandler

from marketdash.clock import ReplayClock
from marketdash.market import Market
from marketdash.server.hub import Hub, hub

HEALTHY = ("starting", "running", "ended")


class HealthHandler(AuthRequestHandler):
    """Answers JSON: 200 while every source works, 503 when one does not. Behind Panel's login, if there is one."""

    def initialize(self, of: Hub | None = None) -> None:
        self.hub = of

    @tornado.web.authenticated
    def get(self) -> None:
        report = describe(self.hub or hub())
        contexts = self.application.applications.values()  # type: ignore[attr-defined]  # Bokeh's own application
        report["sessions"] = sum(len(list(context.sessions)) for context in contexts)
        self.set_status(200 if report["status"] == "ok" else 503)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(report))


def describe(of: Hub) -> dict[str, Any]:
    """The report: the fields of the first open market (the shared one if there is), and all of them in `markets`."""
    markets = [market_report(of, market) for market in of.markets]
    first = markets[0] if markets else {"source": of.default, "state": "idle", "message": of.reason}
    status = "ok" if all(item["healthy"] for item in markets) else "degraded"
    return {
        "status": status,
        "version": version("marketdash"),
        "default": of.default,
        "viewers": len(of.screens),
        "replays": of.replays,
        **first,
        "markets": markets,
    }


def market_report(of: Hub, market: Market) -> dict[str, Any]:
    """One market: source, state, time, pace, rows per topic, lag in seconds, viewers, stages."""
    clock = market.clock
    replay = isinstance(clock, ReplayClock)
    stages = market.health.summary()
    rows = {topic: stages.get(f"clean {topic}", {}).get("rows", 0) for topic in ("ticks", "quotes", "bars")}
    now = clock.now_us()
    lag = (now - market.source.complete_until(now)) / 1e6 if replay else _silence(market, now)
    pace = clock.pace if isinstance(clock, ReplayClock) else 1.0
    return {
        "source": market.source.name,
        "label": market.label,
        "state": market.status.state,
        "message": market.status.message,
        "healthy": market.status.state in HEALTHY and not market.health.failing,
        "market_time": market.now.isoformat(),
        "playing": clock.playing if isinstance(clock, ReplayClock) else True,
        "pace": pace if math.isfinite(pace) else "fastest",
        "rows": rows,
        "rejected": {
            reason: count
            for clean in market.graph.cleaners.values()
            for reason, count in clean.rejected.items()
        },
        "lag": lag,
        "counts": market.health.totals,
        "restarts": market.restarts,
        "viewers_here": of.viewers(market),
        "stages": stages,
    }


def _silence(market: Market, now_us: int) -> float | None:
    """Seconds since a live source was last heard of."""
    return round((now_us - market.heard_us) / 1e6, 3) if market.heard_us else None


ROUTES: list[tuple[str, type[HealthHandler], dict[str, Any]]] = [(r"/health", HealthHandler, {})]
"""For `panel serve --plugins marketdash.server.health`."""
