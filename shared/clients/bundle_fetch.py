"""Fetches a bundle from the learner, and goes on where a connection broke."""

import asyncio
import time
from collections.abc import Sequence

from shared.clients.download import OpenDownload, ResumePoint
from shared.clients.learner import LearnerClient
from shared.errors import Conflict, DeadlineExceeded, InvalidInput, Unavailable, Unreachable
from shared.protocol.weights import Base
from shared.runtime.logs import event_logger
from shared.tree.draw import WeightVersion
from shared.weights import Incoming, Snapshot, SnapshotStore

log = event_logger(__name__)
PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0)
"""Before each further try for the rest of a transfer; they begin again once a try has brought some of it."""
_RESUMING_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 1 << 20


class UnfitDelta(InvalidInput):
    """A delta that does not lead from what is here to what it announces: all of the bundle may."""


class Overtaken(Unavailable):
    """The connection broke, and the learner published another version before the rest was asked for."""


async def take_in(
    store: SnapshotStore,
    max_bytes: int,
    version: WeightVersion,
    download: OpenDownload,
    learner: LearnerClient,
    have: Base | None,
    pauses_seconds: Sequence[float] = PAUSES_SECONDS,
) -> Snapshot:
    """The snapshot of `version` that a download from `learner`, which was asked for what leads from `have`, brings.

    Errors as those of `SnapshotStore.incoming`, UnfitDelta where a delta is to blame, Unreachable or DeadlineExceeded
    after the last try for the rest, and Overtaken.
    """
    async with store.incoming(max_bytes, version) as incoming:
        try:
            await _read_all(download, incoming, learner, have, pauses_seconds)
            return await store.complete(incoming)
        except (InvalidInput, Conflict) as error:
            if have is None or incoming.transfer is None or incoming.transfer.base is None:
                raise
            raise UnfitDelta(str(error)) from error


async def _read_all(
    download: OpenDownload,
    incoming: Incoming,
    learner: LearnerClient,
    have: Base | None,
    pauses_seconds: Sequence[float],
) -> None:
    etag, started = download.etag, time.monotonic()
    pauses, num_bytes = iter(pauses_seconds), 0
    failure = await _read(download, incoming)
    while failure is not None:
        if incoming.num_bytes > num_bytes:
            pauses, num_bytes = iter(pauses_seconds), incoming.num_bytes
        is_late = time.monotonic() - started > _RESUMING_SECONDS + num_bytes / _SLOWEST_BYTES_PER_SECOND
        if is_late or not num_bytes or not etag or (pause := next(pauses, None)) is None:
            raise failure
        log.warning("weights_broke_off", num_bytes=num_bytes, reason=str(failure))
        await asyncio.sleep(pause)
        try:
            async with learner.latest_weights(have, ResumePoint(num_bytes, etag)) as (version, rest):
                if rest.start != num_bytes:
                    raise Overtaken(f"the connection broke, and the learner is at {version} by now; fetch that")
                failure = await _read(rest, incoming)
        except (Unreachable, DeadlineExceeded) as error:
            failure = error


async def _read(download: OpenDownload, incoming: Incoming) -> Unavailable | None:
    """Feeds what comes; why it broke off, if it did."""
    try:
        await download.read(incoming.feed)
    except (Unreachable, DeadlineExceeded) as error:
        return error
    return None
