"""Every service answers probes, errors, strangers and hostile bodies alike, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from services.learner.app import build_router as learner_router
from services.rollout.app import build_router as rollout_router
from services.verifier.app import build_router as verifier_router
from shared.runtime.app import installed_release
from shared.runtime.http_errors import ProblemDetails
from shared.runtime.middleware import BodyLimit
from tests.runtime.small_service import TOKEN, client_of, small_app
from tests.waiting import wait_until_async

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}


async def chunks(num_chunks: int, num_bytes: int = 1000) -> AsyncIterator[bytes]:
    for _ in range(num_chunks):
        yield b"x" * num_bytes


def problem_of(response: httpx.Response, status: int) -> dict[str, object]:
    """The problem details of an answer, after a check that they are well-formed."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    ProblemDetails.model_validate(body)
    assert body["type"] == "about:blank"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert len(response.content) < 20_000
    return dict(body)


async def test_a_good_request_is_answered(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/orders", json={"count": 3})).json() == 3


async def test_probes_tell_whether_it_lives_and_whether_it_is_ready() -> None:
    reason: str | None = "no weights yet"
    app = small_app(ready=lambda: reason)
    app.state.health = lambda: {"rows": 4}
    async with client_of(app) as client:
        assert (await client.get("/healthz")).json() == {
            "service": "small",
            "status": "alive",
            "protocol": 4,
            "version": installed_release(),
            "rows": 4,
        }
        assert problem_of(await client.get("/readyz"), 503)["detail"] == "not ready: no weights yet"
        reason = None
        assert (await client.get("/readyz")).json() == {"service": "small", "status": "ready"}


async def test_every_series_says_its_run_and_the_process_has_series() -> None:
    async with client_of(small_app(run="mine")) as client:
        families = list(text_string_to_metric_families((await client.get("/metrics")).text))
    assert {sample.labels["run"] for family in families for sample in family.samples} == {"mine"}
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_start_time_seconds"} <= {
        family.name for family in families
    }


async def test_metrics_count_requests_by_route_and_not_by_path() -> None:
    async with client_of(small_app()) as client:
        for milliseconds in range(3):
            await client.get(f"/v1/slow/{milliseconds}")
        for name in "abc":
            await client.get(f"/made/up/{name}")
        families = text_string_to_metric_families((await client.get("/metrics")).text)
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "ibtpo_small_http_requests_total"
    }
    assert counted == {("/v1/slow/{milliseconds}", "200"): 3, ("unknown", "404"): 3}


async def test_what_is_wrong_with_a_body_is_said_field_by_field(client: httpx.AsyncClient) -> None:
    body = b'{"count": 0, "nmaes": [], "share": NaN, "names": ["a", 3]}'
    problem = problem_of(await client.post("/v1/orders", content=body, headers=JSON), 422)
    errors = problem["errors"]
    assert isinstance(errors, list)
    assert {error["field"] for error in errors} == {"body.count", "body.nmaes", "body.share", "body.names.1"}
    assert "greater than or equal to 1" in str(problem["detail"])


async def test_a_huge_wrong_body_is_not_echoed() -> None:
    async with client_of(small_app(max_body_bytes=10_000_000)) as client:
        many = {"count": "x" * 100_000, "names": list(range(50_000)), "y" * 100_000: 1}
        problem_of(await client.post("/v1/orders", json=many), 422)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"count": 1', "at character 11"),
        (b"{\xc3(}", "not UTF-8: invalid continuation byte at byte 1"),
        (b'{"names": ["\xff"]}', "not UTF-8: invalid start byte at byte 12"),
        (b"[" * 9000, "nested too deeply"),
        (b'{"count": ' + b"9" * 5000 + b"}", "limit"),
        (b"\x00", "character 0"),
    ],
)
async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient, body: bytes, said: str) -> None:
    problem = problem_of(await client.post("/v1/orders", content=body, headers=JSON), 400)
    assert said in str(problem["detail"])


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"{}"])
async def test_json_of_another_shape_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    problem_of(await client.post("/v1/orders", content=body, headers=JSON), 422)


async def test_a_wrong_content_type_is_named(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "text/plain"}
    problem = problem_of(await client.post("/v1/orders", content=b'{"count": 1}', headers=headers), 422)
    assert "Content-Type: application/json" in str(problem["detail"])


async def test_unknown_routes_and_methods_say_what_there_is(client: httpx.AsyncClient) -> None:
    assert "/docs" in str(problem_of(await client.get("/v1/nothing"), 404)["detail"])
    response = await client.delete("/v1/orders")
    assert "use POST" in str(problem_of(response, 405)["detail"])
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("kind", "status"), [("conflict", 409), ("invalid", 422), ("overloaded", 429), ("unavailable", 503)]
)
async def test_our_errors_keep_their_status_and_message(client: httpx.AsyncClient, kind: str, status: int) -> None:
    response = await client.get(f"/v1/errors/{kind}")
    assert problem_of(response, status)["detail"] == f"{kind} with the value 7; do otherwise"
    assert ("retry-after" in response.headers) == (status in (429, 503))


