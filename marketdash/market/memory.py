"""Give memory that is free back to the machine."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none


def release() -> None:
    """Let the allocator return what it keeps for later.

    glibc keeps the rings of markets that were closed: without this a process grew by 0.6 MB with each of
    hundreds of replays that came and went, though no object was left of them.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
