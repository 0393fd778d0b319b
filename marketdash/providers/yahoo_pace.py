"""How often Yahoo may be asked: a token bucket, and a pause after a refusal."""

from __future__ import annotations

import threading
from collections.abc import Callable


class TokenBucket:
    """Lets `burst` requests through at once, then `rate` per second; the others wait their turn."""

    def __init__(
        self, rate: float, burst: int, wall: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self.rate, self.burst = rate, burst
        self._wall, self._sleep = wall, sleep
        self._tokens, self._since = float(burst), wall()
        self._lock = threading.Lock()

    def take(self) -> None:
        """Return when one more request may go out."""
        with self._lock:
            now = self._wall()
            self._tokens = min(self.burst, self._tokens + (now - self._since) * self.rate)
            self._since = now
            # Below zero is a place in the queue, so that the sleep needs no lock.
            self._tokens -= 1
            wait = -self._tokens / self.rate
        if wait > 0:
            self._sleep(wait)


class Pause:
    """A silence after each refusal, twice as long every time, until an answer comes."""

    def __init__(self, first: float, limit: float, wall: Callable[[], float]) -> None:
        self.first, self.limit = first, limit
        self._wall = wall
        self._refusals, self._until = 0, wall()
        self._lock = threading.Lock()

    @property
    def remaining(self) -> float:
        """Seconds for which nothing may be asked."""
        return max(self._until - self._wall(), 0.0)

    def refused(self) -> None:
        """Begin a silence; a refusal of something asked before it began does not lengthen it."""
        with self._lock:
            if self.remaining == 0:
                self._until = self._wall() + min(self.first * 2.0**self._refusals, self.limit)
                self._refusals += 1

    def answered(self) -> None:
        with self._lock:
            self._refusals = 0
