"""Runs code that nobody trusts. Everything here is standard library only: the fork-server must stay small."""
