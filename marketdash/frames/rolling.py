"""The last rows of a topic, as they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from marketdash.schema import topic

_LOOSE = 256
"""Batches that may lie about before they are joined: a frame of single rows would be slow to read."""


class RollingFrame:
    """The last `rows` rows of a topic.

    Appending keeps a reference and copies nothing but small batches now and then; a DataFrame is made only
    when one is asked for.
    """

    def __init__(self, name: str, rows: int = 50_000) -> None:
        self.topic, self.rows = topic(name), rows
        self.version = 0
        self._joined: deque[pa.RecordBatch] = deque()
        self._loose: list[pa.RecordBatch] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._loose.append(batch)
        self._count += batch.num_rows
        if len(self._loose) >= _LOOSE:
            self._join()
        while (surplus := self._count - self.rows) > 0:
            # Cut to the row, so that what is kept does not depend on how the rows came.
            first = self._joined.popleft() if self._joined else self._loose.pop(0)
            self._count -= first.num_rows
            if first.num_rows > surplus:
                self._joined.appendleft(first.slice(surplus))
                self._count += first.num_rows - surplus
        self.version += 1

    def _join(self) -> None:
        self._joined.extend(self._as_table(self._loose).combine_chunks().to_batches())
        self._loose = []

    def _as_table(self, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        schema = self.topic.schema
        fitting = [batch if batch.schema.equals(schema) else batch.cast(schema) for batch in batches]
        return pa.Table.from_batches(fitting, schema=schema).unify_dictionaries()

    def reset(self) -> None:
        """Forget all rows."""
        self._joined.clear()
        self._loose = []
        self._count = 0
        self.version += 1

    def kept(self) -> tuple[pa.RecordBatch, ...]:
        """The rows as the batches in which they lie, oldest first: references, no copies."""
        return (*self._joined, *self._loose)

    def restore(self, kept: Iterable[pa.RecordBatch]) -> None:
        """Go back to the rows that were kept."""
        self.reset()
        self._joined.extend(kept)
        self._count = sum(batch.num_rows for batch in self._joined)

    def table(self) -> pa.Table:
        """The rows as Arrow, oldest first, exactly as they came."""
        return self._as_table([*self._joined, *self._loose])

    def snapshot(self) -> pd.DataFrame:
        """The rows as a DataFrame; of rows with the same key the last one counts."""
        rows: pd.DataFrame = self.table().to_pandas()
        return rows.drop_duplicates(list(self.topic.key), keep="last", ignore_index=True)
