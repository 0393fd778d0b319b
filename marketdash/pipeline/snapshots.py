"""Snapshots of graphs: taken one after the other while a log is played, kept on disk, and put back."""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from marketdash.frames.bars import RECORD, TIME, BarStore, Ints
from marketdash.pipeline import snapshot_kernels
from marketdash.pipeline.graph import Graph

_SMALL = 4096
"""Arrays of fewer bytes stay in memory."""
_LINE = 64

_chains: weakref.WeakSet[Chain] = weakref.WeakSet()
_chains_lock = threading.Lock()


class Behind:
    """Tells of the bars of a store that had been begun at a mark which of them have changed since.

    By instrument and width: `first` is the number of the first bar that has changed or come since the mark, except
    where `changed` says that an older one has changed as well.
    """

    def __init__(self, store: BarStore) -> None:
        self.store = store
        self.begin()
        store.tell_past = self._hear

    def begin(self) -> None:
        """A mark is passed: nothing has changed since."""
        self.first = np.maximum(self.store.totals - 1, 0)
        self._starts = self.store.heads[:, :, TIME].copy()
        self.changed = np.zeros(self.first.shape, np.bool_)

    def _hear(self, past: Ints) -> None:
        width, instrument, start = past[:, 0], past[:, 1], past[:, 2]
        before = start < self._starts[instrument, width]
        self.changed[instrument[before], width[before]] = True


class _Laid(NamedTuple):
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Snapshot(NamedTuple):
    """A graph's state, and the bars of the rings that have changed or come since the snapshot before.

    Arrays are by instrument and width: bars from number `first` to before `stop` lie from record `places` on.
    """

    state: Any
    capacities: Ints
    first: Ints
    stop: Ints
    places: Ints
    bars: _Laid


class Chain:
    """Snapshots of one log, played in one way, at marks 1, 2, 3 …: any graph of that way adds the next, or takes one.

    A bar that is behind the newest rarely changes, so each snapshot keeps only those that came since the one before:
    a day of 20 million ticks of 2,500 instruments fills 1.5 GB, in place of 40 times 0.4. They lie in a file that has
    no name and goes away with this object. All chains of the process have `budget` bytes together; when they are used
    up, or the disk fails, no more snapshots are taken. Safe to use from many threads.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.nbytes = budget, 0
        self._kept: list[_Snapshot] = []
        self._lock = threading.Lock()
        self._file: Any = None
        self._map: mmap.mmap
        self._full = budget <= 0
        with _chains_lock:
            _chains.add(self)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, mark: int, graph: Graph, behind: Behind) -> None:
        """Take a snapshot at a mark, unless it is there already or the one before is missing."""
        with self._lock:
            if self._full or mark != len(self._kept) + 1:
                return
            try:
                self._kept.append(self._taken(graph, behind))
            except (OSError, MemoryError):
                self._full = True

    def restore(self, mark: int, graph: Graph) -> None:
        """Bring a graph to where a snapshot was taken."""
        kept, store = self._kept[mark - 1], graph.store
        store.grow(kept.capacities)
        graph.restore(self._looked_up(kept.state))
        memory = store.memory
        for width in store.active.tolist():
            low = np.maximum(store.totals[:, width] - memory.capacities[width], 0)
            high = kept.stop[:, width].copy()
            for part in reversed(self._kept[:mark]):
                if not snapshot_kernels.put_back(
                    memory.ints, memory.offsets[width], memory.capacities[width], low, high, part.first[:, width],
                    part.places[:, width], self._array(part.bars),
                ):  # fmt: skip
                    break

    def _taken(self, graph: Graph, behind: Behind) -> _Snapshot:
        store = graph.store
        # The newest bars are in `heads`, and their places in the rings still those of the bars before them.
        stop = np.maximum(store.totals - 1, 0)
        oldest = np.maximum(store.totals - store.memory.capacities, 0)
        first = np.where(behind.changed, oldest, np.clip(behind.first, oldest, stop))
        counts = stop - first
        places = (np.cumsum(counts.T.ravel()) - counts.T.ravel()).reshape(counts.T.shape).T
        state = graph.snapshot()
        self._make_sure_of(int(counts.sum()) * RECORD * 8 + _size(state) + _SMALL)
        self.nbytes += -self.nbytes % _LINE
        begin = self.nbytes
        for width in store.active.tolist():
            self._write(_records(store, width, first[:, width], stop[:, width]))
        bars = _Laid(begin, (int(counts.sum()) * RECORD,), np.dtype(np.int64))
        return _Snapshot(self._laid(state), store.memory.capacities.copy(), first, stop, places, bars)

    def _make_sure_of(self, size: int) -> None:
        with _chains_lock:
            used = sum(chain.nbytes for chain in _chains)
        if used + size > self.budget:
            raise OSError("The budget for snapshots is used up")
        if self._file is None:
            # It is as long as it may get from the start, but holds nothing: so it is mapped only once.
            self._file = tempfile.TemporaryFile(prefix="marketdash-", buffering=0)  # noqa: SIM115  # closed below
            weakref.finalize(self, self._file.close)
            os.truncate(self._file.fileno(), self.budget)
            self._map = mmap.mmap(self._file.fileno(), self.budget, access=mmap.ACCESS_READ)

    def _write(self, array: npt.NDArray[Any]) -> _Laid:
        laid = _Laid(self.nbytes, array.shape, array.dtype)
        rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._file.seek(laid.offset)
        while len(rest):
            rest = rest[self._file.write(rest) :]
        self.nbytes += array.nbytes
        return laid

    def _array(self, laid: _Laid) -> npt.NDArray[Any]:
        return np.ndarray(laid.shape, laid.dtype, self._map, laid.offset)

    def _laid(self, state: Any) -> Any:
        """The state with its large arrays put into the file."""
        if isinstance(state, np.ndarray) and state.nbytes >= _SMALL:
            self.nbytes += -self.nbytes % _LINE
            return self._write(state)
        return _mapped(self._laid, state)

    def _looked_up(self, state: Any) -> Any:
        return self._array(state) if isinstance(state, _Laid) else _mapped(self._looked_up, state)


def _mapped(function: Any, state: Any) -> Any:
    """The state with the function applied to what its tuples and dicts hold."""
    if type(state) is tuple:
        return tuple(function(part) for part in state)
    if type(state) is dict:
        return {name: function(part) for name, part in state.items()}
    return state


def _size(state: Any) -> int:
    """How many bytes the arrays of a state have; batches are but referred to."""
    if type(state) is dict:
        state = tuple(state.values())
    if type(state) is tuple:
        return sum(_size(part) + _LINE for part in state)
    return state.nbytes if isinstance(state, np.ndarray) else 0


def _records(store: BarStore, width: int, first: Ints, stop: Ints) -> Ints:
    """The bars of all instruments from number `first` to before `stop`, one instrument after the other."""
    counts, memory = stop - first, store.memory
    out = np.empty(int(counts.sum()) * RECORD, np.int64)
    snapshot_kernels.take_out(
        memory.ints,
        memory.offsets[width],
        memory.capacities[width],
        first,
        stop,
        np.cumsum(counts) - counts,
        out,
    )
    return out


__all__ = ["Behind", "Chain"]
