"""A replica as a process that ends while its SGLang server starts: in time, with nothing left behind."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from services.demo.task import checkpoint_directory
from shared.clients import RolloutClient
from shared.errors import Unavailable
from shared.runtime.child_process import processes_of
from shared.runtime.client import http_client
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot, write_manifest
from tests.waiting import wait_until_async

# A server of two processes that never listens, ignores SIGTERM and has mapped a file of shared memory.
HANGING = """
import mmap, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(f"/dev/shm/sglang_loads_test_{os.getpid()}.shm", "w+b") as file:
    file.truncate(4096)
    kept = mmap.mmap(file.fileno(), 4096)
os.fork() and open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(600)
"""


async def test_a_replica_told_to_end_while_its_server_starts_leaves_nothing(tmp_path: Path) -> None:
    url_file, started, bundle, launcher = (tmp_path / name for name in ("url", "started", "bundle", "launcher.py"))
    launcher.write_text(HANGING)
    settings = (
        "engine=sglang",
        "rollout.port=0",
        "rollout.run=r",
        f"rollout.url_file={url_file}",
        f"rollout.snapshots={tmp_path / 'snapshots'}",
        "rollout.grace_seconds=60",
        f"rollout.sglang.command={[sys.executable, str(launcher), str(started)]}",
    )
    words = (sys.executable, "-m", "services.launcher.cli", "rollout", *settings)
    replica = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.DEVNULL)
    bundle.mkdir()
    for path in checkpoint_directory().glob("*.[js]*"):
        (bundle / path.name).write_bytes(path.read_bytes())
    snapshot = Snapshot(write_manifest("r", bundle, WeightVersion(1, 1)), bundle)
    try:
        await wait_until_async(lambda: url_file.exists() and url_file.read_text(), 30)
        async with http_client(None, 60.0) as http:
            pushing = asyncio.create_task(RolloutClient(http, url_file.read_text()).push_weights(snapshot, 60.0))
            await wait_until_async(lambda: started.exists() and started.read_text(), 30)
            group, begun = int(started.read_text()), time.monotonic()
            replica.send_signal(signal.SIGTERM)
            with pytest.raises(Unavailable):
                await pushing
            assert await asyncio.wait_for(replica.wait(), 30) == 0
        assert time.monotonic() - begun < 15
        assert not any(processes_of(group))
        assert not Path(f"/dev/shm/sglang_loads_test_{group}.shm").exists()
    finally:
        if replica.returncode is None:
            replica.kill()
            await replica.wait()
