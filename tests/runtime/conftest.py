"""A small service on a real socket, for the tests of the runtime."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.runtime.small_service import TOKEN, client_of, small_app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(small_app()) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded() -> AsyncIterator[httpx.AsyncClient]:
    """A client without the token that its service asks for."""
    async with client_of(small_app(token=TOKEN)) as client:
        yield client


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("IBTPO_TOKEN", "IBTPO_TOKEN_FILE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch
