"""Processes that answer questions by one function, and may be killed at any time."""
