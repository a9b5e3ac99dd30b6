"""All that goes through Redis: a run's queues, its replicas, its lease and its status."""

from shared.streams.connection import CommandRefused, Connection, StreamsFull, connect
from shared.streams.group import Depth
from shared.streams.inspection import ServerFacts, greet, inspect_server
from shared.streams.reading import Unreadable
from shared.streams.run import RunStreams, list_runs
from shared.streams.tasks import Claim
from shared.streams.trees import Delivery

__all__ = [
    "Claim",
    "CommandRefused",
    "Connection",
    "Delivery",
    "Depth",
    "RunStreams",
    "ServerFacts",
    "StreamsFull",
    "Unreadable",
    "connect",
    "greet",
    "inspect_server",
    "list_runs",
]
