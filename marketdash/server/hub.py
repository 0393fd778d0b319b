"""The hub of one process: the live markets that viewers share, the replays they own, the screens that are open."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from functools import cache

from marketdash.errors import (
    CapacityError,
    ClockError,
    EntitlementError,
    MarketdashError,
    UnknownNameError,
)
from marketdash.log import SessionLibrary
from marketdash.market import Market, open_market
from marketdash.pages.desk import Choice
from marketdash.settings import Settings, load_settings
from marketdash.sources.auto import FALLBACK, choose
from marketdash.sources.base import SOURCES, Source, make_source

log = logging.getLogger(__name__)

BUILT_IN = ("auto", "replay", "simulated", "yahoo")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Hub:
    """Hands out markets (a `Desk`).

    A replay is private: each `take` opens one, at most `settings.replays` at a time. Every other market
    is opened once, shared, and closed when its last viewer has left; the default one stays.

    `loopback` says whether the server can only be reached from this machine: a source that forbids
    redistribution is shown nowhere else, and to one principal, unless the settings state a licence.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        source: str | None = None,
        start: str | None = None,
        pace: float | None = None,
        loopback: bool = False,
    ) -> None:
        self.settings = settings or load_settings()
        self.asked = source or self.settings.source
        self.start, self.pace, self.loopback = start, pace, loopback
        self.reason = ""
        self.screens: set[object] = set()
        self._default = ""
        self._prepared: Source | None = None
        self._shared: dict[str, Market] = {}
        self._private: list[Market] = []
        self._viewers: Counter[int] = Counter()
        self._principals: dict[str, Counter[str]] = {}

    @property
    def default(self) -> str:
        """The source that a new viewer sees; `auto` is decided once, when it is first asked for."""
        if not self._default:
            self._default = self.asked
            if self.asked.casefold() == "auto":
                self._default, self.reason = self._decide()
            elif self.asked.casefold() == "replay":
                self._default = FALLBACK
        return self._default

    def _decide(self) -> tuple[str, str]:
        if self.start is not None or self.pace is not None:
            return (
                FALLBACK,
                "A start or a pace is for a recording: this is the recorded year of the Flash Crash.",
            )
        if not (self.loopback or self._is_licensed("yahoo")):
            why = "Yahoo's prices may be shown on this machine only"
            return FALLBACK, f"{why}: this is the recorded year of the Flash Crash."
        return choose()

    def choices(self) -> list[Choice]:
        """The default, the recorded sessions, and the simulated market."""
        choices = [
            Choice(f"replay:{manifest.name}", manifest.title, manifest.note)
            for manifest in SessionLibrary().manifests()
        ]
        choices.append(Choice("simulated", "Simulated market", "Invented companies, always open."))
        choices += [
            Choice(name, name.capitalize(), "A source of your own.")
            for name in SOURCES
            if name not in BUILT_IN
        ]
        if self.default not in {choice.source for choice in choices}:
            choices.append(Choice(self.default, self.default.partition(":")[0].capitalize()))
        choices.sort(key=lambda choice: choice.source != self.default)  # the default first, else as they are
        return choices

    def take(self, source: str, principal: str) -> Market:
        # An address may name any text: only what can be picked, or what the operator asked for, is opened.
        names = {choice.source.casefold(): choice.source for choice in self.choices()}
        chosen = names.get(source.casefold())
        if chosen is None:
            raise UnknownNameError("market", source, names.values())
        market = (
            self._take_replay(chosen)
            if chosen.startswith("replay:")
            else self._take_shared(chosen, principal)
        )
        self._viewers[id(market)] += 1
        self._principals.setdefault(market.source.name, Counter())[principal] += 1
        return market

    def give_back(self, market: Market, principal: str) -> None:
        self._viewers[id(market)] -= 1
        self._principals[market.source.name][principal] -= 1
        self._close_unwatched(market)

    def _take_replay(self, source: str) -> Market:
        if len(self._private) >= self.settings.replays:
            hint = "Close another one, or raise the setting `replays`."
            raise CapacityError(
                "Replays in this process", f"at most {self.settings.replays}", "one more", hint
            )
        own = source == self.default
        market = open_market(source, start=self.start if own else None, pace=self.pace if own else None)
        if own:
            market.source.reason = self.reason
        self._private.append(market)
        return market

    def _take_shared(self, source: str, principal: str) -> Market:
        market = self._shared.get(source)
        if market is not None and not market.closed:
            self._check(market.source, principal)
            return market
        made, self._prepared = self._prepared, None
        if made is None or source != self.default:
            made = make_source(source)
        self._check(made, principal)
        market = self._shared[source] = open_market(made)
        return market

    def prepare(self) -> None:
        """Make the default source once, so that what is wrong with it is said before anybody looks."""
        if self.default.startswith("replay:"):
            timing = {"start": self.start, "pace": self.pace}
            make_source(self.default, **{name: value for name, value in timing.items() if value is not None})
            return
        if self.start is not None or self.pace is not None:
            raise ClockError(f"{self.default} with a start or a pace", "a replay", "a live source")
        try:
            self._prepared = make_source(self.default)
        except MarketdashError:
            if self.asked.casefold() != "auto":
                raise
            self._default = FALLBACK
            self.reason = "Yahoo answered, then failed: this is the recorded year of the Flash Crash."

    def _is_licensed(self, name: str) -> bool:
        return bool(self.settings.licences.get(name, "").strip())

    def _check(self, source: Source, principal: str) -> None:
        if source.entitlement.redistributable or self._is_licensed(source.name):
            return
        where = f"{source.name}: {source.entitlement.note}"
        hint = f"State your licence in the setting `licences.{source.name}` if you have one."
        if not self.loopback:
            raise EntitlementError(where, "a server on 127.0.0.1", "one that others reach", hint)
        others = {name for name, count in self._principals.get(source.name, {}).items() if count > 0}
        if others - {principal}:
            raise EntitlementError(where, "one viewer", "a second one", hint)

    def _close_unwatched(self, market: Market) -> None:
        if self._viewers[id(market)] > 0 or market is self._shared.get(self.default):
            return
        del self._viewers[id(market)]
        if market in self._private:
            self._private.remove(market)
        else:
            self._shared = {name: item for name, item in self._shared.items() if item is not market}
        market.close()

    @property
    def replays(self) -> int:
        """How many private replays are running."""
        return len(self._private)

    @property
    def markets(self) -> list[Market]:
        """Shared markets first, then replays."""
        return [*self._shared.values(), *self._private]

    def viewers(self, market: Market) -> int:
        return self._viewers[id(market)]

    def close(self) -> None:
        """Close all markets."""
        for market in self.markets:
            market.close()
        self._shared.clear()
        self._private.clear()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which nobody else can reach."""
    return host in LOOPBACK


@cache
def hub() -> Hub:
    """The hub of this process; `panel serve` runs the app's file once per viewer, but imports this once."""
    return Hub(loopback=_served_on_loopback(sys.argv))


def _served_on_loopback(argv: list[str]) -> bool:
    # `panel serve` listens on every address unless it is told one, and tells nobody: what cannot be known is no.
    for i, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name == "--address":
            return is_loopback(value or (argv[i + 1] if i + 1 < len(argv) else ""))
    return False
