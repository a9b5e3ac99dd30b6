"""Executes one run plan: starts the services, keeps them running, shows the run's status, stops the services."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from services.launcher.display.view import RunView
from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.redis_server import RedisServer
from services.launcher.processes.service_processes import Service, ServiceSpec, stop_in_order
from services.launcher.processes.service_specs import ServiceSpecs
from services.launcher.runs.run_dir import RunRecord
from services.launcher.runs.status_source import StatusSource
from services.launcher.settings.plan import RunPlan
from shared.runtime.child_process import kill_group

_SHOW_SECONDS = 1.0


class RunLauncher:
    """One launch of one run."""

    def __init__(self, plan: RunPlan, redis: RedisServer, view: RunView) -> None:
        self._plan = plan
        self._redis = redis
        self._view = view
        self._services: list[Service] = []
        self._started = time.time()
        self._record: RunRecord | None = None
        self._is_interrupted = False
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> bool:
        """Returns when the run has ended and every service has stopped: whether a signal interrupted it. Unavailable
        or InvalidInput when a service died too often."""
        with self._plan.run.lock():
            guard = await GuardProcess.start(self._plan.run.log("guard"))
            self._main = asyncio.create_task(self._run_services(guard))
            if self._is_interrupted:  # before it began
                self._main.cancel()
            if threading.current_thread() is threading.main_thread():  # no other gets signals
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    asyncio.get_running_loop().add_signal_handler(number, self.interrupt)
            try:
                await self._main
            except asyncio.CancelledError:
                if not self._is_interrupted:
                    raise
            finally:
                async with self._showing(self._show_end()):
                    await stop_in_order(self._services)
                await guard.close()
        return self._main.cancelled()

    def interrupt(self) -> None:
        """What a signal does: the first asks for an orderly stop, the second kills. To be called in the run's loop."""
        if not self._is_interrupted:
            self._is_interrupted = True
            if self._main is not None and self._main.cancel():
                self._view.say("stopping: the learner saves its state (Ctrl-C again kills every service at once)")
            return
        for service in self._services:
            if service.pid is not None and service.exit_code is None:
                kill_group(service.pid)

    async def _run_services(self, guard: GuardProcess) -> None:
        await self._start_all(guard)
        config = self._plan.launcher
        tasks = [
            asyncio.create_task(one.keep_running(config.ready_seconds, config.max_restarts)) for one in self._services
        ]
        tasks.append(asyncio.create_task(self._show_status()))
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
        if self._redis.command:
            await self._start(guard, specs.redis(self._redis.command))
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
        async with self._showing(self._show_start(services)):
            await asyncio.gather(*(service.wait_ready(self._plan.launcher.ready_seconds) for service in services))
        self._update_record()
        return services

    @contextlib.asynccontextmanager
    async def _showing(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Shows something while the block runs."""
        task = asyncio.create_task(work)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._view.wait_for("")

    async def _show_start(self, services: Sequence[Service]) -> None:
        """Which services are not ready yet, since when, and what they say that they do."""
        while True:
            await asyncio.sleep(_SHOW_SECONDS)
            waiting = [one for one in services if not one.is_ready]
            self._view.wait_for("starting " + "; ".join(one.doing for one in waiting))

    async def _show_end(self) -> None:
        """What the learner still does, and which services are still to end."""
        learner = next((one for one in self._services if one.spec.name == "learner"), None)
        source = StatusSource(self._plan.learner.run, self._redis.url, self._plan.learner.token)
        began = time.monotonic()
        async with source:
            while True:
                await asyncio.sleep(_SHOW_SECONDS)
                running = [one.spec.name for one in self._services if one.pid is not None and one.exit_code is None]
                if learner is not None and learner.exit_code is None and (status := await source.read(learner.url)):
                    self._view.show(status)
                if running:
                    seconds = time.monotonic() - began
                    self._view.wait_for(f"stopping {', '.join(running)}: {seconds:.0f} s")

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
