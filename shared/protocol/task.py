"""What the learner asks of rollout replicas: a problem to grow, and how."""

from dataclasses import asdict
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from shared.errors import describe
from shared.protocol.message import JsonObject, Message, check_object
from shared.protocol.names import Kind
from shared.tree.ib_score import IBSettings
from shared.tree.likelihood import LikelihoodSettings
from shared.tree.samplers import SAMPLERS, AnySampler, Sampler
from shared.tree.values import reads_head, reads_likelihoods

MAX_DRAWS = 4096
_COLDEST = 1e-6


def _id_as_text(value: object) -> object:
    """Lets ids be integers, as many data sets have them."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Problem(Message):
    """One row of a data set: a prompt (text, or chat messages for the template) and how its answers are judged. It may
    have other columns, which nobody reads."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[str, BeforeValidator(_id_as_text)] = Field(max_length=256)
    prompt: str | tuple[dict[str, str], ...] = Field(min_length=1)
    kind: Kind
    answer_key: JsonObject


def _check_temperature(value: float) -> float:
    if 0 < value < _COLDEST:
        raise ValueError(
            f"{value} is as good as 0, and divides logits beyond all numbers; use 0, or at least {_COLDEST}"
        )
    return value


Temperature = Annotated[float, Field(ge=0, le=100), AfterValidator(_check_temperature)]


class Growth(Message):
    """How a tree is grown. `max_tokens` is a trajectory's limit, counted from the prompt's end."""

    sampler: AnySampler = Field(
        description="Where a tree is drawn from next: a sampler by name, a table of its kind and settings, or your own "
        "by import path (docs/own-parts.md)"
    )
    temperature: Temperature = Field(1.0, description="Divides the logits; 0: the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest tokens of this probability; 1: all")
    top_k: int = Field(0, ge=0, lt=2**31, description="Sample from so many likeliest tokens; 0: all")
    max_tokens: int = Field(64, gt=0, lt=2**31, description="Longest trajectory, in tokens after the prompt")
    judge_truncated: bool = Field(
        False, description="Have the verifier judge answers that max_tokens cut; otherwise they count 0"
    )
    merge_equal_draws: bool = Field(False, description="Make one node of equal continuations of a node")
    likelihood: LikelihoodSettings | None = Field(
        None, description="Score the gold answer at every step end (V-Φ): a table, {} for its defaults; none: do not"
    )

    @field_validator("sampler")
    @classmethod
    def _check_num_draws(cls, sampler: Sampler) -> Sampler:
        try:
            first, most = sampler.initial_draws, sampler.num_draws
        except Exception as error:  # of the user's own, which may raise anything
            raise ValueError(f"num_draws or initial_draws of this sampler: {describe(error)}") from error
        if type(first) is not int or type(most) is not int or not 1 <= first <= most:
            raise ValueError(f"a sampler draws at least once, 1 <= initial_draws <= num_draws: {first!r}, {most!r}")
        if most > MAX_DRAWS:
            raise ValueError(f"this sampler draws up to {most} times, over the {MAX_DRAWS} of one tree")
        return sampler

    @field_validator("sampler")
    @classmethod
    def _check_settings(cls, sampler: Sampler) -> Sampler:
        try:
            check_object(SAMPLERS.dump(sampler))
        except ValueError as error:
            reason = str(error).partition(";")[0]
            raise ValueError(f"a setting of this sampler cannot be sent to a replica: {reason}") from error
        return sampler

    @field_validator("likelihood")
    @classmethod
    def _check_texts_of_likelihood(cls, likelihood: LikelihoodSettings | None) -> LikelihoodSettings | None:
        check_object(asdict(likelihood) if likelihood else {})
        return likelihood

    @field_validator("sampler")
    @classmethod
    def _check_priors(cls, sampler: Sampler) -> Sampler:
        if reads_head(sampler):
            raise ValueError(
                "values with source=head are the learner's, and replicas have no value head: give the sampler others "
                "(sampler.score.values=counts), or source=likelihood"
            )
        return sampler

    @model_validator(mode="after")
    def _check_likelihood(self) -> Self:
        if self.likelihood is None and reads_likelihoods(self.sampler):
            raise ValueError(
                "the sampler's values have source=likelihood, and nothing is scored: set growth.likelihood={}, or give "
                "it other values"
            )
        return self


class Task(Message):
    """A problem to grow once. `id` is `<epoch>-<index>` in its run; `attempt` counts feedings of the same id. An empty
    `kind` asks for no verdicts: every reward is None."""

    run: str
    id: str
    attempt: int = Field(0, ge=0)
    problem_id: str
    prompt_ids: tuple[int, ...] = Field(min_length=1)
    kind: Kind
    answer_key: JsonObject
    growth: Growth
    score: IBSettings = IBSettings()
    """How figures score the nodes of its tree if the sampler does not."""
    seed: int = Field(ge=0, lt=2**64)
    own_code: dict[str, str] = Field({})
    """The modules of the user's own that its sampler is written in, each with the digest of its code. A replica grows
    the task if its own are the same."""


class DeadLetter(Message):
    """A task that will not be tried again, and why."""

    task: Task
    reason: str
    deliveries: int
    replica: str
