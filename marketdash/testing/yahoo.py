"""A local server that speaks Yahoo Finance's protocol: a market that a test writes, and faults on demand."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from marketdash.clock import Clock, SystemClock
from marketdash.errors import UnknownNameError

Fault = Literal[
    "rate_limit", "bad_crumb", "not_found", "server_error", "maintenance", "empty", "nulls", "torn", "hold",
    "reset",
]  # fmt: skip
"""What may go wrong: 429 as text, 401 Invalid Crumb, 404 and 500 as JSON, a page instead of JSON, no results,
nulls among the prices, half an answer, no answer before `release()`, a connection that is cut."""

Bar = tuple[int, float | None, float | None, float | None, float | None, float | None]
"""Seconds since 1970, open, high, low, close, volume; None is Yahoo's null."""

_MARKETS = {
    "NS": ("NSI", "INR", "Asia/Kolkata"),
    "BO": ("BSE", "INR", "Asia/Kolkata"),
    "L": ("LSE", "GBp", "Europe/London"),
    "T": ("JPX", "JPY", "Asia/Tokyo"),
    "HK": ("HKG", "HKD", "Asia/Hong_Kong"),
    "DE": ("GER", "EUR", "Europe/Berlin"),
}


@dataclass(frozen=True)
class Request:
    """One request as it came: its endpoint (`cookie crumb consent quote chart other`) and what it asked."""

    endpoint: str
    host: str
    path: str
    query: dict[str, str]


@dataclass
class Listing:
    """One symbol's quote record, in Yahoo's words, and the bars of its charts by Yahoo's intervals."""

    quote: dict[str, Any]
    bars: dict[str, list[Bar]] = field(default_factory=dict)


@dataclass
class _Trouble:
    fault: Fault
    endpoint: str
    symbol: str
    times: int | None


