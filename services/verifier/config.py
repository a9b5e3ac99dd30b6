"""What the verifier can be told: one frozen model, the preset section `[verifier]`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A part of the configuration: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MathConfig(Settings):
    """The math check: what one answer may cost in the worker processes that run math-verify."""

    workers: int = Field(2, ge=0, le=256, description="worker processes besides the warm spare; 0: fast paths only")
    item_seconds: float = Field(3.0, gt=0, le=60, description="wall clock of one answer before its worker is killed")
    memory_bytes: int = Field(1 << 30, ge=256 << 20, description="address space of one worker")
    items_per_worker: int = Field(5_000, ge=1, description="answers after which a worker is replaced")
    answer_characters: int = Field(10_000, ge=16, description="longest final answer that is judged, and longest gold")


class VerifierConfig(Settings):
    """The verifier service."""

    host: str = "127.0.0.1"
    port: int = Field(8100, ge=0, le=65535, description="0 picks a free one")
    url_file: Path | None = Field(None, description="where the bound URL is written, for launchers")
    token: str | None = Field(None, description="bearer token; required unless host is loopback")
    log_level: str = "info"
    log_json: bool = True
    grace_seconds: float = Field(30.0, ge=0, description="how long a stopping service finishes what it has accepted")
    max_body_bytes: int = Field(64 << 20, gt=0)
    max_pending_items: int = Field(16_384, gt=0, description="items accepted and not yet judged; beyond it: 429")
    deadline_seconds: float = Field(60.0, gt=0, description="a batch's deadline when it names none")
    cache_entries: int = Field(65_536, ge=0, description="judgements of equal (answer, key) pairs kept; 0: none")
    math: MathConfig = MathConfig()
