"""Yahoo Finance, by way of yfinance: quotes of many symbols at once, and bars of one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import quote

import pandas as pd

from marketdash.clock import Clock, SystemClock
from marketdash.errors import MarketdashError, SourceError, UnknownNameError
from marketdash.instruments import Instrument
from marketdash.providers.yahoo_chart import bars_of
from marketdash.providers.yahoo_listings import Record
from marketdash.providers.yahoo_pace import Pause, TokenBucket

QUOTE_URL = "https://query1.finance.yahoo.com/v7/finance/quote"
CHART_URL = "https://query2.finance.yahoo.com/v8/finance/chart/"

SYMBOLS_PER_REQUEST = 200

INTERVALS: Mapping[str, tuple[str, str]] = {"1min": ("1m", "5d"), "1d": ("1d", "1y")}
"""Width → Yahoo's word for it, and how far back one request is asked to reach."""

UNKNOWN_FOR = 3600.0
"""Seconds for which a symbol that Yahoo does not know is not asked for again."""


class YahooError(SourceError):
    """Yahoo answered, but not with what was asked for; `status` is the HTTP status."""

    def __init__(self, where: str, expected: str, got: object, hint: str = "", status: int = 200) -> None:
        super().__init__(where, expected, got, hint)
        self.status = status


class RateLimited(YahooError):
    """Yahoo asked for silence; `wait` is what is left of it, in seconds."""

    def __init__(self, where: str, wait: float) -> None:
        hint = f"Nothing is asked for another {wait:.0f} s. Fewer symbols or a longer interval help."
        super().__init__(where, "an answer", "429 Too Many Requests", hint, status=429)
        self.wait = wait


@dataclass(frozen=True)
class Reach:
    """Whether Yahoo can be reached, and why not; true or false by itself."""

    ok: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ok


