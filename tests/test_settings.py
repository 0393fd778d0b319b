"""Settings: a file, the environment, and which wins."""
