"""The registry and the plugins that fill it."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from marketdash import registry
from marketdash.errors import UnknownNameError
from marketdash.registry import Registry

HOME = "kitchen_of_a_test"


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Forget the modules that a test has imported."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith((HOME, "marketdash_plugin_", "shop_of_a_test")):
            del sys.modules[name]


@pytest.fixture
def dishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """Give a registry whose home is a package with one module, and no plugins."""
    home = tmp_path / "site" / HOME
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("from marketdash.registry import Registry\n")
    (home / "base.py").write_text(
        f"from marketdash.registry import Registry\nDISHES = Registry('dish', home='{HOME}')\n"
    )
    (home / "soup.py").write_text(f"from {HOME}.base import DISHES\nDISHES.add('Soup', 'leek')\n")
    monkeypatch.syspath_prepend(home.parent)
    monkeypatch.delenv("MARKETDASH_PLUGINS", raising=False)
    monkeypatch.delenv("MARKETDASH_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return __import__(f"{HOME}.base", fromlist=["DISHES"]).DISHES  # type: ignore[no-any-return]


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, text: str) -> Path:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(f"from {HOME}.base import DISHES\n{dedent(text)}\n")
        return folder

    return write


def install(monkeypatch: pytest.MonkeyPatch, group: str, **values: str) -> None:
    def entry_points(**query: str) -> list[EntryPoint]:
        wanted = query["group"] == group
        return [EntryPoint(name, value, group) for name, value in values.items()] if wanted else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_modules_of_the_home_register_themselves(dishes: Registry[str]):
    assert dishes.get("Soup") == "leek"
    assert list(dishes) == ["Soup"]
    assert dishes.failures == {}


def test_names_are_compared_without_case_and_shown_as_they_were_given(dishes: Registry[str]):
    dishes.add("Éclair", "cream")
    assert dishes.get("éCLAIR") == "cream"
    assert "ÉCLAIR" in dishes
    assert dishes.items() == [("Soup", "leek"), ("Éclair", "cream")]


def test_the_last_of_a_name_wins_whatever_its_case(dishes: Registry[str]):
    assert dishes.get("soup") == "leek"
    assert dishes.add("SOUP", "onion") == "onion"
    assert dishes.get("soup") == "onion"
    assert list(dishes) == ["SOUP"]


def test_what_is_removed_is_unknown_and_removing_it_again_does_nothing(dishes: Registry[str]):
    dishes.discover()
    dishes.remove("SOUP")
    dishes.remove("soup")
    assert list(dishes) == []
    assert "Soup" not in dishes


def test_an_unknown_name_comes_with_the_nearest(dishes: Registry[str]):
    with pytest.raises(UnknownNameError, match=r"Unknown dish 'soap'\. Did you mean Soup\?$"):
        dishes.get("soap")


def test_the_files_of_a_plugin_folder_are_imported_once(
    dishes: Registry[str], plugin: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    folder = plugin("stew.py", "DISHES.add('stew', str(len(list(DISHES))))")
    plugin("notes.txt", "this is no Python")
    monkeypatch.setenv("MARKETDASH_PLUGINS", str(folder))
    assert "stew" in dishes
    first = dishes.get("stew")
    dishes.add("bread", "rye")
    dishes.discover()
    dishes.discover(plugins=[folder])
    assert dishes.get("stew") == first
    assert dishes.failures == {}


def test_several_folders_are_read_in_their_order_and_files_in_theirs(
    dishes: Registry[str], plugin: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = plugin("b.py", "DISHES.add('pie', DISHES.get('pie') + 'b')")
    plugin("a.py", "DISHES.add('pie', 'a')")
    second = tmp_path / "more"
    second.mkdir()
    (second / "a.py").write_text(
        f"from {HOME}.base import DISHES\nDISHES.add('pie', DISHES.get('pie') + 'c')\n"
    )
    monkeypatch.setenv("MARKETDASH_PLUGINS", os.pathsep.join([str(first), str(second)]))
    assert dishes.get("pie") == "abc"


def test_a_plugin_may_replace_what_is_built_in(dishes: Registry[str], plugin: Callable[..., Path]):
    dishes.discover(plugins=[plugin("soup.py", "DISHES.add('soup', 'pea')")])
    assert dishes.get("soup") == "pea"


@pytest.mark.parametrize(
    "text", ["1 / 0", "def", "import no_such_module_anywhere", "import sys; sys.exit(2)"]
)
def test_a_broken_plugin_is_kept_as_a_failure_and_the_others_still_load(
    text: str, dishes: Registry[str], plugin: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    folder = plugin("a_broken.py", text)
    plugin("z_whole.py", "DISHES.add('stew', 'beef')")
    dishes.discover(plugins=[folder])
    assert dishes.get("stew") == "beef"
    assert dishes.get("Soup") == "leek"
    assert list(dishes.failures) == [str(folder / "a_broken.py")]
    assert "a_broken.py" in caplog.text
    with pytest.raises(UnknownNameError) as caught:
        dishes.get("pancake")
    assert "Not loaded: " in caught.value.hint
    assert "a_broken.py" in caught.value.hint


def test_a_plugin_that_is_mended_is_loaded_and_no_failure_any_more(
    dishes: Registry[str], plugin: Callable[..., Path]
):
    folder = plugin("stew.py", "1 / 0")
    dishes.discover(plugins=[folder])
    assert len(dishes.failures) == 1
    plugin("stew.py", "DISHES.add('stew', 'mended')")
    dishes.discover(plugins=[folder])
    assert dishes.get("stew") == "mended"
    assert dishes.failures == {}


def test_a_folder_that_is_missing_is_a_failure_that_costs_nothing_else(
    dishes: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MARKETDASH_PLUGINS", str(tmp_path / "gone"))
    assert dishes.get("soup") == "leek"
    assert isinstance(dishes.failures[str(tmp_path / "gone")], NotADirectoryError)


def test_installed_entry_points_of_the_kind_are_loaded_under_their_names(
    dishes: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "site" / "shop_of_a_test.py").write_text("CAKE = 'sponge'\n")
    install(
        monkeypatch,
        "marketdash.dish",
        cake="shop_of_a_test:CAKE",
        ghost="shop_of_a_test:GHOST",
        gone="no_such_shop:CAKE",
    )
    assert dishes.get("Cake") == "sponge"
    assert "ghost" not in dishes
    assert set(dishes.failures) == {"shop_of_a_test:GHOST", "no_such_shop:CAKE"}


def test_entry_points_of_another_kind_are_left_alone(dishes: Registry[str], monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "marketdash.drink", tea="no_such_shop:TEA")
    assert "tea" not in dishes
    assert dishes.failures == {}


def test_a_thread_that_asks_during_the_imports_waits_for_all_names(dishes: Registry[str], tmp_path: Path):
    slow = tmp_path / "site" / HOME / "a_stew.py"
    slow.write_text(
        f"import time\nfrom {HOME}.base import DISHES\ntime.sleep(0.3)\nDISHES.add('Stew', 'beef')\n"
    )
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(dishes.get("soup"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["leek"] * 4


def test_a_component_may_ask_its_registry_while_it_is_imported(dishes: Registry[str], tmp_path: Path):
    leftovers = tmp_path / "site" / HOME / "z_leftovers.py"
    leftovers.write_text(
        f"from {HOME}.base import DISHES\nDISHES.add('Leftovers', 'cold ' + DISHES.get('soup'))\n"
    )
    assert dishes.get("leftovers") == "cold leek"


def test_a_home_that_cannot_be_imported_says_so_each_time():
    nowhere: Registry[str] = Registry("dish", home="a_package_that_is_nowhere")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            list(nowhere)
