"""The bus of one process calls handlers in order, and one that fails costs only itself."""

import pyarrow as pa
import pytest

from marketdash.bus import ALL, LocalBus

BATCH = pa.RecordBatch.from_pydict({"a": [1]})


@pytest.fixture
def errors() -> list[tuple[object, Exception]]:
    return []


@pytest.fixture
def bus(errors: list[tuple[object, Exception]]) -> LocalBus:
    return LocalBus(lambda handler, error: errors.append((handler, error)))


def test_handlers_hear_their_topic_by_its_exact_name_in_the_order_of_subscription(bus: LocalBus):
    heard: list[str] = []
    bus.subscribe("bars", lambda topic, batch: heard.append(f"first {topic}"))
    bus.subscribe("bars", lambda topic, batch: heard.append(f"second {topic}"))
    bus.subscribe(ALL, lambda topic, batch: heard.append(f"all {topic}"))
    for topic in ("bars", "bars5", "ticks"):
        bus.publish(topic, BATCH)
    assert heard == ["first bars", "second bars", "all bars", "all bars5", "all ticks"]


def test_a_handler_that_fails_costs_only_itself(bus: LocalBus, errors: list[tuple[object, Exception]]):
    heard: list[pa.RecordBatch] = []

    def broken(topic: str, batch: pa.RecordBatch) -> None:
        raise ValueError("no")

    bus.subscribe("bars", broken)
    bus.subscribe("bars", lambda topic, batch: heard.append(batch))
    bus.publish("bars", BATCH)
    bus.publish("bars", BATCH)
    assert heard == [BATCH, BATCH]
    assert [(handler, str(error)) for handler, error in errors] == [(broken, "no")] * 2


def test_a_subscription_ends_alone_even_if_its_handler_has_others(bus: LocalBus):
    heard: list[str] = []

    def handler(topic: str, batch: pa.RecordBatch) -> None:
        heard.append(topic)

    first, _ = bus.subscribe("bars", handler), bus.subscribe("bars", handler)
    bus.publish("bars", BATCH)
    first()
    first()
    bus.publish("bars", BATCH)
    assert len(heard) == 3


def test_handlers_may_come_and_go_while_a_batch_is_on_its_way(bus: LocalBus):
    heard: list[str] = []
    stop: list = []

    def once(topic: str, batch: pa.RecordBatch) -> None:
        heard.append("once")
        stop.pop()()
        bus.subscribe("bars", lambda topic, batch: heard.append("later"))

    stop.append(bus.subscribe("bars", once))
    bus.subscribe("bars", lambda topic, batch: heard.append("always"))
    bus.publish("bars", BATCH)
    assert heard == ["once", "always"]
    bus.publish("bars", BATCH)
    assert heard == ["once", "always", "always", "later"]
