"""The last rows of a topic, as they came."""

from __future__ import annotations

from collections import deque

import pandas as pd
import pyarrow as pa

from marketdash.schema import topic


class RollingFrame:
    """At least the last `rows` rows of a topic; whole batches leave at the far end.

    Appending keeps a reference and copies nothing; a DataFrame is made only when one is asked for.
    """

    def __init__(self, name: str, rows: int = 50_000) -> None:
        self.topic, self.rows = topic(name), rows
        self.version = 0
        self._batches: deque[pa.RecordBatch] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        self._batches.append(batch)
        self._count += batch.num_rows
        while self._count - self._batches[0].num_rows >= self.rows:
            self._count -= self._batches.popleft().num_rows
        self.version += 1

    def reset(self) -> None:
        """Forget all rows."""
        self._batches.clear()
        self._count = 0
        self.version += 1

    def table(self) -> pa.Table:
        """The rows as Arrow, oldest first, exactly as they came."""
        batches = [batch.cast(self.topic.schema) for batch in self._batches]
        return pa.Table.from_batches(batches, schema=self.topic.schema).unify_dictionaries()

    def snapshot(self) -> pd.DataFrame:
        """The rows as a DataFrame; of rows with the same key the last one counts."""
        rows = self.table().slice(max(self._count - self.rows, 0)).to_pandas()
        return rows.drop_duplicates(list(self.topic.key), keep="last", ignore_index=True)
