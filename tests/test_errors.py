"""An error says where, what was expected, what came and what to do; a name that is unknown says its neighbours."""

import pickle

import numpy as np
import pytest

from marketdash.errors import MarketdashError, SchemaError, SettingsError, UnknownNameError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MarketdashError("The door"), "The door."),
        (MarketdashError("The door", "a key"), "The door: expected a key."),
        (MarketdashError("The door", "a key", "a pin"), "The door: expected a key, got a pin."),
        (MarketdashError("The door", got="it is open."), "The door: it is open."),
        (
            MarketdashError("The door", "a key", 0, "Look under the mat."),
            "The door: expected a key, got 0. Look under the mat.",
        ),
        (MarketdashError("The door", "a key", np.array([1, 2])), "The door: expected a key, got [1 2]."),
    ],
)
def test_an_error_reads_as_a_sentence(error: MarketdashError, text: str):
    assert str(error) == text


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("aapl", ["AAPL"]), ("APL", ["AAPL"]), ("NV", ["NVDA", "NVR"]), ("nvdia", ["NVDA", "NVR"]), ("zzz", [])],
)
def test_an_unknown_name_gives_the_nearest_ones(name: str, nearest: list[str]):
    error = UnknownNameError("symbol", name, ["AAPL", "MSFT", "NVDA", "NVR"])
    assert error.nearest == nearest
    assert ("Did you mean" in str(error)) == bool(nearest)


def test_where_nothing_is_near_some_of_the_known_names_are_given_or_that_there_are_none():
    assert str(UnknownNameError("source", "x", [f"s{i}" for i in range(9)])).endswith("s6, s7 ….")
    assert str(UnknownNameError("source", "x", [])) == "Unknown source 'x'. No source is known here."


def test_errors_are_what_python_calls_them():
    assert issubclass(UnknownNameError, LookupError)
    assert issubclass(SchemaError, ValueError)
    assert issubclass(SettingsError, ValueError)


@pytest.mark.parametrize(
    "error", [SchemaError("A", "b", "c", "d"), UnknownNameError("symbol", "AAPLE", ["AAPL"], "Look it up.")]
)
def test_an_error_survives_the_way_to_another_process(error: MarketdashError):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
