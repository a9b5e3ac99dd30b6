"""The jail: runs in the fork-server, and in each child between its fork and its program. Standard library only."""
