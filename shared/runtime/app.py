"""Makes the app of every service: the same probes, metrics, errors and access control."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from shared.errors import Unavailable
from shared.protocol.message import PROTOCOL_VERSION
from shared.runtime.drain import Drain
from shared.runtime.http_errors import describe_errors, error_response, install_error_handlers
from shared.runtime.middleware import BearerGuard, BodyLimit, CrossOriginGuard, RequestMetrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class _ServiceApp(FastAPI):
    """Describes its error answers, too."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            describe_errors(super().openapi())
        return super().openapi()


def installed_release() -> str:
    """The installed version of ibtpo; empty in a checkout that was never installed."""
    try:
        return version("ibtpo")
    except PackageNotFoundError:
        return ""


def create_app(
    name: str,
    router: APIRouter,
    *,
    lifespan: Lifespan | None,
    ready: Callable[[], str | None],
    registry: CollectorRegistry,
    run: str | None = None,
    token: str | None,
    max_body_bytes: int,
    max_body_bytes_of_prefix: Mapping[str, int] | None = None,
) -> FastAPI:
    """The app of the service `name` with the routes of `router`.

    `ready` returns None, or why the service cannot take work now. `run` is the one it works for, a label of
    its series. With a `token`, every route requires it but probes,
    metrics and the API's description. `max_body_bytes_of_prefix` raises the bound for paths that begin so.
    `app.state.drain` is the service's Drain; `app.state.health` may be set to a function whose result /healthz adds.
    """
    app = _ServiceApp(title=f"ibtpo {name}", lifespan=lifespan, redoc_url=None)
    app.state.drain = drain = Drain()
    app.state.health = dict
    app.include_router(_probes(app, name, ready, _Exposition(registry, run)))
    app.include_router(router)
    install_error_handlers(app)
    # the one added last is outermost
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes, max_bytes_of_prefix=max_body_bytes_of_prefix or {})
    if token:
        app.add_middleware(BearerGuard, token=token)
    else:
        app.add_middleware(CrossOriginGuard)
    app.add_middleware(RequestMetrics, name=name, drain=drain, registry=registry)
    return app


class _Exposition(Collector):
    """What /metrics says: a service's series and those of its process. `run` becomes a label of each, so that two runs
    are never added up; a service that works for any run has none."""

    def __init__(self, registry: CollectorRegistry, run: str | None) -> None:
        # the second reads /proc; where there is none, it has no series
        self._sources: tuple[Collector, ...] = (registry, ProcessCollector(registry=None))
        self._labels = {} if run is None else {"run": run}

    def collect(self) -> Iterator[Metric]:
        """Copies: a collector may keep what it gives."""
        for source in self._sources:
            for metric in source.collect():
                labelled = Metric(metric.name, metric.documentation, metric.type, metric.unit)
                labelled.samples = [
                    sample._replace(labels={**self._labels, **sample.labels}) for sample in metric.samples
                ]
                yield labelled


def _probes(app: FastAPI, name: str, ready: Callable[[], str | None], exposition: _Exposition) -> APIRouter:
    router = APIRouter(tags=["probes"])
    release = installed_release()

    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, Any]:
        about = {"service": name, "status": "alive", "protocol": PROTOCOL_VERSION, "version": release}
        return {**about, **app.state.health()}

    @router.get("/readyz", summary="Whether it takes work: 200, or 503 with the reason")
    async def readyz() -> Response:
        reason = "draining" if app.state.drain.begun.is_set() else ready()
        if reason is not None:
            return error_response(Unavailable(f"not ready: {reason}"))
        return JSONResponse({"service": name, "status": "ready"}, status_code=HTTPStatus.OK)

    @router.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(generate_latest(exposition), media_type=CONTENT_TYPE_LATEST)

    return router
