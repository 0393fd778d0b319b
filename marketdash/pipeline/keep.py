"""Keep: the last rows of a topic, for those who read frames."""

from __future__ import annotations

import pyarrow as pa

from marketdash.frames import RollingFrame


class Keep:
    """Appends each batch to a frame, and passes it on."""

    def __init__(self, frame: RollingFrame) -> None:
        self.frame = frame

    def reset(self) -> None:
        self.frame.reset()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.frame.append(batch)
        return batch
