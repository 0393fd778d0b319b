"""The doors: a file dropped into a folder is enough."""
