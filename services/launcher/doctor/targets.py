"""Finds what to ask: options, a configuration, a run of this machine, a pod's environment, in this order."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.launcher.display.finding import Section
from services.launcher.runs.run_dir import RunDirectory, find_run
from services.learner.config import LearnerConfig
from services.rollout.config import EngineKind, RolloutConfig
from services.verifier.config import VerifierConfig
from shared.errors import InvalidInput
from shared.runtime.config import ConfigError, load_config, read_preset, read_token, with_port
from shared.runtime.config.token import check_token

_POD_CONFIG = Path("/config/run.toml")
_POD_PORTS = {"redis": 6379, "verifier": 8002, "learner": 8003}
_SNAPSHOTS = Path("/dev/shm/ibtpo-{uid}")  # noqa: S108


@dataclass(frozen=True, slots=True)
class DoctorRequest:
    """What the command line says; None and () where it says nothing."""

    run: str | None = None
    runs: Path = Path("runs")
    config: str | None = None
    redis_url: str | None = None
    verifier_url: str | None = None
    learner_url: str | None = None
    rollout_urls: tuple[str, ...] = ()
    token: str | None = None
    is_kubernetes: bool = False
    asks_gpus: bool = False
    seconds: float = 5.0

    @property
    def names_services(self) -> bool:
        return bool(self.redis_url or self.verifier_url or self.learner_url or self.rollout_urls)


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked. `local_run`: a run of this machine that is not going on, of which only its directory is left."""

    run: str | None = None
    redis_url: str | None = None
    verifier_url: str | None = None
    learner_url: str | None = None
    replica_urls: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    snapshots: Path = _SNAPSHOTS
    runs: Path = Path("runs")
    sglang_python: str | None = None
    local_run: RunDirectory | None = None


def find_targets(request: DoctorRequest, section: Section, environment: Mapping[str, str]) -> Targets:
    """`section` gets what is wrong with the settings. InvalidInput for a run or a configuration that there is not."""
    found = Targets(runs=request.runs if request.runs.exists() else _runs_of_pod(request.runs))
    if request.is_kubernetes:
        found = _of_pod(found, section, environment)
    if not (request.names_services or request.config or request.is_kubernetes) or _is_local(request):
        found = _of_run(found, request)
    config = request.config or (str(_POD_CONFIG) if request.is_kubernetes and _POD_CONFIG.is_file() else None)
    if config is not None:
        found = _of_config(found, config)
    found = replace(found, token=_find_token(request, section) or found.token, snapshots=_own(found.snapshots))
    urls = {f"at {url}": url for url in request.rollout_urls}
    return replace(
        found,
        run=found.run if found.local_run is None and request.run is None else (request.run or found.run),
        redis_url=request.redis_url or found.redis_url,
        verifier_url=request.verifier_url or found.verifier_url,
        learner_url=request.learner_url or found.learner_url,
        replica_urls=urls or found.replica_urls,
    )


def _is_local(request: DoctorRequest) -> bool:
    """Whether the run named has a directory here."""
    paths = () if request.run is None else (request.runs / request.run, Path(request.run))
    return any(RunDirectory(path).has_begun for path in paths)


def _of_run(found: Targets, request: DoctorRequest) -> Targets:
    """A run of this machine: the one named, or the latest if there is any."""
    try:
        run = find_run(request.runs, request.run)
    except InvalidInput:
        if request.run is None:
            return found
        raise
    record = run.read_record()
    if record is None or not run.is_running():
        return replace(found, run=run.name, local_run=run, runs=request.runs)
    return replace(
        found,
        run=record.run,
        runs=request.runs,
        redis_url=record.redis_url,
        verifier_url=record.verifier_url,
        learner_url=record.learner_url,
        replica_urls=record.rollout_urls,
        snapshots=run.root.resolve() / "snapshots",
    )


def _of_config(found: Targets, config: str) -> Targets:
    """What the configuration says in so many words; its defaults name no deployment."""
    models = {"rollout": RolloutConfig, "verifier": VerifierConfig, "learner": LearnerConfig}
    learner = read_preset(config, models).get("learner", {})
    rollout = load_config(RolloutConfig, "rollout", config)
    said = rollout.model_fields_set
    is_sglang = rollout.engine is EngineKind.SGLANG and not rollout.sglang.url
    return replace(
        found,
        run=learner.get("run") or (rollout.run if "run" in said else found.run),
        redis_url=rollout.redis_url or learner.get("redis_url") or found.redis_url,
        verifier_url=rollout.verifier_url if "verifier_url" in said else found.verifier_url,
        learner_url=rollout.learner_url or learner.get("url") or found.learner_url,
        token=rollout.token,
        snapshots=rollout.snapshots if "snapshots" in said else found.snapshots,
        sglang_python=rollout.sglang.command[0] if is_sglang else None,
    )


def _of_pod(found: Targets, section: Section, environment: Mapping[str, str]) -> Targets:
    """By the variables of Kubernetes' service links where there are any, else by the names of our manifests."""
    if "KUBERNETES_SERVICE_HOST" not in environment:
        section.warning(
            "pod", "KUBERNETES_SERVICE_HOST is not set: this seems to be no pod", "kubectl exec … -- ibtpo doctor"
        )
    where = {}
    for name, port in _POD_PORTS.items():
        host = environment.get(f"{name.upper()}_SERVICE_HOST") or name
        where[name] = with_port(host, environment.get(f"{name.upper()}_SERVICE_PORT") or port)
    redis = environment.get("REDIS_URL") or f"redis://{where['redis']}/0"
    verifier, learner = (f"http://{where[name]}" for name in ("verifier", "learner"))
    return replace(found, redis_url=redis, verifier_url=verifier, learner_url=learner)


def _own(snapshots: Path) -> Path:
    return Path(str(snapshots).replace("{uid}", str(os.geteuid())))


def _runs_of_pod(runs: Path) -> Path:
    """The volume of our containers, where no other folder is meant."""
    volume = Path("/runs")
    return volume if runs == Path("runs") and volume.is_dir() else runs


def _find_token(request: DoctorRequest, section: Section) -> str | None:
    """The token given here, unless it cannot be one."""
    try:
        given = request.token or read_token()
        token = None if given is None else check_token(given)
    except ConfigError as error:
        section.failed("token", str(error), "make it readable for this user, as UTF-8 text")
        return None
    except ValueError as error:
        section.failed("token", *f"the one given here {error}".split("; ", 1))
        return None
    if token is not None:
        section.ok("token", f"one of {len(token)} letters is given here")
    return token
