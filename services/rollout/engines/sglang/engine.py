"""The SGLang engine: completions and scores over HTTP, from a server that is kept running with the wanted weights."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, EngineLimits, Request, ScoreRequest, TokenScores
from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient
from services.rollout.engines.sglang.metrics import RequestResult, SglangMetrics, SglangSeries
from services.rollout.engines.sglang.prefill_once import Leader, PrefillOnce
from services.rollout.engines.sglang.score_format import (
    OneToken,
    check_score,
    decode_score,
    decode_token,
    encode_score,
    encode_token,
)
from services.rollout.engines.sglang.server import Server
from services.rollout.engines.sglang.supervisor import RunningServer, Supervisor
from shared.errors import DeadlineExceeded, IbtpoError, Overloaded, Unavailable, Unreachable
from shared.runtime.logs import event_logger
from shared.runtime.loops import Periodic, cancel
from shared.tree.draw import WeightVersion

log = event_logger(__name__)

_MAX_TRIES = 3
_SCRAPE_SECONDS = 5.0
T = TypeVar("T")
_Encode = Callable[[str, WeightVersion], bytes]
"""A request's JSON, from its id and the weights that the server has."""


class SglangEngine:
    """Implements Engine. Requests survive a crash of the server: each is sent again once the server is back with the
    current weights. Seeds are not passed on (docs/sglang.md)."""

    def __init__(self, config: SglangConfig, server: Server, metrics: SglangMetrics) -> None:
        self.server = server
        self.series = SglangSeries()
        self._config = config
        self._metrics = metrics
        self._supervisor = Supervisor(config, server, metrics)
        self._prefill_once = PrefillOnce()
        self._concurrency = asyncio.Semaphore(config.max_requests)
        self._num_calls = 0
        self._name = uuid.uuid4().hex[:8]
        self._numbers = count()
        self._aborts: set[asyncio.Task[None]] = set()
        self._scraping: asyncio.Task[None] | None = None

    @property
    def version(self) -> WeightVersion | None:
        running = self._supervisor.running
        return running.bundle.version if running is not None else None

    @property
    def limits(self) -> EngineLimits:
        return self._supervisor.limits

    @property
    def computes_in_float32(self) -> bool:
        return False  # its own choice

    async def complete(self, request: Request) -> Completion:
        self._supervisor.check_open()
        wire.check_request(request, self.limits)
        with self._admit():
            async with self._prefill_once.lead_or_wait(request.token_ids) as leader:
                dp, top_k = self._config.dp, self._config.entropy_top_k
                encode = partial(wire.encode_request, request, stream=leader is not None, dp=dp, entropy_top_k=top_k)
                return await self._ask(encode, partial(wire.decode_completion, request=request), leader)

    async def score(self, request: ScoreRequest) -> TokenScores:
        self._supervisor.check_open()
        check_score(request, self.limits)
        with self._admit():
            async with self._prefill_once.lead_or_wait(request.token_ids):
                if request.scale != 1.0:
                    return await self._score_by_token(request)
                encode = partial(encode_score, request, dp=self._config.dp)
                return await self._ask(encode, partial(decode_score, request=request))

    async def load(self, snapshot: Path, version: WeightVersion, *, afresh: bool = False) -> None:
        self._supervisor.check_open()
        await self._supervisor.load(await asyncio.to_thread(Bundle.read, snapshot, version), afresh=afresh)
        if self._scraping is None:
            self._scraping = Periodic("sglang_scrape", self.scrape, every_seconds=_SCRAPE_SECONDS).start()

    async def close(self) -> None:
        await self._supervisor.close()
        await cancel([*self._aborts, *([self._scraping] if self._scraping else [])])

    @contextmanager
    def _admit(self) -> Iterator[None]:
        """Counts one completion or score; Overloaded if `max_waiting` are in progress."""
        if self._num_calls >= self._config.max_waiting:
            raise Overloaded(f"{self._num_calls} requests are in progress, the most that max_waiting allows: try later")
        self._num_calls += 1
        try:
            with self._metrics.calls.track_inprogress():
                yield
        finally:
            self._num_calls -= 1

    async def _score_by_token(self, request: ScoreRequest) -> TokenScores:
        """Asks for each token by itself, the last one first: then the others' prefixes are cached. Asks again where
        the weights have changed meanwhile."""
        for _ in range(_MAX_TRIES):
            *others, last = range(len(request.continuation))
            of_last = await self._score_token(request, last)
            try:
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(self._score_token(request, index)) for index in others]
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            tokens = [*(task.result() for task in asked), of_last]
            if len({token.version for token in tokens}) == 1:
                cached = min(of_last.cached_tokens, len(request.token_ids))
                return TokenScores(tuple(token.logprob for token in tokens), of_last.version, cached)
        raise Unavailable(f"the weights changed during each of {_MAX_TRIES} tries of one score: try again")

    async def _score_token(self, request: ScoreRequest, index: int) -> OneToken:
        encode = partial(encode_token, request, index, dp=self._config.dp)
        return await self._ask(encode, partial(decode_token, request=request, index=index))

    async def _ask(self, encode: _Encode, decode: Callable[[dict[str, Any]], T], leader: Leader | None = None) -> T:
        """The answer to one request. Retries if the server went away or dropped it: nothing of it has been used
        then."""
        num_lost = 0
        async with self._concurrency:
            with self._metrics.in_flight.track_inprogress():
                while True:
                    running = await self._supervisor.wait_until_up()
                    try:
                        return await self._try_once(running, encode, decode, leader)
                    except (Unreachable, wire.Aborted) as error:
                        self._supervisor.check_open()
                        num_lost += 1
                        if num_lost == _MAX_TRIES:
                            raise Unavailable(
                                f"{_MAX_TRIES} tries of one request were lost, the last: {error}"
                            ) from error
                        await self._supervisor.probe(running)

    async def _try_once(
        self, running: RunningServer, encode: _Encode, decode: Callable[[dict[str, Any]], T], leader: Leader | None
    ) -> T:
        rid = f"{self._name}-{next(self._numbers)}"
        on_first_token = leader.computed.set if leader is not None else None
        result = RequestResult.FAILED
        try:
            body = encode(rid, running.bundle.version)
            decoded = decode(await running.client.generate(body, self._config.request_seconds, on_first_token))
            result = RequestResult.DONE
        except (Unreachable, wire.Aborted):
            result = RequestResult.LOST
            raise
        except (asyncio.CancelledError, DeadlineExceeded):
            result = RequestResult.GIVEN_UP
            self._abort(running.client, rid)
            raise
        finally:
            self._metrics.requests.labels(result).inc()
        return decoded

    def _abort(self, client: SglangClient, rid: str) -> None:
        """Makes the server drop a request now; it may notice the closed connection only later."""
        abort = asyncio.create_task(_abort(client, rid), name="sglang-abort")
        self._aborts.add(abort)
        abort.add_done_callback(self._aborts.discard)

    async def scrape(self) -> None:
        """Updates `series` from the server, a loop of this engine's; there are none while it does not answer."""
        running, text = self._supervisor.running, ""
        if running is not None:
            with suppress(Unavailable):
                text = await running.client.metrics(_SCRAPE_SECONDS)
        self.series.show(text)


async def _abort(client: SglangClient, rid: str) -> None:
    try:
        await client.abort(rid)
    except IbtpoError as error:
        log.debug("abort_failed", error=str(error))
