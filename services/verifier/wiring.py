"""Builds the verifier from its configuration: the only place that names concrete checks."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.verifier.app import build_router
from services.verifier.checks.check import Check
from services.verifier.checks.choice import ChoiceCheck
from services.verifier.checks.code.check import CodeSettings, open_code_check
from services.verifier.checks.custom.endpoint import CustomEndpointCheck
from services.verifier.checks.custom.function import CustomFunctionCheck
from services.verifier.checks.exact import ExactCheck
from services.verifier.checks.math.check import MathCheck
from services.verifier.config import CodeConfig, VerifierConfig
from services.verifier.judge import Judge
from services.verifier.judgement_cache import JudgementCache
from services.verifier.metrics import VerifierMetrics
from services.verifier.sandbox.sandbox import Limits
from shared.runtime.app import create_app
from shared.runtime.logs import configure_logs
from shared.runtime.serve import serve


class VerifierService:
    """The parts of one verifier, and how they live together."""

    def __init__(self, config: VerifierConfig) -> None:
        metrics = VerifierMetrics(CollectorRegistry())
        self._config = config
        self._metrics = metrics
        self.judge = Judge(metrics, config.max_pending_items, JudgementCache(config.cache_entries))
        self.app = create_app(
            "verifier",
            build_router(self.judge, config.deadline_seconds),
            lifespan=self._live,
            ready=self.judge.why_not_ready,
            registry=metrics.registry,
            token=config.token,
            max_body_bytes=config.max_body_bytes,
        )
        self.app.state.health = self.judge.health

    @asynccontextmanager
    async def _live(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            self.judge.add(ChoiceCheck())
            self.judge.add(ExactCheck())
            for check in self._open_checks():
                self.judge.add(await stack.enter_async_context(check))
            yield

    def _open_checks(self) -> Iterator[AbstractAsyncContextManager[Check[Any]]]:
        """The checks that need starting; the user's own kinds come last, and may take the place of one before."""
        yield MathCheck(self._config.math, self._metrics)
        yield open_code_check(_code_settings(self._config.code))
        for kind, settings in self._config.kinds.items():
            if settings.function is not None:
                yield CustomFunctionCheck(kind, settings, self._metrics)
            else:
                yield CustomEndpointCheck(kind, settings)


def _code_settings(config: CodeConfig) -> CodeSettings:
    limits = Limits(
        config.wall_seconds, config.starved_seconds, config.cpu_seconds, config.memory_bytes, config.output_bytes
    )
    return CodeSettings(
        concurrency=config.concurrency,
        is_unsafe=config.unsafe,
        uses_namespaces=config.namespaces,
        node=config.node,
        limits=limits,
        item_seconds=config.item_seconds,
    )


def build(config: VerifierConfig) -> FastAPI:
    """The service's app."""
    return VerifierService(config).app


def main(config: VerifierConfig) -> int:
    """Serves until told to end; returns the exit code."""
    configure_logs("verifier", config.log_level, secrets=[config.token or ""])
    return serve(
        build(config),
        host=config.host,
        port=config.port,
        token=config.token,
        grace_seconds=config.grace_seconds,
        url_file=config.url_file,
    )
