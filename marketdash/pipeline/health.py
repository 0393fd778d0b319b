"""What every stage has done, and what went wrong in it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class Stage:
    """One stage: rows and batches handled, seconds spent, errors, and the last error's text."""

    name: str
    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    errors: int = 0
    consecutive_errors: int = 0
    last_error: str = ""

    def worked(self, rows: int, seconds: float) -> None:
        self.rows += rows
        self.batches += 1
        self.seconds += seconds
        self.consecutive_errors = 0

    def failed(self, error: BaseException) -> None:
        self.errors += 1
        self.consecutive_errors += 1
        self.last_error = f"{type(error).__name__}: {error}"
        # The first of a row is worth a trace; the rest would only fill the log.
        level = logging.WARNING if self.consecutive_errors == 1 else logging.DEBUG
        log.log(level, "%s failed: %s", self.name, self.last_error, exc_info=error if level > 10 else None)

    def summary(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "batches": self.batches,
            "seconds": round(self.seconds, 6),
            "errors": self.errors,
            "last_error": self.last_error,
        }


@dataclass
class Health:
    """The stages of one market, by name."""

    stages: dict[str, Stage] = field(default_factory=dict)

    def stage(self, name: str) -> Stage:
        try:
            return self.stages[name]
        except KeyError:
            return self.stages.setdefault(name, Stage(name))

    @property
    def failing(self) -> list[Stage]:
        """The stages whose last attempt failed."""
        return [stage for stage in self.stages.values() if stage.consecutive_errors]

    def summary(self) -> dict[str, dict[str, Any]]:
        return {name: stage.summary() for name, stage in sorted(self.stages.items())}
