"""A run that stands still says what it waits for, on its screen and in its status."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.protocol.status import RunStatus
from shared.protocol.waiting import WaitKind
from tests.system.demo import Demo
from tests.waiting import wait_until

pytestmark = [pytest.mark.drill, pytest.mark.timeout(400)]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path, "waiting")
    yield demo
    demo.end()


def test_a_frozen_replica_is_what_its_run_waits_for(demo: Demo) -> None:
    demo.start("launcher.replicas=1", "evaluation.problems=4", "max_generated_tokens=2000000")
    demo.wait_until(lambda status: status.step >= 1, 300)
    replica = demo.pid("rollout-1")
    os.kill(replica, signal.SIGSTOP)
    try:
        stuck = demo.wait_until(_names_no_replica)
        assert stuck.waiting_for is not None
        assert stuck.waiting_for.kind is WaitKind.TREES
        assert stuck.waiting_for.total
        assert "ibtpo rollout run=waiting" in stuck.waiting_for.remedy
        wait_until(lambda: "waits for trees of step" in demo.log and "no replica announces itself" in demo.log, 60)
    finally:
        os.kill(replica, signal.SIGCONT)
    demo.wait_until(lambda status: status.step > stuck.step)


def _names_no_replica(status: RunStatus) -> bool:
    return status.waiting_for is not None and "no replica announces itself" in status.waiting_for.detail
