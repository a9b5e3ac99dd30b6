"""What the learner waits for now, and how far that is: its status says so."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shared.protocol.waiting import Waiting, WaitKind


@dataclass(slots=True, eq=False)
class Wait:
    """One thing that is waited for. Whoever does it counts it; `detail` is asked each time the status is read."""

    kind: WaitKind
    what: str = ""
    unit: str = ""
    total: float | None = None
    done: float | None = None
    needs_replicas: bool = False
    remedy: str = ""
    detail: Callable[[], str] = str
    since: float = field(default_factory=lambda: time.time())
    moved: float = 0.0
    _begun_with: float = 0.0

    def begin(self, done: float, total: float | None) -> None:
        """What is done already does not count for the pace."""
        self.done, self.total, self._begun_with = done, total, done

    def advance(self, amount: float = 1.0) -> None:
        self.reach((self.done or 0.0) + amount)

    def reach(self, done: float) -> None:
        if done != self.done:
            self.done, self.moved = done, time.time()

    @property
    def eta_seconds(self) -> float | None:
        """At the pace so far; None before anything is done."""
        if self.total is None or self.done is None or self.done <= self._begun_with:
            return None
        pace = (self.done - self._begun_with) / max(time.time() - self.since, 1e-3)
        return max(0.0, self.total - self.done) / pace

    def message(self) -> Waiting:
        return Waiting(
            kind=self.kind,
            what=self.what or self.kind,
            since=self.since,
            moved=max(self.since, self.moved),
            done=self.done,
            total=self.total,
            unit=self.unit,
            eta_seconds=self.eta_seconds,
            detail=self.detail(),
            remedy=self.remedy,
        )


class Waits:
    """All that is waited for at this moment, one within the other."""

    def __init__(self) -> None:
        self._open: list[Wait] = []

    @contextmanager
    def on(
        self, kind: WaitKind, what: str, *, unit: str = "", needs_replicas: bool = False, remedy: str = ""
    ) -> Iterator[Wait]:
        wait = Wait(kind, what, unit, needs_replicas=needs_replicas, remedy=remedy)
        self._open.append(wait)
        try:
            yield wait
        finally:
            self._open.remove(wait)

    @property
    def current(self) -> Wait | None:
        """The innermost."""
        return self._open[-1] if self._open else None
