"""The `ibtpo` command. Each command imports its service only when it runs, so that it needs only its own extra."""

from services.launcher.cli.root import app, main

__all__ = ["app", "main"]
