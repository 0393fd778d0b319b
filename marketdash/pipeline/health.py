"""What every stage has done, how long it took, what it could not handle, and what went wrong in it."""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, count
from math import log2
from typing import Any

import pandas as pd

log = logging.getLogger(__name__)

COUNTERS = ("queue", "dropped", "conflated", "late", "revised", "quarantined")
"""What a stage counts beside its work, in rows; `queue` is what waits now."""

Counts = Mapping[str, int | Mapping[str, int]]
"""Rows by counter, or by counter and reason."""

_FLOOR_S, _CEILING_S, _STEPS = 1e-6, 1e6, 8


class Lag:
    """How long rows took from their arrival until they were handled: of the last half to whole minute.

    Bins are an eighth of an octave wide, so that a percentile is right within 5 %; from a microsecond to eleven days.
    """

    SPAN_S = 30.0

    def __init__(self) -> None:
        self._bins, self._before = self._empty(), self._empty()
        self._turn = 0.0

    @staticmethod
    def _empty() -> list[int]:
        return [0] * (int(log2(_CEILING_S / _FLOOR_S) * _STEPS) + 1)

    def note(self, seconds: float, now: float) -> None:
        """Count a delay; `now` is the time on any clock that does not go back. Costs 0.2 µs."""
        if now >= self._turn:
            self._before = self._bins if now < self._turn + self.SPAN_S else self._empty()
            self._bins, self._turn = self._empty(), now + self.SPAN_S
        self._bins[int(log2(seconds / _FLOOR_S) * _STEPS) if _FLOOR_S < seconds < _CEILING_S else 0] += 1

    def percentile(self, share: float) -> float | None:
        """The delay in milliseconds that `share` of the batches did not exceed; None when there were none."""
        bins = [new + old for new, old in zip(self._bins, self._before, strict=True)]
        if not any(bins):
            return None
        place = next(i for i, number in enumerate(accumulate(bins)) if number and number >= share * sum(bins))
        return float(_FLOOR_S * 2 ** ((place + 0.5) / _STEPS) * 1e3)

    def clear(self) -> None:
        """Forget all delays."""
        self._bins, self._before = self._empty(), self._empty()


@dataclass
class Arrival:
    """When the event that is on its way has come, on the clock of `time.perf_counter`; 0 when nobody knows."""

    at: float = 0.0


