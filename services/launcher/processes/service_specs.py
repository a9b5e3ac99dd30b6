"""How each service of a run is started: its command, environment, log and probe."""

from dataclasses import dataclass

from services.launcher.processes.redis_server import is_responding
from services.launcher.processes.service_processes import (
    Probe,
    ServiceSpec,
    StopOrder,
    is_listening,
    is_ready,
    make_spec,
)
from services.launcher.settings.plan import RunPlan


@dataclass(frozen=True, slots=True)
class ServiceSpecs:
    """Makes the specs of one run's services."""

    plan: RunPlan
    redis_url: str

    def redis(self, command: tuple[str, ...]) -> ServiceSpec:
        """The Redis that belongs to this run."""
        log = self.plan.run.log("redis")
        return ServiceSpec(
            "redis", command, StopOrder.REDIS, log, None, lambda _: is_responding(self.redis_url), grace_seconds=5.0
        )

    def verifier(self) -> ServiceSpec:
        return self._make("verifier", is_ready)

    def learner(self, verifier_url: str) -> ServiceSpec:
        """The learner. It resumes from its latest checkpoint at every start; a fresh run's directory has none."""
        settings = ("resume=auto", f"verifier_url={verifier_url}")
        return self._make("learner", is_listening, *settings, grace_seconds=self.plan.launcher.stop_seconds)

    def rollout(self, number: int, verifier_url: str, learner_url: str) -> ServiceSpec:
        """One replica. Its probe asks only whether it listens: it is ready once the learner has pushed weights."""
        name, snapshots = f"rollout-{number}", self.plan.run.root.resolve() / "snapshots"
        urls = f"verifier_url={verifier_url}", f"learner_url={learner_url}"
        return self._make(name, is_listening, f"name={name}", *urls, f"snapshots={snapshots}")

    def _make(self, name: str, probe: Probe, *settings: str, grace_seconds: float = 10.0) -> ServiceSpec:
        run = self.plan.run
        environment = {
            "REDIS_URL": self.redis_url,  # it may hold a password, so it is no argument: other users can read those
            "OMP_NUM_THREADS": str(self.plan.launcher.threads_per_service),
            "TOKENIZERS_PARALLELISM": "false",
        }
        return make_spec(
            name,
            run.log(name),
            run.url_file(name).resolve(),
            probe,
            settings,
            environment,
            config=run.config.resolve(),
            grace_seconds=grace_seconds,
        )
