"""A verifier and rollout replicas for one model, at given URLs or started when they are first needed."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from services.launcher.processes.temporary_services import run_replicas, run_verifier
from shared.clients import RolloutClient, VerifierClient
from shared.errors import InvalidInput
from shared.kinds import packages_of
from shared.protocol.grow import GrowRequest, GrowthEvent
from shared.protocol.score import ScoredContinuation, ScoringRequest
from shared.protocol.tree import ScoredTree
from shared.protocol.verdict import Verdict, VerdictItem
from shared.runtime.client import http_client
from shared.runtime.config.url import check_url

GROW_SECONDS = 600.0
JUDGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ServiceAddresses:
    """Services that run already; one without a URL is started. `token` is that of all of them."""

    rollout_url: str | None = None
    verifier_url: str | None = None
    token: str | None = None

    def __post_init__(self) -> None:
        for url in (self.rollout_url, self.verifier_url):
            try:
                check_url(url or "http://any")
            except ValueError as error:
                raise InvalidInput(f"{url!r} {error}") from error


class ModelServices:
    """They run until the block ends. An async context manager; calls may be concurrent."""

    def __init__(
        self,
        model: Path | None,
        given: ServiceAddresses = ServiceAddresses(),
        *,
        num_replicas: int = 1,
        config: str | Path | None = None,
    ) -> None:
        """`model` may be None where no replica is started; `config` has the verifier's kinds, a preset or a file."""
        self._model = model
        self._token = given.token if given.rollout_url or given.verifier_url else None
        self._rollout_urls: tuple[str, ...] = (given.rollout_url,) if given.rollout_url else ()
        self._are_given = bool(given.rollout_url)
        self._verifier_url = given.verifier_url
        self._num_replicas = num_replicas
        self._config = config
        self._stack = AsyncExitStack()
        self._replicas = AsyncExitStack()
        self._plugins: frozenset[str] = frozenset()
        """The packages of the user's own that the replicas import which were started."""
        self._num_growing = 0
        self._grown = asyncio.Condition()
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ibtpo-")))
        self._http: httpx.AsyncClient = await self._stack.enter_async_context(http_client(self._token, GROW_SECONDS))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._replicas.aclose()
        finally:
            await self._stack.aclose()

    async def grow(self, request: GrowRequest, on_event: Callable[[GrowthEvent], None]) -> ScoredTree:
        """One tree, and every event of its growth."""
        async with self._growing(packages_of([request.growth.sampler])) as url:
            return await RolloutClient(self._http, url).watch(request, GROW_SECONDS, on_event)

    async def score(self, request: ScoringRequest) -> tuple[ScoredContinuation, ...]:
        """The log-probabilities of given continuations, in the order of the items."""
        url, *_ = await self.rollout_urls()
        return await RolloutClient(self._http, url).score(request, GROW_SECONDS)

    async def judge(self, items: Sequence[VerdictItem]) -> tuple[Verdict, ...]:
        """The verdicts, in the order of the items."""
        return await VerifierClient(self._http, await self.verifier_url()).judge(items, JUDGE_SECONDS)

    async def verifier_url(self) -> str:
        """Where the verifier is."""
        async with self._starting:
            return await self._start_verifier()

    async def rollout_urls(self) -> tuple[str, ...]:
        """Where the replicas are."""
        async with self._starting:
            return await self._start_replicas()

    @asynccontextmanager
    async def _growing(self, plugins: Sequence[str]) -> AsyncIterator[str]:
        """Where a tree grows whose sampler is of these packages; until the block ends, no replica is replaced."""
        async with self._starting:
            if self._rollout_urls and not self._are_given and not self._plugins.issuperset(plugins):
                await self._end_replicas()
            self._plugins = self._plugins.union(plugins)
            url, *_ = await self._start_replicas()
            self._num_growing += 1
        try:
            yield url
        finally:
            async with self._grown:
                self._num_growing -= 1
                self._grown.notify_all()

    async def _end_replicas(self) -> None:
        """Once no tree grows: what a replica may import is fixed when it begins."""
        async with self._grown:
            await self._grown.wait_for(lambda: not self._num_growing)
        self._rollout_urls = ()
        await self._replicas.aclose()

    async def _start_replicas(self) -> tuple[str, ...]:
        if not self._rollout_urls and self._model is not None:
            verifier = await self._start_verifier()
            settings = [f"plugins={json.dumps(sorted(self._plugins))}"] if self._plugins else []
            replicas = run_replicas(
                self._model, self._num_replicas, self._folder, verifier, self._token, settings=settings
            )
            self._rollout_urls = await self._replicas.enter_async_context(replicas)
        return self._rollout_urls

    async def _start_verifier(self) -> str:
        if self._verifier_url is None:
            self._verifier_url = await self._stack.enter_async_context(run_verifier(self._folder, self._config))
        return self._verifier_url
