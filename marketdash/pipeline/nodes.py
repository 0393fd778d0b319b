"""Our streamz nodes, under names that streamz does not have.

`streamz.Stream.only_topic`, `.step`, `.guard`: each does its work in `update`, holds nothing back and
never dies. None of streamz's timer or queue nodes is used: they stop for good at the first exception.
"""

# mypy: disable-error-code="misc,untyped-decorator,no-untyped-call,no-any-return"
from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from streamz import Stream

from marketdash.errors import SourceError
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

    The branch is tried again with the next batch. What a branch leaves to await is awaited in order, one
    after the other; who pushes may wait for it. When `BACKLOG` of it has piled up, the rest is dropped.
    """

    BACKLOG = 10_000

    def __init__(
        self,
        upstream: Stream,
        stage: str,
        health: Health,
        convert: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.stage, self.health, self.convert = stage, health, convert
        self._backlog: deque[Awaitable[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        super().__init__(upstream, stream_name=stage, **kwargs)

    def update(self, x: Any, who: Any = None, metadata: Any = None) -> Any:
        branches = list(self.downstreams)
        if not branches:
            return []
        stage = self.health.stage(self.stage)
        pending: list[Awaitable[Any]] = []
        failed = False
        try:
            value = x if self.convert is None else self.convert(x)
        except Exception as error:
            stage.failed(error)
            return []
        for branch in branches:
            try:
                left = branch.update(value, who=self, metadata=[])
                pending += [
                    item
                    for item in (left if isinstance(left, list) else [left])
                    if isinstance(item, Awaitable)
                ]
            except Exception as error:
                stage.failed(error)
                failed = True
        if pending:
            return [self._queue(pending)]
        if not failed:
            stage.worked(getattr(x, "num_rows", 1), 0.0)
        return []

    def _queue(self, pending: list[Awaitable[Any]]) -> asyncio.Task[None]:
        if len(self._backlog) >= self.BACKLOG:
            _close(pending)
            behind = f"{len(self._backlog):,} batches behind; this one was dropped"
            self.health.stage(self.stage).failed(SourceError(self.stage, "listeners that keep up", behind))
        else:
            self._backlog.extend(pending)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name=self.stage)
        return self._worker

    async def _work(self) -> None:
        stage = self.health.stage(self.stage)
        while self._backlog:
            try:
                await self._backlog.popleft()
                stage.worked(1, 0.0)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                stage.failed(SourceError(self.stage, "a result", "a cancelled task"))
            except Exception as error:
                stage.failed(error)

    def close(self) -> None:
        """Drop what is still to be awaited."""
        _close(self._backlog)
        self._backlog.clear()
        if self._worker is not None and not self._worker.get_loop().is_closed():
            self._worker.cancel()


def _close(pending: Iterable[Awaitable[Any]]) -> None:
    for item in pending:
        if asyncio.iscoroutine(item):  # else Python warns that it was never awaited
            item.close()
