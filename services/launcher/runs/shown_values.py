"""The values of nodes that are shown: a value estimator of the user's own takes a few seconds in all, and may fail."""

import atexit

from shared.plugins import BoundedValues, OwnProcesses

_SECONDS = 10.0
_OWN = OwnProcesses(_SECONDS)
atexit.register(_OWN.close)
SHOWN_VALUES = BoundedValues(_OWN)
"""Of this process."""
