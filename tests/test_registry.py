"""The registry and the plugins that fill it."""
