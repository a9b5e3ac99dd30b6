"""What ranks say beside their collectives, in torch's store: why one of them gave up."""

import os
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

_STORE_TIMEOUT = timedelta(seconds=30)


def open_store() -> TCPStore:
    """A connection to torch's store, for one thread. RuntimeError where the store is gone."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=_STORE_TIMEOUT, wait_for_workers=False)


def report_failure(rank: int, reason: str) -> None:
    """Says why this rank gives up, before the others notice that it is gone."""
    open_store().set(_key(rank), reason)


def read_failure(size: int) -> str:
    """`rank 1: why it gave up` of the first that did; empty where none said so."""
    try:
        store = open_store()
        for rank in range(size):
            if store.check([_key(rank)]):
                return f"rank {rank}: {store.get(_key(rank)).decode()}"
    except RuntimeError:  # the store went with the rank that kept it
        return ""
    return ""


def _key(rank: int) -> str:
    """Of this start of the ranks: torchrun keeps the store when it starts them again."""
    return f"ibtpo/failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{rank}"
