"""Calendars: which session a moment belongs to."""
