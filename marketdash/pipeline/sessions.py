"""The trading sessions of a universe as the tables that kernels look moments up in."""

from __future__ import annotations

import numpy as np

from marketdash.calendars import DAY_US, calendar
from marketdash.instruments import Universe


class SessionTable:
    """Segments of every calendar of a universe, one under the other, over a stretch of time that grows.

    `segments[row]` is one segment (columns of `calendars.Segments`), `spans[instrument]` the rows of its
    calendar from (inclusive) to (exclusive), `calendar_spans` the same once per calendar. Each calendar's
    rows cover all of time, so that every moment is found; only inside the stretch are the hours true.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        self.first = self.last = 0
        self.segments = np.zeros((0, 7), np.int64)
        self.spans = np.zeros((len(universe), 2), np.int64)
        self.calendar_spans = np.zeros((0, 2), np.int64)
        self.generation = 0

    def cover(self, first: int, last: int) -> None:
        """Make sure that both moments lie inside; costs nothing while they do."""
        if self.generation and self.first <= first and last <= self.last:
            return
        # Widened by weeks, so that a moving "now" makes it grow seldom.
        self.first = min(first - 14 * DAY_US, self.first) if self.generation else first - 14 * DAY_US
        self.last = max(last + 14 * DAY_US, self.last)
        parts, spans, rows = [], [], 0
        for name in self.universe.calendars:
            part = np.column_stack(calendar(name).segments(self.first, self.last))
            spans.append((rows, rows + len(part)))
            self.spans[self.universe.by_calendar[name]] = spans[-1]
            parts.append(part)
            rows += len(part)
        self.segments = np.ascontiguousarray(np.concatenate(parts)) if parts else self.segments
        self.calendar_spans = np.array(spans, np.int64).reshape(-1, 2)
        self.generation += 1

    def pointers(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Where each instrument's search begins; one such array per kernel."""
        return self.spans[:, 0].copy()
