"""While answers that would hold up a careless verifier are judged, other clients are served at once."""

import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.verifier.hostile_rows import hostile_rows
from tests.verifier.serving import judge, make_item
from tests.verifier.test_busy_machine import busy_processes
from tests.verifier.test_endurance import Service
from tests.verifier.test_hostile_batches import SLOW

BATCH, IN_FLIGHT = 16, 4
LONGEST_WAIT = 0.05
MIN_REQUESTS = 100
NUM_BUSY = 4


@contextmanager
def another_client(url: str) -> Iterator[dict[str, list[float]]]:
    """A client in its own process; how long it waited is known when the block ends."""
    waits: dict[str, list[float]] = {}
    command = [sys.executable, "-m", "tests.verifier.load_client", url, str(MIN_REQUESTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield waits
        waits.update(json.loads(process.communicate(timeout=300)[0]))


def percentile_99(waits: list[float]) -> float:
    return statistics.quantiles(waits, n=100)[-1]


async def _judge_all(url: str, batches: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    may_send = asyncio.Semaphore(IN_FLIGHT)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:

        async def send(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
            async with may_send:
                return await judge(client, *batch, deadline_seconds=500)

        return [verdict for verdicts in await asyncio.gather(*map(send, batches)) for verdict in verdicts]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(48, marks=pytest.mark.drill),
        pytest.param(1_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
async def test_other_clients_do_not_wait_for_hostile_answers(tmp_path: Path, number: int) -> None:
    named = [make_item(kind, response, key, name) for name, (kind, key, response, _) in SLOW.items()]
    rows = list(hostile_rows(number))
    batches = [rows[start : start + BATCH] for start in range(0, number, BATCH)]
    batches = [*([row] for row in named if number > 48), *batches]
    service = Service(tmp_path)
    try:
        # as many processes as the verifier's workers and programs: what waits for a processor costs even if it is idle
        with busy_processes(NUM_BUSY), another_client(service.url) as idle:
            pass
        with another_client(service.url) as beside:
            verdicts = await _judge_all(service.url, batches)
    finally:
        assert service.stop() == 0
    for what in beside:
        idly, now = (1_000 * percentile_99(waits[what]) for waits in (idle, beside))
        print(f"{what}: 99th percentile {idly:.1f} ms if idle, {now:.1f} ms beside {len(verdicts)} hostile answers")
    assert [verdict["id"] for verdict in verdicts] == [row["id"] for batch in batches for row in batch]
    assert not [verdict for verdict in verdicts if verdict["reward"] is None], "no answer is left unjudged"
    for what, waits in beside.items():
        assert percentile_99(waits) < max(LONGEST_WAIT, 4 * percentile_99(idle[what])), what
