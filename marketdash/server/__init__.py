"""Serve the dashboard: `dashboard()` makes one viewer's page, `serve()` runs a server of its own."""

from marketdash.server.app import dashboard
from marketdash.server.hub import Hub, hub
from marketdash.server.serve import serve

__all__ = ["Hub", "dashboard", "hub", "serve"]
