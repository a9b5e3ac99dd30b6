"""Keeps one server running with the wanted weights."""

import asyncio
from dataclasses import dataclass, replace
from functools import partial

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import EngineLimits
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.checksums import WeightChecks
from services.rollout.engines.sglang.client import SglangClient
from services.rollout.engines.sglang.metrics import SglangMetrics, StartCause
from services.rollout.engines.sglang.server import Server
from shared.errors import Conflict, IbtpoError, Unavailable, Unreachable
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff, Periodic, cancel

log = event_logger(__name__)

_PROBE_SECONDS = 2.0
_CHECK_SECONDS = 25.0
"""Longer than the 20 s after which the server itself reports bad health."""
_RESTART_PAUSES = Backoff(first_seconds=0.5, most_seconds=30.0)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server whose weights are known."""

    client: SglangClient
    bundle: Bundle


class UnexpectedAnswer(Unavailable):
    """The server serves weights that were not loaded from here."""


class Supervisor:
    """`running` is None whenever it is uncertain whether the server runs, or with which weights."""

    def __init__(self, config: SglangConfig, server: Server, metrics: SglangMetrics) -> None:
        self._config = config
        self._server = server
        self._metrics = metrics
        self._wanted: Bundle | None = None
        self._limits: EngineLimits | None = None
        self._checks = WeightChecks(config.load_seconds)
        self._changing = asyncio.Lock()
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._supervision: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.running: RunningServer | None = None

    @property
    def limits(self) -> EngineLimits:
        """Of the policy; they stay known while the server restarts."""
        if self._limits is None:
            raise Unavailable("no weights are loaded yet: wait until the replica is ready")
        return self._limits

    def check_open(self) -> None:
        if self._is_closed:
            raise Unavailable("the engine is closed: ask another replica")

    async def wait_until_up(self) -> RunningServer:
        """The running server, after a restart if need be; Unavailable if it does not come back in time."""
        try:
            async with asyncio.timeout(self._config.start_seconds):
                while True:
                    self.check_open()
                    if self.running is not None:
                        return self.running
                    await self._up.wait()
        except TimeoutError as error:
            raise Unavailable("SGLang did not come back in time (rollout.sglang.start_seconds)") from error

    async def probe(self, running: RunningServer) -> None:
        """Checks at once whether a server that broke a connection still listens."""
        try:
            await running.client.check_listening(_PROBE_SECONDS)
        except Unreachable as error:
            self._mark_lost(running, str(error))

    async def load(self, bundle: Bundle, *, afresh: bool = False) -> None:
        """Serves `bundle` from now on; see Engine.load. Conflict if it is older than the wanted one."""
        self.check_open()
        if self._server.refusal is not None:
            raise Conflict(self._server.refusal)
        change = asyncio.create_task(self._change(bundle, afresh=afresh), name="sglang-change")
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)
        try:
            # a cancelled caller must not interrupt the change: the server would stay paused
            await asyncio.shield(change)
        except asyncio.CancelledError:
            if change.cancelled():
                self.check_open()
            raise

    async def close(self) -> None:
        """Stops the server, which ends every request."""
        self._is_closed = True
        await cancel([*self._changes, *([self._supervision] if self._supervision else [])])
        if self.running is not None:
            self._mark_lost(self.running, "closed")
        self._up.set()  # wakes `wait_until_up`, which finds it closed
        await self._server.close()

    async def _change(self, bundle: Bundle, *, afresh: bool) -> None:
        async with self._changing:
            wanted, running = self._wanted, self.running
            if wanted is not None:
                if bundle.version < wanted.version and bundle.version.origin == wanted.version.origin:
                    raise Conflict(
                        f"version {bundle.version} is older than {wanted.version}, which is served or loading"
                    )
                wanted.check_successor(bundle)
            if running is not None and running.bundle.version == bundle.version and not afresh:
                return
            if running is None or not await self._replace_weights(running, bundle):
                await self._start_or_roll_back(bundle, wanted)

    async def _replace_weights(self, running: RunningServer, bundle: Bundle) -> bool:
        """Whether the running server took the new weights; if not, its state is unknown and it must restart."""
        try:
            check = partial(self._checks.check, await self._checks.expect(bundle))
            pause_seconds = await running.client.replace_weights(
                bundle.directory, bundle.version, self._config.load_seconds, check
            )
        except IbtpoError as error:
            self._mark_lost(running, f"tainted: {error}")
            return False
        if self.running is not running:  # lost meanwhile
            return False
        self.running = replace(running, bundle=bundle)
        self._wanted = bundle
        self._metrics.pause_seconds.observe(pause_seconds)
        log.info("weights_replaced", version=str(bundle.version), pause_seconds=round(pause_seconds, 4))
        return True

    async def _start_or_roll_back(self, bundle: Bundle, before: Bundle | None) -> None:
        try:
            await self._start(bundle, StartCause.FIRST if before is None else StartCause.TAINTED)
        except IbtpoError as error:
            if before is None:
                raise
            log.error("engine_rolled_back", version=str(bundle.version), to=str(before.version), error=str(error))
            await self._start(before, StartCause.TAINTED)
            raise Unavailable(
                f"SGLang did not start with {bundle.version} and serves {before.version} again: {error}"
            ) from error

    async def _start(self, bundle: Bundle, cause: StartCause) -> None:
        """Serves `bundle` from a server that is started for it."""
        self._metrics.starts.labels(cause).inc()
        client = await self._server.start(bundle)
        try:
            self._limits = await _limits(client, bundle)
            await self._checks.learn(bundle, client)
        except IbtpoError:
            client.close()
            raise
        self._wanted = bundle
        self.running = RunningServer(client, bundle)
        self._metrics.up.set(1)
        self._down.clear()
        self._up.set()
        log.info("engine_up", version=str(bundle.version), cause=cause.value)
        if self._supervision is None:
            self._supervision = Periodic("sglang_supervisor", self._supervise, backoff=_RESTART_PAUSES).start()

    async def _supervise(self) -> None:
        """Waits until the server is lost, and restarts it with the wanted weights."""
        if self.running is not None:
            running = self.running
            self._mark_lost(running, await self._wait_until_lost(running))
        async with self._changing:
            if self.running is None and self._wanted is not None:
                await self._start(self._wanted, StartCause.LOST)

    async def _wait_until_lost(self, running: RunningServer) -> str:
        """Waits until it exits, hangs, serves other weights, or was marked as lost; returns why."""
        exited = asyncio.create_task(self._server.wait_until_lost())
        down = asyncio.create_task(self._down.wait())
        try:
            async with asyncio.TaskGroup() as group:
                hung = group.create_task(self._wait_until_hung(running))
                await asyncio.wait({exited, down, hung}, return_when=asyncio.FIRST_COMPLETED)
                hung.cancel()
            return exited.result() if exited.done() else "lost" if down.done() else hung.result()
        finally:
            exited.cancel()
            down.cancel()

    async def _wait_until_hung(self, running: RunningServer) -> str:
        """Waits until its health checks have failed for too long; returns why."""
        clock = asyncio.get_running_loop().time
        last_success = clock()
        while True:
            await asyncio.sleep(self._config.health_seconds)
            if self._changing.locked():
                last_success = clock()
                continue
            try:
                await self._check(running)
                last_success = clock()
            except (Unreachable, UnexpectedAnswer) as error:
                return str(error)
            except IbtpoError as error:
                if clock() - last_success > self._config.hang_seconds:
                    return f"no successful health check for {self._config.hang_seconds:g} s: {error}"

    async def _check(self, running: RunningServer) -> None:
        """Checks that a token passes through every process of the server and that nobody else changed the weights."""
        await running.client.check_generating(_CHECK_SECONDS)
        expected = self.running
        reported = (await running.client.model_info()).get("weight_version")
        if expected is None or expected is not self.running or self._changing.locked():
            return  # replaced meanwhile
        if reported != str(expected.bundle.version):
            raise UnexpectedAnswer(f"the server reports weights {reported!r}, not {expected.bundle.version}")

    def _mark_lost(self, running: RunningServer, reason: str) -> None:
        """Nothing is served from now on; does nothing if another server has already replaced this one."""
        if self.running is None or self.running.client is not running.client:
            return
        if not self._is_closed:
            log.error("engine_down", version=str(self.running.bundle.version), reason=reason)
        self.running = None
        self._up.clear()
        self._down.set()
        self._metrics.up.set(0)
        running.client.close()


async def _limits(client: SglangClient, bundle: Bundle) -> EngineLimits:
    """As the server reports them: it refuses prompts within a few tokens of the model's context, and silently cuts
    answers there."""
    info = await client.server_info()
    longest = info.get("max_req_input_len")
    if not isinstance(longest, int):
        raise Unavailable(f"this SGLang, {info.get('version')}, does not report its max_req_input_len")
    return EngineLimits(bundle.vocab_size, longest)
