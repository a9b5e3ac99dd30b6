"""The rollout service's configuration: section `[rollout]`."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from shared.protocol.names import RunName


class EngineKind(StrEnum):
    EMBEDDED = "embedded"
    """The CPU engine inside this process."""
    SGLANG = "sglang"
    """An SGLang server: launched and kept by this replica, or given by its URL."""


class SglangConfig(BaseModel):
    """The SGLang server of one replica: table `[rollout.sglang]` (docs/sglang.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = Field(
        ("python3", "-m", "sglang.launch_server"),
        min_length=1,
        description="Launches the server; the interpreter of any environment that has SGLang",
    )
    arguments: tuple[str, ...] = Field((), description="More arguments for it, as SGLang names them; they come last")
    tp: int = Field(1, gt=0, description="GPUs that share one copy of the model")
    dp: int = Field(1, gt=0, description="Copies of the model behind one server; rather run more replicas")
    memory_fraction: float | None = Field(None, gt=0, lt=1, description="Of a GPU's memory, for weights and cache")

    url: str = Field("", description="A server that somebody else runs; nothing is launched then")
    reads_snapshots: bool = Field(
        False, description="That server reads rollout.snapshots under the same path; else weight pushes are refused"
    )

    max_requests: int = Field(256, gt=0, description="Completions at the server at once; more wait here")
    max_waiting: int = Field(16384, gt=0, description="Completions asked for at once; beyond: overloaded")
    request_seconds: float = Field(900.0, gt=0, description="Deadline of one completion")
    start_seconds: float = Field(900.0, gt=0, description="How long the server may take to start, or to come back")
    load_seconds: float = Field(300.0, gt=0, description="How long it may take to load weights")
    health_seconds: float = Field(10.0, gt=0, description="Between two looks at its health")
    hang_seconds: float = Field(90.0, gt=0, description="Without a sign of life for so long it is started afresh")


class RolloutConfig(BaseModel):
    """One replica. Without `redis_url` it serves POST /v1/trees alone and harvests nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunName = Field("default", description="The run whose tasks it grows")
    name: str = Field("", description="This replica's name in the registry; empty: host name and process id")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback a token is required")
    port: int = Field(8001, ge=0, le=65535, description="0 takes a free one")
    url: str = Field("", description="Where others reach it; empty: http://<host name or address>:<port>")
    url_file: Path | None = Field(None, description="Written once it listens, for launchers")
    token: str | None = Field(None, description="Bearer token between services; or IBTPO_TOKEN")
    redis_url: str | None = Field(None, description="Redis or Valkey of the run; or REDIS_URL; none: no run")
    verifier_url: str = Field("http://127.0.0.1:8002", description="The verifier that judges its answers")
    learner_url: str = Field("", description="Where to pull weights from; empty: as the run's board says")

    engine: EngineKind = Field(EngineKind.EMBEDDED, description="What samples the tokens")
    model: Path | None = Field(None, description="A policy to serve before any learner pushes one, as version 0.0")
    max_running_requests: int = Field(64, gt=0, description="Requests that the embedded engine decodes at once")
    cache_bytes: int = Field(256 * 2**20, ge=0, description="Memory of the embedded engine's prefix cache; 0: none")

    sglang: SglangConfig = Field(SglangConfig(), description="The SGLang server, with engine=sglang")

    max_trees: int = Field(64, gt=0, description="Trees grown for the stream at once")
    max_posted_trees: int = Field(256, gt=0, description="Trees grown for POST /v1/trees at once; beyond: 429")
    max_deliveries: int = Field(5, gt=0, description="Tries of a task before it is a dead letter")
    verdict_seconds: float = Field(60.0, gt=0, description="A leaf has no verdict after that; more than code may take")
    claim_after_seconds: float = Field(30.0, gt=0, description="A claim without heartbeat for so long is another's")
    grace_seconds: float = Field(20.0, ge=0, description="What a drain gives the trees in flight")

    snapshots: Path = Field(Path("/dev/shm/ibtpo"), description="Where pushed weights are staged")  # noqa: S108
    max_bundle_bytes: int = Field(64 * 2**30, gt=0, description="Largest weights that are taken")
    max_body_bytes: int = Field(8 * 2**20, gt=0, description="For every body but weights")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(True, description="Log JSON lines; false: short text")
