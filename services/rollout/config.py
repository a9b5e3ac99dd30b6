"""The rollout service's configuration: section `[rollout]`."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from shared.kinds import Plugins
from shared.protocol.names import RunName
from shared.runtime.config import OptionalUrl, ServiceUrl, Token


class EngineKind(StrEnum):
    EMBEDDED = "embedded"
    """The CPU engine inside this process."""
    SGLANG = "sglang"
    """An SGLang server: a child of this replica, or an external one."""


class Dtype(StrEnum):
    """Of the embedded engine's matrix products; all else it computes in float32."""

    AUTO = "auto"
    """bfloat16 where the weights are and the CPU has AMX instructions for it, else float32."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class SglangConfig(BaseModel):
    """The SGLang server of one replica: table `[rollout.sglang]` (docs/sglang.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = Field(
        ("python3", "-m", "sglang.launch_server"),
        min_length=1,
        description="Launches the server; starts with the interpreter of an environment that has SGLang",
    )
    arguments: tuple[str, ...] = Field(
        (), description="More arguments of the server, as SGLang names them; they override ours"
    )
    tp: int = Field(1, gt=0, description="GPUs that share one copy of the model")
    dp: int = Field(1, gt=0, description="Copies of the model behind one server; more replicas are better")
    memory_fraction: float | None = Field(
        None, gt=0, lt=1, description="Share of a GPU's memory for weights and cache; none: SGLang decides"
    )

    url: OptionalUrl = Field("", description="An external server to use; empty: launch one")
    reads_snapshots: bool = Field(
        False, description="The external server sees rollout.snapshots under the same path; if not, weights are refused"
    )

    max_requests: int = Field(256, gt=0, description="Most completions at the server at once; more wait in the replica")
    max_waiting: int = Field(
        16384,
        gt=0,
        description="Most completions in progress, those that wait included; more are refused as overloaded",
    )
    request_seconds: float = Field(900.0, gt=0, description="Deadline of one completion")
    entropy_top_k: int = Field(
        20, gt=0, le=1000, description="Likeliest tokens that bound a token's entropy, where a sampler asks for it"
    )
    start_seconds: float = Field(900.0, gt=0, description="How long the server may take to start or restart")
    load_seconds: float = Field(300.0, gt=0, description="How long the server may take to load weights")
    health_seconds: float = Field(10.0, gt=0, description="Interval of health checks")
    hang_seconds: float = Field(
        90.0, gt=0, description="The server restarts if no health check has succeeded for so long"
    )


class RolloutConfig(BaseModel):
    """One replica. Without `redis_url` it grows trees for POST /v1/trees only, not for a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunName = Field("default", description="The run whose tasks this replica grows")
    name: str = Field("", description="This replica's name in the registry; empty: host name and process id")
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback a token is required")
    port: int = Field(8001, ge=0, le=65535, description="Port to listen on; 0: any free one")
    url: OptionalUrl = Field("", description="Where others reach this replica; empty: http://<own address>:<port>")
    url_file: Path | None = Field(None, description="File for this replica's URL, written once it listens")
    token: Token | None = Field(None, description="Bearer token between services; or IBTPO_TOKEN")
    redis_url: str | None = Field(None, description="Redis or Valkey of the run; or REDIS_URL; none: no run")
    verifier_url: ServiceUrl = Field("http://127.0.0.1:8002", description="The verifier that judges the answers")
    learner_url: OptionalUrl = Field(
        "", description="Where to pull weights from; empty: the URL that the run's learner published"
    )

    engine: EngineKind = Field(EngineKind.EMBEDDED, description="What samples the tokens")
    model: Path | None = Field(
        None, description="A policy, a directory or OWNER/NAME of the hub, to serve as 0.0 until a learner publishes"
    )
    max_running_requests: int = Field(64, gt=0, description="Most requests that the embedded engine decodes at once")
    dtype: Dtype = Field(
        Dtype.AUTO,
        description="Of the embedded engine's matrix products; auto: bfloat16 where weights are and the CPU has AMX",
    )
    cache_bytes: int = Field(256 * 2**20, ge=0, description="Memory of the embedded engine's prefix cache; 0: no cache")

    sglang: SglangConfig = Field(SglangConfig(), description="The SGLang server, with engine=sglang")

    plugins: Plugins = Field(
        (), description="Packages of your own whose samplers a task may name, such as [my_pkg] (docs/own-parts.md)"
    )
    plugin_seconds: float = Field(30.0, gt=0, description="Deadline of a decision of a sampler of your own")

    max_trees: int = Field(64, gt=0, description="Most trees that grow for the run at once")
    max_posted_trees: int = Field(
        256, gt=0, description="Most trees that grow for POST /v1/trees at once; more are refused with 429"
    )
    max_posted_scores: int = Field(
        2048, gt=0, description="Most continuations scored for POST /v1/scores at once; more are refused with 429"
    )
    max_deliveries: int = Field(5, gt=0, description="Tries of a task before it becomes a dead letter")
    verdict_seconds: float = Field(
        60.0, gt=0, description="How long to wait for one verdict; longer than the verifier lets code run"
    )
    claim_after_seconds: float = Field(
        30.0, gt=0, description="Another replica may take a task whose heartbeat is older"
    )
    grace_seconds: float = Field(20.0, ge=0, description="How long a drain waits for growing trees")

    snapshots: Path = Field(
        Path("/dev/shm/ibtpo-{uid}"),  # noqa: S108
        description="Directory for received weights, this user's alone; {uid} stands for the user's number",
    )
    max_bundle_bytes: int = Field(64 * 2**30, gt=0, description="Largest policy bundle to accept")
    max_body_bytes: int = Field(8 * 2**20, gt=0, description="Largest request body to accept, weights aside")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(True, description="Log JSON lines; false: short text")
