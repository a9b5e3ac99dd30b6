"""The HTTP client between services: deadlines, the bearer token, and error answers turned back into errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import httpx

from shared.errors import (
    Conflict,
    DeadlineExceeded,
    IbtpoError,
    InvalidInput,
    Overloaded,
    TooLarge,
    Unauthorized,
    Unavailable,
    Unreachable,
    shorten,
)

_CONNECT_SECONDS = 5.0
_ERROR_OF_STATUS: dict[int, type[IbtpoError]] = {
    error.status: error for error in (InvalidInput, Unauthorized, Conflict, TooLarge, Overloaded, Unavailable)
}
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)


def http_client(token: str | None, timeout_seconds: float) -> httpx.AsyncClient:
    """A client for other services; `timeout_seconds` bounds every wait of it (`call_deadline` bounds a whole call).

    Proxies of the environment are not used: services reach each other directly.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=4.0)
    return httpx.AsyncClient(headers=headers, timeout=timeouts(timeout_seconds), limits=limits, trust_env=False)


def token_of(client: httpx.AsyncClient) -> str | None:
    """The bearer token that `http_client` was given."""
    return client.headers.get("Authorization", "").removeprefix("Bearer ") or None


def timeouts(seconds: float) -> httpx.Timeout:
    """Bounds every wait of a call; a connection must be there much sooner."""
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))


@asynccontextmanager
async def call_deadline(whom: str, within_seconds: float | None) -> AsyncIterator[None]:
    """A deadline over a whole call; with None, only the HTTP client bounds each wait.

    Raises DeadlineExceeded or Unreachable, naming `whom`.
    """
    try:
        async with asyncio.timeout(within_seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{whom} did not answer within {within_seconds:g} s; it may be busy or hung") from error
    except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
        raise DeadlineExceeded(f"{whom} did not answer in time; it may be busy or hung") from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(
            f"{whom} cannot be reached: {reason}; check that it runs and that the URL is right"
        ) from error


def raise_for_error(response: httpx.Response) -> None:
    """Nothing for a success; else the error that the problem details name. A streamed response must have been read."""
    if response.is_success:
        return
    status = response.status_code
    error = _ERROR_OF_STATUS.get(status)
    if error is None and status in _PASSING:
        error = Unavailable
    if error is None:
        error = InvalidInput if response.is_client_error else IbtpoError
    raise error(f"{_detail(response)} ({status} from {response.url.host}:{response.url.port}{response.url.path})")


def _detail(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = None
    if isinstance(body, dict) and isinstance(body.get("detail"), str):
        return shorten(" ".join(body["detail"].split()))
    return shorten(" ".join(response.text.split())) or "an empty answer"
