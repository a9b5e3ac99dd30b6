"""Everything that goes through Redis: the queues of a run, its registry, lease and board."""

from shared.streams.connection import Connection, StreamsFull, connect, ride_out
from shared.streams.group import Depth
from shared.streams.reading import Unreadable
from shared.streams.run import RunStreams, list_runs
from shared.streams.tasks import Claim
from shared.streams.trees import Delivery

__all__ = [
    "Claim",
    "Connection",
    "Delivery",
    "Depth",
    "RunStreams",
    "StreamsFull",
    "Unreadable",
    "connect",
    "list_runs",
    "ride_out",
]
