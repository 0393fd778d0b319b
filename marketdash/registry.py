"""One registry per kind of component: the doors through which built-in and foreign parts come in alike.

A component registers itself with its kind's decorator when its module is imported. `discover` imports,
once per kind, what may hold components: the modules of the package that is home to the kind, installed
entry points named `marketdash.<kind>`, and the `.py` files of the plugin folders. Nobody keeps a list.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

from marketdash.errors import UnknownNameError
from marketdash.settings import load_settings

T = TypeVar("T")
log = logging.getLogger(__name__)

_importing = threading.RLock()


class Registry(Generic[T]):
    """Names of one kind, and what they stand for; names are compared without case."""

    def __init__(self, kind: str, home: str) -> None:
        self.kind, self.home = kind, home
        self.failures: dict[str, BaseException] = {}
        """What could not be loaded (a file, an entry point, a folder) → why."""
        self._items: dict[str, T] = {}
        self._names: dict[str, str] = {}
        self._discovered = self._discovering = False
        # Held while importing, so that another thread waits for all names instead of seeing some of them.
        self._lock = threading.RLock()

    def add(self, name: str, item: T) -> T:
        """Register `item`; the last one of a name wins, so that a cell can be run again."""
        self.remove(name)
        self._items[name] = item
        self._names[name.casefold()] = name
        return item

    def remove(self, name: str) -> None:
        """Forget a name; unknown ones are ignored."""
        self._items.pop(self._names.pop(name.casefold(), name), None)

    def get(self, name: str) -> T:
        """Return what `name` stands for, or raise `UnknownNameError` with the nearest names.

        If something could not be loaded the error says so, since the name may be in there.
        """
        self.discover()
        key = self._names.get(name.casefold())
        if key is None:
            raise self._unknown(name)
        return self._items[key]

    def _unknown(self, name: str) -> UnknownNameError:
        error = UnknownNameError(self.kind, name, self._items)
        if not self.failures:
            return error
        broken = "; ".join(f"{what} ({_reason(why)})" for what, why in list(self.failures.items())[:3])
        return UnknownNameError(self.kind, name, self._items, f"{error.hint} Not loaded: {broken}.")

    def __contains__(self, name: str) -> bool:
        self.discover()
        return name.casefold() in self._names

    def __iter__(self) -> Iterator[str]:
        self.discover()
        return iter(sorted(self._items))

    def items(self) -> list[tuple[str, T]]:
        """All names with their items, sorted by name."""
        self.discover()
        return sorted(self._items.items())

    def discover(self, plugins: Iterable[Path] | None = None) -> None:
        """Import all modules that may register components of this kind; repeated calls cost nothing.

        A plugin that cannot be imported does not take the others down: it is kept in `failures`
        (`marketdash doctor` names it) and logged.
        """
        if self._discovered and plugins is None:
            return
        with self._lock:
            # A component may ask this registry while it is being imported: it finds what is there so far.
            if (self._discovered or self._discovering) and plugins is None:
                return
            self._discovering = True
            try:
                self._import_home()
                for point in entry_points(group=f"marketdash.{self.kind}"):
                    self._try(point.value, lambda point=point: self.add(point.name, point.load()))  # type: ignore[misc]
                for folder in load_settings().plugins if plugins is None else plugins:
                    self._import_folder(Path(folder).expanduser())
                self._discovered = True
            finally:
                self._discovering = False

    def _import_home(self) -> None:
        home = importlib.import_module(self.home)
        for module in pkgutil.iter_modules(home.__path__, f"{self.home}."):
            importlib.import_module(module.name)

    def _import_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self._failed(str(folder), NotADirectoryError("there is no such folder"))
        for path in sorted(folder.glob("*.py")):
            self._try(str(path), lambda path=path: _import_file(path))  # type: ignore[misc]

    def _try(self, what: str, load: Callable[[], object]) -> None:
        try:
            load()
        except (Exception, SystemExit) as error:  # a plugin that is a script may call sys.exit
            self._failed(what, error)
        else:
            self.failures.pop(what, None)

    def _failed(self, what: str, error: BaseException) -> None:
        self.failures[what] = error
        log.warning("The plugin %s could not be loaded: %s", what, _reason(error))


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _import_file(path: Path) -> None:
    # One module object per file, however many kinds look into the folder.
    name = f"marketdash_plugin_{path.stem}_{abs(hash(str(path.resolve()))):x}"
    with _importing:
        if name in sys.modules:
            return
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
