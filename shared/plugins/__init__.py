"""Code of the user's own: how long a call of it may take, and the processes in which it runs."""

from shared.plugins.deadline import NO_HURRY, Deadline
from shared.plugins.processes import OwnCodeFailed, OwnProcesses
from shared.plugins.values import BoundedValues

__all__ = ["NO_HURRY", "BoundedValues", "Deadline", "OwnCodeFailed", "OwnProcesses"]
