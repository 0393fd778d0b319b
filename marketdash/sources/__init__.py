"""Sources write events into a market: each file here adds one."""
