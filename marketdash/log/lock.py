"""One recording at a time: a lock file that its process holds and that the system frees when it dies."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from marketdash.errors import LogError

LOOKS = 4


class Lock:
    """Holds the recording called `name` in `folder`, or says which process does."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f".{name}.lock"
        while True:
            self._file = self._taken()
            try:
                same = os.path.samestat(os.fstat(self._file), self.path.stat())
            except FileNotFoundError:
                same = False
            if same:
                break
            os.close(self._file)  # whoever held it has just deleted it
        os.ftruncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def _taken(self) -> int:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        for attempt in range(LOOKS):
            if _locked(file):
                return file
            time.sleep(0.01 * attempt)  # it may be held by one who only looks whether it is held
        os.close(file)
        expected = f"no other recording called {self.path.name[1:-5]!r} in {self.path.parent}"
        hint = "Stop that one, or give this recording another name or folder."
        raise LogError("A recording", expected, f"one of process {_pid(self.path) or 'unknown'}", hint)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others record; releasing twice is fine."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def holder(folder: Path, name: str) -> int | None:
    """The process that records under this name (0 if it does not say), or None."""
    path = folder / f".{name}.lock"
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _locked(file) else _pid(path) or 0
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    """Take the lock of an open file, unless somebody has it. The system frees it when the process ends."""
    if sys.platform == "win32":  # which does not delete, nor open again, a file that is held
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii") or 0) or None
    except (OSError, ValueError):
        return None
