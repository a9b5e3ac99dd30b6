"""A replica's part in its run: it says that it lives, and fetches weights that it missed."""

import contextlib
import os
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from services.rollout.policy_receiver import PolicyReceiver
from shared.clients import LearnerClient
from shared.errors import Unavailable
from shared.protocol.replica import ReplicaInfo
from shared.runtime.loops import Periodic
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion

ANNOUNCE_SECONDS = 1.0
_EXPIRE_SECONDS = 5.0
_CATCH_UP_SECONDS = 2.0


class ReplicaHeartbeat:
    """Joins at any time, catches up by itself, and is forgotten soon after it ends."""

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
        self._seen_behind: WeightVersion | None = None

    def loops(self) -> tuple[Periodic, ...]:
        """The loops to run while the service lives."""
        return (
            Periodic("announce", self._announce, every_seconds=ANNOUNCE_SECONDS),
            Periodic("catch_up", self._catch_up, every_seconds=_CATCH_UP_SECONDS),
        )

    async def leave(self) -> None:
        """Takes the replica out of the registry; with Redis away its entry expires by itself."""
        with contextlib.suppress(Unavailable):
            await self._streams.replicas.withdraw(self._describe().name)

    async def _announce(self) -> None:
        await self._streams.replicas.announce(self._describe(), _EXPIRE_SECONDS)

    async def _catch_up(self) -> None:
        """Pulls when there are no weights yet, or when newer ones were out at the last look and still have not come;
        not while some are on their way: one bundle is taken at a time."""
        if self._policy.is_receiving:
            self._seen_behind = None
            return
        status = await self._streams.board.read()
        latest = status.version if status else None
        if latest is None or (self._policy.version is not None and latest <= self._policy.version):
            self._seen_behind = None
            return
        if self._policy.version is None or self._seen_behind is not None:
            url = self._learner_url or await self._streams.board.learner_url()
            if url:
                await self._policy.pull(LearnerClient(self._http, url))
        self._seen_behind = latest


def replica_name(given: str) -> str:
    """The configured name, or one that no other process on this network has."""
    return given or f"{socket.gethostname()}-{os.getpid()}"


def is_abandoned(name: str) -> bool:
    """Whether `replica_name` gave this name to a process of this machine that is no more."""
    host, _, process_id = name.rpartition("-")
    if host != socket.gethostname() or not process_id.isdecimal():
        return False
    try:
        os.kill(int(process_id), 0)  # asks, and does nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def reachable_url(configured: str, listening: str, host: str, toward: str = "") -> str:
    """Where others reach this replica: as configured, else where it listens, with this machine's own address on the
    way to the Redis at `toward` when it listens on all of them: the learner is on that network too."""
    if configured or host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return configured or listening
    port = listening.rpartition(":")[2]
    return f"http://{_own_address(toward)}:{port}"


def _own_address(toward: str) -> str:
    """A machine may be on several networks, and its name may stand for any of them."""
    parts = urlsplit(toward)
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "", parts.port or 6379))  # chooses a route and sends nothing
        address: str = probe.getsockname()[0]
        if not address.startswith("127."):
            return address
    return socket.gethostbyname(socket.gethostname())
