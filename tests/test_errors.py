"""The errors: what they say, and to whom."""
