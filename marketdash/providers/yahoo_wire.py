"""The one place that touches yfinance: its cookies, its crumb and its repeated requests, nothing more."""

from __future__ import annotations

import logging
import threading
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import requests
from curl_cffi import requests as curl
from yfinance.data import YfData
from yfinance.exceptions import YFRateLimitError

RATE_LIMITED = 429


class Answer(NamedTuple):
    """What came back, whatever it says."""

    status: int
    text: str


class Wire:
    """Asks Yahoo through a yfinance session that nobody else in the process shares.

    `session` may be any curl_cffi or requests session; without one a browser-like curl_cffi session is
    made, or, if `base_url` is set, a session that sends everything to that address.
    """

    def __init__(self, session: Any = None, base_url: str = "", timeout: float = 10.0) -> None:
        self.timeout = timeout
        if session is None:
            session = RedirectedSession(base_url, timeout) if base_url else BrowserSession(timeout)
        self.session = session
        # YfData is a singleton: a person's own yfinance calls in the same notebook, or a client with another
        # address, would change session, cookie and crumb under our feet. So its metaclass is passed by.
        self._yfinance = type.__call__(_Conversation, session=session)
        logging.getLogger("yfinance").addFilter(_drop_ours)

    def get(self, url: str, params: dict[str, str]) -> Answer:
        """Ask, and return status and body; only what is not an answer at all is raised."""
        _ours.asking = True
        try:
            response = self._yfinance.get(url, params=params, timeout=self.timeout)
        except YFRateLimitError:
            return Answer(RATE_LIMITED, "Too Many Requests")
        finally:
            _ours.asking = False
        return Answer(int(response.status_code), str(response.text))

    def close(self) -> None:
        self.session.close()


_ours = threading.local()


def _drop_ours(record: logging.LogRecord) -> bool:
    """Keep yfinance quiet about what we ask, since we raise it; a person's own calls may still warn."""
    return not getattr(_ours, "asking", False)


class _Conversation(YfData):
    """Keeps its cookie in memory.

    yfinance keeps it in a SQLite file, and where it cannot, it asks for a new one before every request. A
    stand-in must neither get Yahoo's cookie nor replace it.
    """

    def _load_cookie_curlCffi(self) -> bool:
        return False

    def _save_cookie_curlCffi(self) -> bool:
        self._cookie = True
        return True


class BrowserSession(curl.Session):  # type: ignore[type-arg]
    """Looks like a browser to Yahoo; no request waits longer than `limit` seconds.

    yfinance asks for cookie and crumb with 30 seconds each, whatever it is told.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(impersonate="chrome")
        self.limit = limit

    def request(self, method: Any, url: str, *args: Any, **options: Any) -> Any:
        options["timeout"] = _at_most(self.limit, options.get("timeout"))
        return super().request(method, url, *args, **options)


class RedirectedSession(requests.Session):
    """Sends every request to another scheme and host, naming the one that was meant in X-Orig-Host."""

    def __init__(self, base_url: str, limit: float) -> None:
        super().__init__()
        self.base = urlsplit(base_url)
        self.limit = limit
        self.trust_env = False  # a proxy from the environment must not get between us and a local server

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        meant = urlsplit(str(url))
        options["timeout"] = _at_most(self.limit, options.get("timeout"))
        options["headers"] = {**(options.get("headers") or {}), "X-Orig-Host": meant.netloc}
        target = urlunsplit((self.base.scheme, self.base.netloc, meant.path or "/", meant.query, ""))
        return super().request(method, target, *args, **options)


def _at_most(limit: float, timeout: Any) -> float:
    return min(limit, timeout) if isinstance(timeout, int | float) else limit
