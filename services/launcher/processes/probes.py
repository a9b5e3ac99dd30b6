"""Asks a service over HTTP whether it is up."""

import httpx

from shared.runtime.client import http_client

PROBE_SECONDS = 2.0


async def is_ready(url: str) -> bool:
    """Whether the service can serve now."""
    return await _succeeds(f"{url}/readyz")


async def is_listening(url: str) -> bool:
    """Whether the service listens, ready or not."""
    return await _succeeds(f"{url}/healthz")


async def _succeeds(url: str) -> bool:
    try:
        async with http_client(None, PROBE_SECONDS) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False
