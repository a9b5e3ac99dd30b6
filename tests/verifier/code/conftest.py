"""A code check with the default configuration, started once for each module of tests."""

from collections.abc import AsyncIterator

import pytest_asyncio

from services.verifier.checks.code.check import CodeCheck, open_code_check
from services.verifier.config import CodeConfig


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def check() -> AsyncIterator[CodeCheck]:
    async with open_code_check(CodeConfig()) as started:
        yield started
