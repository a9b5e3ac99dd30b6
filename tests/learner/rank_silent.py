"""Two ranks of which the second stands still: rank 0's messages have a deadline, and say so. Run by torchrun."""

import os
import time
from datetime import timedelta

import pytest

from services.learner.config import Device, Precision
from services.learner.model import process_group
from services.learner.model.process_group import ProcessGroup
from shared.errors import Unavailable


def main() -> None:
    """What one process does."""
    process_group._COLLECTIVE_TIMEOUT = timedelta(seconds=3)
    group = ProcessGroup.join(Device.CPU, Precision.FLOAT32)
    if not group.is_rank0:
        group.send(0, group.receive()[::-1])
        time.sleep(600)  # until torchrun ends it
    group.send(1, b"ping")
    assert group.receive(1) == b"gnip"
    with pytest.raises(Unavailable, match="rank 1 is gone or stands still"):
        group.receive(1)
    os._exit(17)


if __name__ == "__main__":
    main()
