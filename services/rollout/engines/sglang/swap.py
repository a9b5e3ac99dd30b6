"""Replaces a running server's weights between two tokens of the requests in flight."""

import time

from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import NotLoaded, SglangClient


async def swap(client: SglangClient, bundle: Bundle, load_seconds: float) -> float:
    """Pause, load, flush, check, go on; returns the seconds for which no token was sampled.

    Whatever is raised leaves a server of unknown weights and cache, and paused: it must be started afresh. A refused
    flush, for one, comes after the weights have changed.
    """
    started = time.monotonic()
    await client.pause()
    await client.update_weights(bundle.directory, bundle.version, load_seconds)
    serves = (await client.model_info()).get("weight_version")
    if serves != str(bundle.version):
        raise NotLoaded(f"SGLang says that it serves {serves!r} after it loaded {bundle.version}")
    await client.resume()
    return time.monotonic() - started
