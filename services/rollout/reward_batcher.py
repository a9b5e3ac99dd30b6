"""Gets rewards from the verifier: answers go in small batches as they finish, each with a deadline."""

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import ValidationError

from services.rollout.metrics import RolloutMetrics, VerdictResult, VerifierFailure
from services.rollout.rewards import NoVerdict, Reward
from shared.clients import VerifierClient
from shared.errors import (
    DeadlineExceeded,
    IbtpoError,
    InvalidInput,
    MalformedAnswer,
    Overloaded,
    TooLarge,
    Unreachable,
    first_reason,
)
from shared.protocol.verdict import Verdict, VerdictItem
from shared.runtime.loops import Periodic, cancel

_RETRY_SECONDS = 0.2
_PROBLEM_SECONDS, _SILENT_SECONDS = 5.0, 30.0
"""A failure that lasts so long is the replica's problem, and so are answers of which none is judged for longer."""
_FAILURE_OF: dict[type[IbtpoError], VerifierFailure] = {
    Unreachable: VerifierFailure.UNREACHABLE,
    DeadlineExceeded: VerifierFailure.TIMED_OUT,
    MalformedAnswer: VerifierFailure.UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class BatchingLimits:
    """`verdict_seconds` bounds the wait for one reward, `max_batch` the answers of a request, `max_requests` the
    requests in flight (each lasts until its slowest answer is judged), `max_waiting` the answers not yet sent.

    A request waits `gather_seconds`, so that answers which the engine finishes in one decode share it: a request
    costs as much as judging dozens of answers.
    """

    verdict_seconds: float = 60.0
    gather_seconds: float = 0.004
    max_batch: int = 128
    max_requests: int = 16
    max_waiting: int = 8192


@dataclass(slots=True)
class _Pending:
    """An answer without its reward."""

    item: VerdictItem
    deadline: float
    last_failure: str = ""
    reward: asyncio.Future[Reward | NoVerdict] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def resolve(self, reward: Reward | NoVerdict) -> None:
        if not self.reward.done():
            self.reward.set_result(reward)


class RewardBatcher:
    """Answers that finish while all requests are in flight share the next one."""

    def __init__(self, verifier: VerifierClient, limits: BatchingLimits, metrics: RolloutMetrics) -> None:
        self._verifier = verifier
        self._limits = limits
        self._metrics = metrics
        self._unsent: deque[_Pending] = deque()
        self._has_unsent = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []
        self._last_succeeded = True
        self._failing_since = math.inf
        self._failure = ""
        self._num_open = 0
        self._judged_at = 0.0
        self._num_answers = 0

    async def __aenter__(self) -> Self:
        self._senders = [Periodic("verdicts", self._send_batch).start() for _ in range(self._limits.max_requests)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel(self._senders)
        for pending in self._unsent:
            pending.resolve(NoVerdict("the replica is ending"))
        self._unsent.clear()

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        """The reward of one answer. NoVerdict, with the verifier's reason, if there is none in time."""
        waiting = len(self._unsent)
        if waiting >= self._limits.max_waiting:
            self._metrics.verdicts.labels(VerdictResult.REFUSED).inc()
            raise NoVerdict(f"{waiting} answers wait for the verifier already, the most this replica keeps")
        self._num_answers += 1
        try:
            item = VerdictItem(id=str(self._num_answers), kind=kind, response=response, answer_key=answer_key)
        except ValidationError as error:  # half of a surrogate pair, or numbers out of range: no verifier can read it
            self._metrics.verdicts.labels(VerdictResult.REFUSED).inc()
            is_of_key = any(one["loc"][:1] == ("answer_key",) for one in error.errors(include_input=False))
            raise NoVerdict(f"it cannot be sent: {first_reason(error)}", is_final=is_of_key) from None
        pending = _Pending(item, time.monotonic() + self._limits.verdict_seconds)
        self._unsent.append(pending)
        self._has_unsent.set()
        if not self._num_open:
            self._judged_at = time.monotonic()
        self._num_open += 1
        try:
            async with asyncio.timeout(self._limits.verdict_seconds):
                reward = await pending.reward
        except TimeoutError:
            self._metrics.verdicts.labels(VerdictResult.TIMED_OUT).inc()
            seconds = self._limits.verdict_seconds
            raise NoVerdict(f"none came within {seconds:g} s{pending.last_failure}; is the verifier up?") from None
        finally:
            self._num_open -= 1
        if isinstance(reward, NoVerdict):
            raise reward
        return reward

    async def is_ready(self) -> bool:
        """Whether the verifier can judge; asks over HTTP only after a failed request."""
        if not self._last_succeeded and await self._verifier.is_ready():
            self._note_success()
        return self._last_succeeded

    @property
    def problem(self) -> str:
        """Why there have been no verdicts for some seconds; empty while there are."""
        now = time.monotonic()
        if now - self._failing_since > _PROBLEM_SECONDS:
            return self._failure
        waited = now - self._judged_at
        if self._num_open and waited > _SILENT_SECONDS:
            return f"{self._num_open} answers wait for the verifier, and none was judged for {waited:.0f} s"
        return ""

    def _note_success(self) -> None:
        self._last_succeeded, self._failing_since, self._failure = True, math.inf, ""

    def _note_failure(self, error: IbtpoError) -> None:
        self._last_succeeded = False
        self._failing_since, self._failure = min(self._failing_since, time.monotonic()), str(error)

    async def _send_batch(self) -> None:
        await self._has_unsent.wait()
        await asyncio.sleep(self._limits.gather_seconds)
        if batch := self._take_batch():
            await self._judge(batch)

    def _take_batch(self) -> list[_Pending]:
        batch: list[_Pending] = []
        while self._unsent and len(batch) < self._limits.max_batch:
            pending = self._unsent.popleft()
            if not pending.reward.done():
                batch.append(pending)
        if not self._unsent:
            self._has_unsent.clear()
        return batch

    async def _judge(self, batch: list[_Pending]) -> None:
        """Repeats a failed request for the answers it left open, until their last deadline: judging is idempotent."""
        deadline = max(pending.deadline for pending in batch)
        try:
            while (seconds_left := deadline - time.monotonic()) > 0 and (batch := _unresolved(batch)):
                try:
                    await self._request(batch, seconds_left)
                except IbtpoError as error:
                    self._note_failure(error)
                    self._metrics.verifier_failures.labels(_FAILURE_OF.get(type(error), VerifierFailure.REFUSED)).inc()
                    if error.status < 500 and not isinstance(error, Overloaded):  # no retry can succeed
                        await self._judge_halves(batch, error)
                        return
                    for pending in batch:
                        if seconds_left > _RETRY_SECONDS or not pending.last_failure:  # a try that had time tells more
                            pending.last_failure = f": {error}"
                    await asyncio.sleep(min(_RETRY_SECONDS, seconds_left))
        finally:  # also where the replica ends meanwhile
            for pending in batch:
                pending.resolve(NoVerdict(f"none came in time{pending.last_failure}"))

    async def _judge_halves(self, batch: list[_Pending], error: IbtpoError) -> None:
        """Isolates the answer that had its batch refused, so that the others get their rewards."""
        is_of_one = isinstance(error, InvalidInput | TooLarge)
        if len(batch) == 1 or not is_of_one:
            for pending in batch:
                pending.resolve(NoVerdict(str(error), is_final=is_of_one))
            return
        half = len(batch) // 2
        await self._judge(batch[:half])
        await self._judge(batch[half:])

    async def _request(self, batch: list[_Pending], seconds: float) -> None:
        """One request. Each reward is set as soon as its verdict comes; an answer that gets no verdict has none."""
        pending_of_id = {pending.item.id: pending for pending in batch}

        def on_verdict(verdict: Verdict) -> None:
            self._note_success()
            if (pending := pending_of_id.pop(verdict.id, None)) is not None:
                self._record(pending, verdict)

        await self._verifier.judge_each([pending.item for pending in batch], seconds, on_verdict, seconds)
        self._note_success()
        for pending in pending_of_id.values():
            self._record(pending, None)

    def _record(self, pending: _Pending, verdict: Verdict | None) -> None:
        self._judged_at = time.monotonic()
        is_judged = verdict is not None and verdict.reward is not None
        self._metrics.verdicts.labels(VerdictResult.JUDGED if is_judged else VerdictResult.NULL).inc()
        if verdict is None:
            pending.resolve(NoVerdict("the verifier left it out"))
        elif verdict.reward is None:
            pending.resolve(NoVerdict(f"the verifier gave no reward: {verdict.reason}"))
        else:
            pending.resolve(Reward(verdict.reward, verdict.final_answer))


def _unresolved(batch: list[_Pending]) -> list[_Pending]:
    return [pending for pending in batch if not pending.reward.done()]
