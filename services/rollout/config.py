"""The rollout service's configuration: section `[rollout]`."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class EngineKind(StrEnum):
    EMBEDDED = "embedded"
    """The CPU engine inside this process."""


class RolloutConfig(BaseModel):
    """One replica. Without `redis_url` it serves POST /v1/trees alone and harvests nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field("default", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The run whose tasks it grows")
    name: str = Field("", description="This replica's name in the registry; empty: host name and process id")
    host: str = "127.0.0.1"
    port: int = Field(8001, ge=0, le=65535, description="0 takes a free one")
    url: str = Field("", description="Where others reach it; empty: http://<host name or address>:<port>")
    url_file: Path | None = Field(None, description="Written once it listens, for launchers")
    token: str | None = Field(None, description="Bearer token between services; or IBTPO_TOKEN")
    redis_url: str | None = None
    verifier_url: str = "http://127.0.0.1:8002"
    learner_url: str = Field("", description="Where to pull weights from; empty: as the run's board says")

    engine: EngineKind = EngineKind.EMBEDDED
    model: Path | None = Field(None, description="A policy to serve before any learner pushes one, as version 0.0")
    max_rows: int = Field(64, gt=0, description="Requests that the engine decodes at once")
    cache_bytes: int = Field(256 * 2**20, ge=0, description="Memory of the embedded engine's prefix cache; 0: none")

    max_trees: int = Field(64, gt=0, description="Trees grown for the stream at once")
    max_posted_trees: int = Field(256, gt=0, description="Trees grown for POST /v1/trees at once; beyond: 429")
    max_deliveries: int = Field(5, gt=0, description="Tries of a task before it is a dead letter")
    verdict_seconds: float = Field(15.0, gt=0, description="A leaf without a verdict by then has none")
    claim_after_seconds: float = Field(30.0, gt=0, description="A claim without heartbeat for so long is another's")
    grace_seconds: float = Field(20.0, ge=0, description="What a drain gives the trees in flight")

    snapshots: Path = Field(Path("/dev/shm/ibtpo"), description="Where pushed weights are staged")  # noqa: S108
    max_bundle_bytes: int = Field(64 * 2**30, gt=0)
    max_body_bytes: int = Field(8 * 2**20, gt=0, description="For every body but weights")
    log_level: str = "info"
