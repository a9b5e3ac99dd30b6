"""What a launch does to an external Redis."""

import asyncio
import time

import pytest

from services.launcher.commands.train import clear_ended_run
from shared.errors import Conflict
from shared.protocol.status import RunState, RunStatus
from shared.streams import RunStreams, connect


async def publish_status(url: str, run: str, state: RunState, seconds_ago: float) -> None:
    connection = connect(url)
    await RunStreams(connection, run).status_keys.publish(
        RunStatus(run=run, state=state, time=time.time() - seconds_ago)
    )
    await connection.close()


async def is_known(url: str, run: str) -> bool:
    connection = connect(url)
    status = await RunStreams(connection, run).status_keys.read()
    await connection.close()
    return status is not None


@pytest.mark.parametrize(
    ("state", "seconds_ago"), [(RunState.FINISHED, 1), (RunState.STOPPED, 1), (RunState.TRAINING, 90)]
)
def test_a_run_that_ended_is_deleted_for_a_new_one(redis_url: str, state: RunState, seconds_ago: float) -> None:
    asyncio.run(publish_status(redis_url, "mine", state, seconds_ago))
    asyncio.run(publish_status(redis_url, "other", state, seconds_ago))
    asyncio.run(clear_ended_run(redis_url, "mine"))
    assert not asyncio.run(is_known(redis_url, "mine"))
    assert asyncio.run(is_known(redis_url, "other"))


def test_a_run_that_is_going_on_elsewhere_is_not_deleted(redis_url: str) -> None:
    asyncio.run(publish_status(redis_url, "mine", RunState.TRAINING, 2))
    with pytest.raises(Conflict, match="run 'mine' is going on in this Redis"):
        asyncio.run(clear_ended_run(redis_url, "mine"))
    assert asyncio.run(is_known(redis_url, "mine"))
