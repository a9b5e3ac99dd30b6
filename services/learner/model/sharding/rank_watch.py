"""Whether the ranks live: each counts up a number in torch's store every second, and rank 0 reads them."""

import threading
import time

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from services.learner.model.sharding.rank_store import open_store
from shared.runtime.logs import event_logger

log = event_logger(__name__)
_BEAT_SECONDS = 1.0
_SILENT_SECONDS = 5.0


class RankWatch:
    """Beats for this rank, and on rank 0 sees when each rank did. A thread does both, on a connection of its own, so
    that neither waits for a step."""

    def __init__(self, rank: int, size: int) -> None:
        self._rank = rank
        self._counts = [0] * size
        self._last = [time.monotonic()] * size
        threading.Thread(target=self._run, name="rank-watch", daemon=True).start()

    @property
    def silent_seconds(self) -> tuple[float, ...]:
        """How long ago each rank beat, as rank 0 sees it."""
        now = time.monotonic()
        return tuple(now - last for last in self._last)

    @property
    def complaint(self) -> str:
        """Names the silent ranks; empty if none is."""
        silent = [str(rank) for rank, seconds in enumerate(self.silent_seconds) if seconds > _SILENT_SECONDS]
        if not silent:
            return ""
        return (
            f"rank {', '.join(silent)} does not answer, and all ranks wait for it: its process or its machine stands "
            "still; if it does not go on, end the process, and the learner resumes from its checkpoint"
        )

    def _run(self) -> None:
        while True:
            try:
                self._beat(open_store())
            except RuntimeError as error:  # the store went with rank 0, or will be back
                log.warning("rank_watch_failed", rank=self._rank, error=str(error))
            time.sleep(_BEAT_SECONDS)

    def _beat(self, store: TCPStore) -> None:
        while True:
            store.add(f"ibtpo/beats/{self._rank}", 1)
            if self._rank == 0:
                for rank, count in enumerate(self._counts):
                    self._counts[rank] = store.add(f"ibtpo/beats/{rank}", 0)
                    if self._counts[rank] != count:
                        self._last[rank] = time.monotonic()
            time.sleep(_BEAT_SECONDS)
