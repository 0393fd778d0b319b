"""The bus: who hears what, in which order."""

from collections.abc import Callable

import pyarrow as pa
import pytest

from marketdash.bus import ALL, Handler, LocalBus

BATCH = pa.record_batch({"a": [1]})


class Ears:
    """Handlers that write down what they hear."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.errors: list[tuple[Handler, Exception]] = []
        self.bus = LocalBus(lambda handler, error: self.errors.append((handler, error)))

    def named(self, name: str) -> Handler:
        return lambda topic, batch: self.heard.append((name, topic))


@pytest.fixture
def ears() -> Ears:
    return Ears()


def test_the_handlers_of_a_topic_hear_in_the_order_of_subscription(ears: Ears):
    for name in "cab":
        ears.bus.subscribe("ticks", ears.named(name))
    ears.bus.publish("ticks", BATCH)
    assert [name for name, _ in ears.heard] == ["c", "a", "b"]


def test_a_handler_hears_its_topic_alone_and_gets_the_very_batch(ears: Ears):
    got: list[object] = []
    ears.bus.subscribe("ticks", lambda topic, batch: got.append((topic, batch)))
    ears.bus.publish("bars", BATCH)
    assert got == []
    ears.bus.publish("ticks", BATCH)
    assert got[0][0] == "ticks"  # type: ignore[index]
    assert got[0][1] is BATCH  # type: ignore[index]


def test_who_subscribes_to_all_hears_every_topic_once_by_its_name(ears: Ears):
    ears.bus.subscribe(ALL, ears.named("all"))
    ears.bus.publish("ticks", BATCH)
    ears.bus.publish("a topic nobody knows", BATCH)
    assert ears.heard == [("all", "ticks"), ("all", "a topic nobody knows")]


def test_what_nobody_hears_is_no_error(ears: Ears):
    ears.bus.publish("ticks", BATCH)
    assert ears.errors == []


def test_who_has_unsubscribed_hears_no_more_and_may_do_it_twice(ears: Ears):
    leave = ears.bus.subscribe("ticks", ears.named("a"))
    ears.bus.subscribe("ticks", ears.named("b"))
    leave()
    leave()
    ears.bus.publish("ticks", BATCH)
    assert ears.heard == [("b", "ticks")]


def test_a_handler_subscribed_twice_hears_twice_and_leaves_once_at_a_time(ears: Ears):
    handler = ears.named("a")
    ears.bus.subscribe("ticks", handler)
    leave = ears.bus.subscribe("ticks", handler)
    ears.bus.publish("ticks", BATCH)
    assert len(ears.heard) == 2
    leave()
    ears.bus.publish("ticks", BATCH)
    assert len(ears.heard) == 3


def test_a_handler_that_raises_costs_only_itself(ears: Ears):
    def broken(topic: str, batch: pa.RecordBatch) -> None:
        raise RuntimeError(topic)

    ears.bus.subscribe("ticks", ears.named("before"))
    ears.bus.subscribe("ticks", broken)
    ears.bus.subscribe("ticks", ears.named("after"))
    ears.bus.subscribe(ALL, ears.named("all"))
    for _ in range(2):
        ears.bus.publish("ticks", BATCH)
    assert [name for name, _ in ears.heard] == ["before", "after", "all"] * 2
    assert [handler for handler, _ in ears.errors] == [broken, broken]
    assert [str(error) for _, error in ears.errors] == ["ticks", "ticks"]


def test_a_batch_on_its_way_goes_to_those_who_were_there_when_it_set_out(ears: Ears):
    leaves: list[Callable[[], None]] = []

    def turbulent(topic: str, batch: pa.RecordBatch) -> None:
        leaves.pop()()
        ears.bus.subscribe("ticks", ears.named("late"))

    leaves.append(ears.bus.subscribe("ticks", turbulent))
    ears.bus.subscribe("ticks", ears.named("b"))
    ears.bus.publish("ticks", BATCH)
    assert ears.heard == [("b", "ticks")]
    ears.bus.publish("ticks", BATCH)
    assert ears.heard[1:] == [("b", "ticks"), ("late", "ticks")]


def test_a_handler_may_publish(ears: Ears):
    ears.bus.subscribe("ticks", lambda topic, batch: ears.bus.publish("bars", batch))
    ears.bus.subscribe("bars", ears.named("bars"))
    ears.bus.publish("ticks", BATCH)
    assert ears.heard == [("bars", "bars")]
