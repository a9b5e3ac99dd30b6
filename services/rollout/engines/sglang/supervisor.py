"""Keeps one server alive and at the weights that are wanted."""

import asyncio
from dataclasses import dataclass, replace

from services.rollout.config import SglangConfig
from services.rollout.engines.engine import EngineLimits
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient, UnsupportedRelease
from services.rollout.engines.sglang.metrics import SglangMetrics, StartCause
from services.rollout.engines.sglang.server import Server
from shared.errors import Conflict, IbtpoError, Unavailable, Unreachable
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff, Periodic

log = event_logger(__name__)

_PROBE_SECONDS = 2.0
_CHECK_SECONDS = 25.0
"""Longer than the 20 s after which the server itself says that it is not well."""
_RESTART_PAUSES = Backoff(first_seconds=0.5, most_seconds=30.0)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server in a known state."""

    client: SglangClient
    bundle: Bundle
    limits: EngineLimits


class UnexpectedAnswer(Unavailable):
    """The server serves, but not what was loaded into it from here."""


class Supervisor:
    """`serving` is None whenever it is not certain what the server serves, or whether it does."""

    def __init__(self, config: SglangConfig, server: Server, metrics: SglangMetrics) -> None:
        self._config = config
        self._server = server
        self._metrics = metrics
        self._wanted: Bundle | None = None
        self._limits: EngineLimits | None = None
        self._changing = asyncio.Lock()
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.serving: RunningServer | None = None

    @property
    def limits(self) -> EngineLimits:
        """Of the policy; they outlast a crash of the server."""
        if self._limits is None:
            raise Unavailable("no weights are loaded yet: wait until the replica is ready")
        return self._limits

    def check_open(self) -> None:
        """Unavailable once it is closed."""
        if self._is_closed:
            raise Unavailable("the engine is closed: ask another replica")

    async def when_up(self) -> RunningServer:
        """Waits for a server that restarts; Unavailable when it does not come back in time."""
        try:
            async with asyncio.timeout(self._config.start_seconds):
                while True:
                    self.check_open()
                    if self.serving is not None:
                        return self.serving
                    await self._up.wait()
        except TimeoutError as error:
            raise Unavailable("SGLang did not come back in time (rollout.sglang.start_seconds)") from error

    async def look_at(self, serving: RunningServer) -> None:
        """Finds out at once whether a server that broke a connection is still there."""
        try:
            await serving.client.check_listening(_PROBE_SECONDS)
        except Unreachable as error:
            self._lose(serving, str(error))

    async def load(self, bundle: Bundle) -> None:
        """Serves `bundle` from now on; see Engine.load. Conflict when it is older than what is wanted."""
        self.check_open()
        if self._server.refusal is not None:
            raise Conflict(self._server.refusal)
        change = asyncio.create_task(self._change(bundle), name="sglang-change")
        self._changes.add(change)
        change.add_done_callback(self._changes.discard)
        # not the caller's to cancel: half a change would leave the server paused
        await asyncio.shield(change)

    async def close(self) -> None:
        """Ends the server, and with it every request."""
        self._is_closed = True
        tasks = [*self._changes, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.serving is not None:
            self._lose(self.serving, "closed")
        self._up.set()  # who waits for it finds it closed
        await self._server.close()

    async def _change(self, bundle: Bundle) -> None:
        async with self._changing:
            wanted, serving = self._wanted, self.serving
            if wanted is not None:
                if bundle.version < wanted.version:
                    raise Conflict(f"version {bundle.version} is older than {wanted.version}, which is wanted here")
                wanted.refuse_as_successor(bundle)
            if serving is not None and serving.bundle.version == bundle.version:
                return
            if serving is None or not await self._replace_weights(serving, bundle):
                await self._start_or_go_back(bundle, wanted)

    async def _replace_weights(self, serving: RunningServer, bundle: Bundle) -> bool:
        """Whether the running server took the new weights; where it did not, it is tainted."""
        try:
            pause_seconds = await serving.client.replace_weights(
                bundle.directory, bundle.version, self._config.load_seconds
            )
        except IbtpoError as error:
            self._lose(serving, f"tainted: {error}")
            return False
        if self.serving is not serving:  # it died meanwhile
            return False
        self.serving = replace(serving, bundle=bundle)
        self._wanted = bundle
        self._metrics.pause_seconds.observe(pause_seconds)
        log.info("weights_replaced", version=str(bundle.version), pause_seconds=round(pause_seconds, 4))
        return True

    async def _start_or_go_back(self, bundle: Bundle, before: Bundle | None) -> None:
        try:
            await self._start(bundle, StartCause.FIRST if before is None else StartCause.TAINTED)
        except IbtpoError as error:
            if before is None:
                raise
            log.error("engine_goes_back", version=str(bundle.version), to=str(before.version), error=str(error))
            await self._start(before, StartCause.TAINTED)
            raise Unavailable(
                f"SGLang did not start with {bundle.version}, serves {before.version}: {error}"
            ) from error

    async def _start(self, bundle: Bundle, cause: StartCause) -> None:
        """Serves `bundle` from a server in a fresh state."""
        self._metrics.starts.labels(cause).inc()
        client = await self._server.start(bundle)
        try:
            self._limits = await _limits(client, bundle)
        except IbtpoError:
            client.close()
            raise
        self._wanted = bundle
        self.serving = RunningServer(client, bundle, self._limits)
        self._metrics.up.set(1)
        self._down.clear()
        self._up.set()
        log.info("engine_up", version=str(bundle.version), cause=cause.value)
        if self._watching is None:
            watch = Periodic("sglang_supervisor", self._watch, backoff=_RESTART_PAUSES)
            self._watching = asyncio.create_task(watch.run(), name=watch.name)

    async def _watch(self) -> None:
        """Starts the server again whenever it is lost, with the weights that are wanted."""
        if self.serving is not None:
            serving = self.serving
            self._lose(serving, await self._until_lost(serving))
        async with self._changing:
            if self.serving is None and self._wanted is not None:
                await self._start(self._wanted, StartCause.LOST)

    async def _until_lost(self, serving: RunningServer) -> str:
        """Waits for its end: it exits, it hangs, it serves what is not ours, or somebody else found it lost."""
        exited = asyncio.create_task(self._server.lost())
        down = asyncio.create_task(self._down.wait())
        try:
            async with asyncio.TaskGroup() as group:
                hung = group.create_task(self._until_hung(serving))
                await asyncio.wait({exited, down, hung}, return_when=asyncio.FIRST_COMPLETED)
                hung.cancel()
            return exited.result() if exited.done() else "lost" if down.done() else hung.result()
        finally:
            exited.cancel()
            down.cancel()

    async def _until_hung(self, serving: RunningServer) -> str:
        """Waits until it has shown no sign of life for too long."""
        clock = asyncio.get_running_loop().time
        last_sign = clock()
        while True:
            await asyncio.sleep(self._config.health_seconds)
            if self._changing.locked():
                last_sign = clock()
                continue
            try:
                await self._check(serving)
                last_sign = clock()
            except (Unreachable, UnexpectedAnswer) as error:
                return str(error)
            except IbtpoError as error:
                if clock() - last_sign > self._config.hang_seconds:
                    return f"no sign of life for {self._config.hang_seconds:g} s: {error}"

    async def _check(self, serving: RunningServer) -> None:
        """A token passes through every process of the server, and nobody else has changed the weights."""
        await serving.client.check_generating(_CHECK_SECONDS)
        expected = self.serving
        serves = (await serving.client.model_info()).get("weight_version")
        is_unchanged = expected is not None and expected is self.serving and not self._changing.locked()
        if is_unchanged and expected is not None and serves != str(expected.bundle.version):
            raise UnexpectedAnswer(f"the server has weights {serves!r}, not {expected.bundle.version}")

    def _lose(self, serving: RunningServer, reason: str) -> None:
        """From now on nothing is served, unless another server has taken this one's place already."""
        if self.serving is None or self.serving.client is not serving.client:
            return
        if not self._is_closed:
            log.error("engine_down", version=str(self.serving.bundle.version), reason=reason)
        self.serving = None
        self._up.clear()
        self._down.set()
        self._metrics.up.set(0)
        serving.client.close()


async def _limits(client: SglangClient, bundle: Bundle) -> EngineLimits:
    """As the server says: it refuses prompts that come within a few tokens of the model's context, and it cuts
    answers there without a word."""
    info = await client.server_info()
    longest = info.get("max_req_input_len")
    if not isinstance(longest, int):
        raise UnsupportedRelease(f"this SGLang, {info.get('version')}, does not tell its max_req_input_len")
    return EngineLimits(bundle.vocab_size, longest)
