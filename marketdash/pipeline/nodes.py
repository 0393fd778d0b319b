"""Our streamz nodes, under names that streamz does not have.

`streamz.Stream.only_topic`, `.step`, `.guard`: each does its work in `update`, holds nothing back and
never dies. None of streamz's timer or queue nodes is used: they stop for good at the first exception.
"""

# mypy: disable-error-code="misc,untyped-decorator,no-untyped-call,no-any-return"
from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from streamz import Stream

from marketdash.pipeline.health import Health
from marketdash.pipeline.step import Step


@Stream.register_api()
class only_topic(Stream):
    """Lets the batches of one topic through, without the topic's name."""

    def __init__(self, upstream: Stream, topic: str, **kwargs: Any) -> None:
        self.topic = topic
        super().__init__(upstream, stream_name=f"only {topic}", **kwargs)

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        return self._emit(x[1], metadata=metadata) if x[0] == self.topic else []


@Stream.register_api()
class step(Stream):
    """Sends each batch through a `Step`; a step that raises loses that batch for its branch, and says so."""

    def __init__(self, upstream: Stream, call: Step, stage: str, health: Health, **kwargs: Any) -> None:
        self.call, self.stage, self.health = call, stage, health
        super().__init__(upstream, stream_name=stage, **kwargs)

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        stage = self.health.stage(self.stage)
        begin = time.perf_counter()
        try:
            result = self.call(x)
        except Exception as error:
            stage.failed(error)
            return []
        stage.worked(x.num_rows, time.perf_counter() - begin)
        return [] if result is None else self._emit(result, metadata=metadata)


@Stream.register_api()
class guard(Stream):
    """Whatever is attached below costs only itself: its exceptions are counted on `health`, not raised.

    The branch is tried again with the next batch.
    """

    def __init__(
        self, upstream: Stream, stage: str, health: Health, convert: Callable[[Any], Any] | None = None, **kwargs: Any
    ) -> None:
        self.stage, self.health, self.convert = stage, health, convert
        super().__init__(upstream, stream_name=stage, **kwargs)

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        if not self.downstreams:
            return []
        stage = self.health.stage(self.stage)
        try:
            value = x if self.convert is None else self.convert(x)
            if value is None:
                return []
            pending = self._emit(value, metadata=metadata)
        except Exception as error:
            stage.failed(error)
            return []
        stage.worked(getattr(x, "num_rows", 1), 0.0)
        return [self._awaited(item) for item in pending if isinstance(item, Awaitable)]

    async def _awaited(self, pending: Awaitable[Any]) -> None:
        try:
            await pending
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.health.stage(self.stage).failed(error)
