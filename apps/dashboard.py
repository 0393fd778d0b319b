"""The dashboard for `panel serve apps/dashboard.py --address 127.0.0.1 --plugins marketdash.server.health`."""

from marketdash.server import dashboard

dashboard().servable(title="marketdash")
