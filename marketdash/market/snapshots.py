"""When a replay takes snapshots of its graph, and when it goes by them in place of playing all rows."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Hashable

from marketdash.bus import LocalBus
from marketdash.log import SessionLog
from marketdash.pipeline.graph import Graph
from marketdash.pipeline.snapshots import Behind, Chain
from marketdash.sources.replay import ReplaySource

SNAPSHOT_ROWS = 500_000
"""Rows between two snapshots: played in 50 ms. A snapshot of 2,500 instruments is restored in about as long.

With a million the slowest seeks take a third longer, and a day of 20 million ticks fills 1.1 GB in place of 1.5.
"""

_lock = threading.Lock()
_Chains = weakref.WeakValueDictionary[Hashable, Chain]
_chains: weakref.WeakKeyDictionary[SessionLog, _Chains] = weakref.WeakKeyDictionary()


class Snapshots:
    """Those of one replay: taken at marks `SNAPSHOT_ROWS` apart, and shared by all that play its log in the same way.

    What a graph holds is known from the rows that went through it. It is not any more when something was fed by hand,
    a stage has failed, or an indicator was asked for while bars went by: such a graph takes no snapshots, and goes by
    none, until it has gone back. Nor does one to which somebody listens, who must hear what lies between. The
    snapshots are there as long as a market that plays this way is open.
    """

    def __init__(self, source: ReplaySource, graph: Graph, bus: LocalBus, budget: int) -> None:
        self._source, self._graph, self._bus, self._budget = source, graph, bus, budget
        self._passed, self._errors, self._spoilt = 0, 0, False
        self._chain: tuple[Hashable, Chain] | None = None
        source.halt_at(_marks(source.log) if budget > 0 else ())
        if source.marks:  # else nothing has to be watched, which costs a little
            self._behind = Behind(graph.store)

    def spoil(self) -> None:
        """Something goes into the graph that is not in the log."""
        self._spoilt = True

    def approach(self, until_us: int, *, back: bool) -> None:
        """Bring source and graph to where the rows up to a moment are to be played from; `back` if it lies behind."""
        mark = 0
        if self._source.marks and not self._is_heard and (back or self._is_pure):
            mark = min(bisect_right(self._source.marks, until_us), len(self._shared()))
        if mark > (0 if back else self._passed):
            self._shared().restore(mark, self._graph)
            self._source.rewind(self._source.marks[mark - 1])
            self._begin(mark)
        elif back:
            self._graph.reset()
            self._source.rewind()
            self._begin(0)

    def look(self) -> None:
        """A batch of the log went through the graph: take a snapshot if this is the moment for it."""
        passed = self._source.marks_passed
        if passed == self._passed or self._graph.ending:
            return
        self._passed = passed
        if self._is_pure and not self._is_heard:
            self._shared().add(passed, self._graph, self._behind)
        self._behind.begin()

    def close(self) -> None:
        """No more of them: their file goes away with the last market that has them."""
        self._source.halt_at(())
        self._chain = None

    def _begin(self, mark: int) -> None:
        self._passed, self._errors, self._spoilt = mark, self._graph.errors, False
        if self._source.marks:
            self._behind.begin()

    @property
    def _is_pure(self) -> bool:
        """Whether the graph is as any other one would be that has played the same rows in the same way."""
        return not self._spoilt and self._graph.errors == self._errors and self._graph.derive.is_whole

    @property
    def _is_heard(self) -> bool:
        return self._graph.is_heard or len(self._bus) > 1

    def _shared(self) -> Chain:
        ways = (SNAPSHOT_ROWS, self._graph.ways)
        if self._chain is None or self._chain[0] != ways:
            with _lock:
                chains = _chains.setdefault(self._source.log, weakref.WeakValueDictionary())
                self._chain = ways, chains.setdefault(ways, Chain(self._budget))
        return self._chain[1]


def _marks(log: SessionLog) -> list[int]:
    """The moments by which each `SNAPSHOT_ROWS` more rows of a log are known."""

    def known(us: int) -> int:
        return sum(log.rows_until(us).values())

    moments = range(log.first, log.last + 1)
    wanted = range(SNAPSHOT_ROWS, known(log.last), SNAPSHOT_ROWS)
    return sorted({moments[bisect_left(moments, rows, key=known)] for rows in wanted})
