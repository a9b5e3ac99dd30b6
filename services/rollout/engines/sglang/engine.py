"""The SGLang engine: completions over HTTP from a server that is kept alive, and kept at the right weights."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, EngineLimits, Request
from services.rollout.engines.sglang import wire
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import Late, SglangClient
from services.rollout.engines.sglang.connections import Unreachable
from services.rollout.engines.sglang.exposition import SglangSeries
from services.rollout.engines.sglang.metrics import SglangMetrics
from services.rollout.engines.sglang.server import Server
from services.rollout.engines.sglang.siblings import Lead, Siblings
from services.rollout.engines.sglang.swap import swap
from services.rollout.engines.sglang.versions import Unsupported, check_version
from shared.errors import Conflict, IbtpoError, Overloaded, Unavailable
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff
from shared.tree.draw import WeightVersion

log = event_logger(__name__)

_MAX_TRIES = 3
_PROBE_SECONDS = 2.0
_CHECK_SECONDS = 25.0
_SCRAPE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Serving:
    """A server in a known state."""

    client: SglangClient
    bundle: Bundle
    limits: EngineLimits


class SglangEngine:
    """Implements Engine. A crash of the server ends no request: its completions are asked for again, from the same
    prefixes, once it is back with the current weights. Seeds are not passed on (docs/sglang.md)."""

    def __init__(self, config: SglangConfig, server: Server, metrics: SglangMetrics) -> None:
        self.series = SglangSeries()
        self._config = config
        self._server = server
        self._metrics = metrics
        self._serving: _Serving | None = None
        self._wanted: Bundle | None = None
        self._limits: EngineLimits | None = None
        self._up = asyncio.Event()
        self._doubt = asyncio.Event()
        self._changing = asyncio.Lock()
        self._siblings = Siblings()
        self._places = asyncio.Semaphore(config.max_requests)
        self._num_calls = 0
        self._name = uuid.uuid4().hex[:8]
        self._numbers = count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def version(self) -> WeightVersion | None:
        return self._serving.bundle.version if self._serving is not None else None

    @property
    def limits(self) -> EngineLimits:
        if self._limits is None:
            raise Unavailable("no weights are loaded yet: wait until the replica is ready")
        return self._limits

    async def complete(self, request: Request) -> Completion:
        self._check_open()
        wire.check(request, self.limits)
        if self._num_calls >= self._config.max_waiting:
            raise Overloaded(f"{self._num_calls} completions are asked for, max_waiting is the same: try later")
        self._num_calls += 1
        try:
            async with self._siblings.turn(request.token_ids) as lead, self._place():
                return await self._sampled(request, lead)
        finally:
            self._num_calls -= 1
            self._metrics.waiting.set(self._num_waiting)

    async def load(self, snapshot: Path, version: WeightVersion) -> None:
        self._check_open()
        if self._server.refusal is not None:
            raise Conflict(self._server.refusal)
        bundle = await asyncio.to_thread(Bundle.read, snapshot, version)
        # not the caller's to cancel: half a change would leave the server paused
        await asyncio.shield(self._spawn(self._change(bundle)))

    async def close(self) -> None:
        self._is_closed = True
        tasks = [*self._tasks, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._serving is not None:
            self._serving.client.close()
        self._mark_down("closed")
        self._up.set()  # who waits for it finds the engine closed
        await self._server.close()

    # Completions

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among the requests at the server."""
        self._metrics.waiting.set(self._num_waiting)
        async with self._places:
            self._metrics.in_flight.inc()
            try:
                yield
            finally:
                self._metrics.in_flight.dec()

    @property
    def _num_waiting(self) -> int:
        return max(0, self._num_calls - self._config.max_requests + self._places._value)

    async def _sampled(self, request: Request, lead: Lead | None) -> Completion:
        """Tried again when the server went away or dropped it: nobody has seen a token of it then."""
        for number in count(1):
            serving = await self._when_up()
            try:
                completion = await self._sample(serving, request, lead)
            except (Unreachable, wire.Aborted) as error:
                self._check_open()
                self._metrics.requests.labels("lost").inc()
                if number == _MAX_TRIES:
                    raise Unavailable(f"{_MAX_TRIES} tries of one completion were lost, the last: {error}") from error
                await self._look_at(serving)
            else:
                self._metrics.requests.labels("done").inc()
                return completion
        raise AssertionError

    async def _sample(self, serving: _Serving, request: Request, lead: Lead | None) -> Completion:
        rid = f"{self._name}-{next(self._numbers)}"
        body = wire.body_of(request, rid, serving.bundle.version, stream=lead is not None)
        told = lead.computed.set if lead is not None else None
        try:
            answer = await serving.client.generate(body, self._config.request_seconds, told)
        except (asyncio.CancelledError, Late):
            self._metrics.requests.labels("given_up").inc()
            self._spawn(self._abort(serving.client, rid))
            raise
        except IbtpoError:
            self._metrics.requests.labels("refused").inc()
            raise
        return wire.completion_of(answer, request)

    async def _abort(self, client: SglangClient, rid: str) -> None:
        try:
            await client.abort(rid)
        except IbtpoError as error:
            log.debug("abort_failed", error=str(error))

    async def _when_up(self) -> _Serving:
        try:
            async with asyncio.timeout(self._config.start_seconds):
                while self._serving is None:
                    self._check_open()
                    await self._up.wait()
        except TimeoutError as error:
            raise Unavailable("SGLang did not come back in time (rollout.sglang.start_seconds)") from error
        self._check_open()
        return self._serving

    async def _look_at(self, serving: _Serving) -> None:
        """Finds out at once whether a server that dropped a connection is still there."""
        try:
            await serving.client.check_listening(_PROBE_SECONDS)
        except Unreachable as error:
            if self._serving is not None and self._serving.client is serving.client:
                self._mark_down(str(error))

    def _check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the engine is closed: ask another replica")

    # Weights

    async def _change(self, bundle: Bundle) -> None:
        async with self._changing:
            self._check_open()
            old = self._wanted
            if old is not None:
                _refuse_older(old.version, bundle.version)
                old.refuse_as_successor(bundle)
            if self._serving is not None and self._serving.bundle.version == bundle.version:
                return
            if self._serving is None or not await self._swapped(self._serving, bundle):
                await self._start_or_go_back(bundle, old)

    async def _swapped(self, serving: _Serving, bundle: Bundle) -> bool:
        """Whether the running server took the new weights; where it did not, it is tainted."""
        try:
            seconds = await swap(serving.client, bundle, self._config.load_seconds)
        except IbtpoError as error:
            log.error("engine_tainted", version=str(bundle.version), error=str(error))
            self._mark_down(str(error))
            return False
        self._metrics.pause_seconds.observe(seconds)
        log.info("weights_swapped", version=str(bundle.version), pause_seconds=round(seconds, 4))
        if self._serving is not serving:  # it died meanwhile
            return False
        self._serving = replace(serving, bundle=bundle)
        self._wanted = bundle
        return True

    async def _start_or_go_back(self, bundle: Bundle, old: Bundle | None) -> None:
        try:
            await self._start(bundle, "first" if old is None else "tainted")
        except IbtpoError as error:
            if old is None:
                raise
            log.error("engine_goes_back", version=str(bundle.version), to=str(old.version), error=str(error))
            await self._start(old, "tainted")
            raise Unavailable(f"SGLang did not start with {bundle.version}, serves {old.version}: {error}") from error

    async def _start(self, bundle: Bundle, cause: str) -> None:
        """Serves `bundle` from a server in a fresh state."""
        self._metrics.starts.labels(cause).inc()
        client = await self._server.start(bundle)
        limits = await _limits(client, bundle)
        self._limits = limits
        self._wanted = bundle
        self._serving = _Serving(client, bundle, limits)
        self._metrics.up.set(1)
        self._up.set()
        log.info("engine_up", version=str(bundle.version), cause=cause, context_length=limits.context_length)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="sglang-keeper")
            self._spawn(self._scrape())

    # Staying alive

    async def _keep(self) -> None:
        """Starts the server again whenever it is lost, with the weights that are wanted."""
        while True:
            if self._serving is not None:
                serving = self._serving
                reason = await self._until_lost(serving)
                if self._serving is not None and self._serving.client is serving.client:
                    self._mark_down(reason)
            await self._restart()

    async def _until_lost(self, serving: _Serving) -> str:
        loop = asyncio.get_running_loop()
        exited = asyncio.create_task(self._server.lost())
        healthy = loop.time()
        try:
            while True:
                await self._pause_unless(exited)
                if exited.done():
                    return exited.result()
                if self._serving is None or self._serving.client is not serving.client:
                    return "replaced"
                if self._changing.locked():
                    healthy = loop.time()
                    continue
                try:
                    await self._check(serving)
                    healthy = loop.time()
                except (Unreachable, _Strange) as error:
                    return str(error)
                except IbtpoError as error:
                    if loop.time() - healthy > self._config.hang_seconds:
                        return f"no sign of life for {self._config.hang_seconds:g} s: {error}"
        finally:
            exited.cancel()

    async def _pause_unless(self, exited: asyncio.Task[str]) -> None:
        doubted = asyncio.create_task(self._doubt.wait())
        try:
            await asyncio.wait(
                {exited, doubted}, timeout=self._config.health_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            doubted.cancel()

    async def _check(self, serving: _Serving) -> None:
        """That a token passes through, and that nobody else has changed the weights."""
        await serving.client.check_generating(_CHECK_SECONDS)
        serves = (await serving.client.model_info()).get("weight_version")
        if not self._changing.locked() and self._serving is serving and serves != str(serving.bundle.version):
            raise _Strange(f"the server has weights {serves!r}, not {serving.bundle.version}")

    async def _restart(self) -> None:
        backoff = Backoff(first_seconds=0.5, most_seconds=30.0)
        for failures in count(1):
            async with self._changing:
                if self._serving is not None or self._wanted is None:
                    return
                try:
                    await self._start(self._wanted, "lost")
                    return
                except IbtpoError as error:
                    log.error("engine_start_failed", failures=failures, error=str(error))
            await asyncio.sleep(backoff.pause_seconds(failures))

    def _mark_down(self, reason: str) -> None:
        if self._serving is None:
            return
        if not self._is_closed:
            log.error("engine_down", version=str(self._serving.bundle.version), reason=reason)
        self._serving.client.close()
        self._serving = None
        self._up.clear()
        self._doubt.set()
        self._metrics.up.set(0)
        self.series.show("")

    async def _scrape(self) -> None:
        while True:
            serving = self._serving
            if serving is not None:
                try:
                    text = await serving.client.metrics(_SCRAPE_SECONDS)
                    self.series.show(text if self._serving is not None else "")
                except IbtpoError as error:
                    log.debug("scrape_failed", error=str(error))
            await asyncio.sleep(_SCRAPE_SECONDS)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Strange(Unavailable):
    """The server serves, but not what was loaded into it from here."""


def _refuse_older(wanted: WeightVersion, version: WeightVersion) -> None:
    if version < wanted:
        raise Conflict(f"version {version} is older than {wanted}, which this engine serves or is restarting with")


async def _limits(client: SglangClient, bundle: Bundle) -> EngineLimits:
    """As the server says: it refuses prompts that come within a few tokens of the model's context, and it cuts
    answers there without a word."""
    info = await client.server_info()
    check_version(info.get("version"))
    longest = info.get("max_req_input_len")
    if not isinstance(longest, int):
        raise Unsupported(f"this SGLang {info.get('version')} does not tell its max_req_input_len")
    return EngineLimits(bundle.vocab_size, longest)