class YahooClient:
    """Asks Yahoo politely and answers in our terms; every failure is a `SourceError`.

    All requests go through one session and one token bucket (`rate` per second after a burst of `burst`).
    After a refusal (429) nothing is sent for a minute, then two, up to a quarter of an hour: calls
    raise `RateLimited` at once. Safe to call from several threads.

    With `base_url` everything is sent to that address instead, the host that was meant in the header
    X-Orig-Host; `marketdash.testing.yahoo.FakeYahoo` is such an address. `session` may be a curl_cffi or
    requests session of your own, with its proxies and timeouts. `wall` and `sleep` drive the pace.
    """

    def __init__(
        self,
        session: Any = None,
        base_url: str = "",
        *,
        timeout: float = 10.0,
        clock: Clock | None = None,
        rate: float = 1.0,
        burst: int = 5,
        wall: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        from marketdash.providers.yahoo_wire import Wire  # imports yfinance, which takes a second

        self.timeout = timeout
        self.clock = clock or SystemClock()
        self.wall = wall
        self._wire = Wire(session, base_url, timeout)
        self._bucket = TokenBucket(rate, burst, wall, sleep)
        self._pause = Pause(60.0, 900.0, wall)
        self._known: set[str] = set()
        self._unknown: dict[str, float] = {}

    def __enter__(self) -> YahooClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the session's connections."""
        self._wire.close()

    @property
    def unknown(self) -> tuple[str, ...]:
        """Symbols that Yahoo did not know of late; they are not asked for."""
        return tuple(symbol for symbol in self._unknown if self._is_unknown(symbol))

    def quotes(self, symbols: Iterable[str]) -> list[Record]:
        """The present quote records of these symbols, as Yahoo words them, without those it does not know."""
        asked = [symbol for symbol in dict.fromkeys(symbols) if not self._is_unknown(symbol)]
        chunks = [asked[i : i + SYMBOLS_PER_REQUEST] for i in range(0, len(asked), SYMBOLS_PER_REQUEST)]
        return [record for chunk in chunks for record in self._quotes(chunk)]

    def history(
        self, instrument: Instrument, width: str, period: str = "", delay: pd.Timedelta | None = None
    ) -> pd.DataFrame:
        """Past bars of an instrument as rows of the topic bars, oldest first, without sequence numbers.

        `width` is `1min` (with the hours before and after, five days) or `1d` (one year); `period` is another
        stretch in Yahoo's words, such as `1mo`. `delay` is how late the feed is.
        """
        if width not in INTERVALS:
            raise UnknownNameError("width of Yahoo's bars", width, INTERVALS)
        interval, longest = INTERVALS[width]
        what = f"Yahoo, {width} bars of {instrument.symbol}"
        if self._is_unknown(instrument.symbol):
            raise YahooError(what, "a symbol that Yahoo knows", repr(instrument.symbol), status=404)
        extended = "false" if width == "1d" else "true"
        params = {"range": period or longest, "interval": interval, "includePrePost": extended}
        try:
            envelope = self._ask(what, CHART_URL + quote(instrument.symbol, safe=""), params, "chart")
        except YahooError as error:
            if error.status == 404 and instrument.symbol not in self._known:
                self._forget(instrument.symbol)
            raise
        late_us = 0 if delay is None else int(delay.value // 1000)
        try:
            return bars_of(envelope[0], instrument, width, self.clock.now_us(), late_us)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            got = f"{type(error).__name__}: {error}"
            raise YahooError(what, "a chart of times and prices", got) from error

    def probe(self, timeout: float = 3.0) -> Reach:
        """Whether Yahoo answers a question within `timeout` seconds; never raises, never waits longer."""
        found: SimpleQueue[Reach] = SimpleQueue()

        def ask() -> None:
            try:
                self._ask("Yahoo", QUOTE_URL, {"symbols": "AAPL"}, "quoteResponse")
            except MarketdashError as error:
                found.put(Reach(False, str(error)))
            else:
                found.put(Reach(True, "Yahoo answers."))

        # A thread of its own, left behind if need be: a look-up of a host's name cannot be interrupted.
        threading.Thread(target=ask, name="yahoo-probe", daemon=True).start()
        try:
            return found.get(timeout=timeout)
        except Empty:
            return Reach(False, f"Yahoo did not answer within {timeout:g} s.")

    def _quotes(self, symbols: list[str]) -> list[Record]:
        what = f"Yahoo, quotes of {', '.join(symbols[:3])}{' …' if len(symbols) > 3 else ''}"
        records = self._ask(what, QUOTE_URL, {"symbols": ",".join(symbols)}, "quoteResponse")
        priced = [r for r in records if isinstance(r, dict) and _is_price(r.get("regularMarketPrice"))]
        found = {str(record.get("symbol")) for record in priced}
        missing = [symbol for symbol in symbols if symbol not in found and symbol not in self._known]
        if not priced and len(missing) < len(symbols):
            raise YahooError(what, "a quote of at least one of them", "none")
        self._known |= found
        for symbol in missing:
            self._forget(symbol)
        return [record for record in priced if str(record["symbol"]) in symbols]

    def _ask(self, what: str, url: str, params: dict[str, str], envelope: str) -> list[Any]:
        """Ask for one JSON answer and take the result out of its envelope."""
        if wait := self._pause.remaining:
            raise RateLimited(what, wait)
        self._bucket.take()
        try:
            status, text = self._wire.get(url, params)
        except Exception as error:
            # Two HTTP libraries and yfinance each raise what they like, some of it by mistake.
            raise _unreachable(what, error, self.timeout) from error
        if status == 429:
            self._pause.refused()
            raise RateLimited(what, self._pause.remaining)
        result = _result(what, status, text, envelope)
        self._pause.answered()
        return result

    def _is_unknown(self, symbol: str) -> bool:
        return self._unknown.get(symbol, 0.0) > self.wall()

    def _forget(self, symbol: str) -> None:
        self._unknown[symbol] = self.wall() + UNKNOWN_FOR


def _result(what: str, status: int, text: str, envelope: str) -> list[Any]:
    try:
        answer = json.loads(text)
    except ValueError as error:
        if status == 200:
            got = f"{text[:60]!r}"
            hint = "Yahoo is down for maintenance." if "Will be right back" in text else ""
            raise YahooError(what, "an answer in JSON", got, hint) from error
        answer = {}
    inside = answer.get(envelope) if isinstance(answer, dict) else None
    problem = _problem(answer)
    if status != 200 or problem:
        raise YahooError(what, "an answer", f"{status} {problem}".strip(), _hint(status), status)
    result = inside.get("result") if isinstance(inside, dict) else None
    if not isinstance(result, list) or (envelope == "chart" and not result):
        raise YahooError(what, f"a list as the result of {envelope!r}", repr(text[:60]))
    return result


def _problem(answer: Any) -> str:
    """Yahoo's own words for what went wrong, under whichever envelope it puts them."""
    for inside in answer.values() if isinstance(answer, dict) else ():
        if isinstance(inside, dict) and isinstance(error := inside.get("error"), dict):
            return f"{error.get('code', '')}: {error.get('description', '')}"
    return ""


def _hint(status: int) -> str:
    if status in (401, 403):
        return "Yahoo did not accept this session's cookie and crumb; the next attempt asks for new ones."
    return "The fault is at Yahoo's end and usually passes." if status >= 500 else ""


def _unreachable(what: str, error: Exception, timeout: float) -> SourceError:
    # The root of the matter stands last, behind a chain of wrappers and the whole address.
    reason = str(error).partition(" See https://")[0].rpartition("Caused by ")[2].strip("() ")[:150]
    hint = "Is this machine connected? Without a network, open a simulated market or a recorded session."
    return SourceError(what, f"an answer within {timeout:g} s", f"{type(error).__name__}: {reason}", hint)


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


__all__ = ["RateLimited", "Reach", "YahooClient", "YahooError"]
