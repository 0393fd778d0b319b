"""Keep: the last rows of a topic, for those who read frames."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from marketdash.frames import RollingFrame


class Keep:
    """Appends each batch to a frame, and passes it on."""

    def __init__(self, frame: RollingFrame) -> None:
        self.frame = frame

    def reset(self) -> None:
        self.frame.reset()

    def snapshot(self) -> Any:
        return self.frame.kept()

    def restore(self, kept: Any) -> None:
        self.frame.restore(kept)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.frame.append(batch)
        return batch