@dataclass
class Stage:
    """One stage: rows and batches handled, seconds spent, lag, what it has counted, errors, and the last one's text."""

    name: str
    arrival: Arrival = field(default_factory=Arrival, repr=False)
    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    errors: int = 0
    consecutive_errors: int = 0
    last_error: str = ""
    lag: Lag = field(default_factory=Lag, repr=False)
    _counted: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)
    _ask: Callable[[], Counts] | None = field(default=None, repr=False)

    def worked(self, rows: int, seconds: float, arrived: float | None = None) -> None:
        """Count a batch that was handled; it had come at `arrived`, or when the event on its way did."""
        self.rows += rows
        self.batches += 1
        self.seconds += seconds
        self.consecutive_errors = 0
        since = self.arrival.at if arrived is None else arrived
        if since:
            now = time.perf_counter()
            self.lag.note(now - since, now)

    def count(self, counter: str, rows: int, reason: str = "") -> None:
        """Add rows to one of COUNTERS."""
        self._counted[counter, reason] += rows

    def reads(self, counted: object) -> None:
        """From now on ask an object what it has counted, whenever somebody looks; it costs nothing until then.

        The object has a method `counts()` that returns rows by counter, or by counter and reason. Else the counters
        `rejected` (by reason) and `late` (revised, too late) that it may have are read. What another object was
        asked before stays counted.
        """
        if self._ask is not None:
            for name, given in self._ask().items():
                by_reason = given if isinstance(given, Mapping) else {"": given}
                self._counted.update(
                    {(name, reason): rows for reason, rows in by_reason.items() if name != "queue"}
                )
        self._ask = getattr(counted, "counts", None) or (lambda: _plain_counts(counted))

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Rows by counter, and by reason where there is one."""
        totals, reasons = dict.fromkeys(COUNTERS, 0), Counter[str]()
        found: list[tuple[str, Mapping[str, int]]]
        found = [(name, {reason: rows}) for (name, reason), rows in list(self._counted.items())]
        asked = self._ask() if self._ask is not None else {}
        found += [
            (name, given if isinstance(given, Mapping) else {"": given}) for name, given in asked.items()
        ]
        for name, given in found:
            for reason, rows in list(given.items()):
                totals[name] = totals.get(name, 0) + int(rows)
                if reason and rows:
                    reasons[reason] += int(rows)
        return totals, dict(reasons)

    def failed(self, error: BaseException, where: str = "") -> None:
        self.errors += 1
        self.consecutive_errors += 1
        self.last_error = f"{where}{type(error).__name__}: {error}"
        # The first of a row is worth a trace; the rest would only fill the log.
        level = logging.WARNING if self.consecutive_errors == 1 else logging.DEBUG
        log.log(level, "%s failed: %s", self.name, self.last_error, exc_info=error if level > 10 else None)

    def summary(self) -> dict[str, Any]:
        totals, reasons = self.counts()
        return {
            "rows": self.rows,
            "batches": self.batches,
            "seconds": round(self.seconds, 6),
            "lag_p50_ms": _rounded(self.lag.percentile(0.5)),
            "lag_p99_ms": _rounded(self.lag.percentile(0.99)),
            **totals,
            "reasons": reasons,
            "errors": self.errors,
            "last_error": self.last_error,
        }


@dataclass
class Health:
    """The stages of one market, by name."""

    stages: dict[str, Stage] = field(default_factory=dict)
    arrival: Arrival = field(default_factory=Arrival)
    _owners: weakref.WeakValueDictionary[str, Any] = field(
        default_factory=weakref.WeakValueDictionary, repr=False
    )
    _owned: set[str] = field(default_factory=set, repr=False)

    def stage(self, name: str) -> Stage:
        try:
            return self.stages[name]
        except KeyError:
            return self.stages.setdefault(name, Stage(name, self.arrival))

    def own_stage(self, name: str, owner: object) -> Stage:
        """A stage for one owner alone: a second one of the same name is called `name (2)` while the first one lives."""
        names = (name if number == 1 else f"{name} ({number})" for number in count(1))
        free = next(name for name in names if self._owners.get(name) is None)
        self._owners[free] = owner
        self._owned.add(free)
        return self.stage(free)

    @property
    def failing(self) -> list[Stage]:
        """The stages whose last attempt failed; not those whose owner is gone."""
        gone = self._owned - set(self._owners)
        return [
            stage
            for stage in list(self.stages.values())
            if stage.consecutive_errors and stage.name not in gone
        ]

    @property
    def totals(self) -> dict[str, int]:
        """Rows by counter over all stages."""
        totals: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        for stage in list(self.stages.values()):
            totals.update(stage.counts()[0])
        return dict(totals)

    def summary(self) -> dict[str, dict[str, Any]]:
        return {name: stage.summary() for name, stage in sorted(self.stages.items())}

    def frame(self) -> pd.DataFrame:
        """All of it as a DataFrame, one row a stage: `market.health.frame()`."""
        table = pd.DataFrame.from_dict(self.summary(), orient="index")
        return table.rename_axis("stage")


def _plain_counts(counted: object) -> Counts:
    found: dict[str, int | Mapping[str, int]] = {}
    if (rejected := getattr(counted, "rejected", None)) is not None:
        found["quarantined"] = dict(rejected)
    if (late := getattr(counted, "late", None)) is not None:
        found["revised"], found["late"] = (int(rows) for rows in late[:2])
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
