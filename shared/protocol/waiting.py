"""What a process waits for: since when, how far it is, and what helps where nothing comes of it."""

from enum import StrEnum

from shared.protocol.message import Message


class WaitKind(StrEnum):
    REDIS = "redis"
    VERIFIER = "verifier"
    TREES = "trees"
    UPDATE = "update"
    EVALUATION = "evaluation"
    PUBLISH = "publish"
    CHECKPOINT = "checkpoint"
    EXPORT = "export"
    TRACKERS = "trackers"


class Waiting(Message):
    """Times are in seconds since the epoch. What is not counted has neither `done` nor `total`."""

    kind: WaitKind
    what: str
    since: float
    moved: float
    """When `done` last changed; `since` before that."""
    done: float | None = None
    total: float | None = None
    unit: str = ""
    eta_seconds: float | None = None
    detail: str = ""
    """Of what it consists, or why nothing comes."""
    remedy: str = ""
