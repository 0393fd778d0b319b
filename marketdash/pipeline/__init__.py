"""The streamz graph: clean → last prices → bars → derive."""

from marketdash.pipeline.graph import Graph
from marketdash.pipeline.health import Health

__all__ = ["Graph", "Health"]
