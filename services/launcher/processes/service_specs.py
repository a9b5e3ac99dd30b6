"""How each service of a run is started: its command, environment, log and probe."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from services.launcher.processes.probes import is_listening, is_ready
from services.launcher.processes.redis_server import ManagedRedis, is_responding
from services.launcher.processes.service_processes import Probe, ServiceSpec, StopOrder
from services.launcher.settings.plan import RunPlan


@dataclass(frozen=True, slots=True)
class ServiceSpecs:
    """Makes the specs of one run's services."""

    plan: RunPlan
    redis_url: str

    def redis(self, server: ManagedRedis) -> ServiceSpec:
        """The Redis that belongs to this run."""

        async def probe(_: str) -> bool:
            return await is_responding(server)

        log = self.plan.run.log("redis")
        return ServiceSpec("redis", server.command, StopOrder.REDIS, log, None, probe, grace_seconds=5.0)

    def verifier(self) -> ServiceSpec:
        """The verifier."""
        return self._make("verifier", StopOrder.VERIFIER, probe=is_ready)

    def learner(self, verifier_url: str) -> ServiceSpec:
        """The learner. It resumes from its latest checkpoint at every start; a fresh run's directory has none."""
        stop_seconds = self.plan.launcher.stop_seconds
        settings = ("resume=auto", f"verifier_url={verifier_url}")
        return self._make("learner", StopOrder.LEARNER, *settings, probe=is_listening, grace_seconds=stop_seconds)

    def rollout(self, number: int, verifier_url: str, learner_url: str) -> ServiceSpec:
        """One replica. Its probe asks only whether it listens: it is ready once the learner has pushed weights."""
        name = f"rollout-{number}"
        return self._make(
            name,
            StopOrder.ROLLOUT,
            f"name={name}",
            f"verifier_url={verifier_url}",
            f"learner_url={learner_url}",
            f"snapshots={self.plan.run.root.resolve() / 'snapshots'}",
            probe=is_listening,
        )

    def _make(
        self, name: str, order: StopOrder, *settings: str, probe: Probe, grace_seconds: float = 10.0
    ) -> ServiceSpec:
        run, command = self.plan.run, order.name.lower()
        url_file = run.url_file(name).resolve()
        every = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *settings)
        arguments = (command, "--config", str(run.config.resolve()), *(f"{command}.{setting}" for setting in every))
        return ServiceSpec(
            name=name,
            command=(sys.executable, "-m", "services.launcher.cli", *arguments),
            stop_order=order,
            log=run.log(name),
            url_file=url_file,
            probe=probe,
            grace_seconds=grace_seconds,
            may_finish=order is StopOrder.LEARNER,
            environment=self._environment(),
        )

    def _environment(self) -> Mapping[str, str]:
        """The Redis URL may hold a password, so it is no argument: other users can read arguments."""
        threads = str(self.plan.launcher.threads_per_service)
        return {"REDIS_URL": self.redis_url, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
