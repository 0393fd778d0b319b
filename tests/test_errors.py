"""The errors: what they say, and to whom."""

import inspect
import pickle
import re

import pytest

import marketdash
from marketdash import errors
from marketdash.errors import MarketdashError, UnknownNameError

CLASSES = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, BaseException) and item.__module__ == errors.__name__
}


def made(kind: type[MarketdashError]) -> MarketdashError:
    if kind is UnknownNameError:
        return UnknownNameError("symbol", "APL", ["AAPL", "MSFT"])
    return kind("The door", "a key", "a nail", "Ask the porter.")


def test_the_text_says_where_what_was_expected_what_came_and_what_to_do():
    error = MarketdashError("The door", "a key", "a nail", "Ask the porter.")
    assert str(error) == "The door: expected a key, got a nail. Ask the porter."
    assert (error.where, error.expected, error.got, error.hint) == (
        "The door",
        "a key",
        "a nail",
        "Ask the porter.",
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("The door",), "The door."),
        (("The door.",), "The door."),
        (("The door", "a key"), "The door: expected a key."),
        (("The door", "a key", 0), "The door: expected a key, got 0."),
        (("The door", "", "a nail"), "The door: a nail."),
        (("The door", "a key", "no more."), "The door: expected a key, got no more."),
        (("The door", "", "", "Knock."), "The door. Knock."),
    ],
)
def test_parts_that_are_absent_leave_a_whole_sentence(parts: tuple[object, ...], text: str):
    assert str(MarketdashError(*parts)) == text


def test_the_tree_in_the_docstring_has_every_error_and_no_other():
    tree = re.findall(r"^\s+(?:[├└]── )?(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert len(tree) == len(set(tree))
    assert set(tree) == set(CLASSES)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_is_caught_by_the_one_that_the_package_exports(kind: type[MarketdashError]):
    assert issubclass(kind, marketdash.MarketdashError)
    assert kind.__doc__
    assert "MarketdashError" in marketdash.__all__


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_survives_the_way_to_another_process(kind: type[MarketdashError]):
    error = made(kind)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("UnknownNameError", LookupError),
        ("SettingsError", ValueError),
        ("SchemaError", ValueError),
        ("IndicatorError", ValueError),
        ("ClockError", ValueError),
        ("EntitlementError", PermissionError),
    ],
)
def test_an_error_is_also_what_python_calls_it(name: str, builtin: type[Exception]):
    error = made(CLASSES[name])
    assert isinstance(error, builtin)
    # LookupError and OSError have texts of their own.
    assert str(error).endswith((".", "?"))
    assert error.hint


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("APPL", "AAPL"),
        ("aapl", "AAPL"),
        ("mac", "MACD"),
        ("Bbands_Upper", "bbands"),
        ("spy ", "SPY"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_known_one(name: str, nearest: str):
    error = UnknownNameError("name", name, ["MACD", "SPY", "AAPL", "bbands", "stoch"])
    assert error.nearest[0] == nearest
    assert str(error) == f"Unknown name {name!r}. Did you mean {', '.join(error.nearest)}?"


def test_what_begins_with_the_name_is_nearer_than_what_resembles_it():
    error = UnknownNameError("session", "us-2018", ["us-2017", "us-2018-11-minute", "us-2019"])
    assert error.nearest[0] == "us-2018-11-minute"
    assert sorted(error.nearest[1:]) == ["us-2017", "us-2019"]


def test_at_most_three_names_are_offered_and_none_twice():
    error = UnknownNameError("symbol", "A", ["AA", "AB", "AC", "AD", "AE"])
    assert error.nearest == ["AA", "AB", "AC"]


def test_where_nothing_is_near_some_of_the_known_names_are_listed():
    known = [f"n{i}" for i in range(9)]
    assert UnknownNameError("kind", "zzz", known[:2]).hint == "Known: n0, n1."
    assert UnknownNameError("kind", "zzz", known).hint == "Known: n0, n1, n2, n3, n4, n5, n6, n7 …."
    assert UnknownNameError("kind", "zzz", []).hint == "No kind is known here."
    assert UnknownNameError("kind", "", known[:2]).nearest == []


def test_a_hint_of_ones_own_stands_instead_and_no_name_need_be_text():
    error = UnknownNameError("width", None, ["1min"], "Widths: 1min.")
    assert str(error) == "Unknown width None. Widths: 1min."