class FakeYahoo:
    """Yahoo on this machine, for as long as the `with` block lasts.

    Give `url` to `YahooClient(base_url=…)` or to the setting `yahoo_url`. A symbol that was not added is
    unknown. Times are the clock's unless given, in seconds since 1970. Every request is kept in `requests`.

        with FakeYahoo() as yahoo:
            yahoo.add("AAPL", 271.49, volume=1_000_000)
            source = YahooSource("AAPL", client=YahooClient(base_url=yahoo.url))
            yahoo.trade("AAPL", 271.55, 300)
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.crumb = "a.crumb"
        self.listings: dict[str, Listing] = {}
        self.requests: list[Request] = []
        self._troubles: list[_Trouble] = []
        self._lock = threading.RLock()
        self._gate = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeYahoo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let held answers go and stop listening."""
        self._gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(
        self, symbol: str, price: float, volume: float = 0, time: float | None = None, **fields: Any
    ) -> None:
        """List a symbol; `fields` are more of its quote record, such as `exchangeDataDelayedBy=15`."""
        quote = {**_facts(symbol), "regularMarketPrice": price, "regularMarketVolume": volume}
        quote |= {"regularMarketTime": self._seconds(time), **fields}
        with self._lock:
            self.listings[symbol] = Listing(quote)

    def trade(self, symbol: str, price: float, size: float = 0, time: float | None = None) -> None:
        """Let it trade in the regular session: a new price, and more volume."""
        with self._lock:
            quote = self.listings[symbol].quote
            volume = quote["regularMarketVolume"] + size
            self.update(
                symbol,
                regularMarketPrice=price,
                regularMarketVolume=volume,
                regularMarketTime=self._seconds(time),
            )

    def update(self, symbol: str, **fields: Any) -> None:
        """Set fields of a quote record; None takes a field away."""
        with self._lock:
            quote = self.listings[symbol].quote | fields
            self.listings[symbol].quote = {name: value for name, value in quote.items() if value is not None}

    def chart(self, symbol: str, interval: str, bars: Sequence[Bar]) -> None:
        """Set the bars of a chart; until then a symbol has a few flat ones before its last trade."""
        with self._lock:
            self.listings[symbol].bars[interval] = list(bars)

    def fail(self, fault: Fault, endpoint: str = "", symbol: str = "", times: int | None = None) -> None:
        """Answer with a fault: at every endpoint or one, for every chart or a symbol's, always or `times`."""
        if fault not in get_args(Fault):
            raise UnknownNameError("fault", fault, get_args(Fault))
        if fault == "hold":
            self._gate.clear()
        with self._lock:
            self._troubles.append(_Trouble(fault, endpoint, symbol, times))

    def recover(self) -> None:
        """Forget all faults, and let held answers go."""
        with self._lock:
            self._troubles.clear()
        self.release()

    def release(self) -> None:
        """Let the answers that are held go."""
        self._gate.set()

    def count(self, endpoint: str) -> int:
        """How many requests came to an endpoint."""
        with self._lock:
            return sum(request.endpoint == endpoint for request in self.requests)

    def _seconds(self, time: float | None) -> int:
        return int(self.clock.now_us() // 1_000_000 if time is None else time)

    def _take(self, request: Request) -> Fault | None:
        """Note the request, and the fault that it is to meet."""
        with self._lock:
            self.requests.append(request)
            for trouble in self._troubles:
                if trouble.endpoint and trouble.endpoint != request.endpoint:
                    continue
                if trouble.symbol and request.path.rpartition("/")[2] != trouble.symbol:
                    continue
                if trouble.times is not None:
                    trouble.times -= 1
                    if trouble.times == 0:
                        self._troubles.remove(trouble)
                return trouble.fault
        return None

    def _answer(self, request: Request, fault: Fault | None) -> tuple[int, Any]:
        with self._lock:
            if request.endpoint in ("cookie", "consent"):
                return 200, "<html></html>"
            if request.endpoint == "crumb":
                return 200, self.crumb
            if request.endpoint == "quote":
                return self._quotes(request, fault)
            if request.endpoint == "chart":
                return self._chart(request, fault)
        return 404, _refusal("finance", "Not Found", "No such page")

    def _quotes(self, request: Request, fault: Fault | None) -> tuple[int, Any]:
        if request.query.get("crumb") != self.crumb:
            return 401, _refusal("finance", "Unauthorized", "Invalid Crumb")
        symbols = request.query.get("symbols", "").split(",")
        found = [self.listings[symbol].quote for symbol in symbols if symbol in self.listings]
        if fault == "nulls":
            found = [{name: None if "regular" in name else quote[name] for name in quote} for quote in found]
        return 200, {"quoteResponse": {"result": [] if fault == "empty" else found, "error": None}}

    def _chart(self, request: Request, fault: Fault | None) -> tuple[int, Any]:
        symbol, interval = request.path.rpartition("/")[2], request.query.get("interval", "1d")
        listing = self.listings.get(symbol)
        if listing is None:
            return 404, _refusal("chart", "Not Found", "No data found, symbol may be delisted")
        if fault == "empty":
            return 200, {"chart": {"result": [], "error": None}}
        bars = listing.bars.get(interval)
        if bars is None:
            bars = _flat(listing.quote, interval)
        if fault == "nulls":
            bars = [(bar[0], None, None, None, None, None) if i % 2 else bar for i, bar in enumerate(bars)]
        return 200, {"chart": {"result": [_chart_result(listing.quote, interval, bars)], "error": None}}


def _facts(symbol: str) -> dict[str, Any]:
    """What Yahoo tells about a symbol beside its prices, guessed from how it is spelled."""
    kind, market = "EQUITY", ("NMS", "USD", "America/New_York")
    if symbol.endswith("=X"):
        kind, market = "CURRENCY", ("CCY", symbol[-5:-2], "Europe/London")
    elif symbol.endswith("=F"):
        kind, market = "FUTURE", ("CME", "USD", "America/New_York")
    elif symbol.startswith("^"):
        kind, market = "INDEX", ("SNP", "USD", "America/New_York")
    elif "-" in symbol and len(symbol.partition("-")[2]) == 3:
        kind, market = "CRYPTOCURRENCY", ("CCC", symbol.partition("-")[2], "UTC")
    else:
        market = _MARKETS.get(symbol.rpartition(".")[2], market)
    exchange, currency, zone = market
    names = {"symbol": symbol, "shortName": symbol, "longName": symbol, "quoteType": kind}
    place = {"exchange": exchange, "currency": currency, "exchangeTimezoneName": zone}
    return {**names, **place, "marketState": "REGULAR", "exchangeDataDelayedBy": 0, "priceHint": 2}


def _flat(quote: dict[str, Any], interval: str) -> list[Bar]:
    price, last, step = quote["regularMarketPrice"], quote["regularMarketTime"] // 60 * 60, 60
    if interval == "1d":
        step = 86_400
    return [(last - i * step, price, price, price, price, 100) for i in range(29, -1, -1)]


def _chart_result(quote: dict[str, Any], interval: str, bars: Sequence[Bar]) -> dict[str, Any]:
    meta = {
        "symbol": quote["symbol"],
        "currency": quote["currency"],
        "exchangeName": quote["exchange"],
        "instrumentType": quote["quoteType"],
        "exchangeTimezoneName": quote["exchangeTimezoneName"],
        "regularMarketPrice": quote.get("regularMarketPrice"),
        "priceHint": quote["priceHint"],
        "dataGranularity": interval,
        "validRanges": ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"],
    }
    if not bars:  # Yahoo then leaves the times out altogether
        return {"meta": meta, "indicators": {"quote": [{}]}}
    columns = dict(
        zip(("open", "high", "low", "close", "volume"), list(zip(*bars, strict=True))[1:], strict=True)
    )
    return {"meta": meta, "timestamp": [bar[0] for bar in bars], "indicators": {"quote": [columns]}}


def _refusal(envelope: str, code: str, description: str) -> dict[str, Any]:
    return {envelope: {"result": None, "error": {"code": code, "description": description}}}


def _endpoint(host: str, path: str) -> str:
    known = {"/v1/test/getcrumb": "crumb", "/consent": "consent", "/v7/finance/quote": "quote"}
    if path.startswith("/v8/finance/chart/"):
        return "chart"
    return "cookie" if path == "/" else known.get(path, "other")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away before it is answered is part of the play."""


def _handler(yahoo: FakeYahoo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            host, path = self.headers.get("X-Orig-Host", ""), unquote(url.path)
            request = Request(_endpoint(host, path), host, path, dict(parse_qsl(url.query)))
            self._send(*_spoilt(request, yahoo._take(request), yahoo, self.connection))

        do_POST = do_GET

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep tests quiet."""

    return Handler


def _spoilt(
    request: Request, fault: Fault | None, yahoo: FakeYahoo, connection: socket.socket
) -> tuple[int, bytes]:
    """Status and body of the answer, after the fault has had its way with it."""
    if fault == "hold":
        yahoo._gate.wait()
    if fault == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError("cut, as was asked for")
    if fault == "rate_limit":
        return 429, b"Too Many Requests"
    if fault == "maintenance":
        return 200, b"<html>Will be right back</html>"
    status, answer = yahoo._answer(request, fault)
    if fault == "bad_crumb":
        status, answer = 401, _refusal("finance", "Unauthorized", "Invalid Crumb")
    if fault == "not_found":
        status, answer = 404, _refusal(request.endpoint, "Not Found", "No data found, symbol may be delisted")
    if fault == "server_error":
        status, answer = 500, _refusal("finance", "internal-error", "Something went wrong")
    body = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
    return status, body[: len(body) // 2] if fault == "torn" else body


__all__ = ["Bar", "FakeYahoo", "Fault", "Listing", "Request"]
