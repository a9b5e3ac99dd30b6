"""The SGLang engine: completions over HTTP, from a server that is kept running with the wanted weights."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
from shared.runtime.loops import Periodic, cancel
from shared.tree.draw import WeightVersion

log = event_logger(__name__)

_MAX_TRIES = 3
_SCRAPE_SECONDS = 5.0


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

    async def complete(self, request: Request) -> Completion:
        self._supervisor.check_open()
        wire.check_request(request, self.limits)
        with self._admit():
            async with self._prefill_once.lead_or_wait(request.token_ids) as leader, self._concurrency:
                with self._metrics.in_flight.track_inprogress():
                    return await self._sample(request, leader)

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        self._supervisor.check_open()
        await self._supervisor.load(await asyncio.to_thread(Bundle.read, snapshot, version))
        if self._scraping is None:
            self._scraping = Periodic("sglang_scrape", self.scrape, every_seconds=_SCRAPE_SECONDS).start()

    async def close(self) -> None:
        await self._supervisor.close()
        await cancel([*self._aborts, *([self._scraping] if self._scraping else [])])

    @contextmanager
    def _admit(self) -> Iterator[None]:
        """Counts one completion; Overloaded if `max_waiting` are in progress."""
        if self._num_calls >= self._config.max_waiting:
            raise Overloaded(
                f"{self._num_calls} completions are in progress, the most that max_waiting allows: try later"
            )
        self._num_calls += 1
        try:
            with self._metrics.calls.track_inprogress():
                yield
        finally:
            self._num_calls -= 1

    async def _sample(self, request: Request, leader: Leader | None) -> Completion:
        """Retries if the server went away or dropped the request: none of its tokens has been used then."""
        num_lost = 0
        while True:
            running = await self._supervisor.wait_until_up()
            try:
                return await self._try_once(running, request, leader)
            except (Unreachable, wire.Aborted) as error:
                self._supervisor.check_open()
                num_lost += 1
                if num_lost == _MAX_TRIES:
                    raise Unavailable(f"{_MAX_TRIES} tries of one completion were lost, the last: {error}") from error
                await self._supervisor.probe(running)

    async def _try_once(self, running: RunningServer, request: Request, leader: Leader | None) -> Completion:
        rid = f"{self._name}-{next(self._numbers)}"
        version = running.bundle.version
        body = wire.encode_request(request, rid, version, stream=leader is not None, dp=self._config.dp)
        on_first_token = leader.computed.set if leader is not None else None
        result = RequestResult.FAILED
        try:
            answer = await running.client.generate(body, self._config.request_seconds, on_first_token)
            completion = wire.decode_completion(answer, request)
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
        return completion

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
