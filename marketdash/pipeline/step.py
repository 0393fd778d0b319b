"""What a step is: it takes a batch, keeps state, can hand it out, take it back and forget it."""

from __future__ import annotations

from typing import Any, Protocol

import pyarrow as pa

from marketdash.pipeline.sessions import SessionTable


class Step(Protocol):
    """Called with each batch of its topic; returns what goes on, or None when nothing does."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None: ...

    def reset(self) -> None:
        """Go back to the state before the first batch."""
        ...

    def snapshot(self) -> Any:
        """All that batches have changed in this step, which later ones must not change any more; None if nothing.

        Large parts should be numpy arrays in tuples or dicts: they are laid on disk.
        """
        ...

    def restore(self, kept: Any) -> None:
        """Go back to where a snapshot was taken, of this step or of one like it; `kept` stays as it is."""
        ...


class Sited:
    """Knows the trading sessions: keeps this step's pointers into the table in step with its growth."""

    def __init__(self, sessions: SessionTable) -> None:
        self.sessions = sessions
        self._pointers = sessions.pointers()
        self._generation = sessions.generation

    @property
    def pointers(self) -> object:
        if self._generation != self.sessions.generation:
            self._pointers = self.sessions.pointers()
            self._generation = self.sessions.generation
        return self._pointers