async def test_an_unforeseen_error_is_told_to_the_log_and_not_to_the_caller(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.get("/v1/errors/other")
    problem_of(response, 500)
    assert "hunter2" not in response.text
    [record] = [record for record in caplog.records if record.message == "request_failed"]
    assert record.exc_info is not None
    assert (await client.get("/healthz")).is_success


async def test_an_error_shows_no_password_of_an_address(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/errors/address")
    assert problem_of(response, 503)["detail"] == "the verifier at http://me:***@host:80/ cannot be reached"


async def test_an_answer_that_breaks_half_way_looks_broken_to_the_caller(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/v1/half")


@pytest.mark.parametrize("num_chunks", [11, 5000])
async def test_a_streamed_body_is_refused_as_soon_as_it_passes_the_bound(
    client: httpx.AsyncClient, num_chunks: int
) -> None:
    response = await client.post("/v1/orders", content=chunks(num_chunks), headers=JSON)
    assert "10000 bytes" in str(problem_of(response, 413)["detail"])


async def test_a_declared_length_over_the_bound_is_refused_unread(client: httpx.AsyncClient) -> None:
    problem_of(await client.post("/v1/orders", content=b"x" * 5_000_000, headers=JSON), 413)


async def test_a_route_may_take_more_than_the_others(client: httpx.AsyncClient) -> None:
    assert (await client.put("/v1/blobs/a", content=chunks(1000))).json() == 1_000_000
    problem_of(await client.put("/v1/blobs/a", content=chunks(1001)), 413)


async def test_the_connection_survives_a_refusal(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        problem_of(await client.post("/v1/orders", content=b"x" * 20_000, headers=JSON), 413)
        assert (await client.post("/v1/orders", json={"count": 1})).is_success


async def test_a_stranger_gets_the_probes_and_nothing_else(guarded: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await guarded.get(path)).is_success
    for path in ("/v1/orders", "/v1/nothing", "/docs/oauth2-redirect", "/healthz/"):
        response = await guarded.get(path)
        problem_of(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer  x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xff"]
)
async def test_a_wrong_token_is_refused_even_with_a_large_body(guarded: httpx.AsyncClient, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")}
    response = await guarded.put("/v1/blobs/a", content=chunks(5000), headers=headers)  # type: ignore[arg-type]
    problem_of(response, 401)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_right_token_opens(guarded: httpx.AsyncClient, scheme: str) -> None:
    response = await guarded.post("/v1/orders", json={"count": 1}, headers={"Authorization": f"{scheme} {TOKEN}"})
    assert response.is_success


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://evil.example:8001", "http://[::1", "file://"]
)
async def test_without_a_token_no_page_of_another_site_gets_in(client: httpx.AsyncClient, origin: str) -> None:
    problem_of(await client.post("/v1/orders", json={"count": 1}, headers={"Origin": origin}), 401)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:8001", "http://[::1]:8001"])
async def test_without_a_token_pages_of_this_machine_do(client: httpx.AsyncClient, origin: str) -> None:
    assert (await client.post("/v1/orders", json={"count": 1}, headers={"Origin": origin})).is_success


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8001", "127.0.0.1.evil.example", "10.0.0.7", "[::1"])
@pytest.mark.parametrize("path", ["/v1/slow/1", "/metrics", "/openapi.json"])
async def test_without_a_token_no_name_that_points_here_gets_in(
    client: httpx.AsyncClient, path: str, host: str
) -> None:
    problem_of(await client.get(path, headers={"Host": host}), 401)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8001", "[::1]:8001"])
async def test_without_a_token_names_of_this_machine_do(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/v1/slow/1", headers={"Host": host})).is_success


async def test_the_api_describes_itself(client: httpx.AsyncClient) -> None:
    document = json.loads((await client.get("/openapi.json")).text)
    assert {"/healthz", "/readyz", "/metrics", "/v1/orders"} <= document["paths"].keys()


NO_PART: Any = None
ERRORS = {"400", "401", "408", "431", "500", "503"}


@pytest.mark.parametrize(
    ("router", "more"),
    [
        (
            rollout_router(NO_PART, NO_PART, NO_PART, NO_PART, "", NO_PART),
            {
                "/v1/trees": {"413", "422", "429"},
                "/v1/scores": {"413", "422", "429"},
                "/v1/weights/{version}": {"409", "413", "422"},
            },
        ),
        (verifier_router(NO_PART, 1.0), {"/v1/verdicts": {"413", "422", "429"}}),
        (learner_router(NO_PART, NO_PART, NO_PART), {"/v1/weights/latest": {"413", "416", "422"}}),
    ],
    ids=["rollout", "verifier", "learner"],
)
async def test_every_route_describes_its_error_answers(router: APIRouter, more: dict[str, set[str]]) -> None:
    document = small_app(router=router).openapi()
    assert (
        document["components"]["schemas"]["ProblemDetails"]["properties"].keys() == ProblemDetails.model_fields.keys()
    )
    for path, operations in document["paths"].items():
        [operation] = operations.values()
        answers = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert answers.keys() == ERRORS | more.get(path, set()), path
        for answer in answers.values():
            assert answer["description"]
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemDetails"}


async def test_a_caller_that_leaves_half_way_is_no_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app = small_app()
    async with client_of(app) as client:
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
        await writer.drain()
        await wait_until_async(lambda: app.state.drain.num_requests == 1, 5)
        writer.close()
        await writer.wait_closed()
        await wait_until_async(lambda: "caller_left" in caplog.messages, 5)
    assert "request_failed" not in caplog.messages


async def test_a_body_that_stops_coming_is_given_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    sent: list[Message] = []
    arriving: asyncio.Queue[Message] = asyncio.Queue()
    arriving.put_nowait({"type": "http.request", "body": b"half", "more_body": True})

    async def send(message: Message) -> None:
        sent.append(message)

    limit = BodyLimit(app, max_bytes=100, max_bytes_of_prefix={}, stall_seconds=0.05)
    scope = {"type": "http", "path": "/", "headers": [(b"expect", b"100-continue"), (b"content-length", b"50")]}
    async with asyncio.timeout(5):
        await limit(scope, arriving.get, send)
    assert sent[0]["status"] == 503
    assert b"no byte of the body came" in sent[1]["body"]
