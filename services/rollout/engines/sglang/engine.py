"""The SGLang engine: completions over HTTP, from a server that is kept alive and at the right weights."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, EngineLimits, Request
from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient
from services.rollout.engines.sglang.metrics import RequestResult, SglangMetrics, SglangSeries
from services.rollout.engines.sglang.prefill_once import Leader, PrefillOnce
from services.rollout.engines.sglang.server import Server
from services.rollout.engines.sglang.supervisor import RunningServer, Supervisor
from shared.errors import DeadlineExceeded, IbtpoError, Overloaded, Unavailable, Unreachable
from shared.runtime.logs import event_logger
from shared.runtime.loops import Periodic
from shared.tree.draw import WeightVersion

log = event_logger(__name__)

_MAX_TRIES = 3
_SCRAPE_SECONDS = 5.0


class SglangEngine:
    """Implements Engine. A crash of the server ends no request: its completion is asked for again, from the same
    prefix, once the server is back with the current weights. Seeds are not passed on (docs/sglang.md)."""

    def __init__(self, config: SglangConfig, server: Server, metrics: SglangMetrics) -> None:
        self.series = SglangSeries()
        self._config = config
        self._metrics = metrics
        self._supervisor = Supervisor(config, server, metrics)
        self._prefill_once = PrefillOnce()
        self._places = asyncio.Semaphore(config.max_requests)
        self._num_calls = 0
        self._name = uuid.uuid4().hex[:8]
        self._numbers = count()
        self._aborts: set[asyncio.Task[None]] = set()
        self._scraping: asyncio.Task[None] | None = None

    @property
    def version(self) -> WeightVersion | None:
        serving = self._supervisor.serving
        return serving.bundle.version if serving is not None else None

    @property
    def limits(self) -> EngineLimits:
        return self._supervisor.limits

    async def complete(self, request: Request) -> Completion:
        self._supervisor.check_open()
        wire.check(request, self.limits)
        async with self._call(), self._prefill_once.lead_or_wait(request.token_ids) as leader, self._place():
            return await self._sampled(request, leader)

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        self._supervisor.check_open()
        await self._supervisor.load(await asyncio.to_thread(Bundle.read, snapshot, version))
        if self._scraping is None:
            scrape = Periodic("sglang_scrape", self._scrape, every_seconds=_SCRAPE_SECONDS)
            self._scraping = asyncio.create_task(scrape.run(), name=scrape.name)

    async def close(self) -> None:
        await self._supervisor.close()
        tasks = [*self._aborts, *([self._scraping] if self._scraping else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """Counts one call; Overloaded when too many are being made."""
        if self._num_calls >= self._config.max_waiting:
            raise Overloaded(
                f"{self._num_calls} completions are asked for, the most that max_waiting allows: try later"
            )
        self._num_calls += 1
        self._metrics.calls.inc()
        try:
            yield
        finally:
            self._num_calls -= 1
            self._metrics.calls.dec()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the requests at the server."""
        async with self._places:
            self._metrics.in_flight.inc()
            try:
                yield
            finally:
                self._metrics.in_flight.dec()

    async def _sampled(self, request: Request, leader: Leader | None) -> Completion:
        """Tried again when the server went away or dropped it: nobody has seen a token of it then."""
        for number in count(1):
            serving = await self._supervisor.when_up()
            try:
                return await self._sample(serving, request, leader)
            except (Unreachable, wire.Aborted) as error:
                self._supervisor.check_open()
                if number == _MAX_TRIES:
                    raise Unavailable(f"{_MAX_TRIES} tries of one completion were lost, the last: {error}") from error
                await self._supervisor.look_at(serving)
        raise AssertionError("count ended")

    async def _sample(self, serving: RunningServer, request: Request, leader: Leader | None) -> Completion:
        rid = f"{self._name}-{next(self._numbers)}"
        version = serving.bundle.version
        body = wire.encode_request(request, rid, version, stream=leader is not None, dp=self._config.dp)
        told = leader.computed.set if leader is not None else None
        result = RequestResult.FAILED
        try:
            answer = await serving.client.generate(body, self._config.request_seconds, told)
            completion = wire.decode_completion(answer, request)
            result = RequestResult.DONE
        except (Unreachable, wire.Aborted):
            result = RequestResult.LOST
            raise
        except (asyncio.CancelledError, DeadlineExceeded):
            result = RequestResult.GIVEN_UP
            self._give_up(serving.client, rid)
            raise
        finally:
            self._metrics.requests.labels(result).inc()
        return completion

    def _give_up(self, client: SglangClient, rid: str) -> None:
        """Has the server drop what nobody waits for; it may not notice the closed connection for a while."""
        abort = asyncio.create_task(_abort(client, rid), name="sglang-abort")
        self._aborts.add(abort)
        abort.add_done_callback(self._aborts.discard)

    async def _scrape(self) -> None:
        """Reads the server's own series; shows none while it does not answer."""
        serving, text = self._supervisor.serving, ""
        if serving is not None:
            with contextlib.suppress(Unavailable):
                text = await serving.client.metrics(_SCRAPE_SECONDS)
        self.series.show(text)


async def _abort(client: SglangClient, rid: str) -> None:
    try:
        await client.abort(rid)
    except IbtpoError as error:
        log.debug("abort_failed", error=str(error))
