"""Asks the verifier for rewards: leaves in small batches as they finish, each with a deadline."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import ValidationError

from services.rollout.metrics import RolloutMetrics, VerdictResult, VerifierFailure
from shared.protocol.verdict import Verdict, VerdictItem, VerdictRequest
from shared.runtime.loops import run_until_cancelled

_RETRY_SECONDS = 0.2
_UNREACHED = (httpx.HTTPError, httpx.InvalidURL)


@dataclass(frozen=True, slots=True)
class BatchingLimits:
    """`verdict_seconds` bounds a leaf's wait, `max_batch` a request, `max_requests` those in flight (each until its
    slowest leaf is judged), `max_waiting` the leaves that wait for one. A request is held back for `gather_seconds`,
    so that leaves which the engine finishes in one step share it: one costs as much as judging dozens of answers."""

    verdict_seconds: float = 60.0
    gather_seconds: float = 0.004
    max_batch: int = 128
    max_requests: int = 16
    max_waiting: int = 8192


@dataclass(slots=True)
class _Waiting:
    item: VerdictItem
    deadline: float
    reward: asyncio.Future[float | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RewardBatcher:
    """Batches by itself: what finishes while requests are in flight goes with the next one."""

    def __init__(self, http: httpx.AsyncClient, url: str, limits: BatchingLimits, metrics: RolloutMetrics) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []
        self._answers = True
        self._num_asked = 0

    async def __aenter__(self) -> Self:
        senders = [run_until_cancelled("verdicts", self._send_batch) for _ in range(self._limits.max_requests)]
        self._senders = [asyncio.create_task(sender) for sender in senders]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        for waiting in self._waiting:
            _answer(waiting, None)
        self._waiting.clear()

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> float | None:
        """The reward of one answer in [0, 1]; None when no verdict was had in time."""
        if len(self._waiting) >= self._limits.max_waiting:
            self._metrics.verdicts.labels(VerdictResult.REFUSED).inc()
            return None
        self._num_asked += 1
        item = VerdictItem(id=str(self._num_asked), kind=kind, response=response, answer_key=answer_key)
        waiting = _Waiting(item, time.monotonic() + self._limits.verdict_seconds)
        self._waiting.append(waiting)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._limits.verdict_seconds):
                return await waiting.reward
        except TimeoutError:
            self._metrics.verdicts.labels(VerdictResult.TIMED_OUT).inc()
            return None

    async def is_ready(self) -> bool:
        """Whether the verifier answers; asked over HTTP only while the last batch failed."""
        if not self._answers:
            try:
                response = await self._http.get(f"{self._url}/readyz", timeout=2.0)
                self._answers = response.status_code == httpx.codes.OK
            except _UNREACHED:
                self._answers = False
        return self._answers

    async def _send_batch(self) -> None:
        await self._arrived.wait()
        await asyncio.sleep(self._limits.gather_seconds)
        batch = self._next_batch()
        if batch:
            await self._judge(batch)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._limits.max_batch:
            waiting = self._waiting.popleft()
            if not waiting.reward.done():
                batch.append(waiting)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _judge(self, batch: list[_Waiting]) -> None:
        """Judging is idempotent, so what a failed request left open is asked again until its last deadline."""
        deadline = max(waiting.deadline for waiting in batch)
        while (left := deadline - time.monotonic()) > 0 and (batch := _still_open(batch)):
            try:
                await self._ask(batch, left)
            except (*_UNREACHED, ValidationError, _Refused) as failure:
                self._answers = False
                self._metrics.verifier_failures.labels(_kind_of(failure)).inc()
                if isinstance(failure, _Refused) and not failure.is_passing:
                    await self._judge_halves(batch)
                    return
                await asyncio.sleep(min(_RETRY_SECONDS, left))
        for waiting in batch:
            _answer(waiting, None)

    async def _judge_halves(self, batch: list[_Waiting]) -> None:
        """An answer key that can never be judged takes no neighbour along."""
        if len(batch) == 1:
            _answer(batch[0], None)
            return
        half = len(batch) // 2
        await self._judge(batch[:half])
        await self._judge(batch[half:])

    async def _ask(self, batch: list[_Waiting], seconds: float) -> None:
        """One request. Each leaf is answered as soon as its verdict comes; one that was left out has none."""
        request = VerdictRequest(items=tuple(waiting.item for waiting in batch), deadline_seconds=seconds)
        waiting_of = {waiting.item.id: waiting for waiting in batch}
        async with self._http.stream(
            "POST",
            f"{self._url}/v1/verdicts",
            content=request.model_dump_json(),
            headers={"content-type": "application/json", "accept": "application/x-ndjson"},
            timeout=seconds,
        ) as response:
            if response.status_code != httpx.codes.OK:
                raise _Refused(response.status_code)
            async for line in response.aiter_lines():
                verdict = Verdict.model_validate_json(line)
                if (waiting := waiting_of.pop(verdict.id, None)) is not None:
                    self._record(waiting, verdict.reward)
        self._answers = True
        for waiting in waiting_of.values():
            self._record(waiting, None)

    def _record(self, waiting: _Waiting, reward: float | None) -> None:
        self._metrics.verdicts.labels(VerdictResult.NULL if reward is None else VerdictResult.JUDGED).inc()
        _answer(waiting, reward)


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"the verifier answered {status}")
        self.is_passing = status in (408, 429) or status >= 500


def _answer(waiting: _Waiting, reward: float | None) -> None:
    if not waiting.reward.done():
        waiting.reward.set_result(reward)


def _kind_of(failure: Exception) -> VerifierFailure:
    if isinstance(failure, _Refused):
        return VerifierFailure.REFUSED
    if isinstance(failure, ValidationError):
        return VerifierFailure.UNREADABLE
    return VerifierFailure.TIMED_OUT if isinstance(failure, httpx.TimeoutException) else VerifierFailure.UNREACHABLE


def _still_open(batch: list[_Waiting]) -> list[_Waiting]:
    return [waiting for waiting in batch if not waiting.reward.done()]
