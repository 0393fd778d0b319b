"""Session logs: recorded markets, ordered by (known-at, seq), each with a manifest."""

from marketdash.log.library import SessionLibrary
from marketdash.log.manifest import Manifest
from marketdash.log.recorder import Recorder
from marketdash.log.session import SessionLog, open_session
from marketdash.log.writer import write_session

__all__ = ["Manifest", "Recorder", "SessionLibrary", "SessionLog", "open_session", "write_session"]
