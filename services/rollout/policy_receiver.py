"""Receives policy bundles, sent or fetched, and loads the newest one into the engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from services.rollout.engines.engine import Engine
from services.rollout.metrics import LoadResult, RolloutMetrics
from services.rollout.vocabulary import VOCABULARY_FILES, Vocabulary
from shared.clients import LearnerClient
from shared.clients.bundle_fetch import Overtaken, UnfitDelta, take_in
from shared.errors import Conflict, IbtpoError, InvalidInput, TooLarge, Unavailable, describe, shorten
from shared.protocol.weights import Base, BundleFile
from shared.runtime.logs import event_logger
from shared.tree.draw import WeightVersion
from shared.weights import Messages, Prompt, Snapshot, SnapshotStore, prompt_encoder

log = event_logger(__name__)
_MOST_CHARACTERS_PER_TOKEN = 16
"""On average over a prompt: text has about 4."""
_SHORT_CHARACTERS = 4096
_MOST_TRIES = 3
"""Of a fetch, before the last one."""
TokenizerLoader: TypeAlias = Callable[[Path], Any]
"""Loads the tokenizer, with its chat template, of a policy's directory."""


class PolicyReceiver:
    """Versions only increase: a newer generation replaces an older one, and numbers grow within a generation
    (docs/architecture.md). Only where the run itself says that it began again do they begin again here."""

    def __init__(
        self,
        engine: Engine,
        store: SnapshotStore,
        metrics: RolloutMetrics,
        max_bytes: int,
        load_tokenizer: TokenizerLoader,
    ) -> None:
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._load_tokenizer = load_tokenizer
        self._chat_tokenizer: tuple[Vocabulary, Any] | None = None
        self._directory = Path()
        self._snapshot: Snapshot | None = None
        self._receiving = asyncio.Lock()
        self._encoding = asyncio.Lock()
        self._pinned = AsyncExitStack()  # the served snapshot: an engine that restarts reads it again
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_files: frozenset[BundleFile] = frozenset()
        self._run_version: WeightVersion | None = None
        self._max_staleness: int | None = None
        self.loading: WeightVersion | None = None
        """The version that is arriving or being loaded."""
        self.problem = ""
        """Why the last weights that were sent are not served; empty when they are."""
        self.refused: WeightVersion | None = None
        """The last version whose bundle came whole and can never be served here."""
        self.content_hash = ""
        """Of the served bundle; empty before the first one arrived over HTTP."""
        self.fault = ""
        """How the served weights do not act as published; empty where they do, as far as is known."""

    @property
    def version(self) -> WeightVersion | None:
        """The served version; None before the first load."""
        return self._engine.version

    @property
    def is_serving(self) -> bool:
        """Whether a tree could be grown now that the run would use."""
        has_weights = self._vocabulary is not None and self._engine.version is not None
        return has_weights and self.why_stale is None and not self.fault

    @property
    def why_stale(self) -> str | None:
        """Why the run would use no tree of the served weights; None where it would, as far as is known."""
        served, wanted = self.version, self._run_version
        if served is None or wanted is None:
            return None
        if served.origin == wanted.origin and (
            self._max_staleness is None or wanted.number - served.number <= self._max_staleness
        ):
            return None
        reason = f"its weights are {served}, the run is at {wanted}"
        return f"{reason}: {self.problem}" if self.problem else f"{reason}; they are on their way"

    def note_run(self, version: WeightVersion, max_staleness: int | None) -> None:
        """Takes note of the version that the run has published, and of how much older its trees may be."""
        self._run_version, self._max_staleness = version, max_staleness
        self._metrics.weights_stale.set(self.why_stale is not None)

    @property
    def is_receiving(self) -> bool:
        """Whether a bundle is arriving or being loaded."""
        return self._receiving.locked()

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the served policy; Unavailable before the first load."""
        if self._vocabulary is None:
            raise Unavailable("no weights yet: the learner pushes them, or start with rollout.model")
        return self._vocabulary

    async def encode(self, prompt: Prompt, template_settings: Mapping[str, Any]) -> tuple[int, ...]:
        """The ids of a text, or of messages in the policy's chat template, which gets the settings. What may take long
        is done beside the loop, one at a time; InvalidInput for what is far too long for the context."""
        if isinstance(prompt, str):
            return await self._encode_text(self.vocabulary.encode, prompt)
        vocabulary = self.vocabulary
        self._check_length("prompt", sum(len(text) for message in prompt for text in message.values()))
        async with self._encoding:
            return await asyncio.to_thread(self._encode_messages, vocabulary, prompt, template_settings)

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """The ids of a text by itself, as what comes after a prompt; as `encode` else."""
        return await self._encode_text(self.vocabulary.encode_continuation, text)

    async def _encode_text(self, encode: Callable[[str], tuple[int, ...]], text: str) -> tuple[int, ...]:
        self._check_length("text", len(text))
        if len(text) <= _SHORT_CHARACTERS:
            return encode(text)
        async with self._encoding:
            return await asyncio.to_thread(encode, text)

    def _check_length(self, what: str, num_characters: int) -> None:
        context = self._engine.limits.context_length
        if num_characters > (most := context * _MOST_CHARACTERS_PER_TOKEN):
            raise InvalidInput(
                f"a {what} of {num_characters} characters cannot fit the context of {context} tokens: shorten it to "
                f"{most} characters at most"
            )

    def _encode_messages(
        self, vocabulary: Vocabulary, messages: Messages, template_settings: Mapping[str, Any]
    ) -> tuple[int, ...]:
        try:
            if self._chat_tokenizer is None or self._chat_tokenizer[0] is not vocabulary:
                self._chat_tokenizer = vocabulary, self._load_tokenizer(self._directory)
            return prompt_encoder(self._chat_tokenizer[1], template_settings)(messages)
        except ImportError as error:
            raise InvalidInput(f"this replica cannot apply chat templates ({error}): give prompt_ids") from error
        except (ValueError, OSError) as error:
            raise InvalidInput(str(error)) from error

    async def receive(
        self, stream: AsyncIterator[bytes], expected: WeightVersion, run_origin: str | None = None
    ) -> WeightVersion:
        """Stages, verifies and serves the bundle of version `expected` in `stream`; Conflict unless it is newer than
        the served one, or of `run_origin`, the origin of the run's weights, while the served one is not.

        The served bundle itself, sent again, is accepted.
        """
        # one bundle at a time: the disk has room for the served one and one more
        async with self._receiving, self._taking(expected, run_origin):
            await self._serve(await self._store.receive(stream, self._max_bytes, expected))
        return expected

    async def fetch(self, learner: LearnerClient, run_origin: str | None = None) -> WeightVersion:
        """Fetches and serves the learner's latest version: what differs from the served one, or from what an earlier
        process left here, or all of it where that does not lead there. Errors as those of `receive`, and Unreachable or
        DeadlineExceeded for the learner's."""
        async with self._receiving:
            base = self._snapshot or self._store.latest()
            have = None if base is None else base.manifest.base
            try:
                return await self._fetch_newest(learner, have, run_origin)
            except IbtpoError as error:
                self.problem = shorten(str(error))
                raise

    async def _fetch_newest(self, learner: LearnerClient, have: Base | None, run_origin: str | None) -> WeightVersion:
        """As `fetch`; a newer version takes the place of one that it overtakes."""
        for _ in range(_MOST_TRIES):
            try:
                return await self._fetch(learner, have, run_origin)
            except UnfitDelta as error:
                log.warning("delta_refused", base=str(have and have.version), reason=str(error))
                have = None
            except Overtaken as error:
                log.info("weights_overtaken", reason=str(error))
        return await self._fetch(learner, have, run_origin)

    async def _fetch(self, learner: LearnerClient, have: Base | None, run_origin: str | None) -> WeightVersion:
        async with (
            learner.latest_weights(have) as (version, download),
            self._taking(version, run_origin),
        ):
            await self._serve(await take_in(self._store, self._max_bytes, version, download, learner, have))
        return version

    @asynccontextmanager
    async def _taking(self, expected: WeightVersion, run_origin: str | None) -> AsyncIterator[None]:
        """Books a version that is arriving while the block runs, and how it ends."""
        self._refuse_older(expected, run_origin)
        self.loading = expected
        try:
            yield
        except Overtaken:
            raise
        except Exception as error:  # whatever it is, the run's view says why these weights are not served
            if isinstance(error, TooLarge):
                self.refused = expected
            self._metrics.weight_loads.labels(LoadResult.REFUSED).inc()
            self.problem = shorten(str(error)) if isinstance(error, IbtpoError) else describe(error)
            log.error("weights_refused", version=str(expected), reason=self.problem)
            raise
        finally:
            self.loading = None
        self.problem = ""
        self._metrics.weights_stale.set(self.why_stale is not None)

    async def _serve(self, snapshot: Snapshot) -> None:
        if snapshot.version != self.version:
            try:
                await self._load(snapshot)
            except InvalidInput:
                self.refused = snapshot.version
                await self._store.discard(snapshot)
                raise
        elif snapshot.manifest.content_hash != self.content_hash:
            raise Conflict(
                f"version {snapshot.version} is served with different contents: two learners share a generation"
            )

    def distrust(self, fault: str) -> None:
        """The served weights do not act as published: they are not ready until `trust`."""
        self.fault = fault
        self._metrics.weights_faulty.set(1)

    def trust(self) -> None:
        """The served weights act as published."""
        self.fault = ""
        self._metrics.weights_faulty.set(0)

    async def load_afresh(self, version: WeightVersion) -> None:
        """Loads the snapshot of `version`, if it is served still, once more, whole: its files were verified as they
        arrived, memory was not."""
        async with self._receiving:
            if self.version == version:
                await self._engine.load(self._directory, version, afresh=True)

    async def load_directory(self, directory: Path) -> None:
        """Serves a bundle of this host as version 0.0, which any learner's version replaces."""
        vocabulary = await asyncio.to_thread(Vocabulary.load, directory)
        await self._engine.load(directory, WeightVersion(0, 0))
        self._vocabulary, self._directory = vocabulary, directory

    def _refuse_older(self, version: WeightVersion, run_origin: str | None) -> None:
        served, wanted = self.version, self._run_version
        if served is None:
            if wanted and run_origin not in (None, version.origin) and version.generation <= wanted.generation:
                raise Conflict(f"the learner hands out version {version}, the run's status says {wanted}: two learners")
            return
        if served.origin == version.origin:
            if version < served:
                raise Conflict(
                    f"version {version} is older than {served}, which is served: this replica follows a newer learner"
                )
        elif version.generation <= served.generation and version.origin != run_origin:
            raise Conflict(
                f"version {version} does not follow {served}, which is served and of another learner: it is taken once "
                "the run's status names it"
            )

    async def _load(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        async with AsyncExitStack() as pinned:
            await pinned.enter_async_context(self._store.pin(snapshot))
            files = frozenset(file for file in snapshot.manifest.files if file.name in VOCABULARY_FILES)
            vocabulary = self._vocabulary
            if vocabulary is None or files != self._vocabulary_files:
                vocabulary = await asyncio.to_thread(Vocabulary.load, snapshot.directory)
            await self._engine.load(snapshot.directory, snapshot.version)
            # no await before all of this is said of the version that the engine now has
            self._vocabulary, self._vocabulary_files = vocabulary, files
            self._directory = snapshot.directory
            self._snapshot, self.content_hash = snapshot, snapshot.manifest.content_hash
            self._pinned, before = pinned.pop_all(), self._pinned
        await before.aclose()
        self._metrics.record_load(snapshot.version, time.monotonic() - started)
        log.info("weights_loaded", version=str(snapshot.manifest.version), seconds=time.monotonic() - started)
