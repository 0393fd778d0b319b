"""One registry per kind: names without case, found without a list, broken parts named and left out."""

import sys
import threading
from pathlib import Path

import pytest

from marketdash.errors import UnknownNameError
from marketdash.registry import Registry


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with two modules, which add things to `parts.THINGS` when they are imported."""
    package = tmp_path / "parts_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("first", "second"):
        (package / f"{name}.py").write_text(
            f"import builtins\nbuiltins._test_registry.add('{name.title()}', 1)\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("MARKETDASH_PLUGINS", raising=False)
    yield package.name
    for module in [module for module in sys.modules if module.startswith(package.name)]:
        del sys.modules[module]


@pytest.fixture
def things(home: str, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    registry: Registry[int] = Registry("thing", home=home)
    monkeypatch.setattr("builtins._test_registry", registry, raising=False)
    return registry


def test_what_a_package_holds_is_found_without_a_list(things: Registry[int]):
    assert list(things) == ["First", "Second"]
    assert "FIRST" in things
    assert things.get("second") == 1
    assert things.items() == [("First", 1), ("Second", 1)]


def test_an_unknown_name_gives_the_nearest(things: Registry[int]):
    with pytest.raises(UnknownNameError, match="Did you mean First"):
        things.get("firts")


def test_the_last_one_of_a_name_wins_whatever_its_case(things: Registry[int]):
    things.add("Mine", 1)
    things.add("MINE", 2)
    assert things.get("mine") == 2
    assert list(things) == ["First", "MINE", "Second"]
    things.remove("mine")
    things.remove("never there")
    assert list(things) == ["First", "Second"]


def test_a_plugin_that_cannot_be_imported_is_named_and_stops_nobody(
    things: Registry[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "a_broken.py").write_text("import nothing_like_this")
    (folder / "b_wrong.py").write_text("def (:")
    (folder / "c_quits.py").write_text("raise SystemExit(1)")
    (folder / "d_good.py").write_text("import builtins\nbuiltins._test_registry.add('good', 4)")
    monkeypatch.setenv("MARKETDASH_PLUGINS", f"{folder}:{tmp_path / 'nowhere'}")
    assert things.get("good") == 4
    broken = {Path(what).name: type(error).__name__ for what, error in things.failures.items()}
    assert broken == {
        "a_broken.py": "ModuleNotFoundError",
        "b_wrong.py": "SyntaxError",
        "c_quits.py": "SystemExit",
        "nowhere": "NotADirectoryError",
    }
    assert "a_broken.py" in caplog.text
    with pytest.raises(UnknownNameError, match=r"Not loaded: .*a_broken\.py \(ModuleNotFoundError"):
        things.get("broken")
    (folder / "a_broken.py").write_text("")
    things.discover([folder])
    assert "a_broken.py" not in {Path(what).name for what in things.failures}


def test_a_file_is_imported_once_however_many_kinds_look_at_it(things: Registry[int], tmp_path: Path):
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "counts.py").write_text(
        "import builtins\nbuiltins._test_registry.add(f'n{len(builtins._test_registry._items)}', 0)"
    )
    things.discover([folder])
    Registry("other", home=things.home).discover([folder])
    assert len(things.items()) == 3


def test_a_thread_that_asks_during_discovery_waits_for_all_names(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / home / "a_slow.py").write_text("import time; time.sleep(0.3)\n")
    registry: Registry[int] = Registry("thing", home=home)
    monkeypatch.setattr("builtins._test_registry", registry, raising=False)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(registry.get("second"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 4


def test_a_component_may_ask_its_registry_while_it_is_imported(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / home / "second.py").write_text(
        "import builtins\nbuiltins._test_registry.add('Asked', builtins._test_registry.get('first') + 1)"
    )
    registry: Registry[int] = Registry("thing", home=home)
    monkeypatch.setattr("builtins._test_registry", registry, raising=False)
    assert registry.get("asked") == 2


def test_a_home_that_cannot_be_imported_says_so_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    registry: Registry[int] = Registry("thing", home="a_package_that_is_nowhere")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            list(registry)
