"""Clocks and timelines."""
