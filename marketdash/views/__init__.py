"""Views draw frames: once from a snapshot, then only what changed. Each file here adds one."""
