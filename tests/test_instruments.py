"""Instruments and the universe that holds them."""
