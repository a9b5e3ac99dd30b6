"""Runs one plan from start to end: brings the services up, watches over them, shows the run, ends all in order."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from services.launcher.display.view import RunView
from services.launcher.processes import process_group
from services.launcher.processes.fleet import Fleet
from services.launcher.processes.guard_line import GuardLine
from services.launcher.processes.redis_server import GivenRedis, OwnRedis
from services.launcher.processes.service_processes import Patience, Service, ServiceSpec, end_in_order
from services.launcher.runs.run_dir import RunRecord
from services.launcher.runs.status_source import StatusSource
from services.launcher.settings.plan import Plan


class Ending(Enum):
    """How a launch came to its end; a service's failure is an error instead."""

    DONE = "done"
    """The learner exited by itself: finished, or asked to stop."""
    INTERRUPTED = "interrupted"


class Launch:
    """One launch of one run."""

    def __init__(self, plan: Plan, redis: GivenRedis | OwnRedis, view: RunView) -> None:
        self._plan = plan
        self._redis = redis
        self._view = view
        self._services: list[Service] = []
        self._patience = Patience(plan.local.ready_seconds, plan.local.max_restarts)
        self._started = time.time()
        self._recorded: RunRecord | None = None
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> Ending:
        """Returns when the run has ended and no service is left; ServiceFailed when one could not be kept running."""
        with self._plan.run.lock():
            guard = await GuardLine.start(self._plan.run.log("guard"))
            try:
                async with self._signals():
                    return await self._run(guard)
            finally:
                await guard.close()

    async def _run(self, guard: GuardLine) -> Ending:
        main = asyncio.create_task(self._up_and_watch(guard))
        interrupted = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait((main, interrupted), return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                await main
                return Ending.DONE
            self._view.say("stopping: the learner saves its state (Ctrl-C again ends everything at once)")
            return Ending.INTERRUPTED
        finally:
            for task in (main, interrupted):
                task.cancel()
            await asyncio.gather(main, interrupted, return_exceptions=True)
            await self._end()

    async def _up_and_watch(self, guard: GuardLine) -> None:
        await self._up(guard)
        watches = [asyncio.create_task(one.keep_running(self._patience), name=one.spec.name) for one in self._services]
        watches.append(asyncio.create_task(self._show(), name="view"))
        try:
            # The learner's end is the only one that is not an error.
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def _up(self, guard: GuardLine) -> None:
        """Brings every service up: Redis, then the verifier beside the learner, then the replicas, which need both."""
        fleet = Fleet(self._plan, self._redis.url)
        self._view.say(f"Redis: {self._redis.kind}")
        if isinstance(self._redis, OwnRedis):
            await self._start(guard, fleet.redis(self._redis))
        verifier, learner = await self._start(guard, fleet.verifier(), fleet.learner())
        rollouts = [fleet.rollout(n, verifier.url, learner.url) for n in range(1, self._plan.local.rollouts + 1)]
        await self._start(guard, *rollouts)

    async def _start(self, guard: GuardLine, *specs: ServiceSpec) -> list[Service]:
        """Starts these services at once and waits until all of them are there."""
        services = [Service(spec, guard, self._view.say) for spec in specs]
        self._services += services
        self._view.say("starting " + ", ".join(spec.name for spec in specs))
        for service in services:
            await service.start()
        self._record()
        await asyncio.gather(*(service.wait_ready(self._patience.ready_seconds) for service in services))
        self._record()
        return services

    async def _show(self) -> None:
        """Follows the run's status until cancelled."""
        learner = next(one for one in self._services if one.spec.name == "learner")
        source = StatusSource(self._plan.learner.run, self._redis.url, self._plan.learner.token)
        async with source:
            while True:
                self._record()
                status = await source.read(learner.url)
                if status is not None:
                    self._view.show(status)
                await asyncio.sleep(self._plan.local.refresh_seconds)

    async def _end(self) -> None:
        hurry = asyncio.create_task(self._kill_when_hurried())
        try:
            await end_in_order(self._services)
        finally:
            hurry.cancel()
            await asyncio.gather(hurry, return_exceptions=True)

    async def _kill_when_hurried(self) -> None:
        await self._hurry.wait()
        for service in self._services:
            if service.pid is not None and service.exit_code is None:
                process_group.kill(service.pid)

    def _record(self) -> None:
        """Keeps run.json true: other terminals find the run by it."""
        urls = {one.spec.name: one.url for one in self._services}
        record = RunRecord(
            run=self._plan.learner.run,
            pid=os.getpid(),
            started=self._started,
            redis_url=self._redis.url,
            redis_kind=self._redis.kind,
            verifier_url=urls.get("verifier"),
            learner_url=urls.get("learner"),
            rollout_urls={name: url for name, url in urls.items() if name.startswith("rollout-")},
            pids={one.spec.name: one.pid for one in self._services if one.pid is not None},
        )
        if record != self._recorded:
            self._plan.run.write_record(record)
            self._recorded = record

    @asynccontextmanager
    async def _signals(self) -> AsyncIterator[None]:
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
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()
