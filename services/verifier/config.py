"""The verifier's configuration: the section `[verifier]`."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from services.verifier.sandbox.sandbox import Limits
from shared.runtime.config import ServiceUrl, Token

_LIMITS = Limits()
PackageName = Annotated[str, Field(pattern=r"^[^\W\d]\w*$", max_length=200)]
_Name = TypeVar("_Name")

# Where a response states its final answer (docs/verifier.md says what each way risks).
Extraction = Literal["box", "last_box", "hashes", "answer_tag", "answer_is", "last_number", "last_line", "response"]
MathExtraction = Literal["box", "last_box", "hashes", "answer_tag", "answer_is", "last_number", "response"]
ChoiceExtraction = Literal["box", "last_box", "hashes", "answer_tag", "answer_is", "last_line"]
ExactExtraction = Literal["response", "box", "last_box", "hashes", "answer_tag", "answer_is", "last_line"]


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Ways = Annotated[tuple[_Name, ...], BeforeValidator(_as_list), Field(min_length=1, max_length=8)]
"""One name or several: the first way that finds something counts."""
_EXTRACTION = "where the final answer is looked for, in this order, unless the answer key has its own"


class Settings(BaseModel):
    """Base of every table: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MathConfig(Settings):
    """The math check, and what an answer may cost in the workers that run math-verify."""

    workers: int = Field(
        2, ge=0, le=256, description="worker processes besides the warm spare; 0: answers that need one have no reward"
    )
    item_seconds: float = Field(
        3.0,
        gt=0,
        le=60,
        description="time of one answer before its worker is killed; waiting for a processor does not count",
    )
    memory_bytes: int = Field(1 << 30, ge=256 << 20, description="address space of one worker")
    items_per_worker: int = Field(5_000, ge=1, description="answers after which a worker is replaced")
    answer_characters: int = Field(10_000, ge=16, description="longest final answer that is judged, and longest gold")
    extraction: Ways[MathExtraction] = Field(("box", "hashes"), description=_EXTRACTION)


class ChoiceConfig(Settings):
    """The choice check."""

    extraction: Ways[ChoiceExtraction] = Field(
        ("box", "hashes", "answer_tag", "answer_is", "last_line"), description=_EXTRACTION
    )


class ExactConfig(Settings):
    """The exact check."""

    extraction: Ways[ExactExtraction] = Field(("response",), description=_EXTRACTION)


class CodeConfig(Settings):
    """The code check, and what each process may use unless its item sets other limits."""

    concurrency: int = Field(2, ge=1, le=256, description="items judged at once")
    slow_runs: int = Field(
        32,
        ge=0,
        le=512,
        description="items beside those whose programs take longer than most; they share few processors",
    )
    item_seconds: float = Field(60.0, gt=0, le=600, description="wall clock of all cases of one item")
    wall_seconds: float = Field(_LIMITS.wall_seconds, gt=0, le=600, description="wall clock of one process")
    cpu_seconds: float = Field(_LIMITS.cpu_seconds, gt=0, le=600, description="processor time of one process")
    memory_bytes: int = Field(_LIMITS.memory_bytes, gt=0, description="address space of one process")
    output_bytes: int = Field(_LIMITS.output_bytes, gt=0, description="standard output, and error, of one process")
    node: str | None = Field(None, description="path of node; without it, JavaScript programs are refused")
    cxx: str | None = Field(None, description="path of g++; without it, C++ programs are refused")
    packages: tuple[PackageName, ...] = Field(
        (), description="what programs may import besides the standard library, for example numpy, sortedcontainers"
    )
    packages_path: Path | None = Field(None, description="folder that holds them; without it, the verifier's own")
    namespaces: bool = Field(True, description="use namespaces where the machine allows them")
    unsafe: bool = Field(False, description="run code WITHOUT isolation; every verdict then says isolated: false")


class CustomKindConfig(Settings):
    """A user's own kind: an importable function, or an HTTP endpoint (docs/verifier.md has examples)."""

    function: str | None = Field(None, pattern=r"^[\w.]+:\w+$", description="package.module:function")
    url: ServiceUrl | None = Field(None, description="endpoint that answers a VerdictRequest with a VerdictResponse")
    token: Token | None = Field(None, description="bearer token of the endpoint")
    seconds: float = Field(10.0, gt=0, le=600, description="wall clock of one call")
    workers: int = Field(2, ge=1, le=64, description="calls that run at once")
    memory_bytes: int = Field(1 << 30, ge=64 << 20, description="address space of one worker")
    items_per_worker: int = Field(10_000, ge=1, description="answers after which a worker is replaced")

    @model_validator(mode="after")
    def _check_target(self) -> "CustomKindConfig":
        if (self.function is None) == (self.url is None):
            raise ValueError("a kind of your own has either a function or a url")
        return self


class VerifierConfig(Settings):
    """The verifier service."""

    host: str = Field("127.0.0.1", description="address to listen on; beyond loopback a token is required")
    port: int = Field(8002, ge=0, le=65535, description="0 picks a free one")
    url_file: Path | None = Field(None, description="where the bound URL is written, for launchers")
    token: Token | None = Field(None, description="bearer token; required unless host is loopback")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(True, description="log JSON lines; false: short text")
    grace_seconds: float = Field(30.0, ge=0, description="how long a stopping service goes on with accepted requests")
    max_body_bytes: int = Field(8 << 20, gt=0, description="largest request")
    max_pending_items: int = Field(16_384, gt=0, description="items accepted and not yet judged; beyond it: 429")
    deadline_seconds: float = Field(60.0, gt=0, description="deadline of a batch that names none")
    cache_entries: int = Field(65_536, ge=0, description="judgements of equal (answer, key) pairs kept; 0: none")
    math: MathConfig = Field(MathConfig(), description="the math check")
    choice: ChoiceConfig = Field(ChoiceConfig(), description="the choice check")
    exact: ExactConfig = Field(ExactConfig(), description="the exact check")
    code: CodeConfig = Field(CodeConfig(), description="the code check and its sandbox")
    kinds: dict[str, CustomKindConfig] = Field({}, description="kinds of the user's own, by name")
