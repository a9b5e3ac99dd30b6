"""Executes one run plan: starts the services, keeps them running, shows the run's status, stops the services."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from services.launcher.display.view import RunView
from services.launcher.processes.guard_process import GuardProcess
from services.launcher.processes.redis_server import ExternalRedis, ManagedRedis
from services.launcher.processes.service_processes import RestartPolicy, Service, ServiceSpec, stop_in_order
from services.launcher.processes.service_specs import ServiceSpecs
from services.launcher.runs.run_dir import RunRecord
from services.launcher.runs.status_source import StatusSource
from services.launcher.settings.plan import RunPlan
from shared.runtime.child_process import kill_group


class LaunchResult(Enum):
    """How a launch ended; the failure of a service is an error instead."""

    DONE = "done"
    """The learner exited by itself: it finished, or it was asked to stop."""
    INTERRUPTED = "interrupted"


class RunLauncher:
    """One launch of one run."""

    def __init__(self, plan: RunPlan, redis: ExternalRedis | ManagedRedis, view: RunView) -> None:
        self._plan = plan
        self._redis = redis
        self._view = view
        self._services: list[Service] = []
        self._policy = RestartPolicy(plan.launcher.ready_seconds, plan.launcher.max_restarts)
        self._started = time.time()
        self._record: RunRecord | None = None
        self._stop_requested = asyncio.Event()
        self._kill_requested = asyncio.Event()

    async def run(self) -> LaunchResult:
        """Returns when the run has ended and every service has stopped. ServiceFailed when one died too often."""
        with self._plan.run.lock():
            guard = await GuardProcess.start(self._plan.run.log("guard"))
            try:
                async with self._handle_signals():
                    return await self._run_until_stopped(guard)
            finally:
                await guard.close()

    async def _run_until_stopped(self, guard: GuardProcess) -> LaunchResult:
        main = asyncio.create_task(self._run_services(guard))
        interrupted = asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait((main, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                await main
                return LaunchResult.DONE
            self._view.say("stopping: the learner saves its state (Ctrl-C again kills every service at once)")
            return LaunchResult.INTERRUPTED
        finally:
            for task in (main, interrupted):
                task.cancel()
            await asyncio.gather(main, interrupted, return_exceptions=True)
            await self._stop_services()

    async def _run_services(self, guard: GuardProcess) -> None:
        await self._start_all(guard)
        tasks = [asyncio.create_task(one.keep_running(self._policy), name=one.spec.name) for one in self._services]
        tasks.append(asyncio.create_task(self._show_status(), name="view"))
        try:
            # Only the learner may end without an error.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_all(self, guard: GuardProcess) -> None:
        """Starts Redis, the verifier, the learner, and the replicas, each of which needs those before."""
        specs = ServiceSpecs(self._plan, self._redis.url)
        self._view.say(f"Redis: {self._redis.description}")
        if isinstance(self._redis, ManagedRedis):
            await self._start(guard, specs.redis(self._redis))
        (verifier,) = await self._start(guard, specs.verifier())
        (learner,) = await self._start(guard, specs.learner(verifier.url))
        if learner.has_finished:  # a run without steps left needs no replicas
            return
        numbers = range(1, self._plan.launcher.replicas + 1)
        await self._start(guard, *(specs.rollout(number, verifier.url, learner.url) for number in numbers))

    async def _start(self, guard: GuardProcess, *specs: ServiceSpec) -> list[Service]:
        """Starts these services together and waits until all are ready."""
        services = [Service(spec, guard, self._view.say) for spec in specs]
        self._services += services
        self._view.say("starting " + ", ".join(spec.name for spec in specs))
        for service in services:
            await service.start()
        self._update_record()
        await asyncio.gather(*(service.wait_ready(self._policy.ready_seconds) for service in services))
        self._update_record()
        return services

    async def _show_status(self) -> None:
        """Shows the run's status again and again, until cancelled."""
        learner = next(one for one in self._services if one.spec.name == "learner")
        async with StatusSource(self._plan.learner.run, self._redis.url, self._plan.learner.token) as source:
            while True:
                self._update_record()
                status = await source.read(learner.url)
                if status is not None:
                    self._view.show(status)
                await asyncio.sleep(self._plan.launcher.refresh_seconds)

    async def _stop_services(self) -> None:
        killer = asyncio.create_task(self._kill_on_request())
        try:
            await stop_in_order(self._services)
        finally:
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)

    async def _kill_on_request(self) -> None:
        await self._kill_requested.wait()
        for service in self._services:
            if service.pid is not None and service.exit_code is None:
                kill_group(service.pid)

    def _update_record(self) -> None:
        """Writes run.json when it has changed; other terminals find the run by it."""
        urls = {one.spec.name: one.url for one in self._services}
        record = RunRecord(
            run=self._plan.learner.run,
            pid=os.getpid(),
            started=self._started,
            redis_url=self._redis.url,
            redis_description=self._redis.description,
            verifier_url=urls.get("verifier"),
            learner_url=urls.get("learner"),
            rollout_urls={name: url for name, url in urls.items() if name.startswith("rollout-")},
            pids={one.spec.name: one.pid for one in self._services if one.pid is not None},
        )
        if record != self._record:
            self._plan.run.write_record(record)
            self._record = record

    @asynccontextmanager
    async def _handle_signals(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        """The first signal asks for an orderly stop, the second kills."""
        if self._stop_requested.is_set():
            self._kill_requested.set()
        self._stop_requested.set()
