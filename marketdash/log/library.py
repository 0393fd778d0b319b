"""Where session logs are found: shipped ones, this user's own, and folders that the settings name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from marketdash.errors import MarketdashError, UnknownNameError
from marketdash.log.manifest import MANIFEST, Manifest
from marketdash.log.sealing import LeftBehind, Sealed, left_behind, live_segments, seal_left_behind
from marketdash.log.segment import LIVE, SEGMENT
from marketdash.log.session import SessionLog, open_session
from marketdash.settings import load_settings, user_data_dir


class SessionLibrary:
    """The session logs in some folders; the first folder that holds a name wins."""

    def __init__(self, folders: Iterable[Path] | None = None) -> None:
        self.folders = list(folders) if folders is not None else default_folders()

    def paths(self) -> dict[str, Path]:
        """Name → folder of every log, shipped ones first, whether it can be opened or not.

        Segments (see `segments`) are among them, since they can be replayed as far as they go.
        """
        found: dict[str, Path] = {}
        for folder in self.folders:
            for file in sorted([*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*{LIVE}/{SEGMENT}")]):
                if not file.parent.name.startswith("."):  # a log that is being written
                    found.setdefault(file.parent.name, file.parent)
        return found

    def segments(self) -> list[LeftBehind]:
        """What is being recorded, and what a recording that did not end has left."""
        return left_behind(self.folders)

    def seal(self) -> Iterator[Sealed]:
        """Make logs of the segments that nobody is recording."""
        return seal_left_behind(self.folders)

    def manifests(self) -> list[Manifest]:
        """The manifests that can be read; `check` tells about the others."""
        readable = []
        for path in self.paths().values():
            try:
                readable.append(Manifest.read(path))
            except MarketdashError:
                continue
        return readable

    def open(self, name: str) -> SessionLog:
        """Open a log by its name, or by the path of its folder."""
        paths = self.paths()
        if name in paths:
            return open_session(paths[name])
        if Path(name).expanduser().is_dir():
            return open_session(Path(name).expanduser())
        raise UnknownNameError("session", name, paths)

    def check(self) -> dict[str, MarketdashError | None]:
        """Open every sealed log: name → what is wrong with it, or None; `segments` tells about the others."""
        result: dict[str, MarketdashError | None] = {}
        live = set(live_segments(self.folders))
        for name, path in self.paths().items():
            if path in live:
                continue
            try:
                open_session(path)
                result[name] = None
            except MarketdashError as error:
                result[name] = error
        return result


def default_folders() -> list[Path]:
    """Shipped data (in the wheel, or in the checkout), the settings' folders, the user's folder."""
    package = Path(str(files("marketdash")))
    # Beside an installed package, a folder called data would be somebody else's.
    shipped = package / "_data" if (package / "_data").is_dir() else package.parent / "data"
    return [shipped, *load_settings().sessions, user_data_dir() / "sessions"]
