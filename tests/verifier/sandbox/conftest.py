"""A jail, started once for each module of tests."""

from collections.abc import AsyncIterator

import pytest_asyncio

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.messages import JailOptions


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def jail() -> AsyncIterator[JailSandbox]:
    async with open_jail(JailOptions(concurrency=2)) as sandbox:
        assert sandbox.refusal is None
        yield sandbox
