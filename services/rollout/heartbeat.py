"""A replica's heartbeat in its run: it announces itself and fetches weights that it missed."""

import contextlib
import os
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from services.rollout.policy_receiver import PolicyReceiver
from shared.clients import LearnerClient
from shared.errors import Conflict, Unavailable
from shared.protocol.replica import ReplicaInfo
from shared.protocol.weights import Offer
from shared.runtime.child_process import is_alive
from shared.runtime.config import with_port
from shared.runtime.logs import event_logger
from shared.runtime.loops import Backoff, Periodic
from shared.runtime.middleware import is_loopback
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
ANNOUNCE_SECONDS = 1.0
_EXPIRE_SECONDS = 5.0
_CATCH_UP_SECONDS = 2.0
_PROCESS_ID = re.compile("[0-9]{1,9}")
_PULL_PAUSES = Backoff(first_seconds=_CATCH_UP_SECONDS, most_seconds=15.0)


class ReplicaHeartbeat:
    """A replica may join at any time, catches up by itself, and drops out of the registry soon after it ends."""

    def __init__(
        self,
        streams: RunStreams,
        policy: PolicyReceiver,
        http: httpx.AsyncClient,
        describe: Callable[[], ReplicaInfo],
        learner_url: str,
    ) -> None:
        self._streams = streams
        self._policy = policy
        self._http = http
        self._describe = describe
        self._learner_url = learner_url
        self._missing: WeightVersion | None = None

    def loops(self) -> tuple[Periodic, ...]:
        """The loops to run while the service lives."""
        return (
            Periodic("announce", self.announce, every_seconds=ANNOUNCE_SECONDS),
            Periodic("catch_up", self.catch_up, every_seconds=_CATCH_UP_SECONDS, backoff=_PULL_PAUSES),
        )

    async def leave(self) -> None:
        """Removes the replica from the registry; while Redis is unreachable its entry expires by itself."""
        with contextlib.suppress(Unavailable):
            await self._streams.replicas.withdraw(self._describe().name)

    async def announce(self) -> None:
        """Renews the replica's entry in the registry."""
        await self._streams.replicas.announce(self._describe(), _EXPIRE_SECONDS)

    async def catch_up(self) -> None:
        """Pulls the learner's weights if there are none yet, or if newer ones, or those of a run that began again, were
        published before the previous call and have not arrived since. Does nothing while a bundle is arriving, and
        asks no second time for one that can never be served here."""
        if self._policy.is_receiving:
            self._missing = None
            return
        status = await self._streams.status_keys.read()
        latest, served = status.version if status else None, self._policy.version
        if status is not None and latest is not None:
            self._policy.note_run(latest, status.max_staleness)
        if latest is None or (served is not None and served >= latest and served.origin == latest.origin):
            self._missing = None
            return
        if latest == self._policy.refused:
            return
        is_published_before = self._missing is not None and self._missing.origin == latest.origin
        if served is None or is_published_before:
            try:
                await self._fetch(latest.origin)
            except Conflict as error:
                log.warning("fetched_weights_refused", version=str(latest), reason=str(error))
        self._missing = latest

    async def follow(self, offer: Offer) -> None:
        """Serves the offered version, or a newer one; errors as those of `PolicyReceiver.fetch`."""
        if not self._serves(offer) and not await self._fetch(None):
            raise Unavailable("the run's learner has published no URL to fetch weights from: set learner.url")
        if not self._serves(offer):
            offered = f"{offer.version}:{offer.content_hash[:12]}"
            served = f"{self._policy.version}:{self._policy.content_hash[:12]}"
            raise Conflict(f"{offered} was offered, and the learner at the run's URL has {served}: offer that")

    def _serves(self, offer: Offer) -> bool:
        served = self._policy.version
        if served == offer.version:
            return self._policy.content_hash == offer.content_hash
        return served is not None and served.origin == offer.version.origin and served > offer.version

    async def _fetch(self, run_origin: str | None) -> bool:
        """Fetches the learner's latest version; False where the learner has no URL."""
        url = self._learner_url or await self._streams.status_keys.learner_url()
        if url:
            await self._policy.fetch(LearnerClient(self._http, url), run_origin)
        return bool(url)


def choose_name(configured: str) -> str:
    """The configured name, or one that no other process on this network has."""
    return configured or f"{socket.gethostname()}-{os.getpid()}"


def is_abandoned(name: str) -> bool:
    """Whether `choose_name` gave this name to a process of this host that has ended."""
    host, _, process_id = name.rpartition("-")
    return host == socket.gethostname() and bool(_PROCESS_ID.fullmatch(process_id)) and not is_alive(int(process_id))


def choose_url(configured: str, listening: str, host: str, toward: str = "") -> str:
    """Where others reach this replica: as configured, else where it listens. If it listens on all addresses, the one
    that this host uses to reach the Redis at `toward`, since the learner is on that network too."""
    if configured or host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return configured or listening
    port = listening.rpartition(":")[2]
    return f"http://{with_port(_local_address(toward), port)}"


def _local_address(toward: str) -> str:
    """Asks for a route, because the host's name may stand for an address on any of its networks."""
    with contextlib.suppress(OSError, ValueError):
        parts = urlsplit(toward)
        redis = socket.getaddrinfo(parts.hostname or "", parts.port or 6379, type=socket.SOCK_DGRAM)
        for family, kind, protocol, _, address in redis:
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # of a datagram socket: sends nothing
                local = str(probe.getsockname()[0])
                if not is_loopback(local):
                    return local
    named = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return str(named[0][4][0])
