"""Whatever is sent: no 5xx, no hang, and the next request is served."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.verifier.config import MathConfig, VerifierConfig
from services.verifier.wiring import build
from shared.runtime.serve import open_listener, serve_in_background
from tests.waiting import wait_until

_AS_DESCRIBED = [status_code_conformance, content_type_conformance, response_schema_conformance]


class Running:
    """A verifier on its own thread's event loop."""

    def __init__(self) -> None:
        self.url = ""
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        app = build(VerifierConfig(deadline_seconds=5, math=MathConfig(workers=1)))
        async with serve_in_background(app, open_listener("127.0.0.1", 0, None)) as self.url:
            self._started.set()
            await self._ended.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(30)

    def stop(self) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    running = Running()
    running.start()
    yield running.url
    running.stop()


@pytest.mark.parametrize("mode", GenerationMode)
def test_the_api_keeps_to_its_description(url: str, mode: GenerationMode) -> None:
    """Requests made from its OpenAPI, as described and against it."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} == {"/v1/verdicts", "/healthz", "/readyz", "/metrics"}
    for operation in operations:
        has_body = operation.path == "/v1/verdicts"
        if mode is GenerationMode.NEGATIVE and not has_body:
            continue
        num_examples = 60 if has_body else 2

        @settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def judge(case: Any) -> None:
            response = case.call(timeout=20)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                case.validate_response(response, checks=_AS_DESCRIBED)
            elif case.operation.path == "/v1/verdicts":
                case.validate_response(response)

        judge()


def _bodies(seed: int) -> Iterator[bytes]:
    draw = random.Random(seed)
    for _ in range(40):
        response = draw.randbytes(draw.choice((0, 1, 10, 1_000))).decode("latin-1")
        kind = draw.choice(("math", "choice", "exact", "code"))
        key = draw.choice(
            (
                {"gold": response},
                {"gold": draw.randbytes(4).decode("latin-1")},
                {"tests": {"type": "stdio", "cases": [{"input": response, "output": response}]}},
                {"tests": {"type": "assert", "entry_point": "f", "asserts": [f"assert f() == {response!r}"]}},
                {response: {response: [None, 1e308, response]}},
            )
        )
        item = {"id": response[:100], "kind": kind, "response": rf"\boxed{{{response}}}", "answer_key": key}
        yield httpx.Request("POST", "http://x", json={"items": [item] * draw.choice((1, 3))}).content
    for size in (0, 1, 100, 100_000):
        yield draw.randbytes(size)
    yield b'{"items": ' + b"[" * 100_000
    yield b'{"items": [{"id": "1", "kind": "math", "response": "\\ud800", "answer_key": {"gold": "1"}}]}'
    yield b'{"items": [{"id": "1", "kind": "math", "response": "1", "answer_key": {"gold": 1e400}}]}'


@pytest.mark.parametrize("seed", range(3))
def test_random_answers_keys_and_bodies_are_answered(url: str, seed: int) -> None:
    with httpx.Client(base_url=url, timeout=20) as client:
        for body in _bodies(seed):
            start = time.monotonic()
            response = client.post("/v1/verdicts", content=body, headers={"content-type": "application/json"})
            assert response.status_code in (200, 400, 413, 422), (response.text, body[:200])
            assert time.monotonic() - start < 15
        assert client.get("/readyz").status_code == 200


def test_a_client_that_breaks_off_leaves_nothing_pending(url: str) -> None:
    item = {"id": "1", "kind": "math", "response": "\\boxed{1}", "answer_key": {"gold": "1"}}
    for _ in range(20):
        with pytest.raises(httpx.HTTPError), httpx.Client(base_url=url, timeout=0.001) as client:
            client.post("/v1/verdicts", json={"items": [item] * 1_000})
    with httpx.Client(base_url=url, timeout=20) as client:
        wait_until(lambda: client.get("/healthz").json()["pending_items"] == 0)
