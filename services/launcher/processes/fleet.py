"""The services of one run, as processes: how each is called."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from services.launcher.processes.probes import http_alive, http_ready
from services.launcher.processes.redis_server import OwnRedis, answers
from services.launcher.processes.service_processes import EndRank, Probe, ServiceSpec
from services.launcher.settings.plan import Plan


@dataclass(frozen=True, slots=True)
class Fleet:
    """Builds the specs of one run's services."""

    plan: Plan
    redis_url: str

    def redis(self, server: OwnRedis) -> ServiceSpec:
        """The run's own Redis."""

        async def probe(_: str) -> bool:
            return await answers(server)

        log = self.plan.run.log("redis")
        return ServiceSpec("redis", server.command, EndRank.REDIS, log, None, probe, grace_seconds=5.0)

    def verifier(self) -> ServiceSpec:
        """The verifier."""
        return self._service("verifier", "verifier", EndRank.VERIFIER, probe=http_ready)

    def learner(self) -> ServiceSpec:
        """The learner. It takes up its latest checkpoint whenever it starts: a fresh run's directory has none."""
        return self._service(
            "learner",
            "learner",
            EndRank.LEARNER,
            "resume=auto",
            probe=http_alive,
            grace_seconds=self.plan.local.stop_seconds,
        )

    def rollout(self, number: int, verifier_url: str, learner_url: str) -> ServiceSpec:
        """One replica; it is ready only once the learner has given it weights."""
        name = f"rollout-{number}"
        return self._service(
            name,
            "rollout",
            EndRank.ROLLOUT,
            f"name={name}",
            f"verifier_url={verifier_url}",
            f"learner_url={learner_url}",
            f"snapshots={self.plan.run.root.resolve() / 'snapshots'}",
            probe=http_alive,
        )

    def _service(
        self, name: str, command: str, rank: EndRank, *settings: str, probe: Probe, grace_seconds: float = 10.0
    ) -> ServiceSpec:
        run = self.plan.run
        url_file = run.url_file(name).resolve()
        own = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *settings)
        arguments = (command, "--config", str(run.config.resolve()), *(f"{command}.{setting}" for setting in own))
        return ServiceSpec(
            name=name,
            command=(sys.executable, "-m", "services.launcher.cli", *arguments),
            rank=rank,
            log=run.log(name),
            url_file=url_file,
            probe=probe,
            grace_seconds=grace_seconds,
            may_finish=rank is EndRank.LEARNER,
            environment=self._environment(),
        )

    def _environment(self) -> Mapping[str, str]:
        """The Redis URL may hold a password: it travels where only the processes' owner sees it."""
        threads = str(self.plan.local.threads_per_service)
        return {"REDIS_URL": self.redis_url, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
