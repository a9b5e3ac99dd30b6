"""Asks a service over HTTP whether it is there."""

import httpx

PROBE_SECONDS = 2.0


async def http_ready(url: str) -> bool:
    """A probe: the service says that it can serve."""
    return await _answers(f"{url}/readyz")


async def http_alive(url: str) -> bool:
    """A probe: the service listens, ready or not."""
    return await _answers(f"{url}/healthz")


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=PROBE_SECONDS, trust_env=False) as client:
            return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False
