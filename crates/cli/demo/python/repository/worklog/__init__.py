"""Adds up a week of work."""
