"""The schema: whatever comes in, one table goes out."""
