"""Builds the verifier from its configuration."""

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.verifier.app import build_router
from services.verifier.checks.check import Check
from services.verifier.checks.choice import ChoiceCheck
from services.verifier.checks.code.check import open_code_check
from services.verifier.checks.custom import open_custom_endpoint_check, open_custom_function_check
from services.verifier.checks.exact import ExactCheck
from services.verifier.checks.math.check import open_math_check
from services.verifier.config import VerifierConfig
from services.verifier.judge import Judge, JudgementCache
from services.verifier.metrics import VerifierMetrics
from shared.runtime.app import create_app
from shared.runtime.logs import configure_logs
from shared.runtime.serve import serve


class VerifierService:
    """One verifier: `judge` behind the HTTP `app`, whose lifespan starts and stops the checks."""

    def __init__(self, config: VerifierConfig) -> None:
        metrics = VerifierMetrics(CollectorRegistry())
        self._config = config
        self._metrics = metrics
        self.judge = Judge(metrics, config.max_pending_items, JudgementCache(config.cache_entries))
        self.app = create_app(
            "verifier",
            build_router(self.judge, config.deadline_seconds),
            lifespan=self._lifespan,
            ready=self.judge.why_not_ready,
            registry=metrics.registry,
            token=config.token,
            max_body_bytes=config.max_body_bytes,
        )
        self.app.state.health = self.judge.health

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            self.judge.add(ChoiceCheck(self._config.choice))
            self.judge.add(ExactCheck(self._config.exact))
            for check in self._open_checks():
                self.judge.add(await stack.enter_async_context(check))
            yield

    def _open_checks(self) -> Iterator[AbstractAsyncContextManager[Check[Any]]]:
        """The checks that must be started. A user's own kind may replace a built-in one: it comes last."""
        yield open_math_check(self._config.math, self._metrics)
        yield open_code_check(self._config.code, self._metrics)
        for kind, config in self._config.kinds.items():
            if config.function is not None:
                yield open_custom_function_check(kind, config, self._metrics)
            else:
                yield open_custom_endpoint_check(kind, config)


def build(config: VerifierConfig) -> FastAPI:
    return VerifierService(config).app


def main(config: VerifierConfig) -> int:
    """Serves until a signal stops it; returns the exit code."""
    configure_logs("verifier", config.log_level, log_json=config.log_json, secrets=[config.token])
    app = build(config)
    gc.freeze()  # what was imported stays: looking through it for garbage would stop the event loop for 80 ms
    return serve(
        app,
        host=config.host,
        port=config.port,
        token=config.token,
        grace_seconds=config.grace_seconds,
        url_file=config.url_file,
    )
